"""Builds the rules that send connections to published ports into a container directly.  Pure.

They translate packets from outside to a port on which the container's supervisor listens: its socket carries the
container's mark.  An element never becomes wrong: it acts only while that socket exists, even if a process is killed or
another program listens on the port next.  Packets from a bridge, so from a container, are left to the host's filter.
"""

from __future__ import annotations

import ipaddress
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

from pydock_core.network.rules import BridgeRules

_NFT = """\
add table {family} {table}
add map {family} {table} published-{version} {{ typeof socket mark . meta l4proto . th dport : {family} daddr . th dport ; }}
add chain {family} {table} prerouting {{ type nat hook prerouting priority dstnat ; policy accept ; }}
flush chain {family} {table} prerouting
add rule {family} {table} prerouting meta iifkind != "bridge" fib daddr type local \
dnat {family} to socket mark . meta l4proto . th dport map @published-{version}
"""
_VERSION = f"{zlib.crc32(_NFT.encode()):08x}"


@dataclass(frozen=True, slots=True)
class Publication:
    """A published port of a container.

    Attributes:
        mark: mark of the listening socket.
        protocol: "tcp" or "udp".
        host_port, container_port: 1 to 65535.
        target: the container's address, without prefix length.
    """

    mark: int
    protocol: str
    host_port: int
    container_port: int
    target: str

    @property
    def family(self) -> str:
        """The nftables family of the target."""
        return "ip6" if ":" in self.target else "ip"


def table_name(rules: BridgeRules) -> str:
    """Return the name of a bridge's tables of published ports, one per family."""
    return f"{rules.table}-ports"


def build_base(rules: BridgeRules, family: str) -> str:
    """Return the script that installs a table of published ports and keeps existing elements."""
    return _NFT.format(family=family, table=table_name(rules), version=_VERSION)


def build_elements(rules: BridgeRules, publications: Iterable[Publication]) -> str:
    """Return the script that adds ports; it fails if the table is missing, or a key has another target."""
    script = ""
    for item in publications:
        target = f"{ipaddress.ip_address(item.target)} . {item.container_port}"
        script += f"add element {item.family} {_map(rules)} {{ {_key(item)} : {target} }}\n"
    return script


def build_deletion(rules: BridgeRules, publication: Publication) -> str:
    """Return the script that removes a port with any target; it fails if there is none."""
    return f"delete element {publication.family} {_map(rules)} {{ {_key(publication)} }}\n"


def _map(rules: BridgeRules) -> str:
    return f"{table_name(rules)} published-{_VERSION}"


def _key(publication: Publication) -> str:
    return f"{publication.mark:#010x} . {publication.protocol} . {publication.host_port}"
