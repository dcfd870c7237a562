"""The options that tie a container to its host: shared namespaces, the parent control group, and limits of devices.  Pure."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydock_core.errors import InvalidError

if TYPE_CHECKING:
    from pydock_core.spec.definition import CreateRequest, HostConfig

HOST = "host"
PRIVATE = "private"
NONE = "none"
SHAREABLE = "shareable"
JOINED = "container:"
"""Begins a mode with the name of the container whose namespace is joined."""
THROTTLES: Mapping[str, str] = {
    "BlkioDeviceReadBps": "throttleReadBpsDevice",
    "BlkioDeviceWriteBps": "throttleWriteBpsDevice",
    "BlkioDeviceReadIOps": "throttleReadIOPSDevice",
    "BlkioDeviceWriteIOps": "throttleWriteIOPSDevice",
}
"""Fields of HostConfig, and those of ``linux.resources.blockIO``."""
KEEP_ID_FORM = "keep-id[:uid=N,gid=N]"
"""The further UsernsMode, for errors."""
_RULE = r"([abc]) ([0-9]{1,9}|\*):([0-9]{1,9}|\*) ([rwm]{1,3})"
_PARENT = r"[A-Za-z0-9_.:@/-]+"
_LARGEST = (1 << 63) - 1

_MODES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "IpcMode": ("--ipc", (PRIVATE, HOST, NONE, SHAREABLE, f"{JOINED}NAME")),
    "PidMode": ("--pid", ("", HOST, f"{JOINED}NAME")),
    "UTSMode": ("--uts", ("", HOST)),
    "UsernsMode": ("--userns", ("", HOST)),  # and keep-id
    "CgroupnsMode": ("--cgroupns", (PRIVATE, HOST)),
}


def is_keep_id(mode: str) -> bool:
    """Whether a UsernsMode is ``keep-id``, with or without ids."""
    return mode.partition(":")[0] == "keep-id"


def check_host_options(request: CreateRequest) -> None:
    """Check the options of this module, and set the defaults of empty ones.

    Raises:
        UnsupportedError: PyDock does not support the mode; exit code 125.
        InvalidError: a value is malformed, or contradicts another one; exit code 125.
    """
    host = request["HostConfig"]
    for field, (flag, modes) in _MODES.items():
        value = host[field] or modes[0]  # type: ignore[literal-required]  # the keys above
        if field == "UsernsMode" and is_keep_id(value):
            from pydock_core.spec.keep_id import parse_keep_id  # late: few containers have it

            parse_keep_id(value, 0, 0)
        elif value.startswith(JOINED) and f"{JOINED}NAME" in modes:
            if value == JOINED:
                raise _invalid(f"invalid {flag} {value}: the name is missing", f"write {flag} {JOINED}NAME")
        elif value not in modes:
            extra = (KEEP_ID_FORM,) if field == "UsernsMode" else ()
            raise _unknown_mode(flag, value, (*modes, *extra))
        host[field] = value  # type: ignore[literal-required]  # the keys above
    if host["UTSMode"] == HOST and (request["Hostname"] or request["Domainname"]):
        raise _invalid(
            "--uts host cannot be combined with --hostname or --domainname", "leave one of the two out"
        )
    if host["CgroupParent"]:
        host["CgroupParent"] = _check_parent(host["CgroupParent"])
    if host["MemorySwappiness"] is not None and not 0 <= host["MemorySwappiness"] <= 100:
        if host["MemorySwappiness"] != -1:
            raise _invalid(f"invalid --memory-swappiness {host['MemorySwappiness']}", "give 0 to 100")
        host["MemorySwappiness"] = None
    for rule in host["DeviceCgroupRules"] or ():
        if not re.fullmatch(_RULE, rule):
            raise _invalid(f"invalid --device-cgroup-rule {rule}", "write 'c 1:3 rwm', with * for any number")
    for item in host["BlkioWeightDevice"]:
        _check_device(item, "--blkio-weight-device", "Weight", 10, 1000)
    for field in THROTTLES:
        for item in host[field]:  # type: ignore[literal-required]  # the keys above
            _check_device(item, f"device limit {field}", "Rate", 0, _LARGEST)


def _unknown_mode(flag: str, value: str, modes: tuple[str, ...]) -> Exception:
    named = [mode for mode in modes if mode]
    hint = f"there are {', '.join(named)}" if len(named) > 1 else f"the only mode is {named[0]}"
    return _invalid(f"invalid {flag} {value}: no such mode", hint)


def _check_parent(text: str) -> str:
    path = posixpath.normpath("/" + text.lstrip("/"))
    if not re.fullmatch(_PARENT, text) or ".." in text.split("/") or path == "/":
        raise _invalid(
            f"invalid --cgroup-parent {text}", "write a path below the root of the control groups: /jobs"
        )
    return path


def _check_device(item: Any, option: str, key: str, low: int, high: int) -> None:
    path, value = item.get("Path"), item.get(key)
    if not isinstance(path, str) or not path.startswith("/dev/"):
        raise _invalid(f"invalid {option} {path}: not a device", f"write /dev/NAME:{key.upper()}")
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise _invalid(f"invalid {option} {path}:{value}: out of range", f"give {low} to {high}")


def _invalid(message: str, hint: str) -> InvalidError:
    return InvalidError(message, hint, exit_code=125)


def block_devices(host: HostConfig) -> list[str]:
    """Return the paths of the devices with limits, without duplicates."""
    fields = ("BlkioWeightDevice", *THROTTLES)
    return list(dict.fromkeys(item["Path"] for field in fields for item in host[field]))  # type: ignore[literal-required]


def build_host_resources(
    host: HostConfig, numbers: Mapping[str, tuple[int, int]]
) -> dict[str, dict[str, Any]]:
    """Return these options' part of ``linux.resources``.

    Args:
        numbers: major and minor number of each of :func:`block_devices`.
    """
    memory: dict[str, Any] = {}
    if host["MemorySwappiness"] is not None:
        memory["swappiness"] = host["MemorySwappiness"]
    if host["OomKillDisable"]:
        memory["disableOOMKiller"] = True
    block: dict[str, Any] = {}
    if host["BlkioWeightDevice"]:
        block["weightDevice"] = [
            {**_numbered(item["Path"], numbers), "weight": item["Weight"]}
            for item in host["BlkioWeightDevice"]
        ]
    for field, name in THROTTLES.items():
        limits = host[field]  # type: ignore[literal-required]  # the keys above
        if limits:
            block[name] = [{**_numbered(item["Path"], numbers), "rate": item["Rate"]} for item in limits]
    return {**({"memory": memory} if memory else {}), **({"blockIO": block} if block else {})}


def _numbered(path: str, numbers: Mapping[str, tuple[int, int]]) -> dict[str, int]:
    major, minor = numbers[path]
    return {"major": major, "minor": minor}


def build_device_rules(host: HostConfig) -> list[dict[str, Any]]:
    """Return the rules of ``--device-cgroup-rule``; a missing number matches any."""
    rules = []
    for text in host["DeviceCgroupRules"] or ():
        match = re.fullmatch(_RULE, text)
        assert match is not None  # checked
        kind, major, minor, access = match.groups()
        numbers = {name: int(value) for name, value in (("major", major), ("minor", minor)) if value != "*"}
        rules.append({"allow": True, "type": kind, **numbers, "access": access})
    return rules
