/** A tab in the main area with the application on a container's port. */

import { MainAreaWidget } from '@jupyterlab/apputils';
import { IFrame, launchIcon, refreshIcon, Toolbar, ToolbarButton } from '@jupyterlab/ui-components';

import { FrameAttendant } from './attendant';
import type { EngineClient } from './engine';
import { reloadFrame } from './frames';
import { containersIcon } from './icons';

/** An application; sufficient to restore its tab after a reload of the page. */
export interface ITarget {
  readonly name: string;
  readonly port: number;
}

/** Return the key under which a tab is restored. */
export function targetKey(target: ITarget): string {
  return `${target.name}:${target.port}`;
}

/**
 * An iframe with the proxied URL, a reload button, and a button that opens a browser tab.
 *
 * The application shares Jupyter's origin (`allow-same-origin`), because its cookies, storage and WebSockets need it; it
 * cannot navigate JupyterLab's page. A banner appears while the container is stopped; after a restart the application
 * is reloaded.
 */
export class ApplicationTab extends MainAreaWidget<IFrame> {
  private readonly url: string;
  private readonly attendant: FrameAttendant;

  constructor(
    client: EngineClient,
    readonly target: ITarget
  ) {
    const frame = new IFrame({
      sandbox: [
        'allow-downloads',
        'allow-forms',
        'allow-modals',
        'allow-popups',
        'allow-pointer-lock',
        'allow-same-origin',
        'allow-scripts'
      ],
      referrerPolicy: 'same-origin'
    });
    super({ content: frame });
    const key = targetKey(target);
    const url = client.applicationUrl(target.name, target.port);
    this.url = url;
    this.id = `pydock-application-${target.name}-${target.port}`;
    this.addClass('pydock-Application');
    this.title.label = key;
    this.title.caption = `Port ${target.port} of the container ${target.name}`;
    this.title.icon = containersIcon;
    this.title.closable = true;
    this.element.title = this.title.caption;
    frame.url = url;

    this.attendant = new FrameAttendant(
      client,
      target.name,
      () => this.isVisible || !this.isAttached,
      () => {
        this.reload();
      }
    );
    this.contentHeader.addWidget(this.attendant.banner);
    this.toolbar.addItem(
      'reload',
      new ToolbarButton({
        icon: refreshIcon,
        tooltip: 'Reload the application',
        onClick: () => {
          this.reload();
        }
      })
    );
    this.toolbar.addItem('spacer', Toolbar.createSpacerItem());
    this.toolbar.addItem(
      'open',
      new ToolbarButton({
        icon: launchIcon,
        tooltip: 'Open in a new browser tab',
        onClick: () => {
          window.open(url, '_blank', 'noopener');
        }
      })
    );
  }

  /** Reload the application's current page. */
  reload(): void {
    reloadFrame(this.element, this.url);
  }

  override dispose(): void {
    this.attendant.dispose();
    super.dispose();
  }

  protected override onAfterShow(): void {
    void this.attendant.monitor.refresh();
  }

  private get element(): HTMLIFrameElement {
    const element = this.content.node.querySelector('iframe');
    if (element === null) {
      throw new Error('IFrame widget has no iframe');
    }
    return element;
  }
}
