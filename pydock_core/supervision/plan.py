"""The launch plan, which the engine passes to a supervisor: pure data with a JSON round trip.

The engine writes the plan into the container's run directory and asks the zygote for a supervisor; the
supervisor reads it and nothing else of PyDock's state (no database).  The OCI bundle beside it describes the
container's processes; the plan covers everything that the OCI runtime specification leaves to the caller: the mounts
of the root filesystem, the network, published ports, the log, and the actions at the container's end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydock_core.errors import CorruptError
from pydock_core.oci.mount_source import MountSource
from pydock_core.oci.root_mount import RootMount
from pydock_core.runtime.record_file import read_json

if TYPE_CHECKING:
    from pydock_core.supervision.protocol import PortDocument

EMBEDDED = "embedded"


def _fields(record: PublishedPort | Interface | NameService) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__slots__}


@dataclass(frozen=True, slots=True)
class PublishedPort:
    """A container port that the host listens for (``-p``).

    Attributes:
        host_ip: address to bind; "127.0.0.1" by default.
        host_port: 0 for a port that the kernel chooses; the supervisor's state has the chosen port.
        container_port: 1 to 65535.
        protocol: "tcp" or "udp".
        last_host_port: end of the range in which the first free port is used; 0 for ``host_port`` alone.
    """

    host_ip: str
    host_port: int
    container_port: int
    protocol: str = "tcp"
    last_host_port: int = 0

    def to_json(self) -> PortDocument:
        """Return the port as JSON types."""
        return {
            "host_ip": self.host_ip,
            "host_port": self.host_port,
            "container_port": self.container_port,
            "protocol": self.protocol,
            "last_host_port": self.last_host_port,
        }


@dataclass(frozen=True, slots=True)
class Interface:
    """An interface of a container on a bridge.

    Attributes:
        device: its name in the container, "eth0".
        network_id, network: id and name of the network.
        bridge: name of the bridge device.
        address: the container's IPv4 address with prefix length, "172.30.0.2/16".
        address6: its IPv6 address with prefix length; empty for none.
        gateway, gateway6: gateways of the default routes; empty if the interface has no default route.
        mac_address: empty to derive it from the address.
        mtu: in bytes; 0 for the kernel's default.
        is_isolated: whether it cannot reach other ports of the bridge.
        directory: directory of the network's names; empty for a network without a name service.
        names: this container's names on the network.
    """

    device: str
    network_id: str
    network: str
    bridge: str
    address: str
    gateway: str = ""
    mac_address: str = ""
    address6: str = ""
    gateway6: str = ""
    mtu: int = 0
    is_isolated: bool = False
    directory: str = ""
    names: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the interface as JSON types."""
        return _fields(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Interface:
        """Rebuild an interface from :meth:`to_json`'s document."""
        return cls(**{**document, "names": tuple(document["names"])})


@dataclass(frozen=True, slots=True)
class NameService:
    """The settings of a container's name server, in addition to its networks' names.

    Attributes:
        servers: addresses of upstream servers; empty to forward no queries.
        links: pairs of an alias that is private to this container, and a name on a network.
        hosts: pairs of a name and an address.
    """

    servers: tuple[str, ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    hosts: tuple[tuple[str, str], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON types."""
        return _fields(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> NameService:
        """Rebuild the settings from :meth:`to_json`'s document."""
        return cls(
            tuple(document["servers"]),
            tuple((alias, name) for alias, name in document["links"]),
            tuple((name, address) for name, address in document["hosts"]),
        )


@dataclass(frozen=True, slots=True)
class NetworkAttachment:
    """The construction of the container's network namespace.

    Attributes:
        mode: "none" (a new namespace with loopback up), "host" (no new namespace), "bridge" (a new namespace,
            with ``interfaces``), "container" (join that of another container).
        interfaces: for "bridge".
        container_run: for "container": the directory of the other container's records (:attr:`ContainerPaths.run`).
        name_service: the settings of a name server in the container; None for none.
    """

    mode: str = "none"
    interfaces: tuple[Interface, ...] = ()
    container_run: str = ""
    name_service: NameService | None = None

    @property
    def address(self) -> str:
        """The address of the first interface, with prefix length; empty for none."""
        return self.interfaces[0].address if self.interfaces else ""

    def to_json(self) -> dict[str, Any]:
        """Return the attachment as JSON types."""
        service = self.name_service
        return {
            "mode": self.mode,
            "interfaces": [interface.to_json() for interface in self.interfaces],
            "container_run": self.container_run,
            "name_service": None if service is None else service.to_json(),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> NetworkAttachment:
        """Rebuild an attachment from :meth:`to_json`'s document."""
        service = document.get("name_service")
        return cls(
            document.get("mode", "none"),
            tuple(Interface.from_json(interface) for interface in document.get("interfaces", ())),
            document.get("container_run", ""),
            None if service is None else NameService.from_json(service),
        )


@dataclass(frozen=True, slots=True)
class LaunchPlan:
    """Everything that a supervisor needs to run one container once.

    Attributes:
        container_id: 64 hexadecimal digits.
        data_dir, run_dir: the two directories of :class:`pydock_core.paths.ContainerPaths`.
        executor: "embedded", or the path of an OCI runtime program (crun, runc, ...).
        root_mounts: mounted in this order on bundle/rootfs in the supervisor's own mount namespace.
        network: see :class:`NetworkAttachment`.
        ports: published ports, listened on in the host's network namespace.
        sources: volumes and images to mount in the same namespace before the container is made.
        network_socket: path of the network service's socket, needed for mode "bridge".
        terminal: the container's process has a pseudo-terminal (OCI process.terminal says the same).
        open_stdin: keep standard input open (``-i``); otherwise the process reads /dev/null.
        stdin_once: close standard input when the first attached client closes its side.
        stop_signal, stop_timeout_seconds: defaults of the control request "stop".
        log_path: the log in Docker's json-file format; empty for no such log.
        log_attributes: attributes of each entry.
        journal_fields: fields of the entries in systemd's journal; None for the log file, or no log.
        journal_bytes: size of the buffer for the journal.
        log_file_bytes, log_files: see :class:`pydock_core.supervision.log_files.LogLimits`.
        auto_remove: the container is to be removed when it ends (``--rm``); see the supervisor.
        tty_rows, tty_columns: initial size of the terminal; 0 if unknown.
        health: :class:`pydock_core.supervision.health_plan.HealthPlan` as JSON; None without a health check.
        restart_policy, restart_most: see :class:`pydock_core.supervision.restart_policy.RestartPolicy`.
        shared: see :func:`pydock_core.supervision.shared_namespaces.bind_shared`.
        uid_mappings, gid_mappings: OCI id maps of the container's own user namespace; empty if it has none.
    """

    container_id: str
    data_dir: str
    run_dir: str
    executor: str = EMBEDDED
    root_mounts: tuple[RootMount, ...] = ()
    network: NetworkAttachment = field(default_factory=NetworkAttachment)
    ports: tuple[PublishedPort, ...] = ()
    sources: tuple[MountSource, ...] = ()
    network_socket: str = ""
    terminal: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    stop_signal: int = 15
    stop_timeout_seconds: float = 10.0
    log_path: str = ""
    log_file_bytes: int = 0
    log_files: int = 1
    log_attributes: Mapping[str, str] | None = None
    journal_fields: Mapping[str, str] | None = None
    journal_bytes: int = 0
    auto_remove: bool = False
    tty_rows: int = 0
    tty_columns: int = 0
    restart_policy: str = "no"
    restart_most: int = 0
    health: Mapping[str, Any] | None = None
    uid_mappings: tuple[Mapping[str, Any], ...] = ()
    gid_mappings: tuple[Mapping[str, Any], ...] = ()
    shared: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON types; :meth:`from_json` is the inverse."""
        # dataclasses.asdict() would copy every value of every level, and take as long as the rest of the start.
        return {
            **{name: getattr(self, name) for name in self.__slots__},
            "root_mounts": [mount.to_json() for mount in self.root_mounts],
            "network": self.network.to_json(),
            "ports": [port.to_json() for port in self.ports],
            "sources": [source.to_json() for source in self.sources],
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> LaunchPlan:
        """Rebuild a plan from :meth:`to_json`'s document."""
        values = dict(document)
        values["root_mounts"] = tuple(RootMount.from_json(mount) for mount in values["root_mounts"])
        values["network"] = NetworkAttachment.from_json(values["network"])
        values["ports"] = tuple(PublishedPort(**port) for port in values["ports"])
        values["sources"] = tuple(MountSource.from_json(source) for source in values.get("sources", ()))
        for name in ("uid_mappings", "gid_mappings"):
            values[name] = tuple(values.get(name, ()))
        return cls(**values)


def read_plan(path: Path) -> LaunchPlan:
    """Read a launch plan; CorruptError if the file is missing or malformed."""
    document = read_json(path)
    if document is None:
        raise CorruptError(f"there is no launch plan at {path}")
    try:
        return LaunchPlan.from_json(document)
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptError(f"the launch plan {path} is malformed: {error}") from error
