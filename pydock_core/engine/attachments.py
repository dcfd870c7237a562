"""Claims a starting container's addresses on its networks; the network service and the supervisor do the rest."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path

from pydock_core.engine.network_rows import Network
from pydock_core.errors import (
    ConflictError,
    InvalidError,
    NotFoundError,
    PyDockError,
    UnavailableError,
    UnsupportedError,
)
from pydock_core.network.addresses import (
    DEFAULT_CANDIDATES,
    host_routes,
    is_shadowed,
    mac_address_of,
    matching_address,
    pick_address,
    pick_subnet,
)
from pydock_core.network.client import NetworkService
from pydock_core.network.rules import NO_NFT, Admission, BridgeRules, host_access
from pydock_core.network.uplink_program import MTU_BYTES, find_nft, lack, remedy
from pydock_core.paths import StateRoot
from pydock_core.private_files import make_directories, make_private
from pydock_core.runtime.record_file import read_json, write_json, write_whole
from pydock_core.spec.definition import SHORT_ID_DIGITS, Definition, EndpointSettings, decode
from pydock_core.store.database import Database
from pydock_core.store.database import containers as containers_sql
from pydock_core.store.database import networks as table
from pydock_core.store.database.networks import DEFAULT_NETWORK, PREDEFINED, Addresses
from pydock_core.supervision import user_network
from pydock_core.supervision.container_status import derive_status
from pydock_core.supervision.plan import Interface, NameService, NetworkAttachment

DEFAULT_BRIDGE = "pydock0"
HOST_NAMES = ("host.docker.internal", "host.containers.internal")
"""The names of the host in a container on a bridge."""
_HOST_LOCK = Path("/run/pydock/subnet.lock")
"""A file of the host, not of a state root: the subnets of all roots' bridges must differ."""
_BRIDGE_RECORD = "bridge.json"
_ADMISSIONS = "admissions"


class Attachments:
    """The attachments of containers to the networks of one state root."""

    def __init__(self, root: StateRoot, database: Database) -> None:
        self._root = root
        self._database = database
        self._rootless = os.geteuid() != 0

    # -- at create ---------------------------------------------------------------------------------------

    def check(self, endpoints: Mapping[str, EndpointSettings]) -> dict[str, EndpointSettings]:
        """Return a new container's networks by their names, in their order.

        Raises:
            NotFoundError: there is no such network.
            InvalidError: a network cannot be attached with these settings, or two names mean the same network.
        """
        found: dict[str, EndpointSettings] = {}
        for reference, settings in endpoints.items():
            try:
                network = Network(table.find(self._database, reference))
            except PyDockError as error:
                error.exit_code = 125
                raise
            if network.row.name in found:
                raise InvalidError(
                    f"network {network.row.name} is given twice", "give each once", exit_code=125
                )
            if network.has_names:
                check_addresses(network, settings)
            found[network.row.name] = settings
        return found

    # -- at a start --------------------------------------------------------------------------------------

    def attach(
        self,
        container_id: str,
        name: str,
        definition: Definition,
        *,
        resolvers: Sequence[str],
        servers: Callable[[], Sequence[str]],
        to_gateway: bool,
    ) -> NetworkAttachment:
        """Claim a container's addresses on its networks, ensure their bridges, and admit its packets.

        Args:
            name: the container's name.
            resolvers: IPv4 name servers of its resolv.conf, for a container without its own name server.
            servers: returns the upstream servers of its name server.
            to_gateway: whether it may reach the address of the bridge with its default route.

        Raises:
            NotFoundError: a network is gone; exit code 125.
            ConflictError: an address is taken, or none is free; exit code 125.
            InvalidError: see :func:`pydock_core.network.rules.host_access`.
        """
        endpoints = definition.request["NetworkingConfig"]["EndpointsConfig"]
        networks = [(self._find(key), settings) for key, settings in endpoints.items()]
        has_names = any(network.has_names for network, _ in networks)
        interfaces = []
        for number, (network, settings) in enumerate(networks):
            routes = choose_routes(networks, network)
            interfaces.append(
                self.admit(
                    network,
                    container_id,
                    settings,
                    device=f"{network.options.interface if network.has_names else 'eth'}{number}",
                    names=own_names(container_id, name, definition, settings) if network.has_names else (),
                    resolvers=() if has_names else resolvers,
                    access=self._access(to_gateway=to_gateway and routes[0]),
                    routes=routes,
                )
            )
        service = None
        if has_names:
            service = build_name_service(networks, servers)
        return NetworkAttachment("bridge", tuple(interfaces), name_service=service)

    def _find(self, name: str) -> Network:
        row = table.find_by_name(self._database, name)
        if row is None:
            raise NotFoundError(
                f"no such network: {name}", f"create it: dock network create {name}", exit_code=125
            )
        return Network(row)

    @staticmethod
    def _access(*, to_gateway: bool) -> str:
        access = host_access(os.environ)
        return "gateway" if access == "none" and to_gateway else access

    def admit(
        self,
        network: Network,
        container_id: str,
        settings: EndpointSettings,
        *,
        device: str,
        names: tuple[str, ...],
        resolvers: Sequence[str] = (),
        access: str,
        routes: tuple[bool, bool],
    ) -> Interface:
        """Claim a container's addresses on one network, ensure the bridge, and admit the container's packets.

        Args:
            device: the interface's name in the container.
            names: see :class:`~pydock_core.supervision.plan.Interface`.
            access, resolvers: see :class:`~pydock_core.network.rules.Admission`.
            routes: whether the network has the container's IPv4 and IPv6 default route.
        """
        with ExitStack() as held:
            directory = self._root.network_directory(network.row.id)
            if network.has_names:
                held.enter_context(self.lock(network.row.id, exclusive=False))
            network, is_new = self._ready(network, held)
            endpoint = table.claim(
                self._database,
                network.row.id,
                container_id,
                lambda *known: _choose(network, settings, *known),
            )
            rules = network.rules
            address, address6 = (text.partition("/")[0] for text in (endpoint.address, endpoint.address6))
            hardware = settings["MacAddress"].lower()
            if hardware or (network.has_names and is_new):
                make_directories(directory)
                write_json(directory / _BRIDGE_RECORD, asdict(rules))
            mtu = self._mtu(network)
            weakness = NetworkService(self._root).ensure(
                rules,
                Admission(address, access, tuple(resolvers), hardware, address6),
                mtu=mtu,
                record=directory / _ADMISSIONS,
                needs_nft=network.has_names or self._rootless,
            )
        if weakness != self._recorded_weakness():
            write_whole(self._weakness_file, weakness.encode())
        return Interface(
            device,
            network.row.id,
            network.row.name,
            network.row.bridge,
            endpoint.address,
            gateway=rules.gateway if routes[0] else "",
            mac_address=hardware or mac_address_of(address),
            address6=endpoint.address6,
            gateway6=rules.gateway6 if routes[1] else "",
            mtu=mtu,
            is_isolated=network.has_names and not network.options.connectivity,
            directory=str(directory) if network.has_names else "",
            names=names,
        )

    def _mtu(self, network: Network) -> int:
        """Return a bridge's MTU; for an ordinary user, the default is the uplink's MTU."""
        requested = network.options.mtu if network.has_names else 0
        return requested or (MTU_BYTES if self._rootless else 0)

    def _ready(self, network: Network, held: ExitStack) -> tuple[Network, bool]:
        """Return the network with a subnet that no other device uses; hold the host's lock while its bridge is absent.

        Returns:
            The current network, and whether its bridge is missing.
        """
        # The device is looked up before the row is used: an existing bridge has the subnet of its row.
        if network.row.subnet and self.is_device(network.row.bridge):
            return network, False
        held.enter_context(self.subnet_lock())
        return self.with_free_subnet(Network(table.find(self._database, network.row.id))), True

    def with_free_subnet(self, network: Network) -> Network:
        """Return a network whose subnet no other device uses; the caller holds the host's lock.

        Another root can take the recorded subnet while the bridge is absent, for example after a reboot.
        No container is connected to an absent bridge, so all containers may get new addresses at their next start.

        Raises:
            ConflictError: a requested subnet is taken.
        """
        row = network.row
        bridge = row.bridge or self.default_bridge()
        if row.subnet and (self.is_device(bridge) or not is_shadowed(row.subnet, host_routes())):
            return network
        if row.subnet:
            if network.has_names and network.pool(4)["Subnet"]:
                raise ConflictError(
                    f"the subnet {row.subnet} of network {row.name} is taken by another device of this host",
                    "`ip route` shows it; create a network with another subnet",
                    exit_code=125,
                )
            # The rules of a bridge that was deleted by hand.
            NetworkService(self._root).remove(network.rules)
        # The host has no routes to an absent bridge, nor to those of an ordinary user.
        others = [other for other in table.all_rows(self._database) if other.id != row.id]
        recorded = [subnet for other in others for subnet in (other.subnet, other.subnet6) if subnet]
        chosen = pick_subnet(DEFAULT_CANDIDATES, [*host_routes(), *recorded])
        return Network(table.set_subnet(self._database, row.id, bridge, row.subnet, chosen))

    def default_bridge(self) -> str:
        """The bridge of this state root: pydock0 for the system's root, another name for a moved root (IFNAMSIZ is 15)."""
        if str(self._root.data) == "/var/lib/pydock":
            return DEFAULT_BRIDGE
        return f"pydock{zlib.crc32(str(self._root.data).encode()):08x}"

    def is_device(self, name: str) -> bool:
        """Whether a network device has this name, in the network namespace of the bridges."""
        if self._rootless:
            network = user_network.read(self._root.run)
            return network is not None and name in network.devices()
        try:
            socket.if_nametoindex(name)
        except OSError:
            return False
        return True

    @contextmanager
    def subnet_lock(self) -> Iterator[None]:
        """Hold the right to choose a subnet until its bridge is up, when others can see its route.

        One lock serves all network namespaces that share /run; it is held once per bridge, while the bridge is made.
        An ordinary user's bridges are in their own namespace, so the state root's lock suffices for them.
        """
        lock = self._root.run / _HOST_LOCK.name if self._rootless else _HOST_LOCK
        try:
            make_private(lock.parent)
            fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise UnavailableError(
                f"cannot choose a subnet: {lock}: {error.strerror}",
                "use --network none (ports open in the notebook all the same) or host",
                exit_code=125,
            ) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    # -- networks ----------------------------------------------------------------------------------------

    @contextmanager
    def lock(self, network_id: str, *, exclusive: bool) -> Iterator[Path]:
        """Lock a network, shared to attach to it, exclusive to remove it; yield its directory."""
        directory = self._root.network_directory(network_id)
        make_directories(directory)
        fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
            yield directory
        finally:
            os.close(fd)

    def make(self, network: Network) -> None:
        """Make a new network's bridge and its rules; the caller holds the host's lock.

        An ordinary user's bridge is made for its first container, in a namespace that lasts as long as the containers.
        """
        if self._rootless:
            return
        directory = self._root.network_directory(network.row.id)
        make_directories(directory)
        write_json(directory / _BRIDGE_RECORD, asdict(network.rules))
        NetworkService(self._root).ensure(
            network.rules, mtu=network.options.mtu, record=directory / _ADMISSIONS, needs_nft=True
        )

    def unmake(self, network: Network) -> None:
        """Remove a network's bridge, its rules and its directory; missing objects are ignored."""
        if network.row.subnet:
            NetworkService(self._root).remove(network.rules)
        shutil.rmtree(self._root.network_directory(network.row.id), ignore_errors=True)

    def sweep(self, network_id: str) -> None:
        """Remove the remains of a network without a row."""
        with self.lock(network_id, exclusive=True) as directory:
            try:
                table.find(self._database, network_id)
            except NotFoundError:
                record = read_json(directory / _BRIDGE_RECORD)
                if record is not None:
                    NetworkService(self._root).remove(BridgeRules(**record))
                shutil.rmtree(directory, ignore_errors=True)

    # -- looking -----------------------------------------------------------------------------------------

    def weakness(self) -> str:
        """The reason why containers of a bridge can impersonate each other, as known before a start; "" if they cannot."""
        if not (find_nft() if self._rootless else shutil.which("nft")):
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

    def port_address(self, network: str) -> str:
        """Return a network's default address for published ports; "" if it has none."""
        if network in PREDEFINED or network.startswith("container:"):
            return ""
        return self._find(network).options.binding

    def linked(self, definition: Definition) -> list[tuple[str, tuple[str, ...]]]:
        """Return the addresses and names of the containers to which a container on the default bridge is linked.

        Raises:
            NotFoundError: there is no such container; exit code 125.
            ConflictError: a linked container is not running or not on the default bridge; exit code 125.
        """
        lines = []
        for link in definition.host["Links"] or ():
            reference, _, alias = link.removeprefix("/").partition(":")
            try:
                row = containers_sql.find(self._database, reference)
            except PyDockError as error:
                error.exit_code = 125
                raise
            endpoint = table.endpoints_of_container(self._database, row.id).get(DEFAULT_NETWORK)
            is_running = derive_status(self._root.container(row.id)).is_running
            if endpoint is None or not is_running:
                raise ConflictError(
                    f"cannot link to container {reference}: it does not run on the default bridge",
                    f"connect it: dock network connect {DEFAULT_NETWORK} {reference}"
                    if is_running
                    else f"start it: dock start {reference}",
                    exit_code=125,
                )
            names = (alias or reference, decode(row.definition).host_name(row.id), row.name)
            lines.append((endpoint[1].address.partition("/")[0], tuple(dict.fromkeys(names))))
        return lines

    def join(self, container_id: str, reference: str) -> NetworkAttachment:
        """Join the network of another container, which must be running.

        Raises:
            ConflictError: it is not running.
        """
        paths = self._root.container(container_id)
        if not derive_status(paths).is_running:
            raise ConflictError(
                f"container {reference} is not running, so its network cannot be joined",
                f"start it: dock start {reference}",
                exit_code=125,
            )
        return NetworkAttachment(mode="container", container_run=str(paths.run))


Places = Sequence[tuple[Network, EndpointSettings]]


def check_way_out(name: str) -> None:
    """Refuse a bridge network to an ordinary user if this host cannot provide an uplink.

    Args:
        name: the network's name, for the message.

    Raises:
        UnsupportedError: there is no uplink; exit code 125.
    """
    if os.geteuid() != 0 and (reason := lack()):
        raise UnsupportedError(
            f"an ordinary user has no network {name} here: {reason}",
            f"{remedy(reason)}; or use --network none (the proxy and -p reach its ports all the same) or host",
            exit_code=125,
        )


def check_addresses(network: Network, settings: EndpointSettings) -> None:
    """Refuse a fixed address on a network whose subnet PyDock chose, because that subnet may change.

    Raises:
        InvalidError: the request has such an address.
    """
    ipam = settings["IPAMConfig"] or {}
    for field, version in (("IPv4Address", 4), ("IPv6Address", 6)):
        if ipam.get(field) and not network.pool(version)["Subnet"]:
            raise InvalidError(
                f"address {ipam[field]}: the IPv{version} subnet of network {network.row.name} was not requested",
                "create the network with --subnet",
                exit_code=125,
            )


def choose_gateway(networks: Places, version: int = 4) -> Network | None:
    """Return the network with the default route of one family; None if there is none.

    It is the network with the highest GwPriority, then the first by name.
    """
    able = [
        (network, settings)
        for network, settings in networks
        if network.is_bridge and not network.is_internal and (network.row.subnet6 if version == 6 else True)
    ]
    if not able:
        return None
    return min(able, key=lambda place: (-place[1]["GwPriority"], place[0].row.name))[0]


def choose_routes(networks: Places, network: Network) -> tuple[bool, bool]:
    """Return whether a network has the IPv4 and the IPv6 default route."""
    chosen = (choose_gateway(networks, version) for version in (4, 6))
    has_route, has_route6 = (other is not None and other.row.id == network.row.id for other in chosen)
    return has_route, has_route6


def own_names(
    container_id: str, name: str, definition: Definition, settings: EndpointSettings
) -> tuple[str, ...]:
    """Return a container's names on a network, its own first, as in Docker: aliases, short id, host name."""
    names = [
        name,
        *(settings["Aliases"] or ()),
        container_id[:SHORT_ID_DIGITS],
        definition.request["Hostname"],
    ]
    return tuple(dict.fromkeys(filter(None, names)))


def build_name_service(networks: Places, servers: Callable[[], Sequence[str]]) -> NameService:
    """Return the settings of the name server of a container on these networks.

    Args:
        servers: returns the upstream servers; not called if no network reaches the outside.
    """
    routed = choose_gateway(networks)
    links = [
        (alias or name, name)
        for network, settings in networks
        if network.has_names
        for name, _, alias in (link.partition(":") for link in settings["Links"] or ())
    ]
    if routed is None:
        return NameService((), tuple(links))
    hosts = [(name, routed.rules.gateway) for name in HOST_NAMES] if routed.row.subnet else []
    return NameService(tuple(servers()), tuple(links), tuple(hosts))


def _choose(
    network: Network, settings: EndpointSettings, others: Mapping[str, Addresses], held: Addresses | None
) -> Addresses:
    """Return a container's addresses: the requested, otherwise the recorded, otherwise free ones."""
    ipam = settings["IPAMConfig"] or {}
    taken = {text.partition("/")[0] for pair in others.values() for text in pair if text}
    rules = network.rules
    address = _requested(ipam.get("IPv4Address"), rules.subnet, rules.gateway, taken, network)
    if not address:
        address = held[0] if held else _pick(network, 4, taken)
    if not rules.subnet6:
        return address, ""
    address6 = _requested(ipam.get("IPv6Address"), rules.subnet6, rules.gateway6, taken, network)
    if not address6 and held and held[1]:
        address6 = held[1]
    if not address6:
        matching = matching_address(address, rules.subnet, rules.subnet6)
        reserved = {*taken, rules.gateway6, *network.pool(6)["AuxiliaryAddresses"].values()}
        is_free = matching and matching.partition("/")[0] not in reserved and not network.pool(6)["IPRange"]
        address6 = matching if is_free else _pick(network, 6, taken)
    return address, address6


def _pick(network: Network, version: int, taken: set[str]) -> str:
    rules = network.rules
    subnet, gateway = (rules.subnet, rules.gateway) if version == 4 else (rules.subnet6, rules.gateway6)
    if not network.has_names:
        return pick_address(subnet, taken)
    pool = network.pool(version)
    reserved = (gateway, *pool["AuxiliaryAddresses"].values())
    return pick_address(subnet, taken, pool["IPRange"], reserved)


def _requested(text: str | None, subnet: str, gateway: str, taken: set[str], network: Network) -> str:
    """Return a requested address with prefix length, "" for none."""
    if not text:
        return ""
    from ipaddress import ip_address, ip_network  # late: few containers request an address

    address, within = ip_address(text), ip_network(subnet)
    if address not in within or address in (within.network_address, within.broadcast_address):
        raise InvalidError(
            f"address {text} is not a host address of network {network.row.name} ({subnet})",
            f"give an address of {subnet}",
            exit_code=125,
        )
    if str(address) in taken or str(address) == gateway:
        raise ConflictError(
            f"address {text} of network {network.row.name} is taken",
            "give another one, or leave it out",
            exit_code=125,
        )
    return f"{address}/{within.prefixlen}"
