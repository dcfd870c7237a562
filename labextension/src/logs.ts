/** A main-area tab that follows what a container writes. */

import { MainAreaWidget } from '@jupyterlab/apputils';
import { listIcon } from '@jupyterlab/ui-components';
import { Widget } from '@lumino/widgets';

import { type EngineClient, EngineError } from './engine';
import { type Condition, ContainerMonitor } from './monitor';
import type { IEntry } from './stream';

/** The text that is kept; older text is dropped from the top. */
const MAX_CHARACTERS = 1_000_000;

/** Colours, titles and cursor movements (ECMA-48 CSI and OSC sequences): the tab shows text. */
// eslint-disable-next-line no-control-regex -- control characters are what it is about
const CONTROL_SEQUENCE = /\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])/g;

/** The log of one container, from its last thousand lines on, through restarts, until the tab is closed. */
export class LogTab extends MainAreaWidget<LogView> {
  constructor(client: EngineClient, container: string) {
    super({ content: new LogView(client, container) });
    this.id = `pydock-log-${container}`;
    this.title.label = `${container} log`;
    this.title.caption = `What the container ${container} writes`;
    this.title.icon = listIcon;
    this.title.closable = true;
    this.toolbar.hide();
  }
}

/**
 * The text itself: it stays at its end, unless the reader has scrolled up, whatever happens to its size.
 *
 * It follows while it is visible: a browser has six connections to a server, and each follower holds one. What it missed
 * it reads when it is shown again, when the container runs again, or when the server answers again.
 */
export class LogView extends Widget {
  private readonly text = document.createElement('pre');
  private readonly note = document.createElement('p');
  private readonly monitor: ContainerMonitor;
  private readonly position = new LogPosition();
  private follower: AbortController | null = null;
  /** The run whose log was read to its end and told to have ended. */
  private readRun: string | null = null;
  /** Why the last follower broke off. */
  private failure = '';
  /** The follower has just come to the end of the log. */
  private isWhole = false;
  /** Whether the end stays in view; the reader's scrolling decides. */
  private isFollowing = true;
  /** The size of the view that `isFollowing` was told for: a scroll at another one is the layout's, not the reader's. */
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
      this.say(condition.message);
    } else if (condition.kind === 'gone') {
      this.say(`${condition.message} Its log is gone too; the lines below were read before.`);
    } else if (condition.kind === 'running') {
      this.say(this.follower === null ? this.failure : '');
      if (!this.isWhole) {
        this.resume();
      }
    } else if (this.follower === null) {
      if (this.isWhole || condition.run === this.readRun) {
        this.readRun = condition.run;
        this.say(this.text.textContent === '' ? `${condition.message} It has written nothing.` : condition.message);
      } else {
        this.resume();
      }
    }
    this.isWhole = false;
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
      this.isWhole = true;
      this.failure = '';
    } catch (error) {
      // The monitor resumes; it also says what is wrong, if the server does not answer or the container is gone.
      this.failure = error instanceof EngineError ? `${error.message} ${error.hint}`.trim() : String(error);
    }
    this.follower = null;
    if (follower.signal.aborted) {
      this.failure = '';
      this.resume(); // hidden and shown again meanwhile
    } else if (this.isWhole) {
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

  private say(text: string): void {
    if (this.note.textContent !== text) {
      this.note.textContent = text;
      this.keepEnd();
    }
  }
}

/**
 * Up to where a log was read, so that it can be read on without a gap and without a repetition.
 *
 * Many entries may have the same time. Reading goes on at the last time, not after it, and what was read of it already
 * is passed over.
 */
class LogPosition {
  private time = '';
  private seen = 0;
  private toSkip = 0;

  /** The time at which to read on; undefined at the beginning. */
  get since(): string | undefined {
    return this.time === '' ? undefined : this.time;
  }

  /** Begin a new response, asked for with `since`. */
  rewind(): void {
    this.toSkip = this.seen;
  }

  /** Take note of an entry, and return whether it is new. */
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
