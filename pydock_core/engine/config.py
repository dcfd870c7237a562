"""What a container is defined by: the request of ``create``, and the definition that is stored.  Pure data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pydock_core.supervision.plan import EMBEDDED, PublishedPort


@dataclass(frozen=True, slots=True)
class Mount:
    """One ``-v``, ``--mount`` or ``--tmpfs``.

    Attributes:
        kind: "bind", "volume" or "tmpfs".
        source: absolute host path (bind), name (volume; empty for an anonymous one), empty (tmpfs).
        target: absolute path in the container.
        read_only: whether writing is refused.
        propagation: of a bind: "rprivate", "rslave", ...
        create_source: make a bind's missing source directory, as ``-v`` does and ``--mount`` does not.
        no_copy: do not fill a new volume with what the image has at the target.
        options: of a tmpfs, as mount(8) has them: "size=64m", "mode=1777".
    """

    kind: str
    source: str
    target: str
    read_only: bool = False
    propagation: str = "rprivate"
    create_source: bool = False
    no_copy: bool = False
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Device:
    """One ``--device``: a device of the host, where it is in the container, and which of r, w, m is allowed."""

    source: str
    target: str
    permissions: str = "rwm"


@dataclass(frozen=True, slots=True)
class ContainerConfig:
    """A container's definition.

    In a request, None says "as the image has it"; in the stored definition nothing is None but ``memory_bytes``,
    ``memory_swap_bytes``, ``cpus``, ``cpu_shares``, ``pids_limit`` and ``stop_timeout_seconds``: no limit, or the default.

    Attributes:
        image: the reference as typed.
        network: "none", "host", "bridge", or "container:ID".
        env: NAME=VALUE.
        exposed_ports: "8888/tcp".
        ulimits: name, soft, hard; -1 is unlimited.
        cpus: processors' worth of time.
        seccomp: "default", "unconfined", or the JSON text of a profile.
        log_driver, log_options: see :mod:`pydock_core.engine.log_options`; options as given.
        runtime: "embedded" or the name or path of an OCI runtime.
    """

    image: str
    command: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    env: tuple[str, ...] = ()
    working_directory: str | None = None
    user: str | None = None
    groups: tuple[str, ...] = ()
    hostname: str = ""
    hosts: tuple[str, ...] = ()
    terminal: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    mounts: tuple[Mount, ...] = ()
    ports: tuple[PublishedPort, ...] = ()
    exposed_ports: tuple[str, ...] = ()
    network: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    memory_bytes: int | None = None
    memory_swap_bytes: int | None = None
    cpus: float | None = None
    cpu_shares: int | None = None
    cpuset_cpus: str = ""
    pids_limit: int | None = None
    shm_size_bytes: int = 64 * 1024 * 1024
    ulimits: tuple[tuple[str, int, int], ...] = ()
    oom_score_adj: int = 0
    sysctls: Mapping[str, str] = field(default_factory=dict)
    read_only: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    privileged: bool = False
    no_new_privileges: bool = False
    seccomp: str = "default"
    devices: tuple[Device, ...] = ()
    stop_signal: str | None = None
    stop_timeout_seconds: float | None = None
    runtime: str = EMBEDDED
    auto_remove: bool = False
    log_driver: str = "json-file"
    log_options: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return JSON types; :meth:`from_json` is the inverse."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> ContainerConfig:
        """Rebuild a config from :meth:`to_json`'s document."""
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in document.items()
        }
        values["mounts"] = tuple(
            Mount(**{**mount, "options": tuple(mount["options"])}) for mount in document["mounts"]
        )
        values["ports"] = tuple(PublishedPort(**port) for port in document["ports"])
        values["devices"] = tuple(Device(**device) for device in document["devices"])
        values["ulimits"] = tuple((name, soft, hard) for name, soft, hard in document["ulimits"])
        return cls(**values)
