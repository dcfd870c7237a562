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
    DEVICE_REQUEST,
    ENDPOINT,
    FIXED_CONFIG,
    FIXED_ENDPOINT,
    FIXED_HOST_CONFIG,
    HOST_CONFIG,
    ContainerConfig,
    CreateRequest,
    DeviceRequest,
    EndpointSettings,
    HostConfig,
    RestartPolicy,
    complete,
)
from pydock_core.spec.host_option import check_host_options
from pydock_core.spec.log_option import parse_limits
from pydock_core.spec.mount import parse_volumes_from, read_mounts
from pydock_core.spec.port import check_port, read_ports
from pydock_core.spec.security import read_security
from pydock_core.spec.volume import check_driver
from pydock_core.spelling import binary_size, spell_range

HOST_GATEWAY = "host-gateway"
"""Docker's word for the host's address in ExtraHosts."""
LEAST_MEMORY_BYTES = 6 * 1024 * 1024
NETWORK_MODES = ("none", "host", "bridge")
"""The predefined networks; any other mode is a network's name or id, or container:NAME."""

_LARGEST = (1 << 63) - 1
RANGES: Mapping[str, tuple[int, int]] = {
    "BlkioWeight": (10, 1000),
    "CpuPeriod": (1000, 1_000_000),
    "CpuQuota": (1000, _LARGEST),
    "CpuShares": (2, 262144),
    "MemorySwap": (-1, _LARGEST),
    "MemorySwappiness": (0, 100),
    "OomScoreAdj": (-1000, 1000),
    "PidsLimit": (-1, 1 << 22),
    "Retries": (0, _LARGEST),
    "ShmSize": (0, _LARGEST),
}
"""The least and the greatest value of a field of HostConfig or Healthcheck; 0 is the default of most."""
_DEEPEST = 10
"""No field of the Engine API is nested as deep."""
_ULIMITS = "as core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack".split()
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?")
_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")
_ADDRESS = re.compile(r"[0-9A-Fa-f:.]+(%[A-Za-z0-9_.-]+)?")
_NETWORK = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_MAC_ADDRESS = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")
_DNS_OPTION = re.compile(r"[a-z0-9-]+(:[0-9]+)?")
_LONGEST_HOST_NAME = 253
_NUMBER_LIST = re.compile(r"[0-9]{1,5}(-[0-9]{1,5})?(,[0-9]{1,5}(-[0-9]{1,5})?)*")
"""Numbers of processors or memory nodes (cpuset(7), "List format")."""
_DEVICE_ACCESS = re.compile(r"[rwm]{1,3}")

_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
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
                        checker.object(f"EndpointsConfig.{name}", settings),
                        EndpointSettings,
                        ENDPOINT,
                        FIXED_ENDPOINT,
                    )
                    for name, settings in endpoints.items()
                }
            },
        }
    )
    checker.check_config(request)
    checker.check_host(request["HostConfig"])
    check_host_options(request)
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
        if request["Healthcheck"] is not None:
            from pydock_core.spec.health import check_health  # late: few containers have a check

            request["Healthcheck"] = check_health(request["Healthcheck"])
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
        host["DeviceRequests"] = [self._device_request(item) for item in host["DeviceRequests"] or ()] or None
        if not host["ShmSize"]:
            host["ShmSize"] = DEFAULT_SHM_BYTES
        host["CapAdd"] = [self._capability("CapAdd", name) for name in host["CapAdd"] or ()] or None
        host["CapDrop"] = [self._capability("CapDrop", name) for name in host["CapDrop"] or ()] or None
        host["Mounts"] = [_without_empty(mount) for mount in host["Mounts"]]
        host["PidsLimit"] = host["PidsLimit"] or None
        host["Init"] = host["Init"] or None
        check_driver(host["VolumeDriver"])
        for text in host["VolumesFrom"] or ():
            parse_volumes_from(text)
        read_security(host["SecurityOpt"] or ())
        read_ports(host["PortBindings"])
        log = host["LogConfig"]
        if not isinstance(log.get("Type") or "", str) or not _is_text_map(log.get("Config") or {}):
            raise self.invalid("LogConfig", None, "malformed", "give Type and Config")
        host["LogConfig"] = {"Type": log.get("Type") or "json-file", "Config": log.get("Config") or {}}
        parse_limits(host["LogConfig"]["Type"], host["LogConfig"]["Config"])
        if host["RestartPolicy"] != HOST_CONFIG["RestartPolicy"]:
            host["RestartPolicy"] = check_restart_policy(host["RestartPolicy"], self.name("RestartPolicy"))
        if host["AutoRemove"] and host["RestartPolicy"] != HOST_CONFIG["RestartPolicy"]:
            raise InvalidError(
                f"{self.name('AutoRemove')} cannot be combined with {self.name('RestartPolicy')} "
                f"{host['RestartPolicy']['Name']}: a container that is removed at its end is not started again",
                "leave one of the two out",
                exit_code=125,
            )

    def _capability(self, field: str, name: str) -> str:
        try:
            return "ALL" if name.upper() == "ALL" else normalize_name(name)
        except InvalidError as error:
            raise self.invalid(field, name, "no capability has this name", "see capabilities(7)") from error

    def _check_limits(self, host: HostConfig) -> None:
        self._check_range(host, "OomScoreAdj")
        self._check_range(host, "ShmSize")
        self._check_range(host, "MemorySwap")
        if host["CpuShares"]:
            self._check_range(host, "CpuShares")
        if host["PidsLimit"] is not None:
            self._check_range(host, "PidsLimit")
        if host["BlkioWeight"]:
            self._check_range(host, "BlkioWeight")
        if host["CpuPeriod"]:
            self._check_range(host, "CpuPeriod")
        if host["CpuQuota"] not in (0, -1):
            self._check_range(host, "CpuQuota")
        for field in ("CpusetCpus", "CpusetMems"):
            text = host[field]
            if text and not _NUMBER_LIST.fullmatch(text):
                raise self.invalid(field, text, "not a list of numbers", "write 0-3 or 0,2")
        for field, value in (("CpuPeriod", host["CpuPeriod"]), ("CpuQuota", host["CpuQuota"])):
            if host["NanoCpus"] and value:
                reason = f"it cannot be combined with {self.name('NanoCpus')}, which sets the same limit"
                raise self.invalid(field, value, reason, "leave one of the two out")
        reservation = host["MemoryReservation"]
        if reservation and reservation < LEAST_MEMORY_BYTES:
            text = binary_size(reservation)
            raise self.invalid("MemoryReservation", text, "it is less than 6 MiB", "give 6m or more")
        if host["Memory"] and reservation > host["Memory"]:
            reason = f"it is more than {self.name('Memory')}"
            text = binary_size(reservation)
            raise self.invalid("MemoryReservation", text, reason, "give less than the limit")
        memory, swap = host["Memory"], host["MemorySwap"]
        if memory and memory < LEAST_MEMORY_BYTES:
            reason = "less than 6 MiB cannot hold a container"
            raise self.invalid("Memory", binary_size(memory), reason, "give 6m or more")
        if swap > 0 and (not memory or swap < memory):
            raise self.invalid(
                "MemorySwap",
                binary_size(swap),
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

    def _check_range(self, host: HostConfig, field: str) -> None:
        value = host[field]  # type: ignore[literal-required]  # every caller gives a literal
        low, high = RANGES[field]
        if not low <= value <= high:
            raise self.invalid(field, value, "out of range", spell_range(low, high))

    def _check_ulimit(self, limit: Any) -> None:
        name, soft, hard = limit.get("Name"), limit.get("Soft", 0), limit.get("Hard", 0)
        spelling = f"{name}={soft}:{hard}"
        if name not in _ULIMITS:
            raise self.invalid("Ulimits", spelling, "unknown limit", f"there are {', '.join(_ULIMITS)}")
        if not all(_is_integer(value) and -1 <= value <= _LARGEST for value in (soft, hard)):
            raise self.invalid("Ulimits", spelling, "out of range", spell_range(-1, _LARGEST))
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
                "write /dev/HOST[:/dev/CONTAINER[:rwm]], or vendor.com/class=name for a CDI device",
            )

    def _device_request(self, document: Any) -> DeviceRequest:
        """Return a request for devices with every field; the devices themselves are checked against the host later."""
        flag = self.name("DeviceRequests")
        request: DeviceRequest = {**DEVICE_REQUEST, **document}
        for field, check in _DEVICE_REQUEST_TYPES.items():
            if not check(request[field]):  # type: ignore[literal-required]
                raise self.invalid("DeviceRequests", None, f"{field} is malformed", "see the Engine API")
        if unknown := set(request) - set(DEVICE_REQUEST):
            raise self.unsupported(f"DeviceRequests.{min(unknown)}")
        self.check_texts(request)
        if request["Options"]:
            raise UnsupportedError(
                f"{flag} options: no device driver has options here", "leave them out", exit_code=125
            )
        if request["Driver"] == "cdi" and not (request["DeviceIDs"] and not request["Count"]):
            raise self.invalid(
                "DeviceRequests",
                None,
                "the driver cdi takes DeviceIDs alone",
                "write --device vendor.com/class=name",
            )
        if request["Count"] and request["DeviceIDs"]:
            raise self.invalid(
                "DeviceRequests",
                None,
                "a count and devices cannot be given together",
                "give one of the two; several devices need quotes: --gpus '\"device=0,1\"'",
            )
        return request

    def check_networks(self, request: CreateRequest) -> None:
        """Check the networks, and put the one of the network mode first."""
        host, endpoints = request["HostConfig"], request["NetworkingConfig"]["EndpointsConfig"]
        mode = "" if host["NetworkMode"] == "default" else host["NetworkMode"]
        if mode.startswith("container:") and not mode[10:]:
            raise self.invalid("NetworkMode", mode, "it names no container", "write container:NAME")
        mode = mode or next((name for name in endpoints if name != "default"), "")
        host["NetworkMode"] = mode
        first = mode or "default"
        ordered = {
            first: endpoints.get(first)
            or (endpoints.get("default") if first in NETWORK_MODES else None)
            or ENDPOINT
        }
        ordered |= {name: settings for name, settings in endpoints.items() if name not in (first, "default")}
        for name, settings in ordered.items():
            self._check_endpoint(name, settings)
        alone = next(
            (name for name in ordered if name in ("none", "host") or name.startswith("container:")), None
        )
        if alone is not None and len(ordered) > 1:
            raise self.invalid(
                "NetworkMode",
                ", ".join(ordered),
                f"{alone} cannot be combined with another network",
                "give networks that were created, or bridge",
            )
        self._check_name_service(host)
        is_plain = list(ordered) == ["default"] and ordered["default"] == ENDPOINT
        is_shared = mode.startswith("container:")
        request["NetworkingConfig"] = {"EndpointsConfig": {} if is_plain or is_shared else ordered}

    def _check_endpoint(self, name: str, settings: EndpointSettings) -> None:
        is_predefined = name in (*NETWORK_MODES, "default") or name.startswith("container:")
        if not is_predefined and not _NETWORK.fullmatch(name):
            raise self.invalid("NetworkMode", name, "not a network's name", "dock network ls lists them")
        ipam = settings["IPAMConfig"] or {}
        for field, version in (("IPv4Address", 4), ("IPv6Address", 6)):
            if text := ipam.get(field):
                try:
                    is_good = ip_address(text).version == version
                except ValueError:
                    is_good = False
                if not is_good:
                    raise self.invalid(
                        field, text, f"not an IPv{version} address", "give an address of the network"
                    )
        if unknown := [
            key for key, value in ipam.items() if value and key not in ("IPv4Address", "IPv6Address")
        ]:
            raise UnsupportedError(
                f"{self.name(unknown[0])} is not supported: containers have no link-local addresses for each other",
                "leave it out",
                exit_code=125,
            )
        if settings["DriverOpts"]:
            raise UnsupportedError(
                f"driver option {min(settings['DriverOpts'])} of network {name} is not supported",
                "leave it out",
                exit_code=125,
            )
        mac_address = settings["MacAddress"]
        if mac_address and (not _MAC_ADDRESS.fullmatch(mac_address) or int(mac_address[:2], 16) & 1):
            raise self.invalid(
                "MacAddress", mac_address, "not the address of one interface", "write 02:42:ac:11:00:02"
            )
        for alias in settings["Aliases"] or ():
            if not _HOST.fullmatch(alias) or len(alias) > _LONGEST_HOST_NAME:
                raise self.invalid("Aliases", alias, "not a host name", "letters, digits, '-', '_' and '.'")
        for link in settings["Links"] or ():
            self._check_link(link)
        given = {"Aliases": ", ".join(settings["Aliases"] or ()), **ipam}
        for field in ("Aliases", "IPv4Address", "IPv6Address"):
            if is_predefined and given.get(field):
                subnet = "" if field == "Aliases" else "--subnet SUBNET "
                raise self.invalid(
                    field,
                    given[field],
                    "it works only on a network that was created",
                    f"dock network create {subnet}NAME, then --network NAME",
                )
        if name != "bridge" and name != "default" and is_predefined and mac_address:
            raise self.invalid(
                "MacAddress", mac_address, f"network {name} gives no interface", "use --network bridge"
            )

    def _check_name_service(self, host: HostConfig) -> None:
        for server in host["Dns"]:
            try:
                ip_address(server)
            except ValueError:
                raise self.invalid("Dns", server, "not an address", "give a name server's address") from None
        for domain in host["DnsSearch"]:
            if domain != "." and not _HOST.fullmatch(domain):
                raise self.invalid("DnsSearch", domain, "not a domain", "write example.com, or . for none")
        for option in host["DnsOptions"]:
            if not _DNS_OPTION.fullmatch(option):
                raise self.invalid(
                    "DnsOptions", option, "not an option", "see resolv.conf(5): ndots:2, rotate"
                )
        for link in host["Links"] or ():
            self._check_link(link)

    def _check_link(self, link: str) -> None:
        name, colon, alias = link.partition(":")
        if not _HOST.fullmatch(name) or (colon and not _HOST.fullmatch(alias)):
            raise self.invalid("Links", link, "malformed", "write CONTAINER or CONTAINER:ALIAS")

    def check_mounts(self, request: CreateRequest) -> None:
        targets: set[str] = set()
        for mount in read_mounts(request, {}):
            if mount.target in targets:
                raise InvalidError(
                    f"two mounts have the target {mount.target}", "give each its own target", exit_code=125
                )
            targets.add(mount.target)


def check_restart_policy(policy: Mapping[str, Any], name: str = "RestartPolicy") -> RestartPolicy:
    """Return a restart policy with both fields; an empty name is "no".

    Args:
        name: the field's name in errors.

    Raises:
        InvalidError: the policy is unknown, or its count is invalid; exit code 125.
    """
    from pydock_core.supervision.restart_policy import (  # late: few containers have a policy
        NAMES,
        NO,
        ON_FAILURE,
    )

    kind, most = policy.get("Name") or NO, policy.get("MaximumRetryCount") or 0
    if kind not in NAMES:
        raise InvalidError(
            f"invalid {name} {kind}: unknown policy", f"there are {', '.join(NAMES)}", exit_code=125
        )
    if not _is_integer(most) or most < 0:
        raise InvalidError(
            f"invalid {name} {kind}:{most}: not a number of restarts", "write on-failure:3", exit_code=125
        )
    if most and kind != ON_FAILURE:
        raise InvalidError(
            f"invalid {name} {kind}:{most}: only on-failure has a number of restarts",
            f"write {kind}, or on-failure:{most}",
            exit_code=125,
        )
    return {"Name": kind, "MaximumRetryCount": most}


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


_DEVICE_REQUEST_TYPES: Mapping[str, Callable[[Any], bool]] = {
    "Driver": lambda value: isinstance(value, str),
    "Count": _is_integer,
    "DeviceIDs": lambda value: value is None or _is_texts(value),
    "Capabilities": lambda value: value is None or (isinstance(value, list) and all(map(_is_texts, value))),
    "Options": lambda value: value is None or _is_text_map(value),
}

_TYPES: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "str": (lambda value: isinstance(value, str), "a string"),
    "bool": (lambda value: isinstance(value, bool), "a boolean"),
    "bool | None": (lambda value: isinstance(value, bool), "a boolean"),
    "int": (_is_integer, "an integer"),
    "int | None": (_is_integer, "an integer"),
    "float | None": (_is_number, "a number"),
    "list[str]": (_is_texts, "a list of strings"),
    "list[str] | None": (_is_texts, "a list of strings"),
    "dict[str, str]": (_is_text_map, "an object of strings"),
    "dict[str, str] | None": (_is_text_map, "an object of strings"),
    "dict[str, Any]": (lambda value: isinstance(value, dict), "an object"),
    "dict[str, Any] | None": (lambda value: isinstance(value, dict), "an object"),
    "LogConfig": (lambda value: isinstance(value, dict), "an object"),
    "list[dict[str, Any]]": (_is_objects, "a list of objects"),
    "list[Ulimit]": (_is_objects, "a list of objects"),
    "HealthConfig | None": (lambda value: isinstance(value, dict), "an object"),
    "list[WeightDevice]": (_is_objects, "a list of objects"),
    "list[ThrottleDevice]": (_is_objects, "a list of objects"),
    "_RestartPolicy": (lambda value: isinstance(value, dict), "an object"),
    "list[DeviceMapping]": (_is_objects, "a list of objects"),
    "list[DeviceRequest] | None": (_is_objects, "a list of objects"),
    "dict[str, list[PortBinding]]": (
        lambda value: (
            isinstance(value, dict)
            and all(places is None or _is_objects(places) for places in value.values())
        ),
        "an object of lists of objects",
    ),
}
"""By the type that a document declares: a check, and how errors call it."""
