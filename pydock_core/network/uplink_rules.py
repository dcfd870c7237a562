"""Builds the firewall rules of the uplink of an ordinary user's network namespace; reads the host's addresses for them.

The bridges' own tables (:mod:`pydock_core.network.rules`) close the namespace's addresses to containers.  These tables close
the host's addresses and those of other containers of the host, to which the uplink's program could connect with the user's
rights.  A container with access to its gateway reaches the host through it: the gateway's address is translated to an address
of the host.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from pydock_core.network.rules import Admission
from pydock_core.network.uplink_program import DEVICE

TABLE = "pydock-outside"
_FIB = Path("/proc/self/net/fib_trie")
_ADDRESSES6 = Path("/proc/self/net/if_inet6")
_ROUTES6 = Path("/proc/self/net/ipv6_route")
_ANYWHERE = ("192.0.2.1", 9)  # RFC 5737; connect(2) of a datagram socket sends nothing

_TABLES = """\
add table ip {table}
add set ip {table} host {{ type ipv4_addr ; flags interval ; auto-merge ; }}
add set ip {table} opened {{ type ipv4_addr ; }}
add set ip {table} gates {{ type ipv4_addr . ipv4_addr ; }}
add chain ip {table} prerouting {{ type nat hook prerouting priority dstnat ; policy accept ; }}
add chain ip {table} forward {{ type filter hook forward priority filter ; policy accept ; }}
flush chain ip {table} forward
add rule ip {table} forward oifname "{device}" ct status dnat accept
add rule ip {table} forward oifname "{device}" ip saddr @opened accept
add rule ip {table} forward oifname "{device}" ip daddr @host reject with icmp type admin-prohibited
add rule ip {table} forward iifname "{device}" ct state new drop
add table ip6 {table}
add set ip6 {table} host {{ type ipv6_addr ; flags interval ; auto-merge ; }}
add set ip6 {table} opened {{ type ipv6_addr ; }}
add chain ip6 {table} forward {{ type filter hook forward priority filter ; policy accept ; }}
flush chain ip6 {table} forward
add rule ip6 {table} forward oifname "{device}" ip6 daddr {{ ::/96, ::ffff:0:0/96 }} drop
add rule ip6 {table} forward oifname "{device}" ip6 saddr @opened accept
add rule ip6 {table} forward oifname "{device}" ip6 daddr @host reject with icmpv6 type admin-prohibited
add rule ip6 {table} forward iifname "{device}" ct state new drop
"""
_GATE = "add rule ip {table} prerouting ip saddr . ip daddr @gates dnat to {address}\n"


def build_tables(host: Sequence[str], gate: str) -> str:
    """Return the script that installs the tables, or brings them up to date; nft applies it atomically.

    Args:
        host: the host's own addresses and networks, and those of the containers on its bridges.
        gate: the host's address behind a bridge's gateway; "" if the host has none.
    """
    script = _TABLES.format(table=TABLE, device=DEVICE) + f"flush chain ip {TABLE} prerouting\n"
    for family, is_wanted in (("ip", lambda text: ":" not in text), ("ip6", lambda text: ":" in text)):
        script += f"flush set {family} {TABLE} host\n"
        if listed := ", ".join(filter(is_wanted, host)):
            script += f"add element {family} {TABLE} host {{ {listed} }}\n"
    return script + (_GATE.format(table=TABLE, address=gate) if gate else "")


def build_opening(admission: Admission, gateway: str) -> str:
    """Return the script that sets a container's access to the host by its admission; earlier access of its address is removed."""
    pair = f"{admission.address} . {gateway}"
    elements = [("ip", "opened", admission.address), ("ip", "gates", pair)]
    if admission.address6:
        elements.append(("ip6", "opened", admission.address6))
    # An element is added before it is deleted, because deleting a missing one is an error.
    lines = [
        f"{verb} element {family} {TABLE} {name} {{ {text} }}"
        for family, name, text in elements
        for verb in ("add", "delete")
    ]
    wanted = {"none": (), "gateway": ("gates",), "all": ("gates", "opened")}[admission.access]
    lines += [
        f"add element {family} {TABLE} {name} {{ {text} }}"
        for family, name, text in elements
        if name in wanted
    ]
    return "".join(f"{line}\n" for line in lines)


def parse_fib(text: str) -> list[str]:
    """Return the host's own IPv4 networks in the text of /proc/net/fib_trie: those of type LOCAL."""
    found, address = [], ""
    for line in text.splitlines():
        words = line.split()
        if words[:1] == ["|--"]:
            address = words[1]
        elif words[-1:] == ["LOCAL"] and words[0].startswith("/"):
            found.append(f"{address}{words[0]}")
    return list(dict.fromkeys(found))


def parse_addresses6(text: str) -> list[str]:
    """Return the addresses in the text of /proc/net/if_inet6, in nft's spelling."""
    lines = (line.split() for line in text.splitlines())
    return list(
        dict.fromkeys(socket.inet_ntop(socket.AF_INET6, bytes.fromhex(words[0])) for words in lines if words)
    )


def has_default_route6(text: str) -> bool:
    """Whether the text of /proc/net/ipv6_route has a default route by a device other than loopback."""
    lines = (line.split() for line in text.splitlines())
    return any(
        words[1] == "00" and words[9] != "lo" and set(words[0]) == {"0"} for words in lines if len(words) > 9
    )


def host_addresses() -> list[str]:
    """Return the addresses of the caller's network namespace."""
    found = []
    for path, parse in ((_FIB, parse_fib), (_ADDRESSES6, parse_addresses6)):
        with suppress(FileNotFoundError):  # a kernel without this family
            found += parse(path.read_text())
    return found


def gate_address(host: Iterable[str]) -> str:
    """Return the host's main IPv4 address: that of its default route, otherwise any except a loopback one."""
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
        probe.connect(_ANYWHERE)
        return str(probe.getsockname()[0])
    own = (text.partition("/")[0] for text in host if ":" not in text and text.endswith("/32"))
    return next((address for address in own if not address.startswith("127.")), "")


def has_ipv6() -> bool:
    """Whether the caller's network namespace has an IPv6 default route."""
    with suppress(FileNotFoundError):
        return has_default_route6(_ROUTES6.read_text())
    return False
