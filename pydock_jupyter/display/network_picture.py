"""Draws a network graph as SVG or as text.  Pure.

The networks are rows, the containers columns.  A box at their intersection has the container's address and names on the
network; a line joins it with the network to the left and the container below.  Published ports are under the container.
"""

from __future__ import annotations

from html import escape

from pydock_jupyter.display import svg_parts
from pydock_jupyter.display.network_graph import Member, Network, NetworkGraph, Place
from pydock_jupyter.display.plain_text import one_line, shorten
from pydock_jupyter.display.svg_parts import (
    ACCENT,
    BOX_PIXELS,
    COLUMN_PIXELS,
    GAP_PIXELS,
    MARGIN_PIXELS,
    MONO,
    PLAIN,
    SMALL_PIXELS,
    WARM_COLOUR,
    draw_box,
    draw_text,
    draw_tooltip,
    fitting_columns,
)

ROW_PIXELS = BOX_PIXELS + 2 * GAP_PIXELS
PORT_PIXELS = 22
PORT_GAP_PIXELS = 6
_INTERNAL = f"fill:{WARM_COLOUR};fill-opacity:.10;stroke:{WARM_COLOUR};stroke-width:1.5;stroke-dasharray:6 4"
_CONTAINER = "fill:currentColor;fill-opacity:.04;stroke:currentColor;stroke-opacity:.7"
_LINE = "stroke:currentColor;stroke-opacity:.5;fill:none"
_NO_ADDRESS = {"host": "the host's addresses", "null": "loopback only"}
_NOTHING = "No network has a running container."


def draw_svg(graph: NetworkGraph) -> str:
    """Return the diagram as an "svg" element.

    Long text ends in an ellipsis and is complete in a tooltip.  A title and a description serve screen readers.
    """
    floor = MARGIN_PIXELS + len(graph.networks) * ROW_PIXELS
    most = max((len(member.ports) for member in graph.members), default=0)
    width = 2 * MARGIN_PIXELS + (len(graph.members) + 1) * (COLUMN_PIXELS + GAP_PIXELS) - GAP_PIXELS
    height = floor + MARGIN_PIXELS
    if graph.members:
        height += BOX_PIXELS + most * (PORT_PIXELS + PORT_GAP_PIXELS)
    parts = [_draw_lines(graph, floor)]
    for row, network in enumerate(graph.networks):
        parts.append(_draw_network(network, _row_y(row)))
        for column, member in enumerate(graph.members):
            place = graph.place(member, network)
            if place is not None:
                parts.append(_draw_place(place, network, _column_x(column + 1), _row_y(row)))
    parts += [
        _draw_member(member, _column_x(column + 1), floor) for column, member in enumerate(graph.members)
    ]
    names = ", ".join(one_line(network.name) for network in graph.networks)
    return svg_parts.draw_picture(
        "networks", width, height, f"Networks: {names or 'none'}", describe(graph), "".join(parts)
    )


def draw_html(graph: NetworkGraph) -> str:
    """Return the diagram, scrollable if it is too wide, with a legend."""
    if not graph.networks and not graph.members:
        return f'<div style="{svg_parts.PAGE_COLOUR}">{escape(_NOTHING)}</div>'
    kinds = [("network", ACCENT)]
    if any(network.is_internal for network in graph.networks):
        kinds.append(("internal network", _INTERNAL.replace("6 4", "3 2")))
    kinds += [("address and names on it", PLAIN), ("container", _CONTAINER)]
    legend = svg_parts.draw_legend(kinds, _total(graph))
    return f'<div style="overflow-x:auto">{draw_svg(graph)}{legend}</div>'


def describe(graph: NetworkGraph) -> str:
    """Return the graph as text: each network with its containers, their addresses and names, and then the ports."""
    lines = []
    for network in graph.networks:
        lines.append(f"network {one_line(network.name)}  {_details(network)}")
        for member in graph.on(network):
            place = graph.place(member, network)
            assert place is not None
            names = f"  answers to {', '.join(map(one_line, place.names))}" if place.names else ""
            lines.append(
                f"  {one_line(member.name)} ({member.state})  {', '.join(place.addresses)}{names}".rstrip()
            )
    for member in graph.members:
        if member.shares:
            lines.append(f"container {one_line(member.name)} has the network of {one_line(member.shares)}")
        lines += [f"port {port} of {one_line(member.name)}" for port in member.ports]
    return "\n".join(lines) or _NOTHING


# -- the parts of the diagram ------------------------------------------------------------------------------


def _draw_lines(graph: NetworkGraph, floor: int) -> str:
    """Draw the lines behind the boxes: a network's to its last container, a container's up to its first network."""
    parts = []
    for row, network in enumerate(graph.networks):
        columns = [column for column, member in enumerate(graph.members) if graph.place(member, network)]
        y = _row_y(row) + BOX_PIXELS // 2
        # Between the boxes only: they are translucent.
        for left, column in zip([-1, *columns], columns, strict=False):
            parts.append(_line(_column_x(left + 1) + COLUMN_PIXELS, y, _column_x(column + 1), y))
    for column, member in enumerate(graph.members):
        rows = [row for row, network in enumerate(graph.networks) if graph.place(member, network)]
        x = _column_x(column + 1) + COLUMN_PIXELS // 2
        for row, below in zip(rows, [*rows[1:], None], strict=False):
            end = floor if below is None else _row_y(below)
            parts.append(_line(x, _row_y(row) + BOX_PIXELS, x, end))
    return "".join(parts)


def _line(x1: int, y1: int, x2: int, y2: int) -> str:
    return f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" style="{_LINE}"/>'


def _draw_network(network: Network, y: int) -> str:
    subnet = network.subnets[0][0] if network.subnets else _details(network)
    return draw_box(
        _column_x(0),
        y,
        COLUMN_PIXELS,
        style=_INTERNAL if network.is_internal else ACCENT,
        head=network.name,
        note="internal" if network.is_internal else "network",
        words=subnet,
        tooltip=[
            f"network {network.name}",
            f"driver {network.driver}",
            *(f"{subnet}, gateway {gateway or 'none'}" for subnet, gateway in network.subnets),
        ],
    )


def _draw_place(place: Place, network: Network, x: int, y: int) -> str:
    return draw_box(
        x,
        y,
        COLUMN_PIXELS,
        style=PLAIN,
        head=place.addresses[0] if place.addresses else _NO_ADDRESS.get(network.driver, "no address"),
        words=", ".join(place.names) if place.names else "no name service",
        tooltip=[*place.addresses, *place.names],
    )


def _draw_member(member: Member, x: int, y: int) -> str:
    words = f"network of {member.shares}" if member.shares else member.image
    parts = [
        draw_box(
            x,
            y,
            COLUMN_PIXELS,
            style=_CONTAINER,
            head=member.name,
            note=member.state,
            words=words,
            tooltip=[f"container {member.name} ({member.state})", member.image, words, *member.ports],
        )
    ]
    top = y + BOX_PIXELS + PORT_GAP_PIXELS
    for number, port in enumerate(member.ports):
        parts.append(_draw_port(port, x, top + number * (PORT_PIXELS + PORT_GAP_PIXELS)))
    return "".join(parts)


def _draw_port(port: str, x: int, y: int) -> str:
    label = shorten(port, fitting_columns(COLUMN_PIXELS, SMALL_PIXELS), keep_end=True)
    middle = x + COLUMN_PIXELS // 2
    return (
        f"<g>{draw_tooltip([port])}"
        f'<rect x="{x}" y="{y}" width="{COLUMN_PIXELS}" height="{PORT_PIXELS}" rx="{PORT_PIXELS // 2}" style="{ACCENT}"/>'
        f"{draw_text(middle, y + 15, label, SMALL_PIXELS, MONO, anchor='middle')}</g>"
    )


# -- words and measures ------------------------------------------------------------------------------------


def _details(network: Network) -> str:
    if network.driver == "host":
        return "the host's own"
    if network.driver == "null":
        return "loopback only"
    words = [f"{subnet} gateway {gateway}" if gateway else subnet for subnet, gateway in network.subnets]
    return ", ".join((network.driver, *words)) + (" (internal)" if network.is_internal else "")


def _total(graph: NetworkGraph) -> str:
    networks, members = len(graph.networks), len(graph.members)
    return (
        f"{networks} network{'' if networks == 1 else 's'}, "
        f"{members} running container{'' if members == 1 else 's'}"
    )


def _column_x(number: int) -> int:
    return MARGIN_PIXELS + number * (COLUMN_PIXELS + GAP_PIXELS)


def _row_y(number: int) -> int:
    return MARGIN_PIXELS + number * ROW_PIXELS
