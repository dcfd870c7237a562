"""Validates a create request, whatever its source.  Pure, except for the number of this host's processors."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from math import isfinite
from typing import Any

from pydock_core.errors import InvalidError, UnsupportedError
from pydock_core.runtime.capabilities import normalize_name
from pydock_core.runtime.signals import signal_name, signal_number
from pydock_core.spec.definition import (
    CONFIG,
    DEFAULT_SHM_BYTES,
    ENDPOINT,
    FIXED_CONFIG,
    FIXED_HOST_CONFIG,
    HOST_CONFIG,
    ContainerConfig,
    CreateRequest,
    EndpointSettings,
    HostConfig,
    complete,
)
from pydock_core.spec.log_option import parse_limits
from pydock_core.spec.mount import read_mounts
from pydock_core.spec.port import check_port, read_ports
from pydock_core.spec.security import read_security

HOST_GATEWAY = "host-gateway"
"""Docker's word for the host's address in ExtraHosts."""
LEAST_MEMORY_BYTES = 6 * 1024 * 1024
NETWORK_MODES = ("none", "host", "bridge")

_LARGEST = (1 << 63) - 1
_DEEPEST = 10
"""No field of the Engine API is nested as deep."""
_ULIMITS = "as core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack".split()
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?")
_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")
_ADDRESS = re.compile(r"[0-9A-Fa-f:.]+(%[A-Za-z0-9_.-]+)?")
_DEVICE_ACCESS = re.compile(r"[rwm]{1,3}")

_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "RestartPolicy": ({"Name": "", "MaximumRetryCount": 0}, {"Name": ""}, {"Name": "no"}),
    "Isolation": ("default",),
    "MemorySwappiness": (-1,),
}
"""Further values of unsupported fields that mean their default: clients send them."""

Names = Mapping[str, str]
"""The requester's name of a field: "--memory" for "Memory"; the field's own name by default."""


def check_request(document: Mapping[str, Any], names: Names | None = None) -> CreateRequest:
    """Return a create request with every field; null is a field's default.

    Args:
        document: the body of ``POST /containers/create``; fields may be missing.
        names: how errors call the fields.

    Raises:
        InvalidError: a value is malformed, or contradicts another one; exit code 125.
        UnsupportedError: a field that PyDock does not have, with a value that is not its default; exit code 125.
    """
    checker = _Checker(names or {})
    nested = {"HostConfig", "NetworkingConfig"}
    config = {name: value for name, value in document.items() if name not in nested}
    networking = checker.object("NetworkingConfig", document.get("NetworkingConfig"))
    if unknown := set(networking) - {"EndpointsConfig"}:
        raise checker.unsupported(f"NetworkingConfig.{min(unknown)}")
    endpoints = checker.object("EndpointsConfig", networking.get("EndpointsConfig"))
    host = checker.object("HostConfig", document.get("HostConfig"))
    request = complete(
        {
            **checker.fields(config, ContainerConfig, CONFIG, FIXED_CONFIG),
            "HostConfig": checker.fields(host, HostConfig, HOST_CONFIG, FIXED_HOST_CONFIG),
            "NetworkingConfig": {
                "EndpointsConfig": {
                    name: checker.fields(
                        checker.object(f"EndpointsConfig.{name}", settings), EndpointSettings, ENDPOINT, {}
                    )
                    for name, settings in endpoints.items()
                }
            },
        }
    )
    checker.check_config(request)
    checker.check_host(request["HostConfig"])
    checker.check_networks(request)
    checker.check_mounts(request)
    return request


class _Checker:
    """The rules, with the requester's names of the fields."""

    def __init__(self, names: Names) -> None:
        self._names = names

    def name(self, field: str) -> str:
        return self._names.get(field, field)

    def invalid(self, field: str, value: object, reason: str, hint: str) -> InvalidError:
        spelling = "" if value is None else f" {value}"
        return InvalidError(f"invalid {self.name(field)}{spelling}: {reason}", hint, exit_code=125)

    def unsupported(self, field: str) -> UnsupportedError:
        return UnsupportedError(
            f"field {field} is not supported by this version of PyDock", "leave it out", exit_code=125
        )

    def object(self, field: str, value: Any) -> dict[str, Any]:
        if value is not None and not isinstance(value, dict):
            raise self.invalid(field, None, "not an object", "see the Engine API")
        return value or {}

    def check_texts(self, value: Any, depth: int = 0) -> None:
        """Refuse text that no system call takes; other bytes than UTF-8 come as surrogates (PEP 383)."""
        if depth > _DEEPEST:
            raise InvalidError("invalid request: nested too deeply", "see the Engine API", exit_code=125)
        if isinstance(value, dict):
            for item in (*value, *value.values()):
                self.check_texts(item, depth + 1)
        elif isinstance(value, list):
            for item in value:
                self.check_texts(item, depth + 1)
        elif isinstance(value, str) and ("\0" in value or not (value.isascii() or _is_encodable(value))):
            raise InvalidError(
                f"invalid text {value[:40]!r}", "write it without zero bytes and surrogates", exit_code=125
            )

    # -- types -----------------------------------------------------------------------------------------

    def fields(
        self, document: Mapping[str, Any], shape: type, defaults: Mapping[str, Any], fixed: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return the fields of one object that are given, of the types that ``shape`` declares."""
        given = {}
        for name, value in document.items():
            if name in defaults:
                if value is None or value is defaults[name]:
                    continue
                if value == [] and name != "Entrypoint":  # if it is not the image's
                    continue
                check, kind = _TYPES[shape.__annotations__[name].__forward_arg__]
                if not check(value):
                    raise self.invalid(name, None, f"not {kind}", "see the Engine API")
                self.check_texts(value)
                given[name] = value
            elif value and value != fixed.get(name) and value not in _NEUTRAL.get(name, ()):
                raise self.unsupported(name)
        return given

    # -- rules -----------------------------------------------------------------------------------------

    def check_config(self, request: CreateRequest) -> None:
        if not request["Image"]:
            raise self.invalid("Image", None, "it is empty", "name an image")
        name = request["Hostname"]
        if name and (len(name) > 64 or not _HOST_NAME.fullmatch(name)):
            raise self.invalid(
                "Hostname", repr(name), "not a host name", "letters, digits, '-' and '.', at most 64"
            )
        for entry in request["Env"]:
            variable = entry.partition("=")[0]
            if not variable or any(character.isspace() for character in variable):
                raise self.invalid("Env", entry, "not a name of a variable", "write NAME=VALUE")
        if "" in request["Labels"]:
            raise self.invalid(
                "Labels", f"={request['Labels']['']}", "a label needs a key", "write KEY=VALUE"
            )
        directory = request["WorkingDir"]
        if directory and not directory.startswith("/"):
            raise self.invalid(
                "WorkingDir", directory, "not an absolute path", "a path in the container begins with /"
            )
        request["WorkingDir"] = directory and posixpath.normpath("/" + directory.lstrip("/"))
        ports = (*request["HostConfig"]["PortBindings"], *request["ExposedPorts"])
        request["ExposedPorts"] = {check_port(port): {} for port in ports}
        if request["StopSignal"]:
            number = signal_number(request["StopSignal"], self.name("StopSignal"))
            request["StopSignal"] = f"SIG{signal_name(number)}"

    def check_host(self, host: HostConfig) -> None:
        self._check_limits(host)
        for limit in host["Ulimits"]:
            self._check_ulimit(limit)
        host["ExtraHosts"] = [self._host_line(line) for line in host["ExtraHosts"] or ()] or None
        for device in host["Devices"]:
            self._check_device(device)
        if not host["ShmSize"]:
            host["ShmSize"] = DEFAULT_SHM_BYTES
        host["CapAdd"] = [self._capability("CapAdd", name) for name in host["CapAdd"] or ()] or None
        host["CapDrop"] = [self._capability("CapDrop", name) for name in host["CapDrop"] or ()] or None
        host["Mounts"] = [_without_empty(mount) for mount in host["Mounts"]]
        host["PidsLimit"] = host["PidsLimit"] or None
        read_security(host["SecurityOpt"] or ())
        read_ports(host["PortBindings"])
        log = host["LogConfig"]
        if not isinstance(log.get("Type") or "", str) or not _is_text_map(log.get("Config") or {}):
            raise self.invalid("LogConfig", None, "malformed", "give Type and Config")
        host["LogConfig"] = {"Type": log.get("Type") or "json-file", "Config": log.get("Config") or {}}
        parse_limits(host["LogConfig"]["Type"], host["LogConfig"]["Config"])

    def _capability(self, field: str, name: str) -> str:
        try:
            return "ALL" if name.upper() == "ALL" else normalize_name(name)
        except InvalidError as error:
            raise self.invalid(field, name, "no capability has this name", "see capabilities(7)") from error

    def _check_limits(self, host: HostConfig) -> None:
        self._check_range(host, "OomScoreAdj", -1000, 1000)
        self._check_range(host, "ShmSize", 0, _LARGEST)
        self._check_range(host, "MemorySwap", -1, _LARGEST)
        if host["CpuShares"]:
            self._check_range(host, "CpuShares", 2, 262144)
        if host["PidsLimit"] is not None:
            self._check_range(host, "PidsLimit", -1, 1 << 22)
        memory, swap = host["Memory"], host["MemorySwap"]
        if memory and memory < LEAST_MEMORY_BYTES:
            raise self.invalid("Memory", memory, "less than 6 MiB cannot hold a container", "give 6m or more")
        if swap > 0 and (not memory or swap < memory):
            raise self.invalid(
                "MemorySwap",
                swap,
                "it counts memory and swap together",
                f"give {self.name('Memory')} too, and no more than {self.name('MemorySwap')}",
            )
        if host["NanoCpus"] and not 10**7 <= host["NanoCpus"] <= (os.cpu_count() or 1) * 10**9:
            processors = os.cpu_count() or 1
            raise self.invalid(
                "NanoCpus",
                f"{host['NanoCpus'] / 1e9:g} processors",
                f"this host has {processors}",
                f"give 0.01 to {processors}",
            )

    def _check_range(self, host: HostConfig, field: str, low: int, high: int) -> None:
        value = host[field]  # type: ignore[literal-required]  # every caller gives a literal
        if not low <= value <= high:
            raise self.invalid(field, value, "out of range", f"give {low} to {high}")

    def _check_ulimit(self, limit: Any) -> None:
        name, soft, hard = limit.get("Name"), limit.get("Soft", 0), limit.get("Hard", 0)
        spelling = f"{name}={soft}:{hard}"
        if name not in _ULIMITS:
            raise self.invalid("Ulimits", spelling, "unknown limit", f"there are {', '.join(_ULIMITS)}")
        if not all(_is_integer(value) and -1 <= value <= _LARGEST for value in (soft, hard)):
            raise self.invalid("Ulimits", spelling, "out of range", f"give -1 to {_LARGEST}")
        if hard != -1 and (soft == -1 or soft > hard):
            raise self.invalid("Ulimits", spelling, "the soft limit is above the hard one", "write SOFT:HARD")

    def _host_line(self, line: str) -> str:
        """Return NAME:ADDRESS with the address in its normal form."""
        host, _, address = line.partition(":")
        if not _HOST.fullmatch(host):
            raise self.invalid(
                "ExtraHosts",
                line,
                f"{host!r} is not a host name",
                "letters, digits, '-', '_' and '.': hosts(5)",
            )
        if address == HOST_GATEWAY:
            return line
        try:
            plain = str(ip_address(address))
        except ValueError:
            plain = ""
        if not _ADDRESS.fullmatch(plain):  # the zone of an IPv6 address may be any text
            raise self.invalid(
                "ExtraHosts",
                line,
                f"{address!r} is not an address",
                f"write NAME:ADDRESS or NAME:{HOST_GATEWAY}",
            )
        return f"{host}:{plain}"

    def _check_device(self, device: Any) -> None:
        paths = (device.get("PathOnHost"), device.get("PathInContainer"))
        access = device.get("CgroupPermissions")
        if not all(isinstance(path, str) and path.startswith("/") for path in paths) or not (
            isinstance(access, str) and _DEVICE_ACCESS.fullmatch(access)
        ):
            raise self.invalid(
                "Devices",
                ":".join(map(str, (*paths, access))),
                "malformed",
                "write /dev/HOST[:/dev/CONTAINER[:rwm]]",
            )

    def check_networks(self, request: CreateRequest) -> None:
        """Check the networks: any number can be defined, and one can be attached."""
        host, endpoints = request["HostConfig"], request["NetworkingConfig"]["EndpointsConfig"]
        mode = "" if host["NetworkMode"] == "default" else host["NetworkMode"]
        host["NetworkMode"] = mode
        if len(endpoints) > 1:
            raise UnsupportedError(
                f"networks {', '.join(endpoints)}: a container can be attached to one network only",
                "give one; this version of PyDock supports one",
                exit_code=125,
            )
        for name, settings in endpoints.items():
            for field, value in settings.items():
                if value:
                    raise self.unsupported(f"EndpointsConfig.{name}.{field}")
            if mode and name not in (mode, "default"):
                raise self.invalid(
                    "NetworkMode", mode, f"EndpointsConfig names the network {name}", "name the same in both"
                )
            mode = mode or ("" if name == "default" else name)
        host["NetworkMode"] = mode
        request["NetworkingConfig"] = {"EndpointsConfig": {}}
        if mode and mode not in NETWORK_MODES and not (mode.startswith("container:") and mode[10:]):
            raise UnsupportedError(
                f"{self.name('NetworkMode')} {mode}: this version of PyDock does not support user-defined networks",
                "there are none, host, bridge and container:NAME",
                exit_code=125,
            )

    def check_mounts(self, request: CreateRequest) -> None:
        targets: set[str] = set()
        for mount in read_mounts(request, {}):
            if mount.target in targets:
                raise InvalidError(
                    f"two mounts have the target {mount.target}", "give each its own target", exit_code=125
                )
            targets.add(mount.target)


def _is_encodable(text: str) -> bool:
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return True


def _without_empty(document: Mapping[str, Any]) -> dict[str, Any]:
    cleaned = {
        key: _without_empty(value) if isinstance(value, dict) else value for key, value in document.items()
    }
    return {key: value for key, value in cleaned.items() if value}


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_integer(value) or (isinstance(value, float) and isfinite(value))


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_text_map(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(item, str) for item in value.values())


def _is_objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


_TYPES: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "str": (lambda value: isinstance(value, str), "a string"),
    "bool": (lambda value: isinstance(value, bool), "a boolean"),
    "int": (_is_integer, "an integer"),
    "int | None": (_is_integer, "an integer"),
    "float | None": (_is_number, "a number"),
    "list[str]": (_is_texts, "a list of strings"),
    "list[str] | None": (_is_texts, "a list of strings"),
    "dict[str, str]": (_is_text_map, "an object of strings"),
    "dict[str, str] | None": (_is_text_map, "an object of strings"),
    "dict[str, Any]": (lambda value: isinstance(value, dict), "an object"),
    "LogConfig": (lambda value: isinstance(value, dict), "an object"),
    "list[dict[str, Any]]": (_is_objects, "a list of objects"),
    "list[Ulimit]": (_is_objects, "a list of objects"),
    "list[DeviceMapping]": (_is_objects, "a list of objects"),
    "dict[str, list[PortBinding]]": (
        lambda value: (
            isinstance(value, dict)
            and all(places is None or _is_objects(places) for places in value.values())
        ),
        "an object of lists of objects",
    ),
}
"""By the type that a document declares: a check, and how errors call it."""
