/** The rows of the panel: a container with its state, ports and buttons; an image with its size. */

import { deleteIcon, type LabIcon, listIcon, runIcon, stopIcon } from '@jupyterlab/ui-components';
import React from 'react';

import type { IContainer, IImage, IPort, Label, Look } from './engine';

/** The number of ports with a chip in a wide list; the dialog of the last chip offers the others. */
const MAX_CHIPS = 2;

/** The actions of the panel's buttons and keys. */
export interface IPanelActions {
  /** Open a port in a tab; ask for the port if it is missing. */
  openPort(name: string, port?: number): void;
  openLog(name: string): void;
  start(container: IContainer): void;
  stop(container: IContainer): void;
  /** Remove after confirmation. */
  remove(container: IContainer): void;
}

/**
 * A container.
 *
 * `isCurrent` marks the one row of the list that the tab key reaches, with its buttons. `onFocus` is called when the
 * focus enters the row.
 */
export function ContainerRow(props: {
  container: IContainer;
  isBusy: boolean;
  isCurrent: boolean;
  actions: IPanelActions;
  onFocus: () => void;
}): React.JSX.Element {
  const { container, isBusy, isCurrent, actions, onFocus } = props;
  const { name, ports } = container;
  const tabIndex = isCurrent ? 0 : -1;
  const onKeyDown = (event: React.KeyboardEvent): void => {
    if (event.target !== event.currentTarget) {
      return;
    }
    if (event.key === 'Enter' && ports.length > 0) {
      actions.openPort(name, ports[0]?.number);
    } else if (event.key === 'Enter') {
      actions.openLog(name);
    } else if (event.key === 'Delete' && !isBusy) {
      actions.remove(container);
    }
  };
  return (
    <li
      className="pydock-Row pydock-Container"
      data-state={container.state}
      data-name={name}
      aria-busy={isBusy}
      title={container.title}
      tabIndex={tabIndex}
      onFocus={onFocus}
      onKeyDown={onKeyDown}
    >
      <StateIcon container={container} isBusy={isBusy} />
      <ShortenedName label={container.label} className="pydock-Container-name" />
      {container.up && <Ports name={name} ports={ports} tabIndex={tabIndex} onOpen={port => { actions.openPort(name, port); }} />}
      <span className="pydock-Row-side">
        <StatusText text={container.status} />
        <span className="pydock-Row-actions">
          {container.up ? (
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

/** An image: its first name, the number of further names, its size. */
export function ImageRow(props: { image: IImage }): React.JSX.Element {
  const { names, label, size, title } = props.image;
  return (
    <li className="pydock-Row pydock-Image" title={title}>
      <ShortenedName label={label} className="pydock-Image-name" />
      {names.length > 1 && <span className="pydock-Row-more">+{names.length - 1}</span>}
      <span className="pydock-Row-size">{size}</span>
    </li>
  );
}

/**
 * A name on one line. If space is short, an ellipsis replaces the middle: the head shrinks, the tail does not.
 *
 * The browser does this with two spans in a flex box, at every width and without measuring.
 */
function ShortenedName(props: { label: Label; className: string }): React.JSX.Element {
  const [head, tail] = props.label;
  return (
    <span className={`pydock-Name ${props.className}`}>
      <span className="pydock-Name-head">{head}</span>
      <span className="pydock-Name-tail">{tail}</span>
    </span>
  );
}

/**
 * A status. The text after the first word or parenthesis ("Exited (137)") is hidden first if space is short, then the
 * rest if the row needs the space for ports.
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

/** A chip for each of the first ports, as space permits, and one for all others. */
function Ports(props: {
  name: string;
  ports: readonly IPort[];
  tabIndex: number;
  onOpen: (port?: number) => void;
}): React.JSX.Element {
  const { name, ports, tabIndex, onOpen } = props;
  const numbers = ports.map(port => port.number);
  const hasOne = ports.length <= 1;
  return (
    <span className="pydock-Row-ports">
      {ports.slice(0, MAX_CHIPS).map((port, place) => (
        <button
          key={port.number}
          type="button"
          className={place === 0 ? 'pydock-Chip' : 'pydock-Chip pydock-mod-wide'}
          aria-label={`Open port ${port.number} of ${name}`}
          title={
            `Open port ${port.number} of ${name}` +
            (port.published === '' ? '' : ` (published at ${port.published})`)
          }
          tabIndex={tabIndex}
          onClick={() => { onOpen(port.number); }}
        >
          {port.number}
        </button>
      ))}
      {!hasOne && <OtherPorts name={name} hidden={numbers.slice(1)} width="narrow" tabIndex={tabIndex} onOpen={onOpen} />}
      <OtherPorts name={name} hidden={numbers.slice(MAX_CHIPS)} width={hasOne ? 'any' : 'wide'} tabIndex={tabIndex} onOpen={onOpen} />
    </span>
  );
}

/** The chip that opens the port dialog, with the number of ports without a chip at a list's width. */
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

/** A symbol for each state; shape and colour both tell states apart. */
function StateIcon(props: { container: IContainer; isBusy: boolean }): React.JSX.Element {
  const { container, isBusy } = props;
  const look = isBusy ? 'busy' : container.look;
  return (
    <svg className="pydock-State" data-look={look} viewBox="0 0 12 12" role="img" aria-label={container.state}>
      {SHAPES[look]}
    </svg>
  );
}

const SHAPES: Record<Look | 'busy', React.JSX.Element> = {
  running: <circle cx="6" cy="6" r="4.5" fill="currentColor" />,
  paused: <path d="M3 2h2v8H3zm4 0h2v8H7z" fill="currentColor" />,
  changing: <path d="M6 1.5a4.5 4.5 0 0 1 0 9z M6 1.5a4.5 4.5 0 0 0 0 9" fill="currentColor" fillRule="evenodd" />,
  failed: <path d="M2.5 2.5l7 7m0-7l-7 7" fill="none" stroke="currentColor" strokeWidth="2" />,
  ended: <circle cx="6" cy="6" r="3.75" fill="none" stroke="currentColor" strokeWidth="1.5" />,
  created: <circle cx="6" cy="6" r="3.75" fill="none" stroke="currentColor" strokeWidth="1.5" strokeDasharray="2 2" />,
  busy: <path d="M6 2.25A3.75 3.75 0 1 1 2.25 6" fill="none" stroke="currentColor" strokeWidth="1.5" />
};
