"""The three files that the host gives a container: /etc/hostname, /etc/hosts and /etc/resolv.conf."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from pathlib import Path

_RESOLVERS = (Path("/run/systemd/resolve/resolv.conf"), Path("/etc/resolv.conf"))


def build_hosts(name: str, address: str, extra: Iterable[str]) -> str:
    """Return /etc/hosts: the loopback lines, those asked for, and the container's own name.

    Args:
        address: the container's, without prefix length; "" for none, and the name stands for loopback.
    """
    lines = [
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost ip6-localhost ip6-loopback",
        "fe00::0\tip6-localnet",
        "ff00::0\tip6-mcastprefix",
        "ff02::1\tip6-allnodes",
        "ff02::2\tip6-allrouters",
        *extra,
        f"{address or '127.0.0.1'}\t{name}",
    ]
    return "\n".join(lines) + "\n"


def build_resolv_conf(text: str, *, keep_loopback: bool) -> str:
    """Return the host's resolv.conf as a container can use it.

    Args:
        keep_loopback: keep name servers on loopback: the container shares the host's network.
    """
    if keep_loopback:
        return text
    return "".join(f"{line}\n" for line in text.splitlines() if not _is_loopback_server(line))


def read_host_resolv_conf() -> str:
    """Read the host's resolv.conf: systemd-resolved's real one where there is one, as its stub listens on loopback."""
    for path in _RESOLVERS:
        try:
            return path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
    return ""


def _is_loopback_server(line: str) -> bool:
    words = line.split()
    if len(words) < 2 or words[0] != "nameserver":
        return False
    try:
        return ipaddress.ip_address(words[1].partition("%")[0]).is_loopback
    except ValueError:
        return False
