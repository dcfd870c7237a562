"""Reads networks and running containers for a diagram."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

from pydock_core.errors import NotFoundError
from pydock_jupyter.display import network_picture
from pydock_jupyter.display.argument import check_text
from pydock_jupyter.display.network_graph import Member, Network, NetworkGraph, Place

if TYPE_CHECKING:
    from pydock_core.engine import EngineProtocol


class NetworksView:
    """The result of :func:`pydock_jupyter.network_graph`: a diagram in a notebook, text elsewhere."""

    def __init__(self, graph: NetworkGraph) -> None:
        self.graph = graph

    def svg(self) -> str:
        """Return the diagram as an "svg" element."""
        return network_picture.draw_svg(self.graph)

    def __repr__(self) -> str:
        return network_picture.describe(self.graph)

    def _repr_html_(self) -> str:
        return network_picture.draw_html(self.graph)


def see_networks(names: Sequence[str]) -> NetworksView:
    """See :func:`pydock_jupyter.network_graph`."""
    from pydock_core.engine import Engine

    for name in names:
        check_text(name, "name")
    with closing(Engine()) as engine:
        return NetworksView(read_networks(engine, names))


def read_networks(engine: EngineProtocol, names: Sequence[str]) -> NetworkGraph:
    """Return networks and their running containers.

    Args:
        names: names of networks; if empty, all user-defined ones and those with a running container.

    Raises:
        NotFoundError: there is no such network.
    """
    chosen = {engine.networks.name(name) for name in names}
    members = []
    for summary in reversed(engine.containers.list()):  # the oldest first
        with suppress(NotFoundError):  # removed just now
            members.append(_read_member(engine, engine.containers.inspect(summary["Id"])))
    if chosen:
        members = [member for member in members if chosen & {place.network for place in member.places}]
    used = {place.network for member in members for place in member.places}
    documents = [
        document
        for document in engine.networks.list()
        if (document["Name"] in chosen if chosen else document["Name"] in used or _is_made(document))
    ]
    return NetworkGraph(
        tuple(sorted(map(_read_network, documents), key=lambda network: (network.driver, network.name))),
        tuple(members),
    )


def _is_made(document: dict[str, Any]) -> bool:
    return document["Name"] not in ("bridge", "host", "none")


def _read_network(document: dict[str, Any]) -> Network:
    subnets = tuple(
        (str(config["Subnet"]), "" if document["Internal"] else str(config.get("Gateway", "")))
        for config in document["IPAM"]["Config"]
    )
    return Network(document["Name"], document["Driver"], subnets, document["Internal"])


def _read_member(engine: EngineProtocol, document: dict[str, Any]) -> Member:
    settings, short = document["NetworkSettings"], document["Id"][:12]
    places = tuple(
        Place(
            network,
            tuple(text for text in (endpoint["IPAddress"], endpoint["GlobalIPv6Address"]) if text),
            tuple(name for name in endpoint["DNSNames"] or () if name != short),
        )
        for network, endpoint in settings["Networks"].items()
    )
    mode, _, reference = document["HostConfig"]["NetworkMode"].partition(":")
    shares = ""
    if mode == "container":
        shares = reference[:12]
        with suppress(NotFoundError):
            shares = engine.containers.name(reference)
    ports = tuple(
        f"{_host(binding['HostIp'])}:{binding['HostPort']} → {port}"
        for port, bindings in settings["Ports"].items()
        for binding in bindings or ()
    )
    state = document["State"]["Status"]
    return Member(
        document["Name"].removeprefix("/"), state, document["Config"]["Image"], places, ports, shares
    )


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address or "0.0.0.0"
