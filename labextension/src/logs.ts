/** A tab in the main area that follows a container's log. */

import { MainAreaWidget } from '@jupyterlab/apputils';
import { listIcon } from '@jupyterlab/ui-components';
import { Widget } from '@lumino/widgets';

import { type EngineClient, EngineError } from './engine';
import { type Condition, ContainerMonitor } from './monitor';
import type { IEntry } from './stream';

/** The maximum length of the text; older text is removed from the top. */
const MAX_CHARACTERS = 1_000_000;

/** Colours, titles and cursor movements (ECMA-48 CSI and OSC sequences), which a plain text cannot show. */
// eslint-disable-next-line no-control-regex -- the pattern matches control characters
const CONTROL_SEQUENCE = /\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])/g;

/** The log of a container from its last thousand lines, across restarts, until the tab is closed. */
export class LogTab extends MainAreaWidget<LogView> {
  constructor(client: EngineClient, container: string) {
    super({ content: new LogView(client, container) });
    this.id = `pydock-log-${container}`;
    this.title.label = `${container} log`;
    this.title.caption = `Log of the container ${container}`;
    this.title.icon = listIcon;
    this.title.closable = true;
    this.toolbar.hide();
  }
}

/**
 * The text, which stays scrolled to its end, also after a change of size, unless the user has scrolled up.
 *
 * It follows the log while it is visible: a browser has six connections to a server, and each follower holds one. It
 * catches up when it becomes visible, when the container restarts, and when the server responds again.
 */
export class LogView extends Widget {
  private readonly text = document.createElement('pre');
  private readonly note = document.createElement('p');
  private readonly monitor: ContainerMonitor;
  private readonly position = new LogPosition();
  private follower: AbortController | null = null;
  /** The run whose log has been read to its end, and whose exit has been reported. */
  private readRun: string | null = null;
  /** The error of the last follower. */
  private failure = '';
  /** Whether the follower has just reached the end of the log. */
  private isComplete = false;
  /** Whether to keep the end in view; set by the user's scrolling. */
  private isFollowing = true;
  /** The view's size when `isFollowing` was set; a scroll at another size comes from the layout, not the user. */
  private size = '';
  private readonly observer = new ResizeObserver(() => {
    this.size = this.currentSize();
    this.keepEnd();
  });

  constructor(
    private readonly client: EngineClient,
    readonly container: string
  ) {
    super();
    this.addClass('pydock-Log');
    this.node.tabIndex = 0;
    this.text.setAttribute('role', 'log');
    this.text.setAttribute('aria-label', `Log of ${container}`);
    this.note.setAttribute('role', 'status');
    this.node.append(this.text, this.note);
    this.node.addEventListener('scroll', () => {
      if (this.currentSize() === this.size) {
        this.isFollowing = this.isAtEnd();
      }
    });
    this.observer.observe(this.node);
    this.observer.observe(this.text); // its font may change
    this.monitor = new ContainerMonitor(client, container, () => this.isVisible);
    this.monitor.checked.connect((_, condition) => {
      this.attend(condition);
    });
  }

  override dispose(): void {
    this.follower?.abort();
    this.observer.disconnect();
    this.monitor.dispose();
    super.dispose();
  }

  protected override onAfterAttach(): void {
    this.keepEnd();
    this.resume();
  }

  protected override onAfterShow(): void {
    void this.monitor.refresh();
    this.resume();
  }

  protected override onBeforeHide(): void {
    this.follower?.abort();
  }

  protected override onBeforeDetach(): void {
    this.follower?.abort();
  }

  private attend(condition: Condition): void {
    if (condition.kind === 'unknown') {
      this.showNote(condition.message);
    } else if (condition.kind === 'gone') {
      this.showNote(`${condition.message} Its log is gone too; the lines below were read earlier.`);
    } else if (condition.kind === 'running') {
      this.showNote(this.follower === null ? this.failure : '');
      if (!this.isComplete) {
        this.resume();
      }
    } else if (this.follower === null) {
      if (this.isComplete || condition.run === this.readRun) {
        this.readRun = condition.run;
        this.showNote(this.text.textContent === '' ? `${condition.message} Its log is empty.` : condition.message);
      } else {
        this.resume();
      }
    }
    this.isComplete = false;
  }

  private resume(): void {
    if (this.isVisible && this.follower === null) {
      this.follower = new AbortController();
      void this.follow(this.follower);
    }
  }

  private async follow(follower: AbortController): Promise<void> {
    this.position.rewind();
    try {
      const write = (entry: IEntry): void => {
        if (this.position.pass(entry)) {
          this.append(entry.text);
        }
      };
      await this.client.follow(this.container, this.position.since, write, follower.signal);
      this.isComplete = true;
      this.failure = '';
    } catch (error) {
      // The monitor resumes the follower, and reports an unreachable server or a removed container.
      this.failure = error instanceof EngineError ? `${error.message} ${error.hint}`.trim() : String(error);
    }
    this.follower = null;
    if (follower.signal.aborted) {
      this.failure = '';
      this.resume(); // the view was hidden and shown again
    } else if (this.isComplete) {
      await this.monitor.refresh();
    }
  }

  private append(text: string): void {
    const clean = text.replace(CONTROL_SEQUENCE, '').replace(/\r\n/g, '\n');
    const whole = (this.text.textContent ?? '') + clean;
    if (whole.length > MAX_CHARACTERS) {
      this.text.textContent = whole.slice(whole.indexOf('\n', whole.length - MAX_CHARACTERS / 2) + 1);
    } else {
      this.text.append(clean);
    }
    this.keepEnd();
  }

  private keepEnd(): void {
    if (this.isFollowing) {
      this.node.scrollTop = this.node.scrollHeight;
    }
  }

  private currentSize(): string {
    return `${this.node.clientWidth}x${this.node.clientHeight}`;
  }

  private isAtEnd(): boolean {
    return this.node.scrollHeight - this.node.scrollTop - this.node.clientHeight < 24;
  }

  private showNote(text: string): void {
    if (this.note.textContent !== text) {
      this.note.textContent = text;
      this.keepEnd();
    }
  }
}

/**
 * The position in a log, from which reading continues without a gap or a repetition.
 *
 * Many entries may have the same time. Reading continues at the last time, and skips its entries that were read before.
 */
class LogPosition {
  private time = '';
  private seen = 0;
  private toSkip = 0;

  /** The time at which reading continues; undefined at the beginning. */
  get since(): string | undefined {
    return this.time === '' ? undefined : this.time;
  }

  /** Begin a response to a request with `since`. */
  rewind(): void {
    this.toSkip = this.seen;
  }

  /** Record an entry, and return whether it is new. */
  pass(entry: IEntry): boolean {
    if (entry.time === this.time && this.toSkip > 0) {
      this.toSkip -= 1;
      return false;
    }
    this.toSkip = 0;
    this.seen = entry.time === this.time ? this.seen + 1 : 1;
    this.time = entry.time;
    return true;
  }
}
