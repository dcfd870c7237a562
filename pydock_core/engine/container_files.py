"""Generates each container's /etc/hostname, /etc/hosts and /etc/resolv.conf, and updates them while it runs."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from pydock_core.network.resolvers import host_servers, parse_server
from pydock_core.spec.definition import HostConfig
from pydock_core.spec.validation import HOST_GATEWAY
from pydock_core.supervision.user_network import FORWARDER

_SYSTEM = Path("/etc/resolv.conf")
_RESOLVERS = (Path("/run/systemd/resolve/resolv.conf"), _SYSTEM)
_MOST_BYTES = 1 << 20
NAME_SERVER = "127.0.0.11"
"""The name server in the network namespace of a container on a user-defined network."""


def build_hosts(
    name: str,
    addresses: Iterable[str],
    gateway: str,
    extra: Iterable[str],
    linked: Iterable[tuple[str, Iterable[str]]] = (),
) -> str:
    """Return /etc/hosts: the loopback lines, the requested ones, linked containers, and the container's own name.

    Args:
        addresses: the container's addresses without prefix length; if empty, the name resolves to loopback.
        gateway: the host's address from the container; "" for loopback, as with the host's network.
        extra: NAME:ADDRESS, as in ExtraHosts; the address "host-gateway" means ``gateway``.
        linked: pairs of an address and its names.
    """
    lines = [
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost ip6-localhost ip6-loopback",
        "fe00::0\tip6-localnet",
        "ff00::0\tip6-mcastprefix",
        "ff02::1\tip6-allnodes",
        "ff02::2\tip6-allrouters",
        *(_hosts_line(entry, gateway or "127.0.0.1") for entry in extra),
        *(f"{address}\t{' '.join(names)}" for address, names in linked),
        *(f"{address}\t{name}" for address in list(addresses) or ["127.0.0.1"]),
    ]
    return "\n".join(lines) + "\n"


def _hosts_line(entry: str, gateway: str) -> str:
    name, _, address = entry.partition(":")
    return f"{gateway if address == HOST_GATEWAY else address}\t{name}"


def build_resolv_conf(text: str, *, keep_loopback: bool, settings: HostConfig | None = None) -> str:
    """Return the host's resolv.conf, adapted to a container.

    Args:
        keep_loopback: keep name servers on loopback, because the container shares the host's network.
        settings: settings whose Dns, DnsSearch and DnsOptions replace the host's.
    """
    lines = text.splitlines()
    if not keep_loopback:
        lines = [line for line in lines if not _is_loopback_server(line)]
    if settings is not None:
        for words, values, line in (
            (("nameserver",), settings["Dns"], ""),
            (("search", "domain"), settings["DnsSearch"], "search"),
            (("options",), settings["DnsOptions"], "options"),
        ):
            if values:
                lines = [old for old in lines if old.split()[:1] not in [[word] for word in words]]
                if line:
                    lines += [] if values == ["."] else [f"{line} {' '.join(values)}"]
                else:
                    lines += [f"nameserver {server}" for server in values]
    if keep_loopback and lines == text.splitlines():
        return text
    return "".join(f"{line}\n" for line in lines)


def build_own_resolv_conf(text: str, settings: HostConfig) -> str:
    """Return the resolv.conf of a container with its own name server: the host's domains, with ndots 0.

    Args:
        text: the host's resolv.conf.
        settings: see :func:`build_resolv_conf`.
    """
    lines = build_resolv_conf(text, keep_loopback=True, settings=settings).splitlines()
    kept = [line for line in lines if line.split()[:1] in (["search"], ["domain"])]
    options = [word for line in lines if line.split()[:1] == ["options"] for word in line.split()[1:]]
    if not any(option.startswith("ndots:") for option in options):
        options.append("ndots:0")
    return "".join(
        f"{line}\n" for line in (f"nameserver {NAME_SERVER}", *kept, f"options {' '.join(options)}")
    )


def read_host_resolv_conf() -> str:
    """Read the host's resolv.conf; systemd-resolved's own one if it exists, as its stub listens on loopback."""
    for path in _RESOLVERS:
        try:
            return path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
    return ""


def read_bridge_resolv_conf() -> str:
    """Read the host's resolv.conf for a container on a bridge; an ordinary user's container uses the uplink's server."""
    text = read_host_resolv_conf()
    if os.geteuid() == 0:
        return text
    kept = [line for line in text.splitlines() if parse_server(line) is None]
    return "".join(f"{line}\n" for line in (*kept, f"nameserver {FORWARDER}"))


def read_text(path: Path) -> bytes:
    """Read a file that a container may have changed, up to a megabyte."""
    with open(path, "rb") as file:
        return file.read(_MOST_BYTES)


def upstream_servers(settings: HostConfig) -> list[str]:
    """Return the upstream servers of a container's name server, which can reach the host's loopback."""
    if os.geteuid() != 0:  # queried from the namespace that the user's containers share
        return [
            FORWARDER if ipaddress.ip_address(text).is_loopback else text for text in settings["Dns"]
        ] or [FORWARDER]
    return settings["Dns"] or host_servers()


def name_servers(text: str) -> list[str]:
    """Return the IPv4 name servers of a resolv.conf."""
    found = [parse_server(line) for line in text.splitlines()]
    return [str(address) for address in found if isinstance(address, ipaddress.IPv4Address)]


def add_network(
    directory: Path, addresses: Sequence[str], name: str, *, has_names: bool, settings: HostConfig
) -> None:
    """Add a network to the files of a running container; they are mounted, so they keep their inodes.

    Args:
        directory: the directory of the container's data.
        addresses: the container's addresses on the network.
        has_names: whether the network has a name service; resolv.conf then names it, unless the container has changed the file.
        settings: the container's settings.
    """
    lines = "".join(f"{address}\t{name}\n" for address in addresses)
    _change(directory / "hosts", lambda old: old + lines.encode())
    if has_names:
        text = read_bridge_resolv_conf()
        plain = build_resolv_conf(text, keep_loopback=False, settings=settings).encode()
        own = build_own_resolv_conf(text, settings).encode()
        _change(directory / "resolv.conf", lambda old: own if old == plain else old)


def remove_addresses(directory: Path, addresses: Sequence[str]) -> None:
    """Remove addresses from the hosts file of a running container."""
    removed = [address.encode() for address in addresses]

    def change(old: bytes) -> bytes:
        lines = old.splitlines(keepends=True)
        return b"".join(line for line in lines if line.partition(b"\t")[0] not in removed)

    _change(directory / "hosts", change)


def _change(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Change a file that the container may have changed; skip a large file, and every file on a full disk."""
    with suppress(OSError), open(path, "r+b") as file:
        old = file.read(_MOST_BYTES)
        new = change(old)
        if new != old and len(old) < _MOST_BYTES:
            file.seek(0)
            file.write(new)
            file.truncate()


def _is_loopback_server(line: str) -> bool:
    address = parse_server(line)
    return address is not None and address.is_loopback
