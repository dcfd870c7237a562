"""Draws a layer graph as SVG or as text.  Pure.

The diagram uses the colours of the page's theme: "currentColor" for text and outlines, JupyterLab's custom properties
for accents.  All colours are translucent, so that they suit light and dark pages.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from html import escape

from pydock_core.engine import short_id
from pydock_core.spelling import human_size
from pydock_jupyter.display.layer_graph import (
    Column,
    Container,
    Image,
    LayerGraph,
    Slab,
    arrange_columns,
    place_layers,
)
from pydock_jupyter.display.plain_text import one_line, shorten

COLUMN_PIXELS = 216
GAP_PIXELS = 12
SLAB_PIXELS = 46
STEP_PIXELS = 6
NAME_PIXELS = 26
MARGIN_PIXELS = 8
PADDING_PIXELS = 10
FONT_PIXELS = 12
SMALL_PIXELS = 11
GLYPH_EM = 0.62
"""The width of a character in ems, slightly above the 0.60 of common fixed-width fonts."""
NAMES_SHOWN = 4
TOOLTIP_CHARACTERS = 2000
LEAST_SCALE = 0.8
"""The smallest scale of the diagram on a narrow page, which otherwise scrolls."""

_SANS = "font-family:var(--jp-ui-font-family,system-ui,sans-serif)"
_MONO = "font-family:var(--jp-code-font-family,Menlo,Consolas,'DejaVu Sans Mono',monospace)"
_PAGE_COLOUR = "color:var(--jp-content-font-color1,inherit)"
_FAINT = "fill-opacity:.72"
_PLAIN = "fill:currentColor;fill-opacity:.05;stroke:currentColor;stroke-opacity:.38"
_SHARED_COLOUR = "var(--jp-brand-color1,#1976d2)"
_SHARED = f"fill:{_SHARED_COLOUR};fill-opacity:.17;stroke:{_SHARED_COLOUR};stroke-opacity:.9"
_WRITABLE_COLOUR = "var(--jp-warn-color1,#f57c00)"
_WRITABLE = f"fill:{_WRITABLE_COLOUR};fill-opacity:.10;stroke:{_WRITABLE_COLOUR};stroke-width:1.5;stroke-dasharray:6 4"
_NAME = "fill:currentColor;fill-opacity:.04;stroke:currentColor;stroke-opacity:.7"
_CONTAINER_NAME = f"fill:{_WRITABLE_COLOUR};fill-opacity:.10;stroke:{_WRITABLE_COLOUR}"
_STEM = "stroke:currentColor;stroke-opacity:.5"


def draw_svg(graph: LayerGraph) -> str:
    """Return the diagram as an "svg" element: layers from the bottom up, names and containers on top.

    Long text ends in an ellipsis and is complete in a tooltip.  A title and a description serve screen readers.
    """
    columns = arrange_columns(graph)
    slabs = place_layers(graph, columns)
    tallest = max(
        (_floor_pixels(len(column.image.layers)) + _head_pixels(column) for column in columns), default=0
    )
    width = 2 * MARGIN_PIXELS + max(len(columns), 1) * (COLUMN_PIXELS + GAP_PIXELS) - GAP_PIXELS
    height = 2 * MARGIN_PIXELS + tallest
    ground = height - MARGIN_PIXELS
    parts = [_draw_slab(slab, ground) for slab in slabs]
    parts += [_draw_head(number, column, ground) for number, column in enumerate(columns)]
    body = "".join(parts)
    description = describe(graph)
    mark = hashlib.sha256((body + description).encode()).hexdigest()[:12]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="pydock-layers" role="img" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" aria-labelledby="pydock-{mark}-title pydock-{mark}-desc" '
        f'style="{_PAGE_COLOUR};{_SANS};display:block;height:auto;max-width:100%;min-width:{LEAST_SCALE * width:.0f}px">'
        f'<title id="pydock-{mark}-title">{escape(_title(graph))}</title>'
        f'<desc id="pydock-{mark}-desc">{escape(description)}</desc>{body}</svg>'
    )


def draw_html(graph: LayerGraph) -> str:
    """Return the diagram, scrollable if it is too wide, with a legend and the stored size."""
    if not graph.images:
        return f'<div style="{_PAGE_COLOUR}">No images.</div>'
    return f'<div style="overflow-x:auto">{draw_svg(graph)}{_draw_legend(graph)}</div>'


def describe(graph: LayerGraph) -> str:
    """Return the graph as text: each image with its containers, then its layers from the top down."""
    lines: list[str] = []
    for image in dict.fromkeys(column.image for column in arrange_columns(graph)):
        names = ", ".join(map(one_line, image.names)) or "<none>"
        lines.append(f"image {names}  {short_id(image.id)}  {_count(len(image.layers), 'layer')}")
        for container in graph.containers:
            if container.image_id == image.id:
                lines.append(
                    f"  writable layer of container {one_line(container.name)} ({one_line(container.state)})  "
                    f"{_size(container.size_bytes)}"
                )
        for layer in reversed(image.layers):
            owners = graph.owners(layer.diff_id)
            shared = f"  in {owners} images" if owners > 1 else ""
            words = shorten(one_line(layer.made_by), 60)
            lines.append(
                f"  {short_id(layer.diff_id)}  {_size(layer.size_bytes):>7}  {words}{shared}".rstrip()
            )
    lines.append(_total(graph))
    return "\n".join(lines)


# -- the parts of the diagram ------------------------------------------------------------------------------


def _draw_slab(slab: Slab, ground: int) -> str:
    layer = slab.layer
    x = _column_x(slab.first)
    width = _column_x(slab.last) + COLUMN_PIXELS - x
    y = ground - _floor_pixels(slab.level) - SLAB_PIXELS
    tooltip = [layer.diff_id, _size(layer.size_bytes), layer.made_by]
    note = ""
    if slab.owners > 1:
        tooltip.append(f"in {slab.owners} images, stored once")
        if slab.last > slab.first:  # else there is no room
            note = f"in {slab.owners} images"
    if slab.is_repeated:
        tooltip.append("drawn more than once, on different layers below")
    return _draw_box(
        x,
        y,
        width,
        style=_SHARED if slab.owners > 1 else _PLAIN,
        head=short_id(layer.diff_id),
        note=note,
        size=_size(layer.size_bytes),
        words=layer.made_by or "(not in the history)",
        tooltip=tooltip,
    )


def _draw_head(number: int, column: Column, ground: int) -> str:
    """Draw the top of a column: an image's names, or a container's writable layer and name."""
    floor = ground - _floor_pixels(len(column.image.layers))
    x = _column_x(number)
    if column.container is None:
        return _draw_names(x, floor, column.image)
    return _draw_container(x, floor, column.container)


def _draw_names(x: int, floor: int, image: Image) -> str:
    names = _shown_names(image)
    parts = []
    for place, name in enumerate(reversed(names)):
        y = floor - (place + 1) * NAME_PIXELS
        parts.append(_draw_name(x, y, name, [*(image.names or ("<none>",)), image.id], _NAME))
    return "".join(parts)


def _draw_container(x: int, floor: int, container: Container) -> str:
    tooltip = [
        f"container {container.name} ({container.state})",
        f"writable layer: {_size(container.size_bytes)}",
    ]
    box = _draw_box(
        x,
        floor - SLAB_PIXELS,
        COLUMN_PIXELS,
        style=_WRITABLE,
        head="writable layer",
        note="",
        size=_size(container.size_bytes),
        words=f"container, {container.state}",
        tooltip=tooltip,
    )
    return box + _draw_name(
        x, floor - SLAB_PIXELS - STEP_PIXELS - NAME_PIXELS, container.name, tooltip, _CONTAINER_NAME
    )


def _draw_box(
    x: int,
    y: int,
    width: int,
    *,
    style: str,
    head: str,
    note: str,
    size: str,
    words: str,
    tooltip: Sequence[str],
) -> str:
    left, right = x + PADDING_PIXELS, x + width - PADDING_PIXELS
    fitting = shorten(one_line(words), _columns(width, SMALL_PIXELS))
    middle = (
        _text(x + width // 2, y + 19, note, SMALL_PIXELS, f"{_SANS};{_FAINT}", anchor="middle")
        if note
        else ""
    )
    return (
        f"<g>{_tooltip(tooltip)}"
        f'<rect x="{x}" y="{y}" width="{width}" height="{SLAB_PIXELS}" rx="4" style="{style}"/>'
        f"{_text(left, y + 19, head, FONT_PIXELS, f'{_MONO};font-weight:600')}"
        f"{middle}"
        f"{_text(right, y + 19, size, FONT_PIXELS, _SANS, anchor='end')}"
        f"{_text(left, y + 36, fitting, SMALL_PIXELS, f'{_MONO};{_FAINT}')}</g>"
    )


def _draw_name(x: int, y: int, name: str, tooltip: Sequence[str], style: str) -> str:
    """Draw a name in a frame, on a stem above the element below."""
    shown = shorten(one_line(name), _columns(COLUMN_PIXELS, FONT_PIXELS), keep_end=True)
    frame = NAME_PIXELS - STEP_PIXELS
    middle = x + COLUMN_PIXELS // 2
    return (
        f"<g>{_tooltip(tooltip)}"
        f'<line x1="{middle}" y1="{y + frame}" x2="{middle}" y2="{y + NAME_PIXELS}" style="{_STEM}"/>'
        f'<rect x="{x}" y="{y}" width="{COLUMN_PIXELS}" height="{frame}" rx="{frame // 2}" style="{style}"/>'
        f"{_text(middle, y + 14, shown, FONT_PIXELS, f'{_MONO};font-weight:600', anchor='middle')}</g>"
    )


def _text(x: int, y: int, content: str, pixels: int, style: str, anchor: str = "start") -> str:
    return (
        f'<text x="{x}" y="{y}" text-anchor="{anchor}" style="fill:currentColor;font-size:{pixels}px;{style}">'
        f"{escape(content)}</text>"
    )


def _tooltip(lines: Sequence[str]) -> str:
    return f"<title>{escape(chr(10).join(one_line(line)[:TOOLTIP_CHARACTERS] for line in lines if line))}</title>"


def _draw_legend(graph: LayerGraph) -> str:
    kinds = [("read-only layer", _PLAIN)]
    if any(graph.owners(diff_id) > 1 for diff_id in graph.layers):
        kinds.append(("layer of several images, stored once", _SHARED))
    if graph.containers:
        kinds.append(("writable layer of a container", _WRITABLE.replace("6 4", "3 2")))
    swatches = "".join(
        f'<span style="margin-right:1.4em;white-space:nowrap"><svg aria-hidden="true" width="18" height="10" '
        f'style="margin-right:.5em"><rect x="1" y="1" width="16" height="8" rx="2" style="{style}"/></svg>{text}</span>'
        for text, style in kinds
    )
    return (
        f'<div style="color:var(--jp-ui-font-color2,inherit);{_SANS};font-size:{FONT_PIXELS}px;'
        f'padding:2px {MARGIN_PIXELS}px 6px">{swatches}<span>{escape(_total(graph))}</span></div>'
    )


# -- measures ----------------------------------------------------------------------------------------------


def _column_x(number: int) -> int:
    return MARGIN_PIXELS + number * (COLUMN_PIXELS + GAP_PIXELS)


def _floor_pixels(levels: int) -> int:
    """Return the height of a stack of layers."""
    return levels * (SLAB_PIXELS + STEP_PIXELS)


def _head_pixels(column: Column) -> int:
    if column.container is not None:
        return SLAB_PIXELS + STEP_PIXELS + NAME_PIXELS
    return NAME_PIXELS * len(_shown_names(column.image))


def _columns(pixels: int, font_pixels: int) -> int:
    """Return the number of fixed-width characters that fit between the paddings."""
    return int((pixels - 2 * PADDING_PIXELS) / (font_pixels * GLYPH_EM))


def _shown_names(image: Image) -> list[str]:
    names = list(image.names) or ["<none>"]
    if len(names) > NAMES_SHOWN:
        return [*names[: NAMES_SHOWN - 1], f"and {len(names) - NAMES_SHOWN + 1} more names"]
    return names


def _title(graph: LayerGraph) -> str:
    names = [one_line(name) for image in graph.images for name in (image.names[:1] or (short_id(image.id),))]
    return "Layers of " + (", ".join(names) or "no image")


def _total(graph: LayerGraph) -> str:
    layers = graph.layers.values()
    size_bytes = sum(layer.size_bytes or 0 for layer in layers)
    return f"{_count(len(layers), 'layer')} stored: {human_size(size_bytes)}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _size(size_bytes: int | None) -> str:
    return "?" if size_bytes is None else human_size(size_bytes)
