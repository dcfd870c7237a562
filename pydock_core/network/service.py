"""The network service: a fork server with pyroute2 loaded, one child per request.

An ordinary user's service is root of the zygote's user namespace.  Its children enter the network namespace that the user's
containers share; the first request that needs that namespace creates it (:mod:`pydock_core.network.user_bridges`).

Its requests are EnsureRequest, PlugRequest and UnplugRequest (with the network namespace's descriptor), PublishRequest,
RemoveRequest, PresenceRequest and PingRequest of :mod:`pydock_core.supervision.protocol`.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from pydock_core.errors import InvalidError
from pydock_core.supervision import forkserver
from pydock_core.supervision.forkserver import Kind, Operation, Request

if TYPE_CHECKING:
    from pydock_core.network.rules import BridgeRules
    from pydock_core.supervision.plan import Interface
    from pydock_core.supervision.protocol import EnsureReply, PresenceReply

_WARM = ("pydock_core.network.bridge", "pydock_core.network.firewall")
"""Imported before the first request: pyroute2 takes 150 ms."""


def main(arguments: Mapping[str, Any]) -> NoReturn:
    """Start the service; standard input is the socket on which the starter waits."""
    forkserver.fork_and_serve(arguments, lambda: _build_operations(arguments))


def _build_operations(arguments: Mapping[str, Any]) -> Mapping[str, Operation]:
    bridges = None
    if os.geteuid() != 0:
        from pydock_core.network.user_bridges import UserBridges

        bridges = UserBridges(Path(arguments["socket_path"]).parent)
    for name in _WARM:
        importlib.import_module(name)
    operations = {
        "ping": forkserver.answer_ping({"pid": os.getpid(), "version": arguments["version"]}),
        "ensure": Operation(Kind.CALL, _ensure),
        "attach": Operation(Kind.CALL, _attach),
        "detach": Operation(Kind.CALL, _detach),
        "publish": Operation(Kind.CALL, _publish),
        "remove": Operation(Kind.CALL, _remove),
        "presence": Operation(Kind.CALL, _presence),
    }
    return operations if bridges is None else bridges.wrap(operations)


def _text(request: Request, name: str) -> str:
    value = request.document.get(name)
    if not isinstance(value, str):
        raise InvalidError(f"the request lacks {name!r}")
    return value


def _rules(request: Request) -> BridgeRules:
    from pydock_core.network.rules import BridgeRules

    return BridgeRules(**request.document["rules"])


def _ensure(request: Request) -> EnsureReply:
    from pydock_core.network import bridge, firewall
    from pydock_core.network.rules import Admission

    given = request.document
    document = given.get("admission")
    admission = None
    if document is not None:
        admission = Admission(**{**document, "resolvers": tuple(document["resolvers"])})
    rules = _rules(request)
    record = Path(given["record"]) if given["record"] else None
    weakness = bridge.ensure_bridge(
        rules.bridge,
        rules.own_addresses,
        int(given["mtu"]),
        lambda: firewall.ensure(rules, admission, record, needs_nft=bool(given["needs_nft"])),
    )
    return {"weakness": weakness}


def _interfaces(request: Request, field: str) -> list[Interface]:
    from pydock_core.supervision.plan import Interface

    if len(request.fds) != 1:
        raise InvalidError("the request needs the descriptor of a network namespace")
    return [Interface.from_json(document) for document in request.document[field]]


def _attach(request: Request) -> None:
    from pydock_core.network import bridge

    interfaces = _interfaces(request, "interfaces")
    bridge.attach(_text(request, "container_id"), request.fds[0], interfaces)


def _detach(request: Request) -> None:
    from pydock_core.network import bridge

    routes = _interfaces(request, "routes")
    bridge.detach(_text(request, "container_id"), request.fds[0], _text(request, "address"), routes)


def _publish(request: Request) -> None:
    from pydock_core.network import firewall
    from pydock_core.network.port_rules import Publication
    from pydock_core.network.rules import BridgeRules

    # The subnet is not needed: the table's name follows from the bridge's.
    rules = BridgeRules(_text(request, "bridge"), "")
    firewall.publish(rules, [Publication(**document) for document in request.document["ports"]])


def _remove(request: Request) -> None:
    from pydock_core.network import bridge, firewall

    rules = _rules(request)
    bridge.remove_bridge(rules.bridge)
    firewall.remove(rules)


def _presence(_request: Request) -> PresenceReply:
    from pydock_core.network.presence import read_presence

    found = read_presence()
    return {"devices": dict(found.devices), "tables": sorted(found.tables)}
