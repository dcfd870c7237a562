"""The shapes in which containers are shown: those of the Docker Engine API 1.51 (ContainerSummary, ContainerInspect).  Pure."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydock_core.engine.config import ContainerConfig, Mount
from pydock_core.engine.log_options import NONE, complete_options
from pydock_core.engine.spans import human_duration
from pydock_core.paths import ContainerPaths
from pydock_core.store.database.containers import ContainerRow
from pydock_core.supervision.container_status import Status
from pydock_core.supervision.logs import format_time
from pydock_core.supervision.plan import PublishedPort

ZERO_TIME = "0001-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True)
class Seen:
    """A container as it was seen at one moment: its row, its definition, and what it does."""

    row: ContainerRow
    config: ContainerConfig
    status: Status
    address: str = ""

    @property
    def state(self) -> str:
        """Docker's word: created, running, exited, or restarting's neighbour "starting" shown as created."""
        return "created" if self.status.status == "starting" else self.status.status


def describe_status(status: Status, now_ns: int) -> str:
    """Return the STATUS column: "Up 5 minutes", "Exited (0) 2 hours ago", "Created"."""
    if status.status == "running":
        return f"Up {_span(now_ns - status.started_at_ns)}"
    if status.status == "exited" and not status.finished_at_ns:  # killed, and not recorded yet
        return f"Exited ({status.exit_code})"
    if status.status == "exited":
        return f"Exited ({status.exit_code}) {_span(now_ns - status.finished_at_ns)} ago"
    return "Created"


def build_summary(seen: Seen) -> dict[str, Any]:
    """Return the ContainerSummary of ``GET /containers/json``."""
    row, config = seen.row, seen.config
    return {
        "Id": row.id,
        "Names": [f"/{row.name}"],
        "Image": config.image,
        "ImageID": row.image_id,
        "ImageManifestDescriptor": None,
        "Command": " ".join(_shown_argument(word) for word in command_line(config)),
        "Created": row.created_ns // 1_000_000_000,
        "Ports": list(_port_summaries(config, seen.status)),
        "Labels": dict(config.labels),
        "State": seen.state,
        "Status": describe_status(seen.status, time.time_ns()),
        "HostConfig": {"NetworkMode": config.network},
        "NetworkSettings": {"Networks": _networks(seen)},
        "Mounts": [_mount_point(mount) for mount in config.mounts if mount.kind != "tmpfs"],
    }


def build_inspect(seen: Seen, paths: ContainerPaths, driver: str) -> dict[str, Any]:
    """Return the ContainerInspectResponse of ``GET /containers/ID/json``."""
    row, config, status = seen.row, seen.config, seen.status
    words = command_line(config)
    return {
        "Id": row.id,
        "Created": format_time(row.created_ns),
        "Path": words[0],
        "Args": words[1:],
        "State": {
            "Status": seen.state,
            "Running": status.is_running,
            "Paused": False,
            "Restarting": False,
            "OOMKilled": status.oom_killed,
            "Dead": False,
            "Pid": status.pid,
            "ExitCode": status.exit_code,
            "Error": status.error,
            "StartedAt": format_time(status.started_at_ns) if status.started_at_ns else ZERO_TIME,
            "FinishedAt": format_time(status.finished_at_ns) if status.finished_at_ns else ZERO_TIME,
        },
        "Image": row.image_id,
        "ResolvConfPath": str(paths.data / "resolv.conf"),
        "HostnamePath": str(paths.data / "hostname"),
        "HostsPath": str(paths.data / "hosts"),
        "LogPath": "" if config.log_driver == NONE else str(paths.log_file),
        "Name": f"/{row.name}",
        "RestartCount": 0,
        "Driver": driver,
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": None,
        "HostConfig": _host_config(config),
        "GraphDriver": {"Name": driver, "Data": {"UpperDir": str(paths.upper), "WorkDir": str(paths.work)}},
        "Mounts": [_mount_point(mount) for mount in config.mounts if mount.kind != "tmpfs"],
        "Config": _config(row, config),
        "NetworkSettings": {
            "Bridge": "",
            "SandboxID": "",
            "SandboxKey": f"/proc/{status.pid}/ns/net" if status.is_running else "",
            "Ports": _port_bindings(config, status),
            "IPAddress": seen.address.partition("/")[0] if status.is_running else "",
            "IPPrefixLen": int(seen.address.partition("/")[2] or 0) if status.is_running else 0,
            "Networks": _networks(seen),
        },
    }


def command_line(config: ContainerConfig) -> list[str]:
    """The words that the container runs."""
    return [*(config.entrypoint or ()), *(config.command or ())]


def host_name(row_id: str, config: ContainerConfig) -> str:
    """The container's host name: as asked for, else the short id."""
    return config.hostname or row_id[:12]


def _config(row: ContainerRow, config: ContainerConfig) -> dict[str, Any]:
    return {
        "Hostname": host_name(row.id, config),
        "Domainname": "",
        "User": config.user or "",
        "AttachStdin": config.stdin_once,
        "AttachStdout": True,
        "AttachStderr": True,
        "ExposedPorts": {port: {} for port in config.exposed_ports},
        "Tty": config.terminal,
        "OpenStdin": config.open_stdin,
        "StdinOnce": config.stdin_once,
        "Env": list(config.env),
        "Cmd": list(config.command or ()),
        "Image": config.image,
        "Volumes": {mount.target: {} for mount in config.mounts if mount.kind == "volume"},
        "WorkingDir": config.working_directory,
        "Entrypoint": list(config.entrypoint) if config.entrypoint else None,
        "Labels": dict(config.labels),
        "StopSignal": f"SIG{config.stop_signal}",
        "StopTimeout": None
        if config.stop_timeout_seconds is None
        else int(min(config.stop_timeout_seconds, 1 << 31)),
    }


def _host_config(config: ContainerConfig) -> dict[str, Any]:
    return {
        "Binds": [_bind(mount) for mount in config.mounts if mount.kind == "bind"],
        "LogConfig": {
            "Type": config.log_driver,
            "Config": complete_options(config.log_driver, config.log_options),
        },
        "NetworkMode": config.network,
        "PortBindings": _requested_bindings(config),
        "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
        "AutoRemove": config.auto_remove,
        "CapAdd": list(config.cap_add) or None,
        "CapDrop": list(config.cap_drop) or None,
        "ExtraHosts": ["{1}:{0}".format(*line.split("\t")) for line in config.hosts],
        "GroupAdd": list(config.groups) or None,
        "OomScoreAdj": config.oom_score_adj,
        "Privileged": config.privileged,
        "ReadonlyRootfs": config.read_only,
        "SecurityOpt": _security_options(config),
        "Tmpfs": {mount.target: ",".join(mount.options) for mount in config.mounts if mount.kind == "tmpfs"},
        "ShmSize": config.shm_size_bytes,
        "Sysctls": dict(config.sysctls),
        "Runtime": config.runtime,
        "Memory": config.memory_bytes or 0,
        "MemorySwap": config.memory_swap_bytes or 0,
        "NanoCpus": int((config.cpus or 0) * 1e9),
        "CpuShares": config.cpu_shares or 0,
        "CpusetCpus": config.cpuset_cpus,
        "PidsLimit": config.pids_limit,
        "Ulimits": [{"Name": name, "Soft": soft, "Hard": hard} for name, soft, hard in config.ulimits],
        "Devices": [
            {
                "PathOnHost": device.source,
                "PathInContainer": device.target,
                "CgroupPermissions": device.permissions,
            }
            for device in config.devices
        ],
    }


def _security_options(config: ContainerConfig) -> list[str]:
    options = ["no-new-privileges"] if config.no_new_privileges else []
    return options + ([] if config.seccomp == "default" else ["seccomp=" + config.seccomp[:200]])


def _bind(mount: Mount) -> str:
    return f"{mount.source}:{mount.target}" + (":ro" if mount.read_only else "")


def _mount_point(mount: Mount) -> dict[str, Any]:
    return {
        "Type": mount.kind,
        **({"Name": mount.source} if mount.kind == "volume" else {}),
        "Source": mount.source,
        "Destination": mount.target,
        **({"Driver": "local"} if mount.kind == "volume" else {}),
        "Mode": "ro" if mount.read_only else "",
        "RW": not mount.read_only,
        "Propagation": mount.propagation if mount.kind == "bind" else "",
    }


def _port_summaries(config: ContainerConfig, status: Status) -> Iterable[Mapping[str, Any]]:
    published = status.ports if status.is_running else ()
    shown = set()
    for port in published:
        shown.add(f"{port.container_port}/{port.protocol}")
        yield {
            "IP": port.host_ip,
            "PrivatePort": port.container_port,
            "PublicPort": port.host_port,
            "Type": port.protocol,
        }
    for text in config.exposed_ports if status.is_running else ():
        if text not in shown:
            number, _, protocol = text.partition("/")
            yield {"PrivatePort": int(number), "Type": protocol}


def _port_bindings(config: ContainerConfig, status: Status) -> dict[str, Any]:
    bindings: dict[str, Any] = dict.fromkeys(config.exposed_ports) if status.is_running else {}
    for port in status.ports if status.is_running else ():
        _add_binding(bindings, port)
    return bindings


def _requested_bindings(config: ContainerConfig) -> dict[str, Any]:
    bindings: dict[str, Any] = {}
    for port in config.ports:
        _add_binding(bindings, port)
    return bindings


def _add_binding(bindings: dict[str, Any], port: PublishedPort) -> None:
    key = f"{port.container_port}/{port.protocol}"
    bindings[key] = [
        *(bindings.get(key) or ()),
        {"HostIp": port.host_ip, "HostPort": str(port.host_port) if port.host_port else ""},
    ]


def _networks(seen: Seen) -> dict[str, Any]:
    address, _, prefix = seen.address.partition("/")
    return {
        str(seen.config.network).partition(":")[0]: {
            "IPAddress": address if seen.status.is_running else "",
            "IPPrefixLen": int(prefix or 0) if seen.status.is_running else 0,
        }
    }


def _shown_argument(word: str) -> str:
    word = word.replace("\n", "\\n").replace("\t", "\\t")  # a listing has a line each
    return (
        word
        if word and shlex.quote(word) == word
        else f"'{word}'"
        if any(c.isspace() for c in word)
        else word
    )


def _span(nanoseconds: int) -> str:
    return human_duration(nanoseconds / 1e9)
