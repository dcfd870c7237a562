"""Chooses networks and addresses; the network service does the rest."""

from __future__ import annotations

import os
import shutil
import zlib
from collections.abc import Sequence
from pathlib import Path

from pydock_core.errors import ConflictError
from pydock_core.network.addresses import (
    DEFAULT_CANDIDATES,
    gateway_of,
    host_routes,
    mac_address_of,
    pick_address,
    pick_subnet,
)
from pydock_core.network.client import NetworkService
from pydock_core.network.rules import NO_NFT, Admission, host_access
from pydock_core.paths import StateRoot
from pydock_core.runtime.plan import NetworkAttachment
from pydock_core.runtime.process import derive_status, write_whole
from pydock_core.store.database import Database
from pydock_core.store.database import networks as table

DEFAULT_NETWORK = "bridge"
DEFAULT_BRIDGE = "pydock0"


class Networks:
    """Addresses of containers on the default bridge."""

    def __init__(self, root: StateRoot, database: Database) -> None:
        self._root = root
        self._database = database

    def attach(self, container_id: str, *, resolvers: Sequence[str], to_gateway: bool) -> NetworkAttachment:
        """Give a container an address on the default bridge.

        Args:
            resolvers: IPv4 name servers that it is given.
            to_gateway: it may reach the bridge's own address.

        Raises:
            ConflictError: all addresses are taken.
            InvalidError: see :func:`pydock_core.network.rules.host_access`.
        """
        access = host_access(os.environ)
        if access == "none" and to_gateway:
            access = "gateway"
        network = table.ensure(
            self._database,
            DEFAULT_NETWORK,
            self._bridge_name(),
            lambda: pick_subnet(DEFAULT_CANDIDATES, host_routes()),
        )
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

    def weakness(self) -> str:
        """Why containers of the bridge can impersonate each other, as far as is known before a start; "" if they cannot."""
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
        """Join the network of another container, which must run.

        Raises:
            ConflictError: it does not.
        """
        status = derive_status(self._root.container(container_id))
        if not status.is_running:
            raise ConflictError(
                f"container {reference} is not running, so its network cannot be joined",
                f"start it: dock start {reference}",
                exit_code=125,
            )
        return NetworkAttachment(mode="container", namespace_path=f"/proc/{status.pid}/ns/net")

    def address(self, container_id: str) -> str:
        """The address that a container holds, with prefix length; "" for none."""
        return table.address_of(self._database, DEFAULT_NETWORK, container_id)

    def _bridge_name(self) -> str:
        """The bridge of this state root: pydock0 for the system's, one of its own for a moved root (IFNAMSIZ is 15)."""
        if str(self._root.data) == "/var/lib/pydock":
            return DEFAULT_BRIDGE
        return f"pydock{zlib.crc32(str(self._root.data).encode()):08x}"
