"""Reads the name servers of a resolv.conf: resolv.conf(5)."""

from __future__ import annotations

import ipaddress
from pathlib import Path

_SYSTEM = Path("/etc/resolv.conf")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def parse_server(line: str) -> Address | None:
    """Return the name server of a line; None if the line has none."""
    words = line.split()
    if len(words) < 2 or words[0] != "nameserver":
        return None
    try:
        return ipaddress.ip_address(words[1].partition("%")[0])
    except ValueError:
        return None


def host_servers() -> list[str]:
    """Return the name servers of this host, including those on its loopback."""
    try:
        text = _SYSTEM.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return [str(address) for line in text.splitlines() if (address := parse_server(line)) is not None]
