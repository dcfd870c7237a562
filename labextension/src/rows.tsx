/** One line of the panel each: a container with its state, ports and buttons; an image with its size. */

import { deleteIcon, type LabIcon, listIcon, runIcon, stopIcon } from '@jupyterlab/ui-components';
import React from 'react';

import { containerName, type IContainer, type IImage, type IPort, isUp, tcpPorts } from './engine';
import { ShortenedName } from './name';

/** So many ports have a chip of their own in a wide list; the dialog behind the last chip offers the others. */
const MAX_CHIPS = 2;

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

/**
 * A container.
 *
 * `isCurrent` is the one row of the list that the tab key reaches, with its buttons; `onFocus` is called when the focus
 * enters the row.
 */
export function ContainerRow(props: {
  container: IContainer;
  tail: number;
  isBusy: boolean;
  isCurrent: boolean;
  actions: IPanelActions;
  onFocus: () => void;
}): React.JSX.Element {
  const { container, tail, isBusy, isCurrent, actions, onFocus } = props;
  const name = containerName(container);
  const isRunning = isUp(container);
  const ports = isRunning ? tcpPorts(container) : [];
  const tabIndex = isCurrent ? 0 : -1;
  const onKeyDown = (event: React.KeyboardEvent): void => {
    if (event.target !== event.currentTarget) {
      return;
    }
    if (event.key === 'Enter' && ports.length > 0) {
      actions.openPort(name, ports[0]?.PrivatePort);
    } else if (event.key === 'Enter') {
      actions.openLog(name);
    } else if (event.key === 'Delete' && !isBusy) {
      actions.remove(container);
    }
  };
  return (
    <li
      className="pydock-Row pydock-Container"
      data-state={container.State}
      data-name={name}
      aria-busy={isBusy}
      title={containerTitle(container)}
      tabIndex={tabIndex}
      onFocus={onFocus}
      onKeyDown={onKeyDown}
    >
      <StateIcon container={container} isBusy={isBusy} />
      <ShortenedName name={name} tail={tail} className="pydock-Container-name" />
      {isRunning && <Ports name={name} ports={ports} tabIndex={tabIndex} onOpen={port => { actions.openPort(name, port); }} />}
      <span className="pydock-Row-side">
        <StatusText text={container.Status === '' ? container.State : container.Status} />
        <span className="pydock-Row-actions">
          {isRunning ? (
            <IconButton icon={stopIcon} label={`Stop ${name}`} isDisabled={isBusy} tabIndex={tabIndex} onClick={() => { actions.stop(container); }} />
          ) : (
            <IconButton icon={runIcon} label={`Start ${name}`} isDisabled={isBusy} tabIndex={tabIndex} onClick={() => { actions.start(container); }} />
          )}
          <IconButton icon={listIcon} label={`Log of ${name}`} tabIndex={tabIndex} onClick={() => { actions.openLog(name); }} />
          <IconButton icon={deleteIcon} label={`Remove ${name}`} isDisabled={isBusy} tabIndex={tabIndex} onClick={() => { actions.remove(container); }} />
        </span>
      </span>
    </li>
  );
}

/** An image: its first name, how many more it has, its size. */
export function ImageRow(props: { image: IImage; tail: number }): React.JSX.Element {
  const { image, tail } = props;
  const [name = '<none>', ...others] = image.RepoTags ?? [];
  const size = sizeText(image.Size);
  const id = image.Id.replace(/^sha256:/, '').slice(0, 12);
  return (
    <li className="pydock-Row pydock-Image" title={[name, ...others, `${id} · ${size}`].join('\n')}>
      <ShortenedName name={name === '<none>' ? id : name} tail={tail} className="pydock-Image-name" />
      {others.length > 0 && <span className="pydock-Row-more">+{others.length}</span>}
      <span className="pydock-Row-size">{size}</span>
    </li>
  );
}

/**
 * A state in words. What stands behind the first word or parenthesis ("Exited (137)") goes where the room is short, and
 * the rest then too if the row needs the room for ports.
 */
function StatusText(props: { text: string }): React.JSX.Element {
  const [, state = props.text, rest = ''] = /^(\w+ \(\d+\)|\w+ .*(?= \())(?: (.*))?$/.exec(props.text) ?? [];
  return (
    <span className="pydock-Row-detail">
      <wbr />
      <span>{state}</span>
      {rest !== '' && ' '}
      {rest !== '' && <span>{rest}</span>}
    </span>
  );
}

/** A chip for each of the first ports, as many as the list has room for, and one for all others. */
function Ports(props: {
  name: string;
  ports: readonly IPort[];
  tabIndex: number;
  onOpen: (port?: number) => void;
}): React.JSX.Element {
  const { name, ports, tabIndex, onOpen } = props;
  const numbers = ports.map(port => port.PrivatePort);
  const isSame = ports.length <= 1;
  return (
    <span className="pydock-Row-ports">
      {ports.slice(0, MAX_CHIPS).map((port, place) => (
        <button
          key={port.PrivatePort}
          type="button"
          className={place === 0 ? 'pydock-Chip' : 'pydock-Chip pydock-mod-wide'}
          aria-label={`Open port ${port.PrivatePort} of ${name}`}
          title={
            `Open port ${port.PrivatePort} of ${name}` +
            (port.PublicPort === undefined ? '' : ` (published at ${port.IP ?? ''}:${port.PublicPort})`)
          }
          tabIndex={tabIndex}
          onClick={() => { onOpen(port.PrivatePort); }}
        >
          {port.PrivatePort}
        </button>
      ))}
      {!isSame && <OtherPorts name={name} hidden={numbers.slice(1)} width="narrow" tabIndex={tabIndex} onOpen={onOpen} />}
      <OtherPorts name={name} hidden={numbers.slice(MAX_CHIPS)} width={isSame ? 'any' : 'wide'} tabIndex={tabIndex} onOpen={onOpen} />
    </span>
  );
}

/** The chip that asks for a port, with the number of those that have no chip, for a list of some width. */
function OtherPorts(props: {
  name: string;
  hidden: readonly number[];
  width: 'narrow' | 'wide' | 'any';
  tabIndex: number;
  onOpen: () => void;
}): React.JSX.Element {
  const { name, hidden, width, tabIndex, onOpen } = props;
  const isEmpty = hidden.length === 0;
  return (
    <button
      type="button"
      className={`pydock-Chip pydock-mod-other pydock-mod-${width} ${isEmpty ? 'pydock-mod-pointed' : ''}`}
      aria-label={isEmpty ? `Open another port of ${name}` : `${hidden.length} more ports of ${name}`}
      title={isEmpty ? `Open another port of ${name}` : `More ports of ${name}: ${hidden.join(', ')}`}
      tabIndex={tabIndex}
      onClick={() => { onOpen(); }}
    >
      +{isEmpty ? '' : hidden.length}
    </button>
  );
}

function IconButton(props: {
  icon: LabIcon;
  label: string;
  isDisabled?: boolean;
  tabIndex: number;
  onClick: () => void;
}): React.JSX.Element {
  const { icon, label, isDisabled = false, tabIndex, onClick } = props;
  return (
    <button
      type="button"
      className="pydock-IconButton"
      aria-label={label}
      title={label}
      disabled={isDisabled}
      tabIndex={tabIndex}
      onClick={onClick}
    >
      <icon.react tag="span" />
    </button>
  );
}

/** The shape says the state, and the colour says it again: no state is told by its colour alone. */
function StateIcon(props: { container: IContainer; isBusy: boolean }): React.JSX.Element {
  const { container, isBusy } = props;
  const look = isBusy ? 'busy' : stateLook(container);
  return (
    <svg className="pydock-State" data-look={look} viewBox="0 0 12 12" role="img" aria-label={container.State}>
      {SHAPES[look]}
    </svg>
  );
}

type Look = 'running' | 'paused' | 'changing' | 'failed' | 'ended' | 'created' | 'busy';

const SHAPES: Record<Look, React.JSX.Element> = {
  running: <circle cx="6" cy="6" r="4.5" fill="currentColor" />,
  paused: <path d="M3 2h2v8H3zm4 0h2v8H7z" fill="currentColor" />,
  changing: <path d="M6 1.5a4.5 4.5 0 0 1 0 9z M6 1.5a4.5 4.5 0 0 0 0 9" fill="currentColor" fillRule="evenodd" />,
  failed: <path d="M2.5 2.5l7 7m0-7l-7 7" fill="none" stroke="currentColor" strokeWidth="2" />,
  ended: <circle cx="6" cy="6" r="3.75" fill="none" stroke="currentColor" strokeWidth="1.5" />,
  created: <circle cx="6" cy="6" r="3.75" fill="none" stroke="currentColor" strokeWidth="1.5" strokeDasharray="2 2" />,
  busy: <path d="M6 2.25A3.75 3.75 0 1 1 2.25 6" fill="none" stroke="currentColor" strokeWidth="1.5" />
};

function stateLook(container: IContainer): Look {
  switch (container.State) {
    case 'running':
      return 'running';
    case 'paused':
      return 'paused';
    case 'created':
      return 'created';
    case 'restarting':
    case 'removing':
      return 'changing';
    case 'dead':
      return 'failed';
    default:
      return container.Status.startsWith('Exited (0)') ? 'ended' : 'failed';
  }
}

/** The tooltip: all that the line has no room for. */
function containerTitle(container: IContainer): string {
  const { State: state, Status: status } = container;
  const ports = tcpPorts(container).map(port => port.PrivatePort);
  return [
    `${containerName(container)} (${container.Id.slice(0, 12)})`,
    `Image: ${container.Image}`,
    // Docker's status has the state in words already, except for a running one ("Up 2 minutes").
    `State: ${status.toLowerCase().startsWith(state) || status === '' ? status || state : `${state}, ${status}`}`,
    ...(ports.length === 0 ? [] : [`Ports: ${ports.join(', ')}`])
  ].join('\n');
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
