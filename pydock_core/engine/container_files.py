"""Generates each container's /etc/hostname, /etc/hosts and /etc/resolv.conf."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from pathlib import Path

from pydock_core.spec.validation import HOST_GATEWAY

_RESOLVERS = (Path("/run/systemd/resolve/resolv.conf"), Path("/etc/resolv.conf"))


def build_hosts(name: str, address: str, gateway: str, extra: Iterable[str]) -> str:
    """Return /etc/hosts: the loopback lines, the requested ones, and the container's own name.

    Args:
        address: the container's, without prefix length; "" for none, and the name stands for loopback.
        gateway: the host's address as the container sees it; "" for loopback, as with the host's network.
        extra: NAME:ADDRESS, as in ExtraHosts; the address "host-gateway" stands for ``gateway``.
    """
    lines = [
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost ip6-localhost ip6-loopback",
        "fe00::0\tip6-localnet",
        "ff00::0\tip6-mcastprefix",
        "ff02::1\tip6-allnodes",
        "ff02::2\tip6-allrouters",
        *(_hosts_line(entry, gateway or "127.0.0.1") for entry in extra),
        f"{address or '127.0.0.1'}\t{name}",
    ]
    return "\n".join(lines) + "\n"


def _hosts_line(entry: str, gateway: str) -> str:
    name, _, address = entry.partition(":")
    return f"{gateway if address == HOST_GATEWAY else address}\t{name}"


def build_resolv_conf(text: str, *, keep_loopback: bool) -> str:
    """Return the host's resolv.conf as a container can use it.

    Args:
        keep_loopback: keep name servers on loopback: the container shares the host's network.
    """
    if keep_loopback:
        return text
    return "".join(f"{line}\n" for line in text.splitlines() if not _is_loopback_server(line))


def read_host_resolv_conf() -> str:
    """Read the host's resolv.conf; systemd-resolved's own one if it exists, as its stub listens on loopback."""
    for path in _RESOLVERS:
        try:
            return path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
    return ""


def name_servers(text: str) -> list[str]:
    """Return the IPv4 name servers of a resolv.conf."""
    found = [_name_server(line) for line in text.splitlines()]
    return [str(address) for address in found if isinstance(address, ipaddress.IPv4Address)]


def _is_loopback_server(line: str) -> bool:
    address = _name_server(line)
    return address is not None and address.is_loopback


def _name_server(line: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    words = line.split()
    if len(words) < 2 or words[0] != "nameserver":
        return None
    try:
        return ipaddress.ip_address(words[1].partition("%")[0])
    except ValueError:
        return None
