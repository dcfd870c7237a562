/** Shows the state of an application's container above its frame, and reloads the frame after a restart. */

import { Notification } from '@jupyterlab/apputils';
import type { IDisposable } from '@lumino/disposable';
import { Widget } from '@lumino/widgets';

import { type EngineClient, EngineError } from './engine';
import { type Condition, ContainerMonitor } from './monitor';

/** Watches a frame's container. */
export class FrameAttendant implements IDisposable {
  readonly banner: Banner;
  readonly monitor: ContainerMonitor;
  /** The run that the frame shows; null before the first response. */
  private shownRun: string | null = null;

  /**
   * @param isVisible - whether the frame is visible.
   * @param reload - reloads the frame; called after a start or restart of the container.
   */
  constructor(
    private readonly client: EngineClient,
    container: string,
    isVisible: () => boolean,
    private readonly reload: () => void
  ) {
    this.banner = new Banner(() => {
      void this.start(container);
    });
    this.monitor = new ContainerMonitor(client, container, isVisible);
    this.monitor.checked.connect((_, condition) => {
      this.attend(condition);
    });
  }

  get isDisposed(): boolean {
    return this.monitor.isDisposed;
  }

  dispose(): void {
    this.monitor.dispose();
    this.banner.dispose();
  }

  private attend(condition: Condition): void {
    this.banner.present(condition);
    if (condition.kind === 'running') {
      const isNew = this.shownRun !== null && this.shownRun !== condition.run;
      this.shownRun = condition.run;
      if (isNew) {
        this.reload();
      }
    } else if (condition.kind !== 'unknown') {
      this.shownRun ??= '';
    }
  }

  private async start(container: string): Promise<void> {
    try {
      await this.client.start(container);
    } catch (error) {
      const text = error instanceof EngineError ? `${error.message} ${error.hint}`.trim() : String(error);
      Notification.error(`Could not start ${container}: ${text}`, { autoClose: 8000 });
    }
    await this.monitor.refresh();
  }
}

/** A line with a start button for a stopped container; hidden while the container runs. */
class Banner extends Widget {
  private readonly text = document.createElement('span');
  private readonly button = document.createElement('button');

  constructor(start: () => void) {
    super();
    this.addClass('pydock-Banner');
    this.node.setAttribute('role', 'status');
    this.button.type = 'button';
    this.button.textContent = 'Start';
    this.button.addEventListener('click', start);
    this.node.append(this.text, this.button);
    this.hide();
  }

  present(condition: Condition): void {
    if (condition.kind === 'running') {
      this.hide();
      return;
    }
    this.text.textContent =
      condition.kind === 'unknown' ? condition.message : `${condition.message} The content below is out of date.`;
    this.button.hidden = condition.kind !== 'stopped';
    this.show();
  }
}
