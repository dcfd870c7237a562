"""Publishes ports beyond loopback in the kernel, so that a container sees the addresses of its clients.

The forwarder (:mod:`pydock_core.supervision.ports`) listens in any case: its socket reserves the port, serves clients on the
host itself, and all clients if the kernel cannot translate.  Packets from outside for a socket with a container's mark are
translated to the address of the interface with the default route; replies from another interface would take another route.
The mark is that interface's IPv4 address: a rule for an interface that is gone or has lost the route matches no socket.
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
    """Make the kernel translate a container's published ports to the interface with the default route.

    Args:
        interfaces: the container's current interfaces.

    A failure is only logged: the forwarder then serves the clients, from its own address.
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
    """Return the interface with a family's default route, and its address without prefix length; "" for none."""
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
