/** The left-hand panel: containers with their state, ports and buttons; images below. */

import {
  PanelWithToolbar,
  ReactWidget,
  refreshIcon,
  SidePanel,
  ToolbarButton
} from '@jupyterlab/ui-components';
import { AccordionPanel } from '@lumino/widgets';
import React from 'react';

import { containerName } from './engine';
import { SharedHeights } from './heights';
import { containersIcon } from './icons';
import type { ContainersModel } from './model';
import { tailLength } from './name';
import { NoContainers, NoImages, Problem } from './notes';
import { ContainerRow, ImageRow, type IPanelActions } from './rows';

/** The panel `pydock-containers` of JupyterLab's left area. */
export class ContainersPanel extends SidePanel {
  private readonly heights: SharedHeights;

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
    const containers = ReactWidget.create(<ContainerList model={model} actions={actions} />);
    const images = ReactWidget.create(<ImageList model={model} />);
    this.addWidget(this.section('Containers', containers));
    this.addWidget(this.section('Images', images));
    if (!(this.content instanceof AccordionPanel)) {
      throw new Error('a side panel without an accordion');
    }
    this.heights = new SharedHeights(this.content, [containers, images]);
  }

  override dispose(): void {
    this.heights.dispose();
    super.dispose();
  }

  protected override onAfterShow(): void {
    void this.model.refresh();
  }

  private section(title: string, body: ReactWidget): PanelWithToolbar {
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
    section.addWidget(body);
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

/** One stop of the tab key; within it the arrow keys, Home and End go from row to row. */
function ContainerList(props: { model: ContainersModel; actions: IPanelActions }): React.JSX.Element {
  const { model, actions } = props;
  useModel(model);
  const [focusedId, setFocusedId] = React.useState('');
  const { containers, problem, isLoaded } = model.snapshot;
  const currentId = containers.some(container => container.Id === focusedId) ? focusedId : containers[0]?.Id;
  const tail = tailLength(containers.map(containerName));
  return (
    <>
      {problem !== null && <Problem problem={problem} isStale={isLoaded} />}
      {problem === null && !isLoaded && <p className="pydock-Note">Looking for containers…</p>}
      {problem === null && isLoaded && containers.length === 0 && <NoContainers />}
      <ul className="pydock-List" aria-label="Containers" onKeyDown={moveFocus}>
        {containers.map(container => (
          <ContainerRow
            key={container.Id}
            container={container}
            tail={tail}
            isBusy={model.isBusy(container.Id)}
            isCurrent={container.Id === currentId}
            actions={actions}
            onFocus={() => { setFocusedId(container.Id); }}
          />
        ))}
      </ul>
    </>
  );
}

function moveFocus(event: React.KeyboardEvent): void {
  const rows = [...event.currentTarget.children];
  const at = rows.findIndex(row => row.contains(document.activeElement));
  const target = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: rows.length - 1 }[event.key];
  const row = target === undefined ? undefined : rows[target];
  if (row instanceof HTMLElement) {
    event.preventDefault();
    row.focus();
  }
}

function ImageList(props: { model: ContainersModel }): React.JSX.Element {
  useModel(props.model);
  const { images, isLoaded } = props.model.snapshot;
  if (isLoaded && images.length === 0) {
    return <NoImages />;
  }
  const tail = tailLength(images.flatMap(image => image.RepoTags?.slice(0, 1) ?? []));
  return (
    <ul className="pydock-List" aria-label="Images">
      {images.map(image => (
        <ImageRow key={image.Id} image={image} tail={tail} />
      ))}
    </ul>
  );
}
