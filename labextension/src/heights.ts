/** How the sections of the panel share its height: each gets what it needs, the last one yields first. */

import type { AccordionPanel, SplitLayout, Widget } from '@lumino/widgets';

/** A section that has to yield still shows this much: four rows. */
const MIN_PIXELS = 96;

/**
 * Divide a height among sections.
 *
 * Each section gets what it needs, the first one first; the minimum (or the need, if that is less) is kept for those
 * after it. What is left over goes to the last one.
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

/** Keeps the sections of an accordion at the heights they need, until the user drags a handle. */
export class SharedHeights {
  private readonly observer: ResizeObserver;
  private isManual = false;

  /**
   * @param bodies - the content of each section, in the accordion's order, at its natural height.
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
