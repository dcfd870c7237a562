"""Publishes ports beyond loopback in the kernel, so that a container sees the addresses of its clients.

The forwarder (:mod:`pydock_core.supervision.ports`) listens in any case: its socket keeps the port, serves clients on the
host itself, and all clients where the kernel cannot translate.  What arrives from outside at a socket with a container's
mark is translated to the address of the interface that has the default route; replies of another one would take another way.
The mark is that interface's IPv4 address: a rule for an interface that is gone, or lost the route, matches no socket.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from pydock_core.errors import PyDockError
from pydock_core.supervision import network_namespace
from pydock_core.supervision.plan import Interface, LaunchPlan
from pydock_core.supervision.ports import Listener, is_outside

if TYPE_CHECKING:
    from pydock_core.supervision.protocol import PublishRequest


def publish(plan: LaunchPlan, interfaces: Sequence[Interface], listeners: Iterable[Listener]) -> None:
    """Have the kernel send what arrives at a container's ports to the interface that has the default route.

    Args:
        interfaces: of the container, now.

    A failure is written to the log: the forwarder serves the clients then, under an address of its own.
    """
    by_bridge: dict[str, list[dict[str, Any]]] = {}
    for listener in listeners:
        if not is_outside(listener.port):
            continue
        interface, target = _choose(interfaces, is_ipv6=":" in listener.port.host_ip)
        mark = _mark_of(interface) if target else 0
        try:
            listener.socket.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, struct.pack("=I", mark))
        except OSError as error:
            _report(plan, f"cannot mark a socket: {error.strerror}")
            return
        if interface is not None and target:
            publication = {
                "mark": mark,
                "protocol": listener.port.protocol,
                "host_port": listener.port.host_port,
                "container_port": listener.port.container_port,
                "target": target,
            }
            by_bridge.setdefault(interface.bridge, []).append(publication)
    for bridge, publications in by_bridge.items():
        request: PublishRequest = {"op": "publish", "bridge": bridge, "ports": publications}
        try:
            network_namespace.ask_service(plan.network_socket, request)
        except PyDockError as error:
            _report(plan, error.message)


def _choose(interfaces: Sequence[Interface], *, is_ipv6: bool) -> tuple[Interface | None, str]:
    """Return the interface with the default route of a family, and its address there, without prefix length; "" for none."""
    for interface in interfaces:
        if interface.gateway6 if is_ipv6 else interface.gateway:
            address = interface.address6 if is_ipv6 else interface.address
            return interface, address.partition("/")[0]
    return None, ""


def _mark_of(interface: Interface | None) -> int:
    address = "" if interface is None else interface.address.partition("/")[0]
    return int.from_bytes(socket.inet_aton(address), "big") if address else 0


def _report(plan: LaunchPlan, message: str) -> None:
    print(f"container {plan.container_id[:12]}: {message}", file=sys.stderr)
