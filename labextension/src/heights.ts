/** Divides the panel's height among its sections: each has its natural height, the last one shrinks first. */

import type { AccordionPanel, SplitLayout, Widget } from '@lumino/widgets';

/** The minimum height of a section: four rows. */
const MIN_PIXELS = 96;

/**
 * Divide a height among sections.
 *
 * Each section has its natural height, the first one first. The minimum, or the natural height if it is smaller, is
 * reserved for those after it. The last section takes the rest.
 *
 * @param needs - the natural height of each section in pixels, the most important first.
 */
export function shareHeight(needs: readonly number[], available: number): number[] {
  let left = available;
  return needs.map((need, index) => {
    const after = needs.slice(index + 1);
    const kept = after.reduce((sum, next) => sum + Math.min(next, MIN_PIXELS), 0);
    const share = after.length === 0 ? left : Math.min(need, Math.max(left - kept, 0));
    left -= share;
    return share;
  });
}

/** Keeps the sections of an accordion at their shares of the height until the user drags a handle. */
export class SharedHeights {
  private readonly observer: ResizeObserver;
  private isManual = false;

  /**
   * @param bodies - the content of each section, at its natural height, in the accordion's order.
   */
  constructor(
    private readonly accordion: AccordionPanel,
    private readonly bodies: readonly Widget[]
  ) {
    this.observer = new ResizeObserver(() => {
      this.share();
    });
    this.observer.observe(accordion.node);
    for (const body of bodies) {
      this.observer.observe(body.node);
    }
    accordion.handleMoved.connect(() => {
      this.isManual = true;
    });
    accordion.expansionToggled.connect(() => {
      this.share();
    });
  }

  dispose(): void {
    this.observer.disconnect();
  }

  private share(): void {
    const { accordion } = this;
    const sizes = (accordion.layout as SplitLayout).absoluteSizes();
    const available = sizes.reduce((sum, size) => sum + size, 0);
    if (this.isManual || !accordion.isVisible || available <= 0) {
      return;
    }
    const needs = this.bodies.map((body, index) =>
      accordion.widgets[index]?.isHidden === true ? 0 : body.node.offsetHeight
    );
    accordion.setRelativeSizes(shareHeight(needs, available));
  }
}
