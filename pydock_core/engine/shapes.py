"""Listings and inspections of containers in the shapes of the Engine API 1.51 (ContainerSummary, ContainerInspect).  Pure."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydock_core.paths import ContainerPaths
from pydock_core.spec.definition import FIXED_CONFIG, FIXED_HOST_CONFIG, Definition
from pydock_core.spec.log_option import NONE
from pydock_core.spec.mount import Mount, read_mounts
from pydock_core.spelling import human_duration
from pydock_core.store.database.containers import ContainerRow
from pydock_core.supervision.container_status import Status
from pydock_core.supervision.logs import format_time

ZERO_TIME = "0001-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True)
class Seen:
    """A container at one moment: its row, its definition and its status.

    Attributes:
        address: on its network, with prefix length; empty for none.
    """

    row: ContainerRow
    definition: Definition
    status: Status
    address: str = ""

    @property
    def state(self) -> str:
        """The status in Docker's terms: created, running or exited; a container that is being started is "created"."""
        return "created" if self.status.status == "starting" else self.status.status

    @property
    def mounts(self) -> list[Mount]:
        """Its mounts, with the names of volumes."""
        return read_mounts(self.definition.request, self.definition.volumes)


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
        "Status": describe_status(seen.status, time.time_ns()),
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
        "LogPath": "" if definition.host["LogConfig"]["Type"] == NONE else str(paths.log_file),
        "Name": f"/{row.name}",
        "RestartCount": 0,
        "Driver": driver,
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": None,
        "HostConfig": {
            **FIXED_HOST_CONFIG,
            **definition.host,
            "MaskedPaths": list(MASKED_PATHS) if is_confined else None,
            "ReadonlyPaths": list(READ_ONLY_PATHS) if is_confined else None,
        },
        "GraphDriver": {"Name": driver, "Data": {"UpperDir": str(paths.upper), "WorkDir": str(paths.work)}},
        "Mounts": _mount_points(seen),
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
    "Links": None,
    "DriverOpts": None,
    "GwPriority": 0,
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


def _networks(seen: Seen) -> dict[str, Any]:
    """Return the networks with the container's endpoint in each; its address is known while it runs."""
    current: dict[str, Any] = {}
    if seen.address and seen.status.is_running:
        from ipaddress import ip_interface  # late: few containers have an address

        from pydock_core.network.addresses import gateway_of, mac_address_of

        address, _, prefix = seen.address.partition("/")
        current = {
            "IPAddress": address,
            "IPPrefixLen": int(prefix),
            "Gateway": gateway_of(str(ip_interface(seen.address).network)).partition("/")[0],
            "MacAddress": mac_address_of(seen.address),
        }
    return {
        name: {**_ENDPOINT_STATE, **settings, **current}
        for name, settings in seen.definition.request["NetworkingConfig"]["EndpointsConfig"].items()
    }


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
