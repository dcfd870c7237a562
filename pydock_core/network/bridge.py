"""Makes bridges, and attaches network namespaces to them, with rtnetlink (pyroute2).

Runs in a process of its own per request (:mod:`pydock_core.network.service`): it changes its network
namespace, and pyroute2's synchronous classes do not work under a running event loop.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from pydock_core import syscalls
from pydock_core.errors import ConflictError, DeniedError, FailedError, NotFoundError, PyDockError
from pydock_core.network.addresses import mac_address_of
from pydock_core.network.link_settings import harden, harden_namespace
from pydock_core.network.rules import port_name
from pydock_core.supervision.plan import Interface

_IFA_F_NODAD = 0x02  # linux/if_addr.h


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


def ensure_bridge(name: str, addresses: Sequence[str], mtu: int, protect: Callable[[], str]) -> str:
    """Make sure that a bridge device with these addresses is up; idempotent, also when called concurrently.

    Args:
        addresses: the bridge's addresses, with prefix length; the first one is an IPv4 address.
        mtu: in bytes; 0 for the kernel's default.
        protect: installs its firewall rules; called before the device goes up.

    Returns:
        What ``protect`` returns.

    Raises:
        ConflictError: another kind of device has this name.
    """
    with _explained(f"cannot make the bridge {name}"), IPRoute() as route:
        index = _index(route, name)
        if index is None:
            try:
                # A MAC address of its own: otherwise the bridge takes a port's, which changes as ports come and go.
                hardware = mac_address_of(addresses[0])
                route.link("add", ifname=name, kind="bridge", address=hardware, **_sizes(mtu))
            except NetlinkError as error:
                if error.code != errno.EEXIST:
                    raise
            index = _index(route, name)
        if index is None or _kind(route, index) != "bridge":
            raise ConflictError(f"the network device {name} is not a bridge", exit_code=125)
        harden(name, ipv6=len(addresses) > 1)  # every time: an earlier version did not do it
        _add_addresses(route, index, addresses)
        result = protect()
        route.link("set", index=index, state="up")
    return result


def _sizes(mtu: int) -> dict[str, int]:
    return {"mtu": mtu} if mtu else {}


def _add_addresses(route: IPRoute, index: int, addresses: Iterable[str]) -> None:
    """Add missing addresses; skip duplicate address detection for IPv6, because a start would wait for it."""
    for text in addresses:
        address, _, prefix = text.partition("/")
        options = {"flags": _IFA_F_NODAD} if ":" in address else {}
        try:
            route.addr("add", index=index, address=address, prefixlen=int(prefix), **options)
        except NetlinkError as error:
            if error.code != errno.EEXIST:
                raise


def remove_bridge(name: str) -> None:
    """Remove a bridge device, if it exists."""
    with _explained(f"cannot remove the bridge {name}"), IPRoute() as route:
        index = _index(route, name)
        if index is not None:
            route.link("del", index=index)


def attach(container_id: str, namespace_fd: int, interfaces: Sequence[Interface]) -> None:
    """Connect a network namespace to bridges by veth pairs, whose far ends become its interfaces.

    The calling process stays in that namespace.  The pairs disappear with the namespace.  The firewall admits
    their packets if the addresses were admitted (:func:`pydock_core.network.firewall.ensure`).

    Args:
        namespace_fd: descriptor of the network namespace.
        interfaces: interfaces in the order of creation.

    Postcondition: all interfaces are attached; none on an error.
    """
    with _explained(f"cannot attach container {container_id[:12]}"), IPRoute() as route:
        made: list[str] = []
        try:
            for interface in interfaces:
                _make_pair(route, namespace_fd, interface)
                made.append(port_name(interface.address))
            _configure(namespace_fd, interfaces)
        except (NetlinkError, FailedError, ConflictError, NotFoundError):
            for name in made:  # its socket belongs to the namespace that it was made in
                _remove_link(route, name)
            raise


def _make_pair(route: IPRoute, namespace_fd: int, interface: Interface) -> None:
    """Make one veth pair and plug its near end into the bridge."""
    host_name = port_name(interface.address)
    bridge_index = _index(route, interface.bridge)
    if bridge_index is None:
        raise NotFoundError(f"the bridge {interface.bridge} does not exist", exit_code=125)
    _remove_leftover(route, host_name, interface.bridge, bridge_index)
    hardware = interface.mac_address or mac_address_of(interface.address)
    sizes = _sizes(interface.mtu)
    peer = {"ifname": interface.device, "net_ns_fd": namespace_fd, "address": hardware, **sizes}
    route.link("add", ifname=host_name, kind="veth", peer=peer, **sizes)
    host_index = _index(route, host_name)
    try:
        harden(host_name)
        route.link("set", index=host_index, master=bridge_index)
        if interface.is_isolated:
            route.brport("set", index=host_index, isolated=1)
        route.link("set", index=host_index, state="up")
    except (NetlinkError, FailedError):
        _remove_link(route, host_name)
        raise


def _configure(namespace_fd: int, interfaces: Sequence[Interface]) -> None:
    """Enter the namespace for good, and give the far ends their addresses and routes."""
    syscalls.setns(namespace_fd, syscalls.CLONE_NEWNET)
    harden_namespace()
    with IPRoute() as inside:
        for interface in interfaces:
            harden(interface.device, ipv6=bool(interface.address6))
            index = _index(inside, interface.device)
            _add_addresses(
                inside, _present(index, interface), filter(None, (interface.address, interface.address6))
            )
            inside.link("set", index=index, state="up")
        for interface in interfaces:
            _set_routes(inside, interface)


def _present(index: int | None, interface: Interface) -> int:
    if index is None:
        raise FailedError(f"the interface {interface.device} is gone", exit_code=125)
    return index


def _set_routes(route: IPRoute, interface: Interface) -> None:
    """Set the default routes of an interface's gateways."""
    index = _index(route, interface.device)
    for gateway, everywhere in ((interface.gateway, "0.0.0.0/0"), (interface.gateway6, "::/0")):
        if gateway:
            route.route("replace", dst=everywhere, gateway=gateway.partition("/")[0], oif=index)


def detach(container_id: str, namespace_fd: int, address: str, routes: Sequence[Interface]) -> None:
    """Remove the port of an address, and with it the interface; idempotent.

    The calling process stays in the container's namespace.

    Args:
        address: the container's address on the bridge.
        routes: the interfaces of the new default routes.
    """
    with _explained(f"cannot detach container {container_id[:12]}"):
        with IPRoute() as route:
            _remove_link(route, port_name(address))
        syscalls.setns(namespace_fd, syscalls.CLONE_NEWNET)
        with IPRoute() as inside:
            for interface in routes:
                _set_routes(inside, interface)


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
