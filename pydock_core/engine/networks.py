"""Chooses networks and addresses, which the network service then sets up."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pydock_core.errors import ConflictError, UnavailableError
from pydock_core.network.addresses import (
    DEFAULT_CANDIDATES,
    gateway_of,
    host_routes,
    is_shadowed,
    mac_address_of,
    pick_address,
    pick_subnet,
)
from pydock_core.network.client import NetworkService
from pydock_core.network.rules import NO_NFT, Admission, host_access
from pydock_core.paths import StateRoot
from pydock_core.private_files import make_private
from pydock_core.runtime.record_file import write_whole
from pydock_core.store.database import Database
from pydock_core.store.database import networks as table
from pydock_core.supervision.container_status import derive_status
from pydock_core.supervision.plan import NetworkAttachment

DEFAULT_NETWORK = "bridge"
DEFAULT_BRIDGE = "pydock0"
_HOST_LOCK = Path("/run/pydock/subnet.lock")
"""Of the host, not of a state root: the subnets of all roots' bridges must differ."""


class Networks:
    """Addresses of containers on the default bridge."""

    def __init__(self, root: StateRoot, database: Database) -> None:
        self._root = root
        self._database = database

    def attach(self, container_id: str, *, resolvers: Sequence[str], to_gateway: bool) -> NetworkAttachment:
        """Give a container an address on the default bridge.

        Args:
            resolvers: the container's IPv4 name servers.
            to_gateway: it may reach the bridge's own address.

        Raises:
            ConflictError: all addresses are taken.
            InvalidError: see :func:`pydock_core.network.rules.host_access`.
        """
        access = host_access(os.environ)
        if access == "none" and to_gateway:
            access = "gateway"
        bridge = self._bridge_name()
        with ExitStack() as held:
            # Check for the device before reading the row: an existing bridge has the subnet of its row.
            network = table.find(self._database, DEFAULT_NETWORK) if _is_device(bridge) else None
            if network is None:
                held.enter_context(_host_lock())
                network = self._with_free_subnet(bridge)
            address = table.claim_address(
                self._database, network.name, lambda taken: pick_address(network.subnet, taken), container_id
            )
            weakness = NetworkService(self._root).ensure(
                network.bridge,
                network.subnet,
                gateway_of(network.subnet),
                Admission(address.partition("/")[0], access, tuple(resolvers)),
            )
        if weakness != self._recorded_weakness():
            write_whole(self._weakness_file, weakness.encode())
        return NetworkAttachment(
            mode="bridge",
            bridge=network.bridge,
            address=address,
            gateway=gateway_of(network.subnet),
            mac_address=mac_address_of(address),
        )

    def _with_free_subnet(self, bridge: str) -> table.NetworkRow:
        """Return the network with a subnet that no other device has; the caller holds the host's lock.

        The recorded subnet can be taken while the bridge is absent: a reboot removes it, and another root chooses.
        No container is connected to an absent bridge, so all may get new addresses at their next start.
        """
        network = table.ensure(self._database, DEFAULT_NETWORK, bridge, _free_subnet)
        if not _is_device(bridge) and is_shadowed(network.subnet, host_routes()):
            NetworkService(self._root).remove(
                bridge, network.subnet
            )  # rules that a bridge deleted by hand left
            network = table.renumber(self._database, network, _free_subnet())
        return network

    def weakness(self) -> str:
        """Return the reason, known before a start, why containers of the bridge can impersonate each other; "" if none is."""
        if not shutil.which("nft"):
            return NO_NFT
        recorded = self._recorded_weakness()
        return "" if recorded == NO_NFT else recorded  # nft was installed after the last start

    @property
    def _weakness_file(self) -> Path:
        return self._root.network_socket().with_suffix(".weakness")

    def _recorded_weakness(self) -> str:
        try:
            return self._weakness_file.read_text()
        except FileNotFoundError:
            return ""

    def join(self, container_id: str, reference: str) -> NetworkAttachment:
        """Join the network of another, running container.

        Raises:
            ConflictError: it is not running.
        """
        status = derive_status(self._root.container(container_id))
        if not status.is_running:
            raise ConflictError(
                f"cannot join the network of container {reference}: it is not running",
                f"start it: dock start {reference}",
                exit_code=125,
            )
        return NetworkAttachment(mode="container", namespace_path=f"/proc/{status.pid}/ns/net")

    def address(self, container_id: str) -> str:
        """Return a container's address, with prefix length; "" for none."""
        return table.address_of(self._database, DEFAULT_NETWORK, container_id)

    def _bridge_name(self) -> str:
        """Return this state root's bridge: pydock0 for the system's, a name of its own for a moved root (IFNAMSIZ is 15)."""
        if str(self._root.data) == "/var/lib/pydock":
            return DEFAULT_BRIDGE
        return f"pydock{zlib.crc32(str(self._root.data).encode()):08x}"


def _free_subnet() -> str:
    return pick_subnet(DEFAULT_CANDIDATES, host_routes())


def _is_device(name: str) -> bool:
    try:
        socket.if_nametoindex(name)
    except OSError:
        return False
    return True


@contextmanager
def _host_lock() -> Iterator[None]:
    """Hold the lock for choosing a subnet until its bridge is up, because only then other state roots see its route.

    One lock serves all network namespaces that share /run; each bridge is made once, so it is rarely held.
    """
    if os.geteuid() != 0:  # NetworkService refuses the request
        yield
        return
    try:
        make_private(_HOST_LOCK.parent)
        fd = os.open(_HOST_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise UnavailableError(
            f"cannot choose a subnet: {_HOST_LOCK}: {error.strerror}",
            "use --network none (ports open in the notebook all the same) or host",
            exit_code=125,
        ) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
