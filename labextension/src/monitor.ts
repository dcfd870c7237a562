/** Monitors a container by name, for a tab or a frame. */

import type { IDisposable } from '@lumino/disposable';
import { Poll } from '@lumino/polling';
import { type ISignal, Signal } from '@lumino/signaling';

import { type EngineClient, EngineError } from './engine';

const INTERVAL_MS = 2000;
const MAX_INTERVAL_MS = 10000;

/**
 * The state of a container.
 *
 * `run` identifies a run: it differs after a restart, and for a new container of the same name. It is empty for a
 * container that is gone or was never started.
 */
export type Condition =
  | { readonly kind: 'unknown'; readonly message: string }
  | { readonly kind: 'running'; readonly run: string }
  | { readonly kind: 'stopped'; readonly run: string; readonly message: string }
  | { readonly kind: 'gone'; readonly run: ''; readonly message: string };

/** Polls every two seconds while its view is visible; backs off while the server does not respond. */
export class ContainerMonitor implements IDisposable {
  private readonly poll: Poll;
  private readonly checkedSignal = new Signal<this, Condition>(this);

  /**
   * @param isVisible - whether the view is visible; polling stops while it is not.
   */
  constructor(
    private readonly client: EngineClient,
    readonly container: string,
    isVisible: () => boolean
  ) {
    this.poll = new Poll({
      name: `pydock-jupyter:container-${container}`,
      factory: () => this.check(),
      frequency: { interval: INTERVAL_MS, backoff: true, max: MAX_INTERVAL_MS },
      standby: () => (isVisible() ? 'when-hidden' : true)
    });
  }

  /** Emitted after each poll, even if the state is unchanged. */
  get checked(): ISignal<this, Condition> {
    return this.checkedSignal;
  }

  get isDisposed(): boolean {
    return this.poll.isDisposed;
  }

  /** Poll now. */
  async refresh(): Promise<void> {
    await this.poll.refresh();
  }

  dispose(): void {
    this.poll.dispose();
    Signal.clearData(this);
  }

  private async check(): Promise<void> {
    try {
      this.checkedSignal.emit(await this.look());
    } catch (error) {
      const message = error instanceof EngineError ? `${error.message} ${error.hint}`.trim() : String(error);
      this.checkedSignal.emit({ kind: 'unknown', message });
      throw error;
    }
  }

  private async look(): Promise<Condition> {
    const { client, container } = this;
    try {
      const { Id: id, State: state } = await client.inspect(container);
      const run = `${id} ${state.StartedAt}`;
      if (state.Running) {
        return { kind: 'running', run };
      }
      if (state.Status === 'created') {
        return { kind: 'stopped', run: '', message: `The container ${container} has not been started.` };
      }
      const reason = state.OOMKilled ? 'out of memory, ' : '';
      return { kind: 'stopped', run, message: `The container ${container} has exited (${reason}exit code ${state.ExitCode}).` };
    } catch (error) {
      if (error instanceof EngineError && error.status === 404) {
        return { kind: 'gone', run: '', message: `Container ${container} no longer exists.` };
      }
      throw error;
    }
  }
}
