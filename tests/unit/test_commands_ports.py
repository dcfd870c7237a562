"""The text of ports is that of Docker's command line."""

from __future__ import annotations

from typing import Any

import pytest

from pydock_core.commands.ports import describe_ports, list_bindings


def port(inside: int, kind: str = "tcp", address: str = "", outside: int = 0) -> dict[str, Any]:
    """A port of a ContainerSummary."""
    published = {"IP": address, "PublicPort": outside or inside} if address else {}
    return {"PrivatePort": inside, "Type": kind, **published}


@pytest.mark.parametrize(
    ("ports", "text"),
    [
        ([], ""),
        ([port(9090), port(80)], "80/tcp, 9090/tcp"),
        ([port(6003), port(6001), port(6002), port(6005)], "6001-6003/tcp, 6005/tcp"),
        ([port(80, "udp"), port(80), port(81), port(81, "udp")], "80-81/tcp, 80-81/udp"),
        (
            [port(9001, address="127.0.0.1"), port(9000, address="127.0.0.1"), port(9002, address="0.0.0.0")],
            "127.0.0.1:9000-9001->9000-9001/tcp, 0.0.0.0:9002->9002/tcp",
        ),
        # Published elsewhere: last, and never in a range.
        (
            [port(80, address="127.0.0.1", outside=8080), port(81, address="::1", outside=8081), port(82)],
            "82/tcp, 127.0.0.1:8080->80/tcp, [::1]:8081->81/tcp",
        ),
        ([port(80, address="::1"), port(81, address="::1")], "[::1]:80-81->80-81/tcp"),
    ],
)
def test_ports_are_in_order_and_in_ranges(ports: list[dict[str, Any]], text: str) -> None:
    assert describe_ports(ports) == text


def test_the_published_ports_are_in_numeric_order() -> None:
    def at(number: int, address: str = "127.0.0.1") -> dict[str, str]:
        return {"HostIp": address, "HostPort": str(number)}

    bindings = {"8080/tcp": [at(1)], "90/udp": None, "80/udp": [at(2)], "80/tcp": [at(3), at(4, "::1")]}
    assert list(list_bindings(bindings)) == [
        ("80/tcp", "127.0.0.1:3"),
        ("80/tcp", "[::1]:4"),
        ("80/udp", "127.0.0.1:2"),
        ("8080/tcp", "127.0.0.1:1"),
    ]
