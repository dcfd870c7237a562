"""How things look in the page: contrast by computation, and which text is really visible."""

from __future__ import annotations

from playwright.sync_api import Locator

TEXT_CONTRAST = 4.5
"""WCAG 2.1, criterion 1.4.3; for the shapes of states and buttons criterion 1.4.11."""
SHAPE_CONTRAST = 3.0

CONTRAST = """
(element, property) => {
  const channels = text => {
    const numbers = text.match(/[\\d.]+/g).map(Number);
    return numbers.length === 3 ? [...numbers, 1] : numbers;
  };
  const over = (top, below) => [0, 1, 2].map(i => top[i] * top[3] + below[i] * (1 - top[3]));
  const luminance = color => {
    const [r, g, b] = color.map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const layers = [];
  let opacity = 1;
  for (let node = element; node !== null; node = node.parentElement) {
    const style = getComputedStyle(node);
    layers.unshift(channels(style.backgroundColor));
    opacity *= Number(style.opacity);
  }
  const background = layers.reduce((below, top) => over(top, below), [255, 255, 255]);
  const [r, g, b, alpha] = channels(getComputedStyle(element)[property]);
  const [one, other] = [over([r, g, b, alpha * opacity], background), background].map(luminance);
  return (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
}
"""
VISIBLE_TAIL = """
tail => {
  const range = document.createRange();
  range.selectNodeContents(tail);
  const [text, name, row] = [range, tail.parentElement, tail.closest('li, .pydock-row')].map(e => e.getBoundingClientRect());
  return text.right <= Math.min(name.right, row.right) + 0.5 && text.left >= name.left - 0.5 ? tail.textContent : '';
}
"""


def contrast(place: Locator, of: str = "color") -> float:
    """The contrast of an element's color (or fill) with what is behind it, opacity included."""
    return float(place.evaluate(CONTRAST, of))


def visible_tail(tail: Locator) -> str:
    """Return the text of an element, if all of it is inside its parent and its row; else nothing."""
    return str(tail.evaluate(VISIBLE_TAIL))
