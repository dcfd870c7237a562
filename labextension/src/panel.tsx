/** The left panel: containers with their state, ports and buttons; images below. */

import {
  PanelWithToolbar,
  ReactWidget,
  refreshIcon,
  SidePanel,
  ToolbarButton
} from '@jupyterlab/ui-components';
import { AccordionPanel } from '@lumino/widgets';
import React from 'react';

import { SharedHeights } from './heights';
import { containersIcon } from './icons';
import type { ContainersModel } from './model';
import { NoContainers, NoImages, Problem } from './notes';
import { ContainerRow, ImageRow, type IPanelActions } from './rows';

/** The panel `pydock-containers` in JupyterLab's left area. */
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
      throw new Error('side panel has no accordion');
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

  protected override onBeforeHide(): void {
    this.model.pause();
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

/** Draw again after each change of the model. */
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

/** The list of containers: one stop of the tab key; the arrow keys, Home and End move between rows. */
function ContainerList(props: { model: ContainersModel; actions: IPanelActions }): React.JSX.Element {
  const { model, actions } = props;
  useModel(model);
  const [focusedId, setFocusedId] = React.useState('');
  const { containers, problem } = model.snapshot;
  const currentId = containers?.some(({ id }) => id === focusedId) === true ? focusedId : containers?.[0]?.id;
  return (
    <>
      {problem !== null && <Problem problem={problem} isStale={containers !== null} />}
      {problem === null && containers === null && <p className="pydock-Note">Loading…</p>}
      {problem === null && containers?.length === 0 && <NoContainers />}
      <ul className="pydock-List" aria-label="Containers" onKeyDown={moveFocus}>
        {containers?.map(container => (
          <ContainerRow
            key={container.id}
            container={container}
            isBusy={model.isBusy(container.id)}
            isCurrent={container.id === currentId}
            actions={actions}
            onFocus={() => { setFocusedId(container.id); }}
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
  const { images } = props.model.snapshot;
  if (images?.length === 0) {
    return <NoImages />;
  }
  return (
    <ul className="pydock-List" aria-label="Images">
      {images?.map(image => (
        <ImageRow key={image.id} image={image} />
      ))}
    </ul>
  );
}
