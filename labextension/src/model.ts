/** What the panel shows, kept fresh: one poll, one snapshot, one signal. */

import { JSONExt, type ReadonlyJSONValue } from '@lumino/coreutils';
import type { IDisposable } from '@lumino/disposable';
import { Poll } from '@lumino/polling';
import { type ISignal, Signal } from '@lumino/signaling';

import { type EngineClient, EngineError, type IContainer, type IImage } from './engine';

/** How often the lists are asked for while somebody looks; doubled after each failure, up to the maximum. */
const INTERVAL_MS = 2000;
const MAX_INTERVAL_MS = 30000;

/** One consistent view; `problem` tells why the lists are not fresh, `isLoaded` whether they ever were. */
export interface ISnapshot {
  readonly containers: readonly IContainer[];
  readonly images: readonly IImage[];
  readonly problem: EngineError | null;
  readonly isLoaded: boolean;
}

/** A thing that is done to one container. */
export type Action = 'start' | 'stop' | 'remove';

/** The containers and images of the server's engine. */
export class ContainersModel implements IDisposable {
  private readonly poll: Poll;
  private readonly changedSignal = new Signal<this, void>(this);
  private readonly busyIds = new Set<string>();
  private current: ISnapshot = { containers: [], images: [], problem: null, isLoaded: false };

  /**
   * @param isWanted - whether anybody looks; while not, nothing is asked of the server.
   */
  constructor(
    readonly client: EngineClient,
    isWanted: () => boolean
  ) {
    this.poll = new Poll({
      name: 'pydock-jupyter:containers',
      auto: false,
      factory: () => this.load(),
      frequency: { interval: INTERVAL_MS, backoff: true, max: MAX_INTERVAL_MS },
      standby: () => (isWanted() ? 'when-hidden' : true)
    });
  }

  /** Emitted when the snapshot or a container's being busy has changed. */
  get changed(): ISignal<this, void> {
    return this.changedSignal;
  }

  get snapshot(): ISnapshot {
    return this.current;
  }

  get isDisposed(): boolean {
    return this.poll.isDisposed;
  }

  isBusy(id: string): boolean {
    return this.busyIds.has(id);
  }

  /** Ask now, and from now on at the usual pace; never rejects (a failure is in the snapshot). */
  async refresh(): Promise<void> {
    await this.poll.refresh();
    // `refresh` resolves when the tick is scheduled; the tick itself may reject, which starts the back-off.
    await this.poll.tick.catch(() => undefined);
  }

  /** Do something to a container, then show the truth; rejects with the server's EngineError. */
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
    this.poll.dispose();
    Signal.clearData(this);
  }

  private async load(): Promise<void> {
    try {
      const [containers, images] = await Promise.all([this.client.containers(), this.client.images()]);
      this.show({ containers, images, problem: null, isLoaded: true });
    } catch (error) {
      const problem = error instanceof EngineError ? error : new EngineError(0, String(error));
      this.show({ ...this.current, problem });
      throw problem;
    }
  }

  private show(next: ISnapshot): void {
    const before = this.current;
    const isSame =
      before.isLoaded === next.isLoaded &&
      before.problem?.message === next.problem?.message &&
      isDeepEqual(before.containers, next.containers) &&
      isDeepEqual(before.images, next.images);
    if (!isSame) {
      this.current = next;
      this.changedSignal.emit();
    }
  }
}

function isDeepEqual(one: unknown, other: unknown): boolean {
  return JSONExt.deepEqual(one as ReadonlyJSONValue, other as ReadonlyJSONValue);
}
