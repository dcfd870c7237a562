"""The network service (root): a fork server with pyroute2 loaded, one child per request.

Its requests are EnsureRequest, PlugRequest (with the network namespace's descriptor), RemoveRequest and PingRequest of
:mod:`pydock_core.supervision.protocol`.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from pydock_core.errors import InvalidError
from pydock_core.supervision import forkserver
from pydock_core.supervision.forkserver import Kind, Operation, Request

if TYPE_CHECKING:
    from pydock_core.network.rules import BridgeRules
    from pydock_core.supervision.protocol import EnsureReply

_WARM = ("pydock_core.network.bridge", "pydock_core.network.firewall")
"""Imported before the first request: pyroute2 takes 150 ms."""


def main(arguments: Mapping[str, Any]) -> NoReturn:
    """Start the service; standard input is the socket on which the starter waits."""
    forkserver.fork_and_serve(arguments, lambda: _build_operations(arguments))


def _build_operations(arguments: Mapping[str, Any]) -> Mapping[str, Operation]:
    for name in _WARM:
        importlib.import_module(name)
    return {
        "ping": forkserver.answer_ping({"pid": os.getpid(), "version": arguments["version"]}),
        "ensure": Operation(Kind.CALL, _ensure),
        "attach": Operation(Kind.CALL, _attach),
        "remove": Operation(Kind.CALL, _remove),
    }


def _text(request: Request, name: str) -> str:
    value = request.document.get(name)
    if not isinstance(value, str):
        raise InvalidError(f"the request lacks {name!r}")
    return value


def _rules(request: Request) -> BridgeRules:
    from pydock_core.network.rules import BridgeRules

    return BridgeRules(_text(request, "bridge"), _text(request, "subnet"))


def _ensure(request: Request) -> EnsureReply:
    from pydock_core.network import bridge, firewall
    from pydock_core.network.rules import Admission

    document = request.document.get("admission")
    admission = None
    if document is not None:
        admission = Admission(document["address"], document["access"], tuple(document["resolvers"]))
    rules = _rules(request)
    weakness = bridge.ensure_bridge(
        rules.bridge, _text(request, "gateway"), lambda: firewall.ensure(rules, admission)
    )
    return {"weakness": weakness}


def _attach(request: Request) -> None:
    from pydock_core.network import bridge

    if len(request.fds) != 1:
        raise InvalidError("attach needs the descriptor of a network namespace")
    bridge.attach(
        _text(request, "bridge"),
        _text(request, "container_id"),
        request.fds[0],
        _text(request, "address"),
        _text(request, "gateway"),
        _text(request, "mac_address"),
    )


def _remove(request: Request) -> None:
    from pydock_core.network import bridge, firewall

    bridge.remove_bridge(_text(request, "bridge"))
    firewall.remove(_rules(request))
