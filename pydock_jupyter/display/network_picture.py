"""Draws a network graph as SVG or as text.  Pure.

The networks are rows, the containers columns.  A network is a box at the left and a line along its row, from which the
boxes of its containers' addresses hang.  A frame encloses a container and its addresses; published ports are below it.
"""

from __future__ import annotations

from html import escape

from pydock_jupyter.display import svg_parts
from pydock_jupyter.display.network_graph import Member, Network, NetworkGraph, Place
from pydock_jupyter.display.plain_text import one_line, shorten
from pydock_jupyter.display.svg_parts import (
    ACCENT,
    ACCENT_COLOUR,
    BOX_PIXELS,
    CALM_COLOUR,
    COLUMN_PIXELS,
    GAP_PIXELS,
    LINE_PIXELS,
    MARGIN_PIXELS,
    MONO,
    SMALL_PIXELS,
    WARM_COLOUR,
    draw_box,
    draw_text,
    draw_tooltip,
    fitting_columns,
)

NETWORK_PIXELS = BOX_PIXELS + LINE_PIXELS
ROW_PIXELS = NETWORK_PIXELS + GAP_PIXELS
PLACE_PIXELS = LINE_PIXELS
"""The distance of an address's box from the top of its row."""
SWITCH_PIXELS = 6
"""The distance of a network's line from the top of its row."""
FRAME_PIXELS = 4
"""The distance of a container's frame from the boxes in it."""
PORT_PIXELS = 22
PORT_GAP_PIXELS = 6
_INTERNAL = f"fill:{WARM_COLOUR};fill-opacity:.10;stroke:{WARM_COLOUR};stroke-width:1.5;stroke-dasharray:6 4"
_PLACE = f"fill:none;stroke:{ACCENT_COLOUR};stroke-width:1.5"
_INTERNAL_PLACE = f"fill:none;stroke:{WARM_COLOUR};stroke-width:1.5"
_CONTAINER = "fill:currentColor;fill-opacity:.16;stroke:currentColor;stroke-opacity:.7"
_FRAME = "fill:currentColor;fill-opacity:.03;stroke:currentColor;stroke-opacity:.35"
_PORT = f"fill:{CALM_COLOUR};fill-opacity:.17;stroke:{CALM_COLOUR}"
_NO_ADDRESS = {"host": "the host's addresses", "null": "loopback only"}
_NOTHING = "No network has a running container."


def draw_svg(graph: NetworkGraph) -> str:
    """Return the diagram as an "svg" element.

    Long text ends in an ellipsis and is complete in a tooltip.  A title and a description serve screen readers.
    """
    floor = _row_y(len(graph.networks))
    most = max((len(member.ports) for member in graph.members), default=0)
    width = 2 * MARGIN_PIXELS + (len(graph.members) + 1) * (COLUMN_PIXELS + GAP_PIXELS) - GAP_PIXELS
    height = floor + MARGIN_PIXELS
    if graph.members:
        height += BOX_PIXELS + FRAME_PIXELS + most * (PORT_PIXELS + PORT_GAP_PIXELS)
    parts = [_draw_frame(graph, column, floor) for column in range(len(graph.members))]
    for row, network in enumerate(graph.networks):
        parts += [_draw_switch(graph, network, _row_y(row)), _draw_network(network, _row_y(row))]
        for column, member in enumerate(graph.members):
            place = graph.place(member, network)
            if place is not None:
                parts.append(_draw_place(place, network, _column_x(column + 1), _row_y(row) + PLACE_PIXELS))
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
    if graph.members:
        kinds += [("address and names", _PLACE), ("container", _CONTAINER)]
    if any(member.ports for member in graph.members):
        kinds.append(("published port", _PORT))
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


def _draw_frame(graph: NetworkGraph, column: int, floor: int) -> str:
    """Draw the frame around a container and its addresses."""
    member = graph.members[column]
    rows = [row for row, network in enumerate(graph.networks) if graph.place(member, network)]
    if not rows:
        return ""
    x, y = _column_x(column + 1) - FRAME_PIXELS, _row_y(rows[0]) + PLACE_PIXELS - FRAME_PIXELS
    return (
        f'<rect x="{x}" y="{y}" width="{COLUMN_PIXELS + 2 * FRAME_PIXELS}" '
        f'height="{floor + BOX_PIXELS + FRAME_PIXELS - y}" rx="6" style="{_FRAME}"/>'
    )


def _draw_switch(graph: NetworkGraph, network: Network, y: int) -> str:
    """Draw a network's line, and down from it a line with a dot to each address."""
    columns = [column for column, member in enumerate(graph.members) if graph.place(member, network)]
    if not columns:
        return ""
    middles = [_column_x(column + 1) + COLUMN_PIXELS // 2 for column in columns]
    colour = WARM_COLOUR if network.is_internal else ACCENT_COLOUR
    level = y + SWITCH_PIXELS
    parts = [_draw_line(_column_x(0) + COLUMN_PIXELS, level, middles[-1], level, colour)]
    for x in middles:
        parts.append(_draw_line(x, level, x, y + PLACE_PIXELS, colour))
        parts.append(f'<circle cx="{x}" cy="{level}" r="3" style="fill:{colour}"/>')
    return "".join(parts)


def _draw_line(x1: int, y1: int, x2: int, y2: int, colour: str) -> str:
    return f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" style="stroke:{colour};stroke-width:2"/>'


def _draw_network(network: Network, y: int) -> str:
    if network.subnets:
        subnet, gateway = network.subnets[0]
        words = [subnet, f"gateway {gateway}" if gateway else "no connection outside"]
    else:
        words = [_details(network), ""]
    return draw_box(
        _column_x(0),
        y,
        COLUMN_PIXELS,
        style=_INTERNAL if network.is_internal else ACCENT,
        head=network.name,
        note="internal" if network.is_internal else "network",
        words=words,
        tooltip=[
            f"network {network.name}",
            f"driver {network.driver}",
            *(f"{subnet}, gateway {gateway}" if gateway else subnet for subnet, gateway in network.subnets),
        ],
    )


def _draw_place(place: Place, network: Network, x: int, y: int) -> str:
    return draw_box(
        x,
        y,
        COLUMN_PIXELS,
        style=_INTERNAL_PLACE if network.is_internal else _PLACE,
        head=place.addresses[0] if place.addresses else _NO_ADDRESS.get(network.driver, "no address"),
        words=[", ".join(place.names) if place.names else "no name service"],
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
            words=[words],
            tooltip=[f"container {member.name} ({member.state})", member.image, words, *member.ports],
        )
    ]
    top = y + BOX_PIXELS + FRAME_PIXELS + PORT_GAP_PIXELS
    for number, port in enumerate(member.ports):
        parts.append(_draw_port(port, x, top + number * (PORT_PIXELS + PORT_GAP_PIXELS)))
    return "".join(parts)


def _draw_port(port: str, x: int, y: int) -> str:
    label = shorten(port, fitting_columns(COLUMN_PIXELS, SMALL_PIXELS), keep_end=True)
    middle = x + COLUMN_PIXELS // 2
    return (
        f"<g>{draw_tooltip([port])}"
        f'<rect x="{x}" y="{y}" width="{COLUMN_PIXELS}" height="{PORT_PIXELS}" rx="{PORT_PIXELS // 2}" style="{_PORT}"/>'
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
