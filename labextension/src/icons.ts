/** The icon of the panel and its tabs, in the colours of the theme. */

import { LabIcon } from '@jupyterlab/ui-components';

/** A stack of three containers. */
export const containersIcon = new LabIcon({
  name: 'pydock-jupyter:containers',
  svgstr: `<svg xmlns="http://www.w3.org/2000/svg" width="16" viewBox="0 0 24 24">
  <g class="jp-icon3 jp-icon-selectable" fill="#616161">
    <path d="M8 3h8v7H8zm1.5 1.5v4h1v-4zm2 0v4h1v-4zm2 0v4h1v-4z" fill-rule="evenodd"/>
    <path d="M2.5 12h9v7.5h-9zM4 13.5V18h1v-4.5zm2.5 0V18h1v-4.5zm2.5 0V18h1v-4.5z" fill-rule="evenodd"/>
    <path d="M12.5 12h9v7.5h-9zm1.5 1.5V18h1v-4.5zm2.5 0V18h1v-4.5zm2.5 0V18h1v-4.5z" fill-rule="evenodd"/>
  </g>
</svg>`
});
