"""Listings and inspections of containers in the shapes of the Engine API 1.51 (ContainerSummary, ContainerInspect).  Pure."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydock_core.paths import ContainerPaths
from pydock_core.spec.definition import FIXED_CONFIG, FIXED_HOST_CONFIG, Definition
from pydock_core.spec.log_option import JSON_FILE, LOCAL
from pydock_core.spec.mount import Mount, definition_mounts
from pydock_core.spelling import human_duration
from pydock_core.store.database.containers import ContainerRow
from pydock_core.store.database.networks import EndpointRow, NetworkRow
from pydock_core.supervision.container_status import Status
from pydock_core.supervision.logs import format_time

if TYPE_CHECKING:
    from pydock_core.supervision.health_plan import Health

ZERO_TIME = "0001-01-01T00:00:00Z"
# Copied from supervision/health_plan.py, which a listing does not load.
NO_HEALTH, STARTING, UNHEALTHY = "none", "starting", "unhealthy"


@dataclass(frozen=True, slots=True)
class Seen:
    """A container at one moment: its row, its definition and its status.

    Attributes:
        places: its networks' rows and its addresses on them, by the network's name.
        health: the state of its health check; None without one.
    """

    row: ContainerRow
    definition: Definition
    status: Status
    places: Mapping[str, tuple[NetworkRow, EndpointRow]] = field(default_factory=dict)
    health: Health | None = None

    @property
    def health_status(self) -> str:
        """Docker's word: none, starting, healthy or unhealthy; a container with a check that is not running is unhealthy."""
        if self.health is None:
            return NO_HEALTH
        return self.health.status if self.status.is_running else UNHEALTHY

    @property
    def state(self) -> str:
        """Docker's word: created, paused, running, restarting or exited; a container that is being started is "created"."""
        if self.status.is_paused:
            return "paused"
        return "created" if self.status.status == "starting" else self.status.status

    @property
    def mounts(self) -> list[Mount]:
        """Its mounts, volumes with their names."""
        return definition_mounts(self.definition)


def describe_status(status: Status, now_ns: int, health: str = NO_HEALTH) -> str:
    """Return the STATUS column: "Up 5 minutes (healthy)", "Exited (0) 2 hours ago", "Created"."""
    if status.status == "running":
        suffix = {NO_HEALTH: "", STARTING: " (health: starting)"}.get(health, f" ({health})")
        if status.is_paused:
            suffix = " (Paused)"
        return f"Up {_span(now_ns - status.started_at_ns)}{suffix}"
    if status.status == "restarting":
        return f"Restarting ({status.exit_code}) {_span(now_ns - status.finished_at_ns)} ago"
    if status.status == "exited" and not status.finished_at_ns:  # killed, and not recorded yet
        return f"Exited ({status.exit_code})"
    if status.status == "exited":
        return f"Exited ({status.exit_code}) {_span(now_ns - status.finished_at_ns)} ago"
    return "Created"


def build_summary(seen: Seen) -> dict[str, Any]:
    """Return the ContainerSummary of ``GET /containers/json``."""
    row, definition = seen.row, seen.definition
    return {
        "Id": row.id,
        "Names": [f"/{row.name}"],
        "Image": definition.request["Image"],
        "ImageID": row.image_id,
        "ImageManifestDescriptor": None,
        "Command": " ".join(_shown_argument(word) for word in definition.command_line),
        "Created": row.created_ns // 1_000_000_000,
        "Ports": list(_port_summaries(seen)),
        "Labels": definition.request["Labels"],
        "State": seen.state,
        "Status": describe_status(seen.status, time.time_ns(), seen.health_status),
        "HostConfig": {"NetworkMode": definition.host["NetworkMode"]},
        "NetworkSettings": {"Networks": _networks(seen)},
        "Mounts": _mount_points(seen),
    }


def build_inspect(seen: Seen, paths: ContainerPaths, driver: str) -> dict[str, Any]:
    """Return the ContainerInspectResponse of ``GET /containers/ID/json``."""
    from pydock_core.spec.defaults import MASKED_PATHS, READ_ONLY_PATHS  # late: a listing does not need them

    row, definition, status = seen.row, seen.definition, seen.status
    words = definition.command_line
    config = {
        name: value
        for name, value in definition.request.items()
        if name not in ("HostConfig", "NetworkingConfig")
        and not (value is None and name in ("Healthcheck", "Shell"))
    }
    timeout = definition.request["StopTimeout"]
    is_confined = not definition.host["Privileged"]
    networks = _networks(seen)
    first = next(iter(networks.values()), _ENDPOINT_STATE)
    return {
        "Id": row.id,
        "Created": format_time(row.created_ns),
        "Path": words[0],
        "Args": words[1:],
        "State": {
            "Status": seen.state,
            "Running": status.status in ("running", "restarting"),
            "Paused": status.is_paused,
            "Restarting": status.status == "restarting",
            "OOMKilled": status.oom_killed,
            "Dead": False,
            "Pid": status.pid,
            "ExitCode": status.exit_code,
            "Error": status.error,
            "StartedAt": format_time(status.started_at_ns) if status.started_at_ns else ZERO_TIME,
            "FinishedAt": format_time(status.finished_at_ns) if status.finished_at_ns else ZERO_TIME,
            **_health(seen),
        },
        "Image": row.image_id,
        "ResolvConfPath": str(paths.data / "resolv.conf"),
        "HostnamePath": str(paths.data / "hostname"),
        "HostsPath": str(paths.data / "hosts"),
        "LogPath": str(paths.log_file) if definition.host["LogConfig"]["Type"] in (JSON_FILE, LOCAL) else "",
        "Name": f"/{row.name}",
        "RestartCount": status.restart_count,
        "Driver": driver,
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": None,
        "HostConfig": {
            **FIXED_HOST_CONFIG,
            **{name: value for name, value in definition.host.items() if name != "Init" or value is not None},
            "MaskedPaths": list(MASKED_PATHS) if is_confined else None,
            "ReadonlyPaths": list(READ_ONLY_PATHS) if is_confined else None,
        },
        "GraphDriver": {"Name": driver, "Data": {"UpperDir": str(paths.upper), "WorkDir": str(paths.work)}},
        "Mounts": [_placed(point, paths) for point in _mount_points(seen)],
        "Config": {
            **FIXED_CONFIG,
            **config,
            "Hostname": definition.host_name(row.id),
            "StopTimeout": None if timeout is None else int(min(timeout, 1 << 31)),
        },
        "NetworkSettings": {
            "Bridge": "",
            "SandboxID": "",
            "SandboxKey": f"/proc/{status.pid}/ns/net" if status.is_running else "",
            "HairpinMode": False,
            "LinkLocalIPv6Address": "",
            "LinkLocalIPv6PrefixLen": 0,
            "SecondaryIPAddresses": None,
            "SecondaryIPv6Addresses": None,
            "Ports": _port_bindings(seen),
            **{name: first[name] for name in _SHOWN_ABOVE},
            "Networks": networks,
        },
    }


_ENDPOINT_STATE: Mapping[str, Any] = {
    "NetworkID": "",
    "EndpointID": "",
    "Gateway": "",
    "IPAddress": "",
    "MacAddress": "",
    "IPPrefixLen": 0,
    "IPv6Gateway": "",
    "GlobalIPv6Address": "",
    "GlobalIPv6PrefixLen": 0,
    "DNSNames": None,
}
_SHOWN_ABOVE = (
    "EndpointID",
    "Gateway",
    "GlobalIPv6Address",
    "GlobalIPv6PrefixLen",
    "IPAddress",
    "IPPrefixLen",
    "IPv6Gateway",
    "MacAddress",
)
"""Fields of the first network that NetworkSettings repeats, for clients of API 1.20 and earlier."""


def _health(seen: Seen) -> dict[str, Any]:
    """Return State.Health; a container without a check has none."""
    if seen.health is None:
        return {}
    log = [
        {
            "Start": format_time(result.started_at_ns),
            "End": format_time(result.ended_at_ns),
            "ExitCode": result.exit_code,
            "Output": result.output,
        }
        for result in seen.health.log
    ]
    health_state = {"Status": seen.health_status, "FailingStreak": seen.health.failing_streak, "Log": log}
    return {"Health": health_state}


def _networks(seen: Seen) -> dict[str, Any]:
    """Return the networks with the container's endpoint on each; the address is known while it runs."""
    endpoints = seen.definition.request["NetworkingConfig"]["EndpointsConfig"]
    endpoints_state = {}
    for name, settings in endpoints.items():
        current: dict[str, Any] = {}
        if seen.status.is_running and name in seen.places:
            # late: few containers have an address
            from pydock_core.engine.attachments import own_names
            from pydock_core.engine.network_rows import Network, build_endpoint

            row, endpoint = seen.places[name]
            network = Network(row)
            current = build_endpoint(network, endpoint, settings)
            if network.has_names:
                current["DNSNames"] = list(own_names(seen.row.id, seen.row.name, seen.definition, settings))
        endpoints_state[name] = {**_ENDPOINT_STATE, **settings, **current}
    return endpoints_state


def _mount_points(seen: Seen) -> list[dict[str, Any]]:
    return [
        {
            "Type": mount.kind,
            **({"Name": mount.source} if mount.kind == "volume" else {}),
            "Source": mount.source,
            "Destination": mount.target,
            **({"Driver": "local"} if mount.kind == "volume" else {}),
            "Mode": "ro" if mount.read_only else "",
            "RW": not mount.read_only,
            "Propagation": mount.propagation if mount.kind == "bind" else "",
        }
        for mount in seen.mounts
        if mount.kind != "tmpfs"
    ]


def _placed(point: dict[str, Any], paths: ContainerPaths) -> dict[str, Any]:
    """Set a volume's mount point to the directory of its files, as in Docker's inspections."""
    if point["Type"] != "volume":
        return point
    directory = paths.data.parent.parent / "volumes" / point["Name"] / "_data"
    return {**point, "Source": str(directory)}


def _port_summaries(seen: Seen) -> Iterable[Mapping[str, Any]]:
    if not seen.status.is_running:
        return
    published = set()
    for port in seen.status.ports:
        published.add(f"{port.container_port}/{port.protocol}")
        yield {
            "IP": port.host_ip,
            "PrivatePort": port.container_port,
            "PublicPort": port.host_port,
            "Type": port.protocol,
        }
    for text in seen.definition.request["ExposedPorts"]:
        if text not in published:
            number, _, protocol = text.partition("/")
            yield {"PrivatePort": int(number), "Type": protocol}


def _port_bindings(seen: Seen) -> dict[str, Any]:
    if not seen.status.is_running:
        return {}
    bindings: dict[str, Any] = dict.fromkeys(seen.definition.request["ExposedPorts"])
    for port in seen.status.ports:
        key = f"{port.container_port}/{port.protocol}"
        bindings[key] = [
            *(bindings.get(key) or ()),
            {"HostIp": port.host_ip, "HostPort": str(port.host_port)},
        ]
    return bindings


def _shown_argument(word: str) -> str:
    word = word.replace("\n", "\\n").replace("\t", "\\t")  # a listing has one line per container
    return (
        word
        if word and shlex.quote(word) == word
        else f"'{word}'"
        if any(c.isspace() for c in word)
        else word
    )


def _span(nanoseconds: int) -> str:
    return human_duration(nanoseconds / 1e9)
