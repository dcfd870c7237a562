"""Draws a layer graph as SVG or as text.  Pure."""

from __future__ import annotations

from collections.abc import Sequence

from pydock_core.engine import short_id
from pydock_core.spelling import human_size
from pydock_jupyter.display import svg_parts
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
from pydock_jupyter.display.svg_parts import (
    ACCENT,
    BOX_PIXELS,
    COLUMN_PIXELS,
    FAINT,
    FONT_PIXELS,
    GAP_PIXELS,
    MARGIN_PIXELS,
    MONO,
    PADDING_PIXELS,
    PAGE_COLOUR,
    PLAIN,
    SANS,
    SMALL_PIXELS,
    WARM_COLOUR,
    draw_text,
    draw_tooltip,
    fitting_columns,
)

STEP_PIXELS = 6
NAME_PIXELS = 26
NAMES_SHOWN = 4

_SHARED = ACCENT
_WRITABLE = f"fill:{WARM_COLOUR};fill-opacity:.10;stroke:{WARM_COLOUR};stroke-width:1.5;stroke-dasharray:6 4"
_NAME = "fill:currentColor;fill-opacity:.04;stroke:currentColor;stroke-opacity:.7"
_CONTAINER_NAME = f"fill:{WARM_COLOUR};fill-opacity:.10;stroke:{WARM_COLOUR}"
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
    return svg_parts.draw_picture("layers", width, height, _title(graph), describe(graph), body)


def draw_html(graph: LayerGraph) -> str:
    """Return the diagram, scrollable if it is too wide, with a legend and the stored size."""
    if not graph.images:
        return f'<div style="{PAGE_COLOUR}">No images.</div>'
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
    y = ground - _floor_pixels(slab.level) - BOX_PIXELS
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
        style=_SHARED if slab.owners > 1 else PLAIN,
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
        floor - BOX_PIXELS,
        COLUMN_PIXELS,
        style=_WRITABLE,
        head="writable layer",
        note="",
        size=_size(container.size_bytes),
        words=f"container, {container.state}",
        tooltip=tooltip,
    )
    return box + _draw_name(
        x, floor - BOX_PIXELS - STEP_PIXELS - NAME_PIXELS, container.name, tooltip, _CONTAINER_NAME
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
    fitting = shorten(one_line(words), fitting_columns(width, SMALL_PIXELS))
    middle = (
        draw_text(x + width // 2, y + 19, note, SMALL_PIXELS, f"{SANS};{FAINT}", anchor="middle")
        if note
        else ""
    )
    return (
        f"<g>{draw_tooltip(tooltip)}"
        f'<rect x="{x}" y="{y}" width="{width}" height="{BOX_PIXELS}" rx="4" style="{style}"/>'
        f"{draw_text(left, y + 19, head, FONT_PIXELS, f'{MONO};font-weight:600')}"
        f"{middle}"
        f"{draw_text(right, y + 19, size, FONT_PIXELS, SANS, anchor='end')}"
        f"{draw_text(left, y + 36, fitting, SMALL_PIXELS, f'{MONO};{FAINT}')}</g>"
    )


def _draw_name(x: int, y: int, name: str, tooltip: Sequence[str], style: str) -> str:
    """Draw a name in a frame, on a stem above the element below."""
    label = shorten(one_line(name), fitting_columns(COLUMN_PIXELS, FONT_PIXELS), keep_end=True)
    frame = NAME_PIXELS - STEP_PIXELS
    middle = x + COLUMN_PIXELS // 2
    return (
        f"<g>{draw_tooltip(tooltip)}"
        f'<line x1="{middle}" y1="{y + frame}" x2="{middle}" y2="{y + NAME_PIXELS}" style="{_STEM}"/>'
        f'<rect x="{x}" y="{y}" width="{COLUMN_PIXELS}" height="{frame}" rx="{frame // 2}" style="{style}"/>'
        f"{draw_text(middle, y + 14, label, FONT_PIXELS, f'{MONO};font-weight:600', anchor='middle')}</g>"
    )


def _draw_legend(graph: LayerGraph) -> str:
    kinds = [("read-only layer", PLAIN)]
    if any(graph.owners(diff_id) > 1 for diff_id in graph.layers):
        kinds.append(("layer of several images, stored once", _SHARED))
    if graph.containers:
        kinds.append(("writable layer of a container", _WRITABLE.replace("6 4", "3 2")))
    return svg_parts.draw_legend(kinds, _total(graph))


# -- measures ----------------------------------------------------------------------------------------------


def _column_x(number: int) -> int:
    return MARGIN_PIXELS + number * (COLUMN_PIXELS + GAP_PIXELS)


def _floor_pixels(levels: int) -> int:
    """Return the height of a stack of layers."""
    return levels * (BOX_PIXELS + STEP_PIXELS)


def _head_pixels(column: Column) -> int:
    if column.container is not None:
        return BOX_PIXELS + STEP_PIXELS + NAME_PIXELS
    return NAME_PIXELS * len(_shown_names(column.image))


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
