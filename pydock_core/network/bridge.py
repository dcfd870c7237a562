"""Makes bridges, and attaches network namespaces to them, with rtnetlink (pyroute2).

Runs in a process of its own per request (:mod:`pydock_core.network.service`): it changes its network
namespace, and pyroute2's synchronous classes do not work under a running event loop.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from pydock_core import syscalls
from pydock_core.errors import ConflictError, DeniedError, FailedError, NotFoundError, PyDockError
from pydock_core.network.addresses import mac_address_of
from pydock_core.network.link_settings import harden, harden_namespace
from pydock_core.network.rules import port_name

INTERFACE = "eth0"


@contextmanager
def _explained(subject: str) -> Iterator[None]:
    """Map netlink's errors to PyDockError by errno."""
    try:
        yield
    except NetlinkError as error:
        message = f"{subject}: {os.strerror(error.code)}"
        kinds: dict[int, type[PyDockError]] = {
            errno.EPERM: DeniedError,
            errno.EEXIST: ConflictError,
            errno.ENODEV: NotFoundError,
        }
        raise kinds.get(error.code, FailedError)(message, exit_code=125) from error


def ensure_bridge(name: str, gateway: str, protect: Callable[[], str]) -> str:
    """Make sure that a bridge device with this address is up; idempotent, also when called concurrently.

    Args:
        gateway: its address with prefix length.
        protect: puts its firewall rules in place; called before the device goes up.

    Returns:
        What ``protect`` returns.

    Raises:
        ConflictError: a device of this name is there that is not a bridge.
    """
    address, _, prefix = gateway.partition("/")
    with _explained(f"cannot make the bridge {name}"), IPRoute() as route:
        index = _index(route, name)
        if index is None:
            try:
                # A MAC address of its own: otherwise the bridge takes a port's, which changes as ports come and go.
                route.link("add", ifname=name, kind="bridge", address=mac_address_of(address))
            except NetlinkError as error:
                if error.code != errno.EEXIST:
                    raise
            index = _index(route, name)
        if index is None or _kind(route, index) != "bridge":
            raise ConflictError(f"the network device {name} is not a bridge", exit_code=125)
        try:
            route.addr("add", index=index, address=address, prefixlen=int(prefix))
        except NetlinkError as error:
            if error.code != errno.EEXIST:
                raise
        harden(name)  # every time: an earlier version made it without
        result = protect()
        route.link("set", index=index, state="up")
    return result


def remove_bridge(name: str) -> None:
    """Remove a bridge device, if it exists."""
    with _explained(f"cannot remove the bridge {name}"), IPRoute() as route:
        index = _index(route, name)
        if index is not None:
            route.link("del", index=index)


def attach(bridge: str, container_id: str, namespace_fd: int, address: str, gateway: str, mac: str) -> None:
    """Connect a network namespace to a bridge: a veth pair, of which one end becomes the namespace's eth0.

    The calling process stays in that namespace.  The pair disappears with the namespace.  The firewall admits
    its packets if the address was admitted (:func:`pydock_core.network.firewall.ensure`).

    Args:
        namespace_fd: of the network namespace.
        address: of eth0, with prefix length.
        gateway: of the default route, with or without prefix length.
        mac: of eth0; empty for the address's own (:func:`mac_address_of`).
    """
    host_name = port_name(address)
    own, _, prefix = address.partition("/")
    with _explained(f"cannot attach container {container_id[:12]} to {bridge}"):
        with IPRoute() as route:
            bridge_index = _index(route, bridge)
            if bridge_index is None:
                raise NotFoundError(f"the bridge {bridge} does not exist", exit_code=125)
            _remove_leftover(route, host_name, bridge, bridge_index)
            peer = {"ifname": INTERFACE, "net_ns_fd": namespace_fd, "address": mac or mac_address_of(own)}
            route.link("add", ifname=host_name, kind="veth", peer=peer)
            host_index = _index(route, host_name)
            try:
                harden(host_name)
                route.link("set", index=host_index, master=bridge_index, state="up")
            except (NetlinkError, FailedError):
                _remove_link(route, host_name)
                raise
        syscalls.setns(namespace_fd, syscalls.CLONE_NEWNET)
        harden_namespace()
        harden(INTERFACE)
        with IPRoute() as route:
            index = _index(route, INTERFACE)
            route.addr("add", index=index, address=own, prefixlen=int(prefix))
            route.link("set", index=index, state="up")
            route.route("add", dst="0.0.0.0/0", gateway=gateway.partition("/")[0], oif=index)


def _remove_leftover(route: IPRoute, name: str, bridge: str, bridge_index: int) -> None:
    """Remove the port of an earlier run that is still disappearing.

    Raises:
        ConflictError: a device of this name belongs to another bridge: ports are named after addresses.
    """
    index = _index(route, name)
    links: list[Any] = list(route.get_links(index)) if index is not None else []
    master = links[0].get_attr("IFLA_MASTER") if links else None
    if master not in (None, bridge_index):
        raise ConflictError(
            f"cannot connect a container to {bridge}: the device {name} is a port of another bridge",
            f"two bridges have the same subnet; compare them with `ip -br addr show type bridge`, "
            f"stop the containers of one of them, and remove it: ip link del {bridge}",
            exit_code=125,
        )
    if links:
        _remove_link(route, name)


def _remove_link(route: IPRoute, name: str) -> None:
    index = _index(route, name)
    if index is None:
        return
    try:
        route.link("del", index=index)
    except NetlinkError as error:
        if error.code != errno.ENODEV:
            raise


def _index(route: IPRoute, name: str) -> int | None:
    found = list(route.link_lookup(ifname=name))
    return int(found[0]) if found else None


def _kind(route: IPRoute, index: int) -> str:
    links: list[Any] = list(route.get_links(index))
    info = links[0].get_attr("IFLA_LINKINFO") if links else None
    return str(info.get_attr("IFLA_INFO_KIND")) if info is not None else ""
