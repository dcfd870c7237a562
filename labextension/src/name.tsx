/** Names that are shortened in the middle: what tells them apart usually stands at the end. */

import React from 'react';

const MIN_TAIL = 10;
const MAX_TAIL = 16;

/**
 * Return how many characters at the end of each name always stay visible.
 *
 * This is the smallest number with which all ends differ, between 10 and 16.
 */
export function tailLength(names: readonly string[]): number {
  const different = [...new Set(names)];
  for (let length = MIN_TAIL; length < MAX_TAIL; length += 1) {
    if (new Set(different.map(name => name.slice(-length))).size === different.length) {
      return length;
    }
  }
  return MAX_TAIL;
}

/**
 * A name on one line. When the room is short, an ellipsis replaces the middle: the head shrinks, the tail does not.
 *
 * The browser does it (two spans in a flex box), so it holds at every width without measuring.
 */
export function ShortenedName(props: { name: string; tail: number; className: string }): React.JSX.Element {
  const characters = Array.from(props.name);
  const cut = characters.length - Math.min(props.tail, Math.floor(characters.length / 2));
  return (
    <span className={`pydock-Name ${props.className}`}>
      <span className="pydock-Name-head">{characters.slice(0, cut).join('')}</span>
      <span className="pydock-Name-tail">{characters.slice(cut).join('')}</span>
    </span>
  );
}
