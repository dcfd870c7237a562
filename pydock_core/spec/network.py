"""The definition of a network: the body of the Engine API's ``POST /networks/create``, checked and stored.  Pure.

A network of the driver "bridge" has one IPv4 subnet, and with ``EnableIPv6`` one IPv6 subnet.  A subnet missing from the
request is chosen when the network is created.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any, TypedDict, cast

from pydock_core.errors import InvalidError, UnsupportedError
from pydock_core.spelling import parse_boolean

LONGEST_DEVICE = 15
"""Bytes of a network device's name (IFNAMSIZ, without the terminating zero)."""
LEAST_IPV6_MTU = 1280
LARGEST_MTU = 65535

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_DEVICE = re.compile(r"[A-Za-z0-9_.-]+")
_RESERVED = ("bridge", "host", "none", "default")
_PREFIX = "com.docker.network."
BRIDGE_NAME = f"{_PREFIX}bridge.name"
LINK_LOCAL = "pydock.network.link_local"
"""PyDock's own option: containers can reach link-local addresses beyond the host (cloud metadata)."""


class IpamPool(TypedDict):
    """A subnet (IPAMConfig of the Engine API); empty fields are chosen."""

    Subnet: str
    IPRange: str
    Gateway: str
    AuxiliaryAddresses: dict[str, str]


class NetworkRequest(TypedDict):
    """The stored part of a network's definition.

    ``Pools`` has at most one subnet of each family.
    """

    Internal: bool
    Attachable: bool
    EnableIPv6: bool
    Pools: list[IpamPool]
    Options: dict[str, str]
    Labels: dict[str, str]


DEFAULT: NetworkRequest = {
    "Internal": False,
    "Attachable": False,
    "EnableIPv6": False,
    "Pools": [],
    "Options": {},
    "Labels": {},
}


@dataclass(frozen=True, slots=True)
class BridgeOptions:
    """The options of the bridge driver.

    Attributes:
        bridge: the device's name; empty to choose one.
        masquerade: whether outgoing packets take the host's address.
        connectivity: whether the network's containers can reach each other.
        binding: the default address of published ports; empty for the general default.
        mtu: in bytes; 0 for the kernel's default.
        interface: the prefix of the interfaces' names in containers.
        link_local: whether link-local addresses beyond the host are reachable.
    """

    bridge: str = ""
    masquerade: bool = True
    connectivity: bool = True
    binding: str = ""
    mtu: int = 0
    interface: str = "eth"
    link_local: bool = False


def check_network(document: Mapping[str, Any]) -> tuple[str, str, NetworkRequest]:
    """Check the body of ``POST /networks/create``.

    Returns:
        The name, the driver and the request to store.

    Raises:
        InvalidError: a value is malformed, or contradicts another one.
        UnsupportedError: PyDock does not support a value.
    """
    name = _text(document, "Name")
    if not _NAME.fullmatch(name):
        raise InvalidError(
            f"invalid network name {name!r}",
            "begin with a letter or digit; then letters, digits, '_', '.' and '-'",
        )
    if name in _RESERVED:
        raise InvalidError(f"the network name {name} is reserved", "choose another name")
    driver = _text(document, "Driver") or "bridge"
    if driver in ("host", "none", "null"):
        raise InvalidError(
            f"only one network of the driver {driver} exists",
            f"use it: dock run --network {driver.replace('null', 'none')}",
        )
    if driver != "bridge":
        raise UnsupportedError(f"network driver {driver} is not supported", "there are bridge, host and none")
    _refuse(document)
    ipam = _object(document, "IPAM")
    if (ipam_driver := _text(ipam, "Driver") or "default") != "default":
        raise UnsupportedError(f"IPAM driver {ipam_driver} is not supported", "leave --ipam-driver out")
    if ipam.get("Options"):
        raise UnsupportedError("the IPAM driver has no options", "leave --ipam-opt out")
    request: NetworkRequest = {
        "Internal": bool(document.get("Internal")),
        "Attachable": bool(document.get("Attachable")),
        "EnableIPv6": bool(document.get("EnableIPv6")),
        "Pools": _check_pools(ipam.get("Config") or []),
        "Options": _texts(document, "Options"),
        "Labels": _texts(document, "Labels"),
    }
    if any(":" in pool["Subnet"] for pool in request["Pools"]) and not request["EnableIPv6"]:
        raise InvalidError("an IPv6 subnet needs IPv6", "add --ipv6")
    options = read_options(request["Options"])
    if request["EnableIPv6"] and 0 < options.mtu < LEAST_IPV6_MTU:
        raise InvalidError(
            f"an MTU of {options.mtu} bytes is too small for IPv6", f"give {LEAST_IPV6_MTU} or more"
        )
    return name, driver, request


def _refuse(document: Mapping[str, Any]) -> None:
    """Refuse swarm-only fields and a network without IPv4."""
    for field, flag in (
        ("Ingress", "--ingress"),
        ("ConfigOnly", "--config-only"),
        ("ConfigFrom", "--config-from"),
    ):
        value = document.get(field)
        if value and value != {"Network": ""}:
            raise UnsupportedError(f"{flag} needs a swarm", "leave it out")
    if (scope := _text(document, "Scope") or "local") != "local":
        raise UnsupportedError(f"scope {scope} needs a swarm", "leave --scope out, or give local")
    if document.get("EnableIPv4") is False:
        raise UnsupportedError(
            "a network without IPv4 is not supported: the firewall knows a container's port by its IPv4 address",
            "leave --ipv4=false out; --ipv6 adds IPv6",
        )


def _check_pools(configs: Any) -> list[IpamPool]:
    pools: list[IpamPool] = []
    if not isinstance(configs, list) or not all(isinstance(config, Mapping) for config in configs):
        raise InvalidError("invalid IPAM.Config: not a list of objects", "see the Engine API")
    for config in configs:
        subnet = _text(config, "Subnet")
        if not subnet:
            raise InvalidError("a gateway or an address range needs its subnet", "add --subnet")
        network = parse_subnet(subnet)
        pool: IpamPool = {"Subnet": str(network), "IPRange": "", "Gateway": "", "AuxiliaryAddresses": {}}
        if text := _text(config, "IPRange"):
            chosen = parse_subnet(text)
            if chosen.version != network.version or not chosen.subnet_of(network):  # type: ignore[arg-type]  # one version
                raise InvalidError(
                    f"the address range {text} is not part of {network}", "give a part of the subnet"
                )
            pool["IPRange"] = str(chosen)
        if text := _text(config, "Gateway"):
            pool["Gateway"] = _member(text, network, "gateway")
        for host, text in _texts(config, "AuxiliaryAddresses").items():
            pool["AuxiliaryAddresses"][host] = _member(text, network, "auxiliary address")
        if any(ip_network(other["Subnet"]).version == network.version for other in pools):
            raise InvalidError(
                f"a network has one IPv{network.version} subnet",
                "create a second network for a second subnet",
            )
        pools.append(pool)
    return pools


def parse_subnet(text: str) -> IPv4Network | IPv6Network:
    """Parse a subnet with room for a gateway and a container.

    Raises:
        InvalidError: it is malformed, has host bits, or is too small or too large.
    """
    try:
        network = ip_network(text)
    except ValueError as error:
        raise InvalidError(f"invalid subnet {text}: {error}", "write 10.5.0.0/16 or fd00:5::/64") from error
    longest, shortest = (30, 8) if network.version == 4 else (120, 8)
    if not shortest <= network.prefixlen <= longest:
        raise InvalidError(
            f"invalid subnet {text}: its prefix is {network.prefixlen} bits long",
            f"give {shortest} to {longest}",
        )
    if network.is_loopback or network.is_multicast or network.is_link_local or network.is_unspecified:
        raise InvalidError(f"invalid subnet {text}: its addresses are not for networks", "write 10.5.0.0/16")
    return network


def _member(text: str, network: IPv4Network | IPv6Network, kind: str) -> str:
    try:
        address = ip_address(text)
    except ValueError as error:
        raise InvalidError(
            f"invalid {kind} {text}: not an address", f"give an address of {network}"
        ) from error
    if address not in network or address in (network.network_address, network.broadcast_address):
        raise InvalidError(f"the {kind} {text} is not a host address of {network}", "give another one")
    return str(address)


def read_options(options: Mapping[str, str]) -> BridgeOptions:
    """Read the options of the bridge driver.

    Raises:
        InvalidError: an unknown option, or a malformed value.
    """
    read: dict[str, Any] = {}
    for key, value in options.items():
        if key not in _OPTIONS:
            raise InvalidError(
                f"unknown option {key} of the bridge driver", f"there are {', '.join(sorted(_OPTIONS))}"
            )
        field, convert = _OPTIONS[key]
        read[field] = convert(value, key)
    return BridgeOptions(**read)


def _boolean(text: str, key: str) -> bool:
    value = parse_boolean(text)
    if value is None:
        raise InvalidError(f"invalid option {key}={text}: not a boolean", "write true or false")
    return value


def _mtu(text: str, key: str) -> int:
    if not text.isdigit() or not 68 <= int(text) <= LARGEST_MTU:  # 68: RFC 791, section 3.2
        raise InvalidError(f"invalid option {key}={text}: not a size in bytes", f"give 68 to {LARGEST_MTU}")
    return int(text)


def _device(text: str, key: str) -> str:
    longest = LONGEST_DEVICE if key == BRIDGE_NAME else LONGEST_DEVICE - 4
    if not _DEVICE.fullmatch(text) or text in (".", "..") or len(text) > longest:
        raise InvalidError(
            f"invalid option {key}={text}: not a device's name",
            f"up to {longest} letters, digits, '_', '.' and '-'",
        )
    return text


def _address(text: str, key: str) -> str:
    try:
        return str(IPv4Address(text))
    except ValueError:
        raise InvalidError(
            f"invalid option {key}={text}: not an address", "give an address of this host"
        ) from None


_OPTIONS: Mapping[str, tuple[str, Any]] = {
    BRIDGE_NAME: ("bridge", _device),
    f"{_PREFIX}bridge.enable_ip_masquerade": ("masquerade", _boolean),
    f"{_PREFIX}bridge.enable_icc": ("connectivity", _boolean),
    f"{_PREFIX}bridge.host_binding_ipv4": ("binding", _address),
    f"{_PREFIX}driver.mtu": ("mtu", _mtu),
    f"{_PREFIX}container_iface_prefix": ("interface", _device),
    LINK_LOCAL: ("link_local", _boolean),
}
"""The bridge driver's options: the field of :class:`BridgeOptions`, and a conversion of the text."""


def encode(request: NetworkRequest) -> str:
    """Return the stored form, without fields that have their default; :func:`decode` is the inverse."""
    defaults = cast("Mapping[str, Any]", DEFAULT)
    return json.dumps({name: value for name, value in request.items() if value != defaults[name]})


def decode(text: str) -> NetworkRequest:
    """Read the stored form."""
    return cast("NetworkRequest", {**DEFAULT, **json.loads(text)})


def _text(document: Mapping[str, Any], field: str) -> str:
    value = document.get(field) or ""
    if not isinstance(value, str):
        raise InvalidError(f"invalid {field}: not a string", "see the Engine API")
    return value


def _object(document: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    value = document.get(field) or {}
    if not isinstance(value, Mapping):
        raise InvalidError(f"invalid {field}: not an object", "see the Engine API")
    return value


def _texts(document: Mapping[str, Any], field: str) -> dict[str, str]:
    values = _object(document, field)
    if not all(isinstance(item, str) for item in values.values()):
        raise InvalidError(f"invalid {field}: not an object of strings", "see the Engine API")
    return dict(values)
