"""Arithmetic of networks and addresses; pure, except for reading the host's routes."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path

from pydock_core.errors import ConflictError, InvalidError

_ROUTES = Path("/proc/thread-self/net/route")
_ROUTES6 = Path("/proc/thread-self/net/ipv6_route")
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


def overlapping(subnet: str, routes: Iterable[str]) -> str:
    """Return the first route, other than a default route, that overlaps a subnet; "" if none does."""
    network = ipaddress.ip_network(subnet)
    for route in routes:
        other = ipaddress.ip_network(route, strict=False)
        if other.version == network.version and other.prefixlen and other.overlaps(network):
            return route
    return ""


def gateway_of(subnet: str) -> str:
    """Return the bridge's own address in a subnet, its first host, with prefix length: "172.30.0.1/16"."""
    network = ipaddress.IPv6Network(subnet) if ":" in subnet else _network(subnet)
    return f"{network.network_address + 1}/{network.prefixlen}"


def pick_address(
    subnet: str, taken: Collection[str], within: str = "", reserved: Collection[str] = ()
) -> str:
    """Return the lowest free host address of a subnet, with prefix length.

    Args:
        subnet: "172.30.0.0/16" or "fd00::/64".
        taken: addresses, with or without prefix length.
        within: the part of the subnet to choose from; all of it by default.
        reserved: addresses to skip, such as the gateway; if empty, the first host address is the gateway.

    Raises:
        ConflictError: the subnet is full.
    """
    network = ipaddress.ip_network(subnet)
    pool = ipaddress.ip_network(within or subnet)
    kept = list(reserved) or [gateway_of(subnet)]
    used = {int(ipaddress.ip_address(address.partition("/")[0])) for address in (*taken, *kept)}
    first = max(int(pool.network_address), int(network.network_address) + 1)
    last = min(int(pool.broadcast_address), int(network.broadcast_address) - 1)
    number = first
    while number <= last and number in used:
        number += 1
    if number <= last:
        return f"{type(network.network_address)(number)}/{network.prefixlen}"
    raise ConflictError(f"the network {subnet} has no free address", hint="remove containers, or stop some")


def matching_address(address: str, subnet: str, subnet6: str) -> str:
    """Return the IPv6 address that follows from an IPv4 address: the same host number, with prefix length.

    Empty if the IPv6 subnet has no such host.
    """
    host = int(ipaddress.IPv4Address(address.partition("/")[0])) - int(_network(subnet).network_address)
    network = ipaddress.IPv6Network(subnet6)
    if host >= network.num_addresses:
        return ""
    return f"{network.network_address + host}/{network.prefixlen}"


def link_local_of(mac_address: str) -> str:
    """Return the link-local IPv6 address that the kernel gives an interface: modified EUI-64 (RFC 4291, appendix A)."""
    octets = bytearray.fromhex(mac_address.replace(":", ""))
    octets[0] ^= 2
    return str(
        ipaddress.IPv6Address(b"\xfe\x80" + bytes(6) + bytes(octets[:3]) + b"\xff\xfe" + bytes(octets[3:]))
    )


def private_subnet6(seed: str) -> str:
    """Return a unique local subnet (RFC 4193) whose global id comes from random hexadecimal digits."""
    return str(ipaddress.IPv6Network((bytes.fromhex(f"fd{seed[:10]}") + bytes(10), 64)))


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


def parse_routes6(text: str) -> list[str]:
    """Return the networks of /proc/net/ipv6_route, without default, link-local, multicast and host routes."""
    networks = []
    for line in text.splitlines():
        fields = line.split()
        if len(fields) < 10 or fields[9] == "lo":
            continue
        network = ipaddress.IPv6Network((bytes.fromhex(fields[0]), int(fields[1], 16)))
        if 0 < network.prefixlen < 128 and not network.is_link_local and not network.is_multicast:
            networks.append(str(network))
    return networks


def host_routes() -> list[str]:
    """Return the IPv4 and IPv6 networks of this host's routes."""
    found = []
    for path, parse in ((_ROUTES, parse_routes), (_ROUTES6, parse_routes6)):
        with suppress(FileNotFoundError):  # a kernel without this family
            found += parse(path.read_text())
    return found


def _network(subnet: str) -> ipaddress.IPv4Network:
    try:
        network = ipaddress.IPv4Network(subnet)
    except ValueError as error:
        raise InvalidError(f"{subnet!r} is not an IPv4 subnet: {error}") from error
    if network.prefixlen > 30:
        raise InvalidError(f"the subnet {subnet} has no room for a container")
    return network
