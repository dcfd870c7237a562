"""The documents that define a container, under the names of the Docker Engine API 1.51.

The body of ``POST /containers/create`` is the definition: ``run`` builds it, the HTTP API takes it, the state database
stores it, ``inspect`` shows it, and :func:`pydock_core.spec.builder.build_spec` turns it into config.json.

In a complete document every field is present; :data:`CONFIG` and :data:`HOST_CONFIG` hold their defaults.  A field that is
not listed here is refused by :func:`pydock_core.spec.validation.check_request`, unless its value is the default.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple, TypedDict, cast

from pydock_core.errors import CorruptError

VERSION = 1
"""Of the stored form: an object with the keys version, request and volumes."""
DEFAULT_SHM_BYTES = 64 * 1024 * 1024
SHORT_ID_DIGITS = 12


class LogConfig(TypedDict):
    """A log driver ("json-file" or "none") and its options."""

    Type: str
    Config: dict[str, str]


class PortBinding(TypedDict):
    """An address and a port of the host; an empty port lets the kernel choose."""

    HostIp: str
    HostPort: str


class Ulimit(TypedDict):
    """A resource limit; -1 is unlimited."""

    Name: str
    Soft: int
    Hard: int


class DeviceMapping(TypedDict):
    """A device of the host, its path in the container, and the allowed subset of "rwm"."""

    PathOnHost: str
    PathInContainer: str
    CgroupPermissions: str


class EndpointSettings(TypedDict):
    """A container's attachment to one network."""

    IPAMConfig: dict[str, str] | None
    Aliases: list[str] | None
    MacAddress: str


class NetworkingConfig(TypedDict):
    """The networks of a container, by name."""

    EndpointsConfig: dict[str, EndpointSettings]


class ContainerConfig(TypedDict):
    """The part of a definition that an image can give too.

    A null Cmd or Entrypoint, and an empty User, WorkingDir or StopSignal, is the image's.  ``StopTimeout`` is in seconds,
    negative for no limit.
    """

    Hostname: str
    User: str
    AttachStdin: bool
    AttachStdout: bool
    AttachStderr: bool
    ExposedPorts: dict[str, Any]
    Tty: bool
    OpenStdin: bool
    StdinOnce: bool
    Env: list[str]
    Cmd: list[str] | None
    Image: str
    Volumes: dict[str, Any]
    WorkingDir: str
    Entrypoint: list[str] | None
    Labels: dict[str, str]
    StopSignal: str
    StopTimeout: float | None


class HostConfig(TypedDict):
    """The part of a definition that depends on the host.

    Sizes are in bytes, and 0 is no limit.  ``Mounts`` are checked and read by :mod:`pydock_core.spec.mount`.
    """

    Binds: list[str] | None
    LogConfig: LogConfig
    NetworkMode: str
    PortBindings: dict[str, list[PortBinding]]
    AutoRemove: bool
    Mounts: list[dict[str, Any]]
    Annotations: dict[str, str]
    CapAdd: list[str] | None
    CapDrop: list[str] | None
    ExtraHosts: list[str] | None
    GroupAdd: list[str] | None
    OomScoreAdj: int
    Privileged: bool
    ReadonlyRootfs: bool
    SecurityOpt: list[str] | None
    Tmpfs: dict[str, str]
    ShmSize: int
    Sysctls: dict[str, str]
    Runtime: str
    CpuShares: int
    Memory: int
    NanoCpus: int
    CpusetCpus: str
    Devices: list[DeviceMapping]
    MemorySwap: int
    PidsLimit: int | None
    Ulimits: list[Ulimit]


_Host = HostConfig
_Networking = NetworkingConfig


class CreateRequest(ContainerConfig):
    """The body of ``POST /containers/create``, complete."""

    HostConfig: _Host
    NetworkingConfig: _Networking


CONFIG: ContainerConfig = {
    "Hostname": "",
    "User": "",
    "AttachStdin": False,
    "AttachStdout": False,
    "AttachStderr": False,
    "ExposedPorts": {},
    "Tty": False,
    "OpenStdin": False,
    "StdinOnce": False,
    "Env": [],
    "Cmd": None,
    "Image": "",
    "Volumes": {},
    "WorkingDir": "",
    "Entrypoint": None,
    "Labels": {},
    "StopSignal": "",
    "StopTimeout": None,
}
HOST_CONFIG: HostConfig = {
    "Binds": None,
    "LogConfig": {"Type": "", "Config": {}},
    "NetworkMode": "",
    "PortBindings": {},
    "AutoRemove": False,
    "Mounts": [],
    "Annotations": {},
    "CapAdd": None,
    "CapDrop": None,
    "ExtraHosts": None,
    "GroupAdd": None,
    "OomScoreAdj": 0,
    "Privileged": False,
    "ReadonlyRootfs": False,
    "SecurityOpt": None,
    "Tmpfs": {},
    "ShmSize": DEFAULT_SHM_BYTES,
    "Sysctls": {},
    "Runtime": "",
    "CpuShares": 0,
    "Memory": 0,
    "NanoCpus": 0,
    "CpusetCpus": "",
    "Devices": [],
    "MemorySwap": 0,
    "PidsLimit": None,
    "Ulimits": [],
}
ENDPOINT: EndpointSettings = {"IPAMConfig": None, "Aliases": None, "MacAddress": ""}

FIXED_CONFIG: Mapping[str, Any] = {"Domainname": "", "OnBuild": None}
"""Fields that ``docker inspect`` shows and that have one value here."""
FIXED_HOST_CONFIG: Mapping[str, Any] = {
    "ContainerIDFile": "",
    "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
    "VolumeDriver": "",
    "VolumesFrom": None,
    "ConsoleSize": [0, 0],
    "CgroupnsMode": "private",
    "Dns": [],
    "DnsOptions": [],
    "DnsSearch": [],
    "IpcMode": "private",
    "Cgroup": "",
    "Links": None,
    "PidMode": "",
    "PublishAllPorts": False,
    "UTSMode": "",
    "UsernsMode": "",
    "Isolation": "",
    "CgroupParent": "",
    "BlkioWeight": 0,
    "BlkioWeightDevice": [],
    "BlkioDeviceReadBps": [],
    "BlkioDeviceWriteBps": [],
    "BlkioDeviceReadIOps": [],
    "BlkioDeviceWriteIOps": [],
    "CpuPeriod": 0,
    "CpuQuota": 0,
    "CpuRealtimePeriod": 0,
    "CpuRealtimeRuntime": 0,
    "CpusetMems": "",
    "DeviceCgroupRules": None,
    "DeviceRequests": None,
    "MemoryReservation": 0,
    "MemorySwappiness": None,
    "OomKillDisable": False,
    "CpuCount": 0,
    "CpuPercent": 0,
    "IOMaximumIOps": 0,
    "IOMaximumBandwidth": 0,
}


class Definition(NamedTuple):
    """A container's stored definition.

    Attributes:
        request: complete, and merged with the image's configuration.
        volumes: the generated names of its anonymous volumes, by mount target.
    """

    request: CreateRequest
    volumes: dict[str, str]

    @property
    def host(self) -> HostConfig:
        """The request's HostConfig."""
        return self.request["HostConfig"]

    @property
    def command_line(self) -> list[str]:
        """The words that the container executes."""
        return [*(self.request["Entrypoint"] or ()), *(self.request["Cmd"] or ())]

    def host_name(self, container_id: str) -> str:
        """The requested host name, or the short id."""
        return self.request["Hostname"] or container_id[:SHORT_ID_DIGITS]


def complete(document: Mapping[str, Any]) -> CreateRequest:
    """Return a document with the default of each missing field.  The defaults are shared: do not change them in place."""
    endpoints = document.get("NetworkingConfig", {}).get("EndpointsConfig", {})
    return cast(
        "CreateRequest",
        {
            **CONFIG,
            **document,
            "HostConfig": {**HOST_CONFIG, **document.get("HostConfig", {})},
            "NetworkingConfig": {
                "EndpointsConfig": {name: {**ENDPOINT, **settings} for name, settings in endpoints.items()}
            },
        },
    )


def compact(request: CreateRequest) -> dict[str, Any]:
    """Return a document without the fields that have their default; :func:`complete` is the inverse."""
    host = _differing(request["HostConfig"], HOST_CONFIG)
    endpoints = request["NetworkingConfig"]["EndpointsConfig"]
    return {
        **{name: value for name, value in _differing(request, CONFIG).items() if name in CONFIG},
        "HostConfig": host,
        "NetworkingConfig": {
            "EndpointsConfig": {name: _differing(settings, ENDPOINT) for name, settings in endpoints.items()}
        },
    }


def _differing(document: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if value != defaults.get(name)}


def encode(definition: Definition) -> str:
    """Return the stored form; :func:`decode` is the inverse."""
    return json.dumps(
        {"version": VERSION, "request": compact(definition.request), "volumes": definition.volumes}
    )


def decode(text: str) -> Definition:
    """Read the stored form.

    Raises:
        CorruptError: the version is another one.
    """
    document = json.loads(text)
    if document["version"] != VERSION:
        raise CorruptError(
            f"a container's definition has version {document['version']}, this PyDock reads {VERSION}",
            "use the PyDock that wrote it",
        )
    return Definition(complete(document["request"]), document["volumes"])
