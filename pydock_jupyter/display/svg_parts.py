"""The shared parts of all diagrams: boxes, text, tooltips, and the colours of the page's theme.

Text and outlines use "currentColor", accents use JupyterLab's custom properties.  All colours are translucent to suit light
and dark pages.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from html import escape

from pydock_jupyter.display.plain_text import one_line, shorten

COLUMN_PIXELS = 216
GAP_PIXELS = 12
BOX_PIXELS = 46
LINE_PIXELS = 17
MARGIN_PIXELS = 8
PADDING_PIXELS = 10
FONT_PIXELS = 12
SMALL_PIXELS = 11
GLYPH_EM = 0.62
"""The width of a character in ems, slightly above the 0.60 of common fixed-width fonts."""
TOOLTIP_CHARACTERS = 2000
LEAST_SCALE = 0.8
"""The smallest scale of the diagram on a narrow page, which otherwise scrolls."""

SANS = "font-family:var(--jp-ui-font-family,system-ui,sans-serif)"
MONO = "font-family:var(--jp-code-font-family,Menlo,Consolas,'DejaVu Sans Mono',monospace)"
PAGE_COLOUR = "color:var(--jp-content-font-color1,inherit)"
FAINT = "fill-opacity:.72"
ACCENT_COLOUR = "var(--jp-brand-color1,#1976d2)"
WARM_COLOUR = "var(--jp-warn-color1,#f57c00)"
CALM_COLOUR = "var(--jp-success-color1,#388e3c)"
PLAIN = "fill:currentColor;fill-opacity:.05;stroke:currentColor;stroke-opacity:.38"
ACCENT = f"fill:{ACCENT_COLOUR};fill-opacity:.17;stroke:{ACCENT_COLOUR};stroke-opacity:.9"


def draw_picture(kind: str, width: int, height: int, title: str, description: str, body: str) -> str:
    """Return an "svg" element whose title and description serve screen readers.

    Args:
        kind: its class is "pydock-KIND".
        width, height: in pixels.
        body: its parts.
    """
    mark = hashlib.sha256((body + description).encode()).hexdigest()[:12]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="pydock-{kind}" role="img" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" aria-labelledby="pydock-{mark}-title pydock-{mark}-desc" '
        f'style="{PAGE_COLOUR};{SANS};display:block;height:auto;max-width:100%;min-width:{LEAST_SCALE * width:.0f}px">'
        f'<title id="pydock-{mark}-title">{escape(title)}</title>'
        f'<desc id="pydock-{mark}-desc">{escape(description)}</desc>{body}</svg>'
    )


def draw_legend(kinds: Sequence[tuple[str, str]], total: str) -> str:
    """Return a line of swatches, each (text, style of a box), and a last text."""
    swatches = "".join(
        f'<span style="margin-right:1.4em;white-space:nowrap"><svg aria-hidden="true" width="18" height="10" '
        f'style="margin-right:.5em"><rect x="1" y="1" width="16" height="8" rx="2" style="{style}"/></svg>{text}</span>'
        for text, style in kinds
    )
    return (
        f'<div style="color:var(--jp-ui-font-color2,inherit);{SANS};font-size:{FONT_PIXELS}px;'
        f'padding:2px {MARGIN_PIXELS}px 6px">{swatches}<span style="white-space:nowrap">{escape(total)}</span></div>'
    )


def draw_text(x: int, y: int, content: str, pixels: int, style: str, anchor: str = "start") -> str:
    """Return a line of text."""
    return (
        f'<text x="{x}" y="{y}" text-anchor="{anchor}" style="fill:currentColor;font-size:{pixels}px;{style}">'
        f"{escape(content)}</text>"
    )


def draw_tooltip(lines: Sequence[str]) -> str:
    """Return a tooltip of the lines that are not empty."""
    return f"<title>{escape(chr(10).join(one_line(line)[:TOOLTIP_CHARACTERS] for line in lines if line))}</title>"


def draw_box(
    x: int,
    y: int,
    width: int,
    *,
    style: str,
    head: str,
    words: Sequence[str],
    tooltip: Sequence[str],
    note: str = "",
) -> str:
    """Return a box: a head with a note at its right, and lines of words, each limited to its room.

    Its height is BOX_PIXELS with one line of words, and LINE_PIXELS more with each further one, empty or not.
    """
    left, right = x + PADDING_PIXELS, x + width - PADDING_PIXELS
    room = fitting_columns(width, FONT_PIXELS) - (len(note) + 1 if note else 0)
    height = BOX_PIXELS + (len(words) - 1) * LINE_PIXELS
    fitting = fitting_columns(width, SMALL_PIXELS)
    return (
        f"<g>{draw_tooltip(tooltip)}"
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="4" style="{style}"/>'
        f"{draw_text(left, y + 19, shorten(one_line(head), max(room, 1)), FONT_PIXELS, f'{MONO};font-weight:600')}"
        + (draw_text(right, y + 19, note, SMALL_PIXELS, f"{SANS};{FAINT}", anchor="end") if note else "")
        + "".join(
            draw_text(
                left,
                y + 36 + number * LINE_PIXELS,
                shorten(one_line(line), fitting),
                SMALL_PIXELS,
                f"{MONO};{FAINT}",
            )
            for number, line in enumerate(words)
            if line
        )
        + "</g>"
    )


def fitting_columns(pixels: int, font_pixels: int) -> int:
    """Return the number of fixed-width characters that fit between the paddings."""
    return int((pixels - 2 * PADDING_PIXELS) / (font_pixels * GLYPH_EM))
