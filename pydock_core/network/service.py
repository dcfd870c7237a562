"""The network service (root): a fork server with pyroute2 loaded, one child per request.

Requests: ``{"op": "ensure", rules, mtu, needs_nft, record, admission?}``, answered by ``{weakness}``;
``{"op": "attach", container_id, interfaces}`` and ``{"op": "detach", container_id, address, routes}`` with the network
namespace's descriptor; ``{"op": "remove", rules}``; ``{"op": "ping"}``.  The objects are the fields of
:class:`~pydock_core.network.rules.BridgeRules`, :class:`~pydock_core.network.rules.Admission` and
:class:`~pydock_core.supervision.plan.Interface`.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from pydock_core.errors import InvalidError
from pydock_core.supervision import forkserver
from pydock_core.supervision.forkserver import ForkServer, Kind, Operation, Request

if TYPE_CHECKING:
    from pydock_core.network.rules import BridgeRules
    from pydock_core.supervision.plan import Interface

_WARM = ("pydock_core.network.bridge", "pydock_core.network.firewall")
"""Imported before the first request: pyroute2 takes 150 ms."""


def main(arguments: Mapping[str, Any]) -> NoReturn:
    """Start the service; standard input is the socket on which the starter waits."""
    ready = forkserver.take_ready()
    if os.fork():
        os._exit(0)
    code = 1
    try:
        forkserver.detach(ready.fileno())
        for name in _WARM:
            importlib.import_module(name)

        facts = {"pid": os.getpid(), "version": arguments["version"]}
        operations = {
            "ping": Operation(Kind.IMMEDIATE, lambda request: facts),
            "ensure": Operation(Kind.CALL, _ensure),
            "attach": Operation(Kind.CALL, _attach),
            "detach": Operation(Kind.CALL, _detach),
            "remove": Operation(Kind.CALL, _remove),
        }
        ForkServer(operations, arguments).serve(ready)
        code = 0
    except BaseException as error:  # noqa: BLE001 - reported to the starter, whatever it is
        forkserver.report_failure(ready, error)
    finally:
        sys.stderr.flush()
        os._exit(code)


def _text(request: Request, name: str) -> str:
    value = request.document.get(name)
    if not isinstance(value, str):
        raise InvalidError(f"the request lacks {name!r}")
    return value


def _rules(request: Request) -> BridgeRules:
    from pydock_core.network.rules import BridgeRules

    return BridgeRules(**request.document["rules"])


def _ensure(request: Request) -> Mapping[str, Any]:
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


def _remove(request: Request) -> None:
    from pydock_core.network import bridge, firewall

    rules = _rules(request)
    bridge.remove_bridge(rules.bridge)
    firewall.remove(rules)
