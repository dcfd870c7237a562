/** What stands over an application's frame while its container does not run, and brings the frame back afterwards. */

import { Notification } from '@jupyterlab/apputils';
import type { IDisposable } from '@lumino/disposable';
import { Widget } from '@lumino/widgets';

import { type EngineClient, EngineError } from './engine';
import { type Condition, ContainerMonitor } from './monitor';

/** Watches the container of a frame. */
export class FrameAttendant implements IDisposable {
  readonly banner: Banner;
  readonly monitor: ContainerMonitor;
  /** The run whose application the frame shows; null before the first answer. */
  private shownRun: string | null = null;

  /**
   * @param isWanted - whether anybody sees the frame.
   * @param reload - loads the application again; called when the container has been started or restarted.
   */
  constructor(
    private readonly client: EngineClient,
    container: string,
    isWanted: () => boolean,
    private readonly reload: () => void
  ) {
    this.banner = new Banner(() => {
      void this.start(container);
    });
    this.monitor = new ContainerMonitor(client, container, isWanted);
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

/** One line, hidden while the container runs; it offers to start a container that has ended. */
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
      condition.kind === 'unknown' ? condition.message : `${condition.message} What is shown below is out of date.`;
    this.button.hidden = condition.kind !== 'stopped';
    this.show();
  }
}
