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
"""Of the stored form: an object with the keys version, request, volumes and, if there are any, inherited."""
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


class RestartPolicy(TypedDict):
    """The restart policy of a container; the count applies only to "on-failure", and 0 means no limit."""

    Name: str
    MaximumRetryCount: int


class WeightDevice(TypedDict):
    """The weight of a container's requests to one block device of the host."""

    Path: str
    Weight: int


class ThrottleDevice(TypedDict):
    """The limit per second of a container's requests to one block device of the host."""

    Path: str
    Rate: int


class HealthConfig(TypedDict, total=False):
    """A health check; see :mod:`pydock_core.spec.health`."""

    Test: list[str]
    Interval: int
    Timeout: int
    StartPeriod: int
    StartInterval: int
    Retries: int


class DeviceMapping(TypedDict):
    """A device of the host, its path in the container, and the allowed subset of "rwm"."""

    PathOnHost: str
    PathInContainer: str
    CgroupPermissions: str


class DeviceRequest(TypedDict):
    """A request for a driver's devices.

    Attributes:
        Driver: "nvidia", "amd", "intel" or "cdi"; empty for the first match.
        Count: number of devices; -1 for all.  Either this or ``DeviceIDs``.
        DeviceIDs: names of a driver's devices, qualified ones with "cdi".
        Capabilities: alternatives, each a list of capabilities that the driver must have.
    """

    Driver: str
    Count: int
    DeviceIDs: list[str] | None
    Capabilities: list[list[str]] | None
    Options: dict[str, str] | None


class EndpointSettings(TypedDict):
    """A container's attachment to one network.

    ``IPAMConfig`` has IPv4Address and IPv6Address.  The network with the highest ``GwPriority`` has the default route.
    """

    IPAMConfig: dict[str, Any] | None
    Links: list[str] | None
    Aliases: list[str] | None
    MacAddress: str
    DriverOpts: dict[str, str] | None
    GwPriority: int


class NetworkingConfig(TypedDict):
    """The networks of a container, by name."""

    EndpointsConfig: dict[str, EndpointSettings]


class ContainerConfig(TypedDict):
    """The part of a definition that an image can give too.

    A null Cmd or Entrypoint, and an empty User, WorkingDir or StopSignal, is the image's.  ``StopTimeout`` is in seconds,
    negative for no limit.
    """

    Hostname: str
    Domainname: str
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
    Healthcheck: HealthConfig | None
    Shell: list[str] | None


_RestartPolicy = RestartPolicy


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
    VolumesFrom: list[str] | None
    VolumeDriver: str
    Annotations: dict[str, str]
    CapAdd: list[str] | None
    CapDrop: list[str] | None
    Dns: list[str]
    DnsOptions: list[str]
    DnsSearch: list[str]
    ExtraHosts: list[str] | None
    Links: list[str] | None
    PublishAllPorts: bool
    GroupAdd: list[str] | None
    OomScoreAdj: int
    Privileged: bool
    ReadonlyRootfs: bool
    SecurityOpt: list[str] | None
    Tmpfs: dict[str, str]
    ShmSize: int
    Sysctls: dict[str, str]
    Runtime: str
    Init: bool | None
    CpuShares: int
    CpuPeriod: int
    CpuQuota: int
    Memory: int
    MemoryReservation: int
    NanoCpus: int
    CpusetCpus: str
    CpusetMems: str
    BlkioWeight: int
    Devices: list[DeviceMapping]
    DeviceRequests: list[DeviceRequest] | None
    MemorySwap: int
    PidsLimit: int | None
    Ulimits: list[Ulimit]
    RestartPolicy: _RestartPolicy
    CgroupnsMode: str
    IpcMode: str
    PidMode: str
    UTSMode: str
    UsernsMode: str
    CgroupParent: str
    BlkioWeightDevice: list[WeightDevice]
    BlkioDeviceReadBps: list[ThrottleDevice]
    BlkioDeviceWriteBps: list[ThrottleDevice]
    BlkioDeviceReadIOps: list[ThrottleDevice]
    BlkioDeviceWriteIOps: list[ThrottleDevice]
    DeviceCgroupRules: list[str] | None
    MemorySwappiness: int | None
    OomKillDisable: bool


_Host = HostConfig
_Networking = NetworkingConfig


class CreateRequest(ContainerConfig):
    """The body of ``POST /containers/create``, complete."""

    HostConfig: _Host
    NetworkingConfig: _Networking


CONFIG: ContainerConfig = {
    "Hostname": "",
    "Domainname": "",
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
    "Healthcheck": None,
    "Shell": None,
}
HOST_CONFIG: HostConfig = {
    "Binds": None,
    "LogConfig": {"Type": "", "Config": {}},
    "NetworkMode": "",
    "PortBindings": {},
    "AutoRemove": False,
    "Mounts": [],
    "VolumesFrom": None,
    "VolumeDriver": "",
    "Annotations": {},
    "CapAdd": None,
    "CapDrop": None,
    "Dns": [],
    "DnsOptions": [],
    "DnsSearch": [],
    "ExtraHosts": None,
    "Links": None,
    "PublishAllPorts": False,
    "GroupAdd": None,
    "OomScoreAdj": 0,
    "Privileged": False,
    "ReadonlyRootfs": False,
    "SecurityOpt": None,
    "Tmpfs": {},
    "ShmSize": DEFAULT_SHM_BYTES,
    "Sysctls": {},
    "Runtime": "",
    "Init": None,
    "CpuShares": 0,
    "CpuPeriod": 0,
    "CpuQuota": 0,
    "Memory": 0,
    "MemoryReservation": 0,
    "NanoCpus": 0,
    "CpusetCpus": "",
    "CpusetMems": "",
    "BlkioWeight": 0,
    "Devices": [],
    "DeviceRequests": None,
    "MemorySwap": 0,
    "PidsLimit": None,
    "Ulimits": [],
    "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
    "CgroupnsMode": "private",
    "IpcMode": "private",
    "PidMode": "",
    "UTSMode": "",
    "UsernsMode": "",
    "CgroupParent": "",
    "BlkioWeightDevice": [],
    "BlkioDeviceReadBps": [],
    "BlkioDeviceWriteBps": [],
    "BlkioDeviceReadIOps": [],
    "BlkioDeviceWriteIOps": [],
    "DeviceCgroupRules": None,
    "MemorySwappiness": None,
    "OomKillDisable": False,
}
DEVICE_REQUEST: DeviceRequest = {
    "Driver": "",
    "Count": 0,
    "DeviceIDs": None,
    "Capabilities": None,
    "Options": None,
}
ENDPOINT: EndpointSettings = {
    "IPAMConfig": None,
    "Links": None,
    "Aliases": None,
    "MacAddress": "",
    "DriverOpts": None,
    "GwPriority": 0,
}
FIXED_ENDPOINT: Mapping[str, Any] = {
    "NetworkID": "",
    "EndpointID": "",
    "Gateway": "",
    "IPAddress": "",
    "IPPrefixLen": 0,
    "IPv6Gateway": "",
    "GlobalIPv6Address": "",
    "GlobalIPv6PrefixLen": 0,
    "DNSNames": None,
}
"""Fields of an attachment that ``inspect`` fills in and no request can set."""

FIXED_CONFIG: Mapping[str, Any] = {"OnBuild": None}
"""Fields that ``docker inspect`` shows and that have a constant value in PyDock."""
FIXED_HOST_CONFIG: Mapping[str, Any] = {
    "ContainerIDFile": "",
    "ConsoleSize": [0, 0],
    "Cgroup": "",
    "Isolation": "",
    "CpuRealtimePeriod": 0,
    "CpuRealtimeRuntime": 0,
    "CpuCount": 0,
    "CpuPercent": 0,
    "IOMaximumIOps": 0,
    "IOMaximumBandwidth": 0,
}


class Definition(NamedTuple):
    """A container's stored definition.

    Attributes:
        request: the complete request, merged with the image's configuration.
        volumes: the generated names of its anonymous volumes, and the ids of mounted images, by mount target.
        inherited: the mounts of VolumesFrom at its creation; see
            :func:`pydock_core.spec.mount.inherit_mounts`.
    """

    request: CreateRequest
    volumes: dict[str, str]
    inherited: list[dict[str, Any]] = []  # noqa: RUF012 - of a NamedTuple, and never changed

    @property
    def host(self) -> HostConfig:
        """The request's HostConfig."""
        return self.request["HostConfig"]

    @property
    def command_line(self) -> list[str]:
        """The words that the container executes."""
        return [*(self.request["Entrypoint"] or ()), *(self.request["Cmd"] or ())]

    def names(self, container_id: str) -> str:
        """Return the container's names for /etc/hosts; the name with its domain, if any, comes first."""
        name, domain = self.host_name(container_id), self.request["Domainname"]
        return f"{name}.{domain} {name}" if domain else name

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
    document = {"version": VERSION, "request": compact(definition.request), "volumes": definition.volumes}
    return json.dumps(document | ({"inherited": definition.inherited} if definition.inherited else {}))


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
    return Definition(complete(document["request"]), document["volumes"], document.get("inherited", []))
