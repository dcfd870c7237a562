"""Builds the create request of ``run`` and ``create`` from their options; parses only, without reading images.

Each option of the command table names its field and its conversion.
:func:`pydock_core.spec.validation.check_request`, which the HTTP API shares, validates the values.
"""

from __future__ import annotations

import os
import re
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from pydock_core.commands.container_commands import CREATE_OPTIONS, UPDATE_OPTIONS
from pydock_core.commands.network_words import FIELD_FLAGS as NETWORK_FLAGS
from pydock_core.commands.network_words import build_networks
from pydock_core.commands.values import (
    parse_boolean,
    parse_bytes,
    parse_csv,
    parse_duration_ns,
    parse_float,
    parse_integer,
    parse_pair,
    parse_seconds,
)
from pydock_core.engine import (
    CONFIG,
    RANGES,
    CreateRequest,
    check_request,
    split_security_option,
)
from pydock_core.errors import InvalidError, NotFoundError
from pydock_core.spelling import spell_range

_LARGEST = (1 << 63) - 1
_NUMBERS = tuple(option for option in CREATE_OPTIONS if option.convert == "integer")
FIELD_FLAGS = NETWORK_FLAGS | {
    option.field.partition(".")[0]: option.long_flag for option in CREATE_OPTIONS if option.field
}
_MOUNT_FIELDS: Mapping[str, tuple[str, ...]] = {
    "type": ("Type",),
    "source": ("Source",),
    "target": ("Target",),
    "readonly": ("ReadOnly",),
    "consistency": ("Consistency",),
    "bind-propagation": ("BindOptions", "Propagation"),
    "bind-nonrecursive": ("BindOptions", "NonRecursive"),
    "bind-recursive": ("BindOptions", ""),
    "bind-create-src": ("BindOptions", "CreateMountpoint"),
    "volume-subpath": ("VolumeOptions", "Subpath"),
    "volume-nocopy": ("VolumeOptions", "NoCopy"),
    "volume-label": ("VolumeOptions", "Labels"),
    "volume-driver": ("VolumeOptions", "DriverConfig", "Name"),
    "volume-opt": ("VolumeOptions", "DriverConfig", "Options"),
    "image-subpath": ("ImageOptions", "Subpath"),
    "tmpfs-size": ("TmpfsOptions", "SizeBytes"),
    "tmpfs-mode": ("TmpfsOptions", "Mode"),
}
_MOUNT_FLAGS = ("readonly", "bind-nonrecursive", "bind-create-src", "volume-nocopy")
_BIND_RECURSIVE: Mapping[str, dict[str, bool]] = {
    "enabled": {},
    "disabled": {"NonRecursive": True},
    "writable": {"ReadOnlyNonRecursive": True},
    "readonly": {"ReadOnlyForceRecursive": True},
}
_MOUNT_ALIASES = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly"}


class Caller(NamedTuple):
    """The context of a conversion.

    Attributes:
        flag: of the option, for errors.
        environment: the source of the value for ``-e NAME``.
        directory: the working directory, to which relative bind sources refer.
    """

    flag: str
    environment: Mapping[str, str]
    directory: str


def build_update(words: Namespace) -> dict[str, Any]:
    """Build the changed fields of ``update``, the limits and the restart policy, in the form of HostConfig.

    Raises:
        InvalidError: a value is malformed; exit code 125.
    """
    changes: dict[str, Any] = {}
    for option in UPDATE_OPTIONS:
        given = getattr(words, option.destination)
        if given is not None:
            caller = Caller(option.long_flag, {}, "/")
            changes[option.field] = CONVERSIONS[option.convert]([given], caller) if option.convert else given
    return changes


def build_request(words: Namespace, environment: Mapping[str, str], directory: str) -> CreateRequest:
    """Build the request of ``run`` or ``create``.

    Args:
        words: the parsed command line.
        environment: the caller's environment.
        directory: the caller's working directory.

    Raises:
        InvalidError: a value is malformed; exit code 125.
        UnsupportedError: PyDock does not support a setting; exit code 125.
        NotFoundError: an --env-file or --label-file does not exist.
    """
    host: dict[str, Any] = {}
    document: dict[str, Any] = {"Image": words.IMAGE, "Cmd": words.COMMAND or None, "HostConfig": host}
    for option in CREATE_OPTIONS:
        given = getattr(words, option.destination)
        if not option.field or given is None or given is False or given == []:
            continue
        if option.convert:
            texts = given if option.many else [given]
            given = CONVERSIONS[option.convert](texts, Caller(option.long_flag, environment, directory))
        _put(document if option.field.partition(".")[0] in CONFIG else host, option.field.split("."), given)
    if words.no_healthcheck and len(document["Healthcheck"]) + len(document["Healthcheck"]["Test"]) > 2:
        raise _invalid("--no-healthcheck contradicts the other --health options", "leave one of the two out")
    host["NetworkMode"], links, endpoints = build_networks(words)
    document["NetworkingConfig"] = {"EndpointsConfig": endpoints}
    if links:
        host["Links"] = links
    if "Binds" in host:  # Docker puts a volume without a source into Volumes
        document["Volumes"] = {bind: {} for bind in host["Binds"] if ":" not in bind}
        host["Binds"] = [bind for bind in host["Binds"] if ":" in bind]
    if cdi_names := [text for text in words.device or () if _is_cdi(text)]:
        cdi = {"Driver": "cdi", "Count": 0, "DeviceIDs": cdi_names, "Capabilities": None, "Options": None}
        host["DeviceRequests"] = [*host.get("DeviceRequests", ()), cdi]
    is_attached = not getattr(words, "detach", False)
    document["AttachStdout"] = document["AttachStderr"] = is_attached
    document["AttachStdin"] = document["StdinOnce"] = is_attached and words.interactive
    return check_request(document, FIELD_FLAGS)


def _put(document: dict[str, Any], path: list[str], value: Any) -> None:
    """Set a field, or extend a list or an object that another option has set."""
    *parents, name = path
    for parent in parents:
        document = document.setdefault(parent, {})
    if isinstance(value, dict):
        document[name] = document.get(name, {}) | value
    elif isinstance(value, list):
        document[name] = document.get(name, []) + value
    else:
        document[name] = value


# -- environment, labels and files ---------------------------------------------------------------------


def parse_environment(texts: Iterable[str], environment: Mapping[str, str], option: str = "-e") -> list[str]:
    """Return NAME=VALUE of ``-e`` (later ones win at the merge); NAME alone takes the caller's value.

    Args:
        option: the origin of the texts, for errors.
    """
    entries = []
    for text in texts:
        name, equals, _ = text.partition("=")
        if not name or any(character.isspace() for character in name):
            raise _invalid(f"{option} {name[:40]!r}: not a name of a variable", "write NAME=VALUE")
        if equals:
            entries.append(text)
        elif name in environment:
            entries.append(f"{name}={environment[name]}")
    return entries


def parse_environment_files(files: Iterable[str], flag: str, environment: Mapping[str, str]) -> list[str]:
    """Return NAME=VALUE of files of variables; see :func:`parse_environment`."""
    return [
        entry
        for name in files
        for number, line in _read_lines(name, flag)
        for entry in parse_environment([line], environment, f"{flag} {name}, line {number}:")
    ]


def _read_lines(name: str, flag: str) -> list[tuple[int, str]]:
    """Return the lines of a file of variables or labels with their numbers, without comments and empty lines."""
    # Not splitlines(), which also splits at other characters that a value may contain.
    lines = enumerate(_read_file(name, f"{flag} {name}").replace("\r\n", "\n").split("\n"), 1)
    return [(number, line.lstrip()) for number, line in lines if line.strip() and line.lstrip()[0] != "#"]


def _read_file(name: str, option: str) -> str:
    try:
        with open(name, encoding="utf-8") as file:
            return file.read()
    except UnicodeDecodeError as error:
        raise _invalid(f"{option}: not UTF-8 text", "name a text file") from error
    except OSError as error:
        raise NotFoundError(
            f"{option}: {error.strerror}", "name a file that can be read", exit_code=125
        ) from error


def _labels(texts: Iterable[str]) -> dict[str, str]:
    return {key: value for key, _, value in (text.partition("=") for text in texts)}


def _security(text: str, caller: Caller) -> str:
    """Replace the name of a seccomp file by its contents, as Docker's program does."""
    name, value = split_security_option(text)
    if name == "seccomp" and value not in ("", "unconfined", "builtin", "default"):
        return f"seccomp={_read_file(value, f'{caller.flag} {text}')}"
    return text


# -- mounts --------------------------------------------------------------------------------------------


def _bind(text: str, caller: Caller) -> str:
    """Make the source of ``-v`` absolute; it is a host path if it begins with a slash or a dot, else a volume."""
    source, colon, rest = text.partition(":")
    if not source or text.endswith(":"):
        raise _invalid(f"-v {text}: malformed", "write -v SOURCE:TARGET[:ro]")
    if colon and (source.startswith(("/", "./", "../", "~")) or source in (".", "..")):
        source = os.path.normpath(os.path.join(caller.directory, os.path.expanduser(source)))
    return f"{source}{colon}{rest}"


def _mount(text: str, caller: Caller) -> dict[str, Any]:
    """Parse ``--mount``: type=bind|volume|tmpfs|image,source=…,target=…; a quoted field may contain commas, as in CSV."""
    mount: dict[str, Any] = {"Type": "volume"}
    for part in parse_csv(text, caller.flag):
        key, equals, value = part.partition("=")
        key = _MOUNT_ALIASES.get(key.strip().lower(), key.strip().lower())
        if key not in _MOUNT_FIELDS:
            raise _invalid(
                f"{caller.flag} {text}: unknown key {key}", f"there are {', '.join(sorted(_MOUNT_FIELDS))}"
            )
        if not equals and key not in _MOUNT_FLAGS:
            raise _invalid(f"{caller.flag} {text}: {key} has no value", f"write {key}=VALUE")
        path = [name for name in _MOUNT_FIELDS[key] if name]
        _put(mount, path, _mount_value(key, value if equals else "true", caller))
    kind = mount["Type"]
    for field in ("BindOptions", "VolumeOptions", "TmpfsOptions", "ImageOptions"):
        option = field.removesuffix("Options").lower()
        if field in mount and option != kind:
            raise _invalid(
                f"{caller.flag} {text}: {option}-* options do not go with the type {kind}",
                f"leave them out, or write type={option}",
            )
    bind = mount.get("BindOptions", {})
    if bind.get("ReadOnlyForceRecursive") and bind.get("Propagation") != "rprivate":
        raise _invalid(
            f"{caller.flag} {text}: bind-recursive=readonly needs a private mount",
            "add bind-propagation=rprivate",
        )
    if kind == "bind" and mount.get("Source"):
        mount["Source"] = os.path.normpath(os.path.join(caller.directory, mount["Source"]))
    return mount


def _mount_value(key: str, text: str, caller: Caller) -> object:
    option = f"{caller.flag} {key}"
    if key in _MOUNT_FLAGS:
        return parse_boolean(text, option)
    if key == "bind-recursive":
        if text not in _BIND_RECURSIVE:
            raise _invalid(f"{option} {text}: no such value", f"there are {', '.join(_BIND_RECURSIVE)}")
        return dict(_BIND_RECURSIVE[text])
    if key in ("volume-label", "volume-opt"):
        name, _, value = text.partition("=")
        return {name: value}
    if key == "tmpfs-size":
        return parse_bytes(text, option)
    if key == "tmpfs-mode":
        if not text or not set(text) <= set("01234567"):
            raise _invalid(f"{option} {text}: not an octal number", "write tmpfs-mode=1777")
        return int(text, 8)
    return text


def _tmpfs(text: str) -> tuple[str, str]:
    target, _, options = text.partition(":")
    return target, options


# -- ports ---------------------------------------------------------------------------------------------


def _ports(texts: list[str], _: Caller) -> dict[str, list[dict[str, str]]]:
    """Parse ``-p``: [[ADDRESS:]HOST:]CONTAINER[/PROTOCOL], with ranges."""
    bindings: dict[str, list[dict[str, str]]] = {}
    for text in texts:
        body, _slash, protocol = text.partition("/")
        address, host, container = _port_parts(text, body)
        containers = _port_range(container, f"-p {text}")
        hosts = _port_range(host, f"-p {text}") if host and host != "0" else [0] * len(containers)
        if len(containers) == 1 and len(hosts) > 1:  # the first free one of them
            binding = {"HostIp": address, "HostPort": host}
            bindings.setdefault(f"{containers[0]}/{protocol or 'tcp'}", []).append(binding)
            continue
        if len(hosts) != len(containers):
            raise _invalid(f"-p {text}: the two ranges differ in length", "give ranges of one length")
        for host_port, port in zip(hosts, containers, strict=True):
            binding = {"HostIp": address, "HostPort": str(host_port or "")}
            bindings.setdefault(f"{port}/{protocol or 'tcp'}", []).append(binding)
    return bindings


_PORT_FORM = "[[ADDRESS:]HOST:]CONTAINER[/PROTOCOL]: 8080:80"


def _port_parts(text: str, body: str) -> tuple[str, str, str]:
    if body.startswith("["):
        address, bracket, rest = body[1:].partition("]:")
        if not bracket or not address:
            raise _invalid(f"-p {text}: the address is not closed", "write [::1]:8080:80")
        host, _, container = rest.rpartition(":")
        return address, host, container
    head, _, container = body.rpartition(":")
    address, _, host = head.rpartition(":")
    if not address and ":" in head:
        raise _invalid(f"-p {text}: the address is missing", "write ADDRESS:HOST:CONTAINER")
    if ":" in address:  # the validation checks the others
        from ipaddress import ip_address  # late: few ports have such an address

        try:
            ip_address(address)
        except ValueError:
            raise _invalid(f"-p {text}: {address!r} is not an address", f"write {_PORT_FORM}") from None
    return address, host, container


def _port_range(text: str, option: str) -> list[int]:
    first, dash, last = text.partition("-")
    try:
        low, high = int(first), int(last) if dash else int(first)
    except ValueError:
        raise _invalid(f"{option}: {text!r} is not a port", "a port is a number from 1 to 65535") from None
    if not 1 <= low <= high <= 65535:
        raise _invalid(f"{option}: {text} is out of range", "a port is a number from 1 to 65535")
    return list(range(low, high + 1))


def _exposed_ports(texts: list[str], _: Caller) -> dict[str, dict[str, str]]:
    exposed: dict[str, dict[str, str]] = {}
    for text in texts:
        ports, _slash, protocol = text.partition("/")
        exposed |= {f"{port}/{protocol or 'tcp'}": {} for port in _port_range(ports, f"--expose {text}")}
    return exposed


# -- single values -------------------------------------------------------------------------------------


def _swap(text: str, caller: Caller) -> int:
    return -1 if text == "-1" else parse_bytes(text, caller.flag)


def _host(text: str) -> str:
    """Write NAME=ADDRESS and NAME:[ADDRESS] as Docker's program does."""
    name, colon, address = text.replace("=", ":", 1).partition(":")
    if not colon or not address:
        raise _invalid(f"--add-host {text}: the address is missing", "write --add-host NAME:ADDRESS")
    return f"{name}:{address.strip('[]')}"


def parse_restart_policy(text: str, flag: str) -> dict[str, Any]:
    """Parse NAME[:COUNT]; the validation checks the name and the count.

    Raises:
        InvalidError: the count is not a number; exit code 125.
    """
    name, colon, count = text.partition(":")
    return {
        "Name": name,
        "MaximumRetryCount": _number(count, f"{flag} {text}", "write on-failure:3") if colon else 0,
    }


def _ulimit(text: str, caller: Caller) -> dict[str, Any]:
    name, equals, values = text.partition("=")
    soft, _, hard = values.partition(":")
    option, hint = f"{caller.flag} {text}", "write NAME=SOFT[:HARD]: nofile=1024:2048"
    if not equals:
        raise _invalid(f"{option}: the limit's value is missing", hint)
    low = _number(soft, option, hint)
    return {"Name": name, "Soft": low, "Hard": _number(hard, option, hint) if hard else low}


def _number(text: str, option: str, hint: str) -> int:
    """Parse a whole number that is a part of an option's value; the validation checks its range."""
    try:
        return int(text)
    except ValueError:
        raise _invalid(f"{option}: {text!r} is not a whole number", hint) from None


def _integer(text: str, caller: Caller) -> int:
    try:
        return int(text)
    except ValueError:
        field = next((option.field for option in _NUMBERS if option.long_flag == caller.flag), "")
        hint = spell_range(*RANGES.get(field.rpartition(".")[2], (-_LARGEST, _LARGEST)))
        raise _invalid(f"{caller.flag} {text}: not a whole number", hint) from None


def _is_cdi(text: str) -> bool:
    """Whether a device is a CDI device's name and not a path."""
    if text.startswith("/") or "=" not in text:
        return False
    from pydock_core.engine import is_qualified_name  # late: few containers have such a device

    return is_qualified_name(text)


def _gpus(text: str, caller: Caller) -> dict[str, Any]:
    """Parse ``--gpus`` as Docker's program does: all, N, or driver=, count=, device=, capabilities=, options=."""
    option = f"{caller.flag} {text}"
    request: dict[str, Any] = {
        "Driver": "",
        "Count": 0,
        "DeviceIDs": None,
        "Capabilities": None,
        "Options": {},
    }
    seen: set[str] = set()
    for part in parse_csv(text, caller.flag):
        key, equals, value = part.partition("=")
        if key in seen:
            raise _invalid(f"{option}: {key} is given twice", "give each key once")
        seen.add(key)
        if not equals or key == "count":
            seen.add("count")
            request["Count"] = _gpu_count(value if equals else key, option)
        elif key == "driver":
            request["Driver"] = value
        elif key == "device":
            request["DeviceIDs"] = value.split(",")
        elif key == "capabilities":
            request["Capabilities"] = [[*value.split(","), "gpu"]]
        elif key == "options":
            request["Options"] = {
                name: text for name, _, text in (entry.partition("=") for entry in parse_csv(value, option))
            }
        else:
            raise _invalid(
                f"{option}: unknown key {key}", "there are driver, count, device, capabilities and options"
            )
    if "count" not in seen and request["DeviceIDs"] is None:
        request["Count"] = 1
    request["Capabilities"] = request["Capabilities"] or [["gpu"]]
    return request


def _gpu_count(text: str, option: str) -> int:
    if text == "all":
        return -1
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        raise _invalid(f"{option}: {text!r} is neither a number nor all", "write --gpus all, 2, or device=0")
    return int(text)


def _device_limit(text: str, caller: Caller, key: str, *, is_size: bool = False) -> dict[str, Any]:
    """Parse /dev/NAME:LIMIT."""
    path, colon, limit = text.rpartition(":")
    if not colon or not path.startswith("/dev/"):
        raise _invalid(f"{caller.flag} {text}: malformed", f"write {caller.flag} /dev/NAME:{key.upper()}")
    option = f"{caller.flag} {text}"
    return {
        "Path": path,
        key: parse_bytes(limit, option) if is_size else parse_integer(limit, option, 0, _LARGEST),
    }


def _device(text: str) -> dict[str, str]:
    parts = text.split(":")
    access = parts.pop() if len(parts) > 1 and parts[-1] and set(parts[-1]) <= set("rwm") else "rwm"
    if len(parts) > 2:
        raise _invalid(f"--device {text}: malformed", "write --device /dev/HOST[:/dev/CONTAINER[:rwm]]")
    return {"PathOnHost": parts[0], "PathInContainer": parts[-1], "CgroupPermissions": access}


def _invalid(message: str, hint: str) -> InvalidError:
    return InvalidError(message, hint, exit_code=125)


CONVERSIONS: Mapping[str, Callable[[list[str], Caller], Any]] = {
    "environment": lambda texts, caller: parse_environment(texts, caller.environment),
    "environment_files": lambda texts, caller: parse_environment_files(
        texts, caller.flag, caller.environment
    ),
    "labels": lambda texts, _: _labels(texts),
    "label_files": lambda texts, caller: _labels(
        line for name in texts for _, line in _read_lines(name, caller.flag)
    ),
    "pairs": lambda texts, caller: dict(parse_pair(text, caller.flag) for text in texts),
    "security": lambda texts, caller: [_security(text, caller) for text in texts],
    "binds": lambda texts, caller: [_bind(text, caller) for text in texts],
    "mount": lambda texts, caller: [_mount(text, caller) for text in texts],
    "tmpfs": lambda texts, _: dict(map(_tmpfs, texts)),
    "ports": _ports,
    "exposed_ports": _exposed_ports,
    "host": lambda texts, _: list(map(_host, texts)),
    "ulimit": lambda texts, caller: [_ulimit(text, caller) for text in texts],
    "device": lambda texts, _: [_device(text) for text in texts if not _is_cdi(text)],
    "gpus": lambda texts, caller: [_gpus(text, caller) for text in texts],
    "word": lambda texts, _: texts,
    "words": lambda texts, _: texts,
    "device_weights": lambda texts, caller: [_device_limit(text, caller, "Weight") for text in texts],
    "device_bytes": lambda texts, caller: [
        _device_limit(text, caller, "Rate", is_size=True) for text in texts
    ],
    "device_rates": lambda texts, caller: [_device_limit(text, caller, "Rate") for text in texts],
    "duration": lambda texts, caller: parse_duration_ns(texts[0], caller.flag),
    "health_command": lambda texts, _: ["CMD-SHELL", texts[0]],
    "no_health": lambda _, __: ["NONE"],
    "restart": lambda texts, caller: parse_restart_policy(texts[0], caller.flag),
    "bytes": lambda texts, caller: parse_bytes(texts[0], caller.flag),
    "swap": lambda texts, caller: _swap(texts[0], caller),
    "cpus": lambda texts, caller: round(parse_float(texts[0], caller.flag) * 1e9),
    "integer": lambda texts, caller: _integer(texts[0], caller),
    "seconds": lambda texts, caller: parse_seconds(texts[0], caller.flag),
}
"""The conversions of the command table, from the texts of one option to the value of its field."""
