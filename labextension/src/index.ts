/** The JupyterLab plugin: the panel, tabs and commands, and their restoration after a reload of the page. */

import { ILayoutRestorer, type JupyterFrontEnd, type JupyterFrontEndPlugin } from '@jupyterlab/application';
import {
  Dialog,
  ICommandPalette,
  InputDialog,
  Notification,
  showDialog,
  WidgetTracker
} from '@jupyterlab/apputils';
import { refreshIcon } from '@jupyterlab/ui-components';
import type { ReadonlyPartialJSONObject } from '@lumino/coreutils';
import type { DockLayout } from '@lumino/widgets';

import { ApplicationTab, type ITarget, targetKey } from './application';
import { EngineClient, EngineError, type IContainer } from './engine';
import { attendFrames } from './frames';
import { containersIcon } from './icons';
import { LogTab } from './logs';
import { type Action, ContainersModel } from './model';
import { ContainersPanel } from './panel';

const CATEGORY = 'Containers';
/** The port that the dialog proposes: Jupyter's. */
const DEFAULT_PORT = '8888';

/** The commands in the palette, which other extensions may execute. */
export const CommandIDs = {
  /**
   * Arguments: `name` and `port`, which a dialog asks for if they are missing; `mode`, the place of the tab as in
   * DocumentRegistry.IOpenOptions ("split-right").
   */
  openPort: 'pydock:open-port',
  /** Argument: `name`, which a dialog asks for if it is missing. */
  openLog: 'pydock:open-log',
  showPanel: 'pydock:show-panel',
  refresh: 'pydock:refresh'
} as const;

const plugin: JupyterFrontEndPlugin<void> = {
  id: 'pydock-jupyter:plugin',
  description: 'Lists containers and opens their ports in tabs.',
  autoStart: true,
  optional: [ICommandPalette, ILayoutRestorer],
  activate
};

export default plugin;

function activate(app: JupyterFrontEnd, palette: ICommandPalette | null, restorer: ILayoutRestorer | null): void {
  const { commands, shell } = app;
  const client = new EngineClient(app.serviceManager.serverSettings);
  const model = new ContainersModel(client, () => panel.isVisible);
  const panel: ContainersPanel = new ContainersPanel(model, {
    openPort: (name, port) => {
      void commands.execute(CommandIDs.openPort, port === undefined ? { name } : { name, port });
    },
    openLog: name => {
      void commands.execute(CommandIDs.openLog, { name });
    },
    start: container => {
      void act(model, 'start', container);
    },
    stop: container => {
      void act(model, 'stop', container);
    },
    remove: container => {
      void remove(model, container);
    }
  });
  const applications = new WidgetTracker<ApplicationTab>({ namespace: 'pydock-applications' });
  const logs = new WidgetTracker<LogTab>({ namespace: 'pydock-logs' });

  shell.add(panel, 'left', { rank: 350, type: 'Containers' });

  commands.addCommand(CommandIDs.showPanel, {
    label: 'Show Containers',
    caption: 'Show the panel that lists containers and images',
    icon: containersIcon,
    execute: () => {
      shell.activateById(panel.id);
    }
  });
  commands.addCommand(CommandIDs.refresh, {
    label: 'Refresh Containers',
    icon: refreshIcon,
    execute: () => model.refresh()
  });
  commands.addCommand(CommandIDs.openPort, {
    label: 'Open Port of a Container…',
    caption: 'Open the application behind a port of a container in a tab',
    icon: containersIcon,
    execute: async args => {
      const target = await chooseTarget(model, args);
      if (target === null) {
        return;
      }
      const known = applications.find(tab => targetKey(tab.target) === targetKey(target));
      const tab = known ?? new ApplicationTab(client, target);
      if (known === undefined) {
        shell.add(tab, 'main', isInsertMode(args.mode) ? { mode: args.mode } : {});
        await applications.add(tab);
      }
      shell.activateById(tab.id);
    }
  });
  commands.addCommand(CommandIDs.openLog, {
    label: 'Open Log of a Container…',
    execute: async args => {
      const name = typeof args.name === 'string' ? args.name : await chooseContainer(model, 'Open log', () => true);
      if (name === null) {
        return;
      }
      const known = logs.find(tab => tab.content.container === name);
      const tab = known ?? new LogTab(client, name);
      if (known === undefined) {
        shell.add(tab, 'main');
        await logs.add(tab);
      }
      shell.activateById(tab.id);
    }
  });

  attendFrames(client);
  openLinksInTabs((name, port) => {
    void commands.execute(CommandIDs.openPort, { name, port });
  });
  if (palette !== null) {
    for (const command of Object.values(CommandIDs)) {
      palette.addItem({ command, category: CATEGORY });
    }
  }
  if (restorer !== null) {
    restorer.add(panel, panel.id);
    void restorer.restore(applications, {
      command: CommandIDs.openPort,
      args: tab => ({ ...tab.target }),
      name: tab => targetKey(tab.target)
    });
    void restorer.restore(logs, {
      command: CommandIDs.openLog,
      args: tab => ({ name: tab.content.container }),
      name: tab => tab.content.container
    });
  }
}

/**
 * Open the port links of widgets in notebooks in tabs of JupyterLab.
 *
 * The browser handles a click with a modifier key or another mouse button, and opens a browser tab.
 */
function openLinksInTabs(open: (name: string, port: number) => void): void {
  document.addEventListener('click', event => {
    const link = event.target instanceof Element ? event.target.closest<HTMLElement>('a.pydock-port') : null;
    const { pydockName: name, pydockPort: port } = link?.dataset ?? {};
    const isPlain = event.button === 0 && !event.ctrlKey && !event.metaKey && !event.shiftKey && !event.altKey;
    if (name !== undefined && isPort(Number(port)) && isPlain) {
      event.preventDefault();
      open(name, Number(port));
    }
  });
}

function isInsertMode(mode: unknown): mode is DockLayout.InsertMode {
  return typeof mode === 'string' && /^(split|tab)-[a-z]+$/.test(mode);
}

function isPort(port: number): boolean {
  return Number.isInteger(port) && port >= 1 && port <= 65535;
}

async function act(model: ContainersModel, action: Action, container: IContainer): Promise<void> {
  try {
    await model.act(action, container.id);
  } catch (error) {
    const text = error instanceof EngineError ? `${error.message} ${error.hint}`.trim() : String(error);
    Notification.error(`Could not ${action} ${container.name}: ${text}`, { autoClose: 8000 });
  }
}

async function remove(model: ContainersModel, container: IContainer): Promise<void> {
  const { name } = container;
  const answer = await showDialog({
    title: `Remove ${name}?`,
    body: container.up
      ? 'The container is running: it will be killed, and the changes in its own file system will be lost.'
      : 'The changes in its own file system will be lost.',
    buttons: [Dialog.cancelButton(), Dialog.warnButton({ label: 'Remove' })],
    defaultButton: 0
  });
  if (answer.button.accept) {
    await act(model, 'remove', container);
  }
}

/** Return the target that the arguments name, asking for missing parts; null if the user cancels. */
async function chooseTarget(model: ContainersModel, args: ReadonlyPartialJSONObject): Promise<ITarget | null> {
  const name = typeof args.name === 'string' ? args.name : await chooseContainer(model, 'Open port', ({ up }) => up);
  if (name === null) {
    return null;
  }
  if (typeof args.port === 'number') {
    return { name, port: args.port };
  }
  const container = model.snapshot.containers?.find(item => item.name === name);
  const ports = container?.ports.map(port => String(port.number)) ?? [];
  const question = {
    title: `Open a port of ${name}`,
    label:
      'Port that the application listens on (1 to 65535). It may listen on 127.0.0.1 in the container.',
    pattern: '[0-9]{1,5}',
    required: true,
    okLabel: 'Open'
  };
  const answer =
    ports.length > 1
      ? await InputDialog.getItem({ ...question, items: ports.slice(1), editable: true })
      : await InputDialog.getText({ ...question, text: DEFAULT_PORT, selectionRange: DEFAULT_PORT.length });
  const port = Number(answer.value);
  if (!answer.button.accept || answer.value === null) {
    return null;
  }
  if (!isPort(port)) {
    Notification.error(`invalid port “${answer.value}”: type a number from 1 to 65535`, { autoClose: 8000 });
    return null;
  }
  return { name, port };
}

async function chooseContainer(
  model: ContainersModel,
  verb: string,
  isCandidate: (container: IContainer) => boolean
): Promise<string | null> {
  await model.refresh();
  const names = (model.snapshot.containers ?? []).filter(isCandidate).map(({ name }) => name);
  if (names.length === 0) {
    const reason = model.snapshot.problem?.message ?? 'No containers to choose from. Start one: %dock run -d IMAGE';
    Notification.warning(reason, { autoClose: 8000 });
    return null;
  }
  const answer = await InputDialog.getItem({ title: verb, label: 'Container', items: names, okLabel: 'Next' });
  return answer.button.accept ? answer.value : null;
}
