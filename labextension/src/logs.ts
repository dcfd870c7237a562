/** A main-area tab that follows what a container writes. */

import { MainAreaWidget } from '@jupyterlab/apputils';
import { listIcon } from '@jupyterlab/ui-components';
import { Widget } from '@lumino/widgets';

import { type EngineClient, EngineError } from './engine';

/** The text that is kept; older text is dropped from the top. */
const MAX_CHARACTERS = 1_000_000;

/** Colours, titles and cursor movements (ECMA-48 CSI and OSC sequences): the tab shows text. */
// eslint-disable-next-line no-control-regex -- control characters are what it is about
const CONTROL_SEQUENCE = /\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])/g;

/** The log of one container, from its last thousand lines on, until it ends or the tab is closed. */
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

/** The text itself: it stays at its end, unless the reader has scrolled up. */
export class LogView extends Widget {
  private readonly aborter = new AbortController();
  private readonly text = document.createElement('pre');

  constructor(
    client: EngineClient,
    readonly container: string
  ) {
    super();
    this.addClass('pydock-Log');
    this.node.tabIndex = 0;
    this.text.setAttribute('role', 'log');
    this.text.setAttribute('aria-label', `Log of ${container}`);
    this.node.appendChild(this.text);
    void this.follow(client);
  }

  override dispose(): void {
    this.aborter.abort();
    super.dispose();
  }

  private async follow(client: EngineClient): Promise<void> {
    try {
      const write = (text: string): void => {
        this.append(text);
      };
      await client.follow(this.container, write, this.aborter.signal);
      this.note(this.text.textContent === '' ? 'The container has ended and has written nothing.' : 'End of the log.');
    } catch (error) {
      if (!this.aborter.signal.aborted) {
        this.note(error instanceof EngineError ? `${error.message} ${error.hint}` : `The log broke off: ${String(error)}`);
      }
    }
  }

  private append(text: string): void {
    const isAtEnd = this.node.scrollHeight - this.node.scrollTop - this.node.clientHeight < 24;
    const clean = text.replace(CONTROL_SEQUENCE, '').replace(/\r\n/g, '\n');
    const whole = (this.text.textContent ?? '') + clean;
    if (whole.length > MAX_CHARACTERS) {
      this.text.textContent = whole.slice(whole.indexOf('\n', whole.length - MAX_CHARACTERS / 2) + 1);
    } else {
      this.text.append(clean);
    }
    if (isAtEnd) {
      this.node.scrollTop = this.node.scrollHeight;
    }
  }

  private note(text: string): void {
    const note = document.createElement('p');
    note.textContent = text;
    this.node.appendChild(note);
    this.node.scrollTop = this.node.scrollHeight;
  }
}
