"""Arithmetic of IPv4 networks and addresses; pure, except for reading the host's routes."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable
from pathlib import Path

from pydock_core.errors import ConflictError, InvalidError

DEFAULT_CANDIDATES = (
    *(f"172.{second}.0.0/16" for second in range(30, 16, -1)),
    *(f"10.{second}.0.0/16" for second in range(240, 130, -1)),
)
"""Candidate subnets for a bridge, in this order: private (RFC 1918), from the opposite end of Docker's and podman's."""


def pick_subnet(candidates: Iterable[str], in_use: Iterable[str]) -> str:
    """Return the first candidate that does not overlap a network in use.

    Args:
        candidates: networks, "172.30.0.0/16".
        in_use: networks of the host's routes and of other bridges.

    Raises:
        ConflictError: every candidate overlaps something.
    """
    taken = [ipaddress.ip_network(network, strict=False) for network in in_use]
    for candidate in candidates:
        network = ipaddress.ip_network(candidate)
        if not any(network.overlaps(other) for other in taken if other.version == network.version):
            return str(network)
    raise ConflictError(
        "every subnet for a bridge overlaps a route of this host", hint="`ip route` shows the routes"
    )


def is_shadowed(subnet: str, routes: Iterable[str]) -> bool:
    """Whether a route diverts packets from a subnet: a route to the same network, or to a part of it.

    A wider route does not: the longest prefix wins (RFC 1812, section 5.2.4.3).
    """
    network = _network(subnet)
    others = (ipaddress.ip_network(route, strict=False) for route in routes)
    return any(isinstance(other, ipaddress.IPv4Network) and other.subnet_of(network) for other in others)


def gateway_of(subnet: str) -> str:
    """Return the bridge's own address in a subnet, its first host, with prefix length: "172.30.0.1/16"."""
    network = _network(subnet)
    return f"{network.network_address + 1}/{network.prefixlen}"


def pick_address(subnet: str, taken: Collection[str]) -> str:
    """Return the lowest free host address of a subnet, with prefix length; the first one is the gateway's.

    Args:
        subnet: "172.30.0.0/16".
        taken: addresses, with or without prefix length.

    Raises:
        ConflictError: the subnet is full.
    """
    network = _network(subnet)
    used = {int(ipaddress.IPv4Address(address.partition("/")[0])) for address in taken}
    first = int(network.network_address) + 2
    last = int(network.broadcast_address) - 1
    for number in range(first, last + 1):
        if number not in used:
            return f"{ipaddress.IPv4Address(number)}/{network.prefixlen}"
    raise ConflictError(f"the network {subnet} has no free address", hint="remove containers, or stop some")


def mac_address_of(address: str) -> str:
    """Return the MAC address of an IPv4 address, by Docker's old rule: 02:42 and the four bytes.

    The same address always has the same MAC, so neighbours' ARP caches stay valid when it is assigned again.
    """
    packed = ipaddress.IPv4Address(address.partition("/")[0]).packed
    return ":".join(f"{byte:02x}" for byte in b"\x02\x42" + packed)


def parse_routes(text: str) -> list[str]:
    """Return the networks of /proc/net/route (proc_pid_net(5)), without the default route."""
    networks = []
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 8:
            continue
        # Both are hexadecimal in the host's byte order, little-endian on all supported machines.
        destination = int.from_bytes(bytes.fromhex(fields[1]), "little")
        prefix = int(fields[7], 16).bit_count()
        if prefix:
            networks.append(f"{ipaddress.IPv4Address(destination)}/{prefix}")
    return networks


def host_routes() -> list[str]:
    """Return the networks of this host's routes."""
    try:
        return parse_routes(Path("/proc/net/route").read_text())
    except FileNotFoundError:  # a kernel without IPv4
        return []


def _network(subnet: str) -> ipaddress.IPv4Network:
    try:
        network = ipaddress.IPv4Network(subnet)
    except ValueError as error:
        raise InvalidError(f"{subnet!r} is not an IPv4 subnet: {error}") from error
    if network.prefixlen > 30:
        raise InvalidError(f"the subnet {subnet} has no room for a container")
    return network
