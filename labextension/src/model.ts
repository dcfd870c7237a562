/** The panel's content, kept current by one stream from the server. */

import { PromiseDelegate } from '@lumino/coreutils';
import type { IDisposable } from '@lumino/disposable';
import { type ISignal, Signal } from '@lumino/signaling';

import { type EngineClient, EngineError, type IPanelView } from './engine';

/** The delay before the stream is opened again; doubled after each failure, up to the maximum. */
const RETRY_MS = 1000;
const MAX_RETRY_MS = 30000;

/** The panel's content, or the reason why it is stale. */
export interface ISnapshot extends Omit<IPanelView, 'problem'> {
  readonly problem: EngineError | null;
}

/** A change of one container's state. */
export type Action = 'start' | 'stop' | 'remove';

/**
 * The containers and images of the server's engine.
 *
 * A stream is open while the panel and the page are visible: a browser has six connections to a server, and each stream
 * holds one.
 */
export class ContainersModel implements IDisposable {
  private readonly changedSignal = new Signal<this, void>(this);
  private readonly busyIds = new Set<string>();
  private current: ISnapshot = { containers: null, images: null, problem: null };
  private connection: AbortController | null = null;
  private timer = 0;
  private retryMs = RETRY_MS;
  private isEnded = false;

  /**
   * @param isVisible - whether the panel is visible.
   */
  constructor(
    readonly client: EngineClient,
    private readonly isVisible: () => boolean
  ) {
    document.addEventListener('visibilitychange', this.onVisibilityChange);
  }

  /** Emitted after a change of the snapshot or of a container's busy state. */
  get changed(): ISignal<this, void> {
    return this.changedSignal;
  }

  get snapshot(): ISnapshot {
    return this.current;
  }

  get isDisposed(): boolean {
    return this.isEnded;
  }

  isBusy(id: string): boolean {
    return this.busyIds.has(id);
  }

  /**
   * Open the stream again, and wait for its first message; never rejects (the snapshot holds a failure).
   *
   * While the panel is hidden, the stream ends with that message.
   */
  async refresh(): Promise<void> {
    this.pause();
    if (this.isEnded) {
      return;
    }
    const connection = new AbortController();
    this.connection = connection;
    const first = new PromiseDelegate<void>();
    void this.follow(connection, first);
    await first.promise;
  }

  /** Close the stream. */
  pause(): void {
    window.clearTimeout(this.timer);
    this.connection?.abort();
    this.connection = null;
  }

  /** Change a container, then refresh; rejects with the server's EngineError. */
  async act(action: Action, id: string): Promise<void> {
    this.busyIds.add(id);
    this.changedSignal.emit();
    try {
      await this.client[action](id);
    } finally {
      await this.refresh();
      this.busyIds.delete(id);
      this.changedSignal.emit();
    }
  }

  dispose(): void {
    this.isEnded = true;
    document.removeEventListener('visibilitychange', this.onVisibilityChange);
    this.pause();
    Signal.clearData(this);
  }

  private readonly onVisibilityChange = (): void => {
    if (document.hidden) {
      this.pause();
    } else if (this.isVisible()) {
      void this.refresh();
    }
  };

  /** Read the stream to its end, then open it again after a delay; an abort ends it for good. */
  private async follow({ signal }: AbortController, first: PromiseDelegate<void>): Promise<void> {
    try {
      await this.client.followPanel(change => {
        if (signal.aborted) {
          return;
        }
        this.retryMs = RETRY_MS;
        const { problem, ...lists } = change;
        this.update({
          ...this.current,
          ...lists,
          ...(problem !== undefined && { problem: problem && new EngineError(500, problem.message, problem.hint) })
        });
        first.resolve();
        if (!this.isVisible()) {
          this.pause();
        }
      }, signal);
    } catch (error) {
      if (!signal.aborted) {
        this.update({
          ...this.current,
          problem: error instanceof EngineError ? error : new EngineError(0, String(error))
        });
      }
    }
    first.resolve();
    if (!signal.aborted) {
      this.timer = window.setTimeout(() => {
        if (this.isVisible()) {
          void this.refresh();
        }
      }, this.retryMs);
      this.retryMs = Math.min(this.retryMs * 2, MAX_RETRY_MS);
    }
  }

  private update(next: ISnapshot): void {
    this.current = next;
    this.changedSignal.emit();
  }
}
