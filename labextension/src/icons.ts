/** The icon of the panel and its tabs, in the colours of the theme. */

import { LabIcon } from '@jupyterlab/ui-components';

/** A freight container in side view. */
export const containersIcon = new LabIcon({
  name: 'pydock-jupyter:containers',
  svgstr: `<svg xmlns="http://www.w3.org/2000/svg" width="16" viewBox="0 0 24 24">
  <path class="jp-icon3 jp-icon-selectable" fill="#616161" fill-rule="evenodd"
    d="M2 5h20v14H2zm2 2v10h16V7zm2 2h2v6H6zm5 0h2v6h-2zm5 0h2v6h-2z"/>
</svg>`
});
