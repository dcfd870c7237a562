/** The left-hand panel: containers with their state, ports and buttons; images below. */

import {
  addIcon,
  deleteIcon,
  type LabIcon,
  launchIcon,
  listIcon,
  PanelWithToolbar,
  ReactWidget,
  refreshIcon,
  runIcon,
  SidePanel,
  stopIcon,
  ToolbarButton
} from '@jupyterlab/ui-components';
import React from 'react';

import { containerName, type EngineError, type IContainer, type IImage, tcpPorts } from './engine';
import { containersIcon } from './icons';
import type { ContainersModel } from './model';

/** What the panel asks its surroundings to do. */
export interface IPanelActions {
  /** Open a port in a tab; without a port, ask for it. */
  openPort(name: string, port?: number): void;
  openLog(name: string): void;
  start(container: IContainer): void;
  stop(container: IContainer): void;
  /** Ask, then remove. */
  remove(container: IContainer): void;
}

/** The panel `pydock-containers` of JupyterLab's left area. */
export class ContainersPanel extends SidePanel {
  constructor(
    private readonly model: ContainersModel,
    actions: IPanelActions
  ) {
    super();
    this.id = 'pydock-containers';
    this.addClass('pydock-Panel');
    this.title.icon = containersIcon;
    this.title.caption = 'Containers';
    this.node.setAttribute('role', 'region');
    this.node.setAttribute('aria-label', 'Containers');
    this.addWidget(this.section('Containers', <ContainerList model={model} actions={actions} />));
    this.addWidget(this.section('Images', <ImageList model={model} />));
  }

  protected override onAfterShow(): void {
    void this.model.refresh();
  }

  private section(title: string, body: React.JSX.Element): PanelWithToolbar {
    const section = new PanelWithToolbar();
    section.title.label = title;
    section.addClass('pydock-Section');
    if (title === 'Containers') {
      section.toolbar.addItem(
        'refresh',
        new ToolbarButton({
          icon: refreshIcon,
          tooltip: 'Refresh',
          onClick: () => {
            void this.model.refresh();
          }
        })
      );
    }
    section.addWidget(ReactWidget.create(body));
    return section;
  }
}

/** Draw again whenever the model says that something changed. */
function useModel(model: ContainersModel): void {
  const [, redraw] = React.useReducer((count: number) => count + 1, 0);
  React.useEffect(() => {
    model.changed.connect(redraw);
    redraw();
    return () => {
      model.changed.disconnect(redraw);
    };
  }, [model]);
}

function ContainerList(props: { model: ContainersModel; actions: IPanelActions }): React.JSX.Element {
  const { model, actions } = props;
  useModel(model);
  const { containers, problem, isLoaded } = model.snapshot;
  return (
    <>
      {problem !== null && <ProblemNote problem={problem} isStale={isLoaded} />}
      {problem === null && !isLoaded && <p className="pydock-Note">Looking for containers…</p>}
      {problem === null && isLoaded && containers.length === 0 && <EmptyNote />}
      <ul className="pydock-List" aria-label="Containers">
        {containers.map(container => (
          <ContainerRow
            key={container.Id}
            container={container}
            isBusy={model.isBusy(container.Id)}
            actions={actions}
          />
        ))}
      </ul>
    </>
  );
}

function ContainerRow(props: { container: IContainer; isBusy: boolean; actions: IPanelActions }): React.JSX.Element {
  const { container, isBusy, actions } = props;
  const name = containerName(container);
  const isRunning = container.State === 'running' || container.State === 'paused';
  return (
    <li className="pydock-Container" data-state={container.State} data-name={name} aria-busy={isBusy}>
      <div className="pydock-Container-head">
        <span className="pydock-Dot" data-state={container.State} aria-hidden="true" />
        <span className="pydock-Container-name" title={`${name} (${container.Id.slice(0, 12)})`}>
          {name}
        </span>
        <span className="pydock-Container-buttons">
          {isRunning ? (
            <IconButton icon={stopIcon} label={`Stop ${name}`} isDisabled={isBusy} onClick={() => { actions.stop(container); }} />
          ) : (
            <IconButton icon={runIcon} label={`Start ${name}`} isDisabled={isBusy} onClick={() => { actions.start(container); }} />
          )}
          <IconButton icon={listIcon} label={`Log of ${name}`} onClick={() => { actions.openLog(name); }} />
          <IconButton icon={deleteIcon} label={`Remove ${name}`} isDisabled={isBusy} onClick={() => { actions.remove(container); }} />
        </span>
      </div>
      <div className="pydock-Container-image" title={container.Image}>
        {container.Image}
      </div>
      <div className="pydock-Container-state">{stateText(container)}</div>
      {isRunning && (
        <div className="pydock-Container-ports">
          {tcpPorts(container).map(port => (
            <button
              key={port.PrivatePort}
              type="button"
              className="pydock-Chip"
              aria-label={`Open port ${port.PrivatePort} of ${name}`}
              title={
                port.PublicPort === undefined
                  ? `Open port ${port.PrivatePort} here`
                  : `Open port ${port.PrivatePort} here (published at ${port.IP ?? ''}:${port.PublicPort})`
              }
              onClick={() => { actions.openPort(name, port.PrivatePort); }}
            >
              {port.PrivatePort}
              <launchIcon.react tag="span" className="pydock-Chip-icon" />
            </button>
          ))}
          <button
            type="button"
            className="pydock-Chip pydock-mod-other"
            aria-label={`Open another port of ${name}`}
            title="Open another port"
            onClick={() => { actions.openPort(name); }}
          >
            <addIcon.react tag="span" className="pydock-Chip-icon" />
            open port…
          </button>
        </div>
      )}
    </li>
  );
}

/** Docker's status has the state in words already, except for a running one ("Up 2 minutes"). */
function stateText(container: IContainer): string {
  const { State: state, Status: status } = container;
  if (status === '' || status.toLowerCase().startsWith(state)) {
    return status === '' ? state : status;
  }
  return `${state} · ${status}`;
}

function IconButton(props: {
  icon: LabIcon;
  label: string;
  isDisabled?: boolean;
  onClick: () => void;
}): React.JSX.Element {
  const { icon, label, isDisabled = false, onClick } = props;
  return (
    <button
      type="button"
      className="pydock-IconButton"
      aria-label={label}
      title={label}
      disabled={isDisabled}
      onClick={onClick}
    >
      <icon.react tag="span" />
    </button>
  );
}

function ImageList(props: { model: ContainersModel }): React.JSX.Element {
  useModel(props.model);
  const { images, isLoaded } = props.model.snapshot;
  if (isLoaded && images.length === 0) {
    return (
      <div className="pydock-Note">
        <p>No images yet. Make one from this Python environment:</p>
        <pre>%dock image capture -t here</pre>
      </div>
    );
  }
  return (
    <ul className="pydock-List" aria-label="Images">
      {images.map(image => (
        <ImageRow key={image.Id} image={image} />
      ))}
    </ul>
  );
}

function ImageRow(props: { image: IImage }): React.JSX.Element {
  const { image } = props;
  const shortId = image.Id.replace(/^sha256:/, '').slice(0, 12);
  const names = image.RepoTags ?? [];
  return (
    <li className="pydock-Image" title={image.Id}>
      <span className="pydock-Image-name">{names.length > 0 ? names.join(', ') : '<none>'}</span>
      <span className="pydock-Image-detail">
        {shortId} · {sizeText(image.Size)}
      </span>
    </li>
  );
}

/** Decimal units and three digits, as `docker images` writes sizes. */
function sizeText(bytes: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let value = bytes;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${Number(value.toPrecision(3))}${units[unit] ?? ''}`;
}

function EmptyNote(): React.JSX.Element {
  return (
    <div className="pydock-Note">
      <p>No containers yet. Start one from a notebook:</p>
      <pre>{'%load_ext pydock_jupyter\n%dock run -d IMAGE COMMAND'}</pre>
    </div>
  );
}

function ProblemNote(props: { problem: EngineError; isStale: boolean }): React.JSX.Element {
  const { problem, isStale } = props;
  return (
    <div className="pydock-Note pydock-mod-problem" role="alert">
      <p>
        <strong>{problem.status === 404 ? 'PyDock is not enabled in this Jupyter server.' : problem.message}</strong>
      </p>
      {problem.status === 404 ? (
        <>
          <p>Enable it, then restart the server:</p>
          <pre>jupyter server extension enable pydock_jupyter</pre>
        </>
      ) : problem.status === 401 || problem.status === 403 ? (
        <p>{problem.hint === '' ? 'Reload the page to log in again.' : problem.hint}</p>
      ) : (
        problem.hint !== '' && <p>{problem.hint}</p>
      )}
      {isStale && <p>What is shown below may be out of date.</p>}
    </div>
  );
}
