"""Builds the networks of a create request from ``--network`` and the options that go with it."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from pydock_core.commands.values import parse_integer
from pydock_core.errors import InvalidError

FIELD_FLAGS = {
    "NetworkMode": "--network",
    "Aliases": "--network-alias",
    "IPv4Address": "--ip",
    "IPv6Address": "--ip6",
    "LinkLocalIPs": "--link-local-ip",
    "MacAddress": "--mac-address",
    "Links": "--link",
}
"""The names of the fields in errors."""
_PREDEFINED = ("bridge", "host", "none", "default")
_KEYS = ("name", "alias", "driver-opt", "ip", "ip6", "mac-address", "link-local-ip", "gw-priority")
_LARGEST = (1 << 31) - 1


def build_networks(words: Namespace) -> tuple[str, list[str], dict[str, dict[str, Any]]]:
    """Return the network mode, the links, and the settings of each network by name.

    Raises:
        InvalidError: a value is malformed, or two options contradict each other; exit code 125.
    """
    endpoints: dict[str, dict[str, Any]] = {}
    for text in words.network or ():
        name, settings = parse_network(text)
        if name in endpoints:
            raise _invalid(f"--network {name}: given twice", "give each network once")
        endpoints[name] = settings
    kinds = {_is_user_defined(name) for name in endpoints}
    if len(endpoints) > 1 and kinds != {True}:
        raise _invalid(
            f"--network {', '.join(endpoints)}: only networks that were created can be combined",
            "leave out bridge, host, none and container:NAME; dock network connect adds bridge later",
        )
    mode = next(iter(endpoints), "")
    first = endpoints.get(mode, {})
    links = list(words.link)
    _put(first, "Aliases", words.network_alias, "--network-alias", "alias")
    _put_address(first, "IPv4Address", words.ip, "--ip", "ip")
    _put_address(first, "IPv6Address", words.ip6, "--ip6", "ip6")
    _put(first, "MacAddress", words.mac_address, "--mac-address", "mac-address")
    if links and _is_user_defined(mode):
        first["Links"] = links
    if first or mode:
        endpoints[mode or "default"] = first
    return (
        mode,
        links,
        {name: settings for name, settings in endpoints.items() if settings or len(endpoints) > 1},
    )


def _put(settings: dict[str, Any], field: str, value: Any, flag: str, key: str) -> None:
    if not value:
        return
    if settings.get(field):
        raise _invalid(f"{flag} and --network {key}= contradict each other", "give one of the two")
    settings[field] = value


def _put_address(settings: dict[str, Any], field: str, value: str | None, flag: str, key: str) -> None:
    if value:
        _put(settings.setdefault("IPAMConfig", {}), field, value, flag, key)


def _is_user_defined(mode: str) -> bool:
    return bool(mode) and mode not in _PREDEFINED and not mode.startswith("container:")


def parse_network(text: str) -> tuple[str, dict[str, Any]]:
    """Parse ``--network``: a name, or name=NAME,alias=…,ip=…; return the name and the settings."""
    if "=" not in text:
        return text, {}
    settings: dict[str, Any] = {}
    name = ""
    for part in text.split(","):
        key, _, value = (word.strip() for word in part.partition("="))
        key = key.lower()
        if key not in _KEYS or not value:
            raise _invalid(
                f"--network {text}: malformed at {part!r}", f"there are {', '.join(_KEYS)}, each with =VALUE"
            )
        if key == "name":
            name = value
        elif key == "alias":
            settings.setdefault("Aliases", []).append(value)
        elif key == "driver-opt":
            option, _, setting = value.partition("=")
            settings.setdefault("DriverOpts", {})[option.lower()] = setting
        elif key == "link-local-ip":
            settings.setdefault("IPAMConfig", {}).setdefault("LinkLocalIPs", []).append(value)
        elif key in ("ip", "ip6"):
            field = "IPv4Address" if key == "ip" else "IPv6Address"
            settings.setdefault("IPAMConfig", {})[field] = value
        elif key == "mac-address":
            settings["MacAddress"] = value
        else:
            settings["GwPriority"] = parse_integer(value, "--network gw-priority", -_LARGEST, _LARGEST)
    if not name:
        raise _invalid(f"--network {text}: the name is missing", "write --network name=NAME,alias=ALIAS")
    return name, settings


def build_settings(words: Namespace) -> Mapping[str, Any]:
    """Return the settings of ``network connect``."""
    settings: dict[str, Any] = {}
    if words.alias:
        settings["Aliases"] = words.alias
    if words.link:
        settings["Links"] = words.link
    if words.driver_opt:
        settings["DriverOpts"] = dict(text.partition("=")[::2] for text in words.driver_opt)
    ipam: dict[str, Any] = {}
    if words.ip:
        ipam["IPv4Address"] = words.ip
    if words.ip6:
        ipam["IPv6Address"] = words.ip6
    if ipam:
        settings["IPAMConfig"] = ipam
    if words.gw_priority:
        settings["GwPriority"] = parse_integer(words.gw_priority, "--gw-priority", -_LARGEST, _LARGEST)
    return settings


def _invalid(message: str, hint: str) -> InvalidError:
    return InvalidError(message, hint, exit_code=125)
