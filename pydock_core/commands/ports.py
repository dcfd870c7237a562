"""The text of a container's ports: the PORTS column of ``ps``, and the lines of ``port``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def describe_ports(ports: Sequence[Mapping[str, Any]]) -> str:
    """Return the PORTS column: "6006-6008/tcp, 127.0.0.1:8888->8888/tcp, 127.0.0.1:8080->80/tcp".

    As in Docker (``DisplayablePorts`` of its command line), ports are in numeric order, consecutive ones form a range,
    and those that are published at another number come last, each on its own.

    Args:
        ports: the ``Ports`` of a ContainerSummary.
    """
    ranges: dict[tuple[str, str], tuple[int, int]] = {}
    complete, moved = [], []
    for port in sorted(ports, key=_order):
        number, kind, address = port["PrivatePort"], port["Type"], port.get("IP", "")
        if address and port["PublicPort"] != number:
            moved.append(f"{join_address(address, port['PublicPort'])}->{number}/{kind}")
            continue
        first, last = ranges.get((address, kind), (number, number))
        if number > last + 1:
            complete.append(_describe_range(address, kind, first, last))
            first = number
        ranges[address, kind] = (first, number)
    rest = [_describe_range(*key, *limits) for key, limits in ranges.items()]
    return ", ".join(complete + rest + moved)


def list_bindings(bindings: Mapping[str, Sequence[Mapping[str, str]] | None]) -> Iterator[tuple[str, str]]:
    """Yield the published ports and their host addresses in numeric order: ("80/tcp", "127.0.0.1:8080").

    Args:
        bindings: the ``Ports`` of an inspected container's NetworkSettings.
    """

    def order(key: str) -> tuple[int, str]:
        number, _, kind = key.partition("/")
        return int(number), kind

    for key in sorted(bindings, key=order):
        for binding in bindings[key] or ():
            yield key, join_address(binding["HostIp"], binding["HostPort"])


def join_address(address: str, port: int | str) -> str:
    """Return "127.0.0.1:80" or "[::1]:80"."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _order(port: Mapping[str, Any]) -> tuple[int, str, int, str]:
    return port["PrivatePort"], port.get("IP", ""), port.get("PublicPort", 0), port["Type"]


def _describe_range(address: str, kind: str, first: int, last: int) -> str:
    numbers = str(first) if first == last else f"{first}-{last}"
    published = f"{join_address(address, numbers)}->" if address else ""
    return f"{published}{numbers}/{kind}"
