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
from pydock_core.oci.root_mount import RootMount
from pydock_core.runtime.record_file import read_json

if TYPE_CHECKING:
    from pydock_core.supervision.protocol import PortDocument

EMBEDDED = "embedded"


@dataclass(frozen=True, slots=True)
class PublishedPort:
    """A container port that the host listens for (``-p``).

    Attributes:
        host_ip: address to bind ("127.0.0.1" unless the user gave one).
        host_port: 0 lets the kernel choose; the supervisor's state has the chosen port.
        container_port: 1 to 65535.
        protocol: "tcp" or "udp".
    """

    host_ip: str
    host_port: int
    container_port: int
    protocol: str = "tcp"

    def to_json(self) -> PortDocument:
        """Return the port as JSON types."""
        return {
            "host_ip": self.host_ip,
            "host_port": self.host_port,
            "container_port": self.container_port,
            "protocol": self.protocol,
        }


@dataclass(frozen=True, slots=True)
class NetworkAttachment:
    """The construction of the container's network namespace.

    Attributes:
        mode: "none" (a new namespace with loopback up), "host" (no new namespace), "bridge" (a new namespace,
            with a veth on ``bridge``), "container" (join the namespace at ``namespace_path``).
        bridge: name of the host's bridge device.
        address: the container's address with prefix length, "172.30.0.2/16".
        gateway: the bridge's own address with prefix length.
        mac_address: of the container's interface.
        namespace_path: for "container".
    """

    mode: str = "none"
    bridge: str = ""
    address: str = ""
    gateway: str = ""
    mac_address: str = ""
    namespace_path: str = ""


@dataclass(frozen=True, slots=True)
class LaunchPlan:
    """Everything that a supervisor needs to run one container once.

    Attributes:
        container_id: 64 hexadecimal digits.
        data_dir, run_dir: the two directories of :class:`pydock_core.paths.ContainerPaths`.
        executor: "embedded", or the path of an OCI runtime program (crun, runc, ...).
        root_mounts: mounted in this order on bundle/rootfs in the supervisor's own mount namespace.
        network: see :class:`NetworkAttachment`.
        ports: sockets to listen on in the host's network namespace.
        network_socket: path of the network service's socket, needed for mode "bridge".
        terminal: the container's process has a pseudo-terminal (OCI process.terminal says the same).
        open_stdin: keep standard input open (``-i``); otherwise the process reads /dev/null.
        stdin_once: close standard input when the first attached client closes its side.
        stop_signal, stop_timeout_seconds: defaults of the control request "stop".
        log_path: the log in Docker's json-file format; empty for no log.
        log_file_bytes, log_files: see :class:`pydock_core.supervision.log_files.LogLimits`.
        auto_remove: the container is to be removed when it ends (``--rm``); see the supervisor.
        tty_rows, tty_columns: initial size of the terminal; 0 if unknown.
    """

    container_id: str
    data_dir: str
    run_dir: str
    executor: str = EMBEDDED
    root_mounts: tuple[RootMount, ...] = ()
    network: NetworkAttachment = field(default_factory=NetworkAttachment)
    ports: tuple[PublishedPort, ...] = ()
    network_socket: str = ""
    terminal: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    stop_signal: int = 15
    stop_timeout_seconds: float = 10.0
    log_path: str = ""
    log_file_bytes: int = 0
    log_files: int = 1
    auto_remove: bool = False
    tty_rows: int = 0
    tty_columns: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON types; :meth:`from_json` is the inverse."""
        # dataclasses.asdict() would copy every value of every level, and take as long as the rest of the start.
        return {
            **{name: getattr(self, name) for name in self.__slots__},
            "root_mounts": [mount.to_json() for mount in self.root_mounts],
            "network": {name: getattr(self.network, name) for name in self.network.__slots__},
            "ports": [port.to_json() for port in self.ports],
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> LaunchPlan:
        """Rebuild a plan from :meth:`to_json`'s document."""
        values = dict(document)
        values["root_mounts"] = tuple(RootMount.from_json(mount) for mount in values["root_mounts"])
        values["network"] = NetworkAttachment(**values["network"])
        values["ports"] = tuple(PublishedPort(**port) for port in values["ports"])
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
