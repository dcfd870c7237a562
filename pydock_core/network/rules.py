"""Builds the firewall's rules of one bridge, for nftables and for iptables.  Pure.

The rules guarantee (nftables; iptables lacks the guard):

- Guard, family bridge: a port sends only IPv4 and ARP, from its assigned MAC and IPv4 address.
  Every other frame is dropped before the bridge learns from it: other sources, IPv6 and so router
  advertisements, DHCP server replies, VLAN tags, reserved multicast.
- Host: a container reaches none of the host's own addresses, and nothing link-local (cloud metadata), except
  echo requests, replies, and the name servers of its resolv.conf.
- Forwarding: outgoing packets take the host's address; only replies come in, so other bridges have no way in.

A port's name, MAC address and set element all follow from its IPv4 address.  So an element never becomes wrong:
a container's end needs no cleaning, and attaching a container is one ``add element``, whatever the number of containers.
"""

from __future__ import annotations

import ipaddress
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from pydock_core.errors import InvalidError
from pydock_core.network.addresses import gateway_of, mac_address_of

NO_NFT = "this host has no nft"
NO_BRIDGE_FAMILY = "this kernel has no nftables for bridges (CONFIG_NF_TABLES_BRIDGE)"
"""Reasons why containers of a bridge can impersonate each other."""
LINK_LOCAL = "169.254.0.0/16"  # RFC 3927; cloud metadata is at 169.254.169.254
_PREFIX = "pd"

_NFT = """\
add table ip {table}
add map ip {table} opened-{version} {{ type ipv4_addr : verdict ; }}
add set ip {table} resolvers-{version} {{ type ipv4_addr ; }}
add chain ip {table} postrouting {{ type nat hook postrouting priority srcnat ; policy accept ; }}
add chain ip {table} input {{ type filter hook input priority filter ; policy accept ; }}
add chain ip {table} forward {{ type filter hook forward priority filter ; policy accept ; }}
add chain ip {table} from-container
add chain ip {table} guarded
add chain ip {table} to-gateway
flush table ip {table}
add rule ip {table} postrouting ip saddr {subnet} oifname != "{bridge}" masquerade
add rule ip {table} to-gateway ip daddr {gateway} accept
add rule ip {table} guarded ip saddr vmap @opened-{version}
add rule ip {table} guarded ip daddr @resolvers-{version} udp dport 53 accept
add rule ip {table} guarded ip daddr @resolvers-{version} tcp dport 53 accept
add rule ip {table} guarded reject with icmp type admin-prohibited
add rule ip {table} from-container ct state established accept
add rule ip {table} from-container meta l4proto icmp ct state related accept
add rule ip {table} from-container icmp type echo-request accept
add rule ip {table} from-container jump guarded
add rule ip {table} input iifname "{bridge}" jump from-container
add rule ip {table} forward iifname "{bridge}" oifname "{bridge}" accept
add rule ip {table} forward iifname "{bridge}" ip daddr {link_local} jump guarded
add rule ip {table} forward iifname "{bridge}" accept
add rule ip {table} forward oifname "{bridge}" ct state established,related accept
add rule ip {table} forward oifname "{bridge}" drop
"""
# A frame to 01:80:c2:00:00:0X passes no prerouting hook and is the host's, received by the port itself
# (br_handle_frame in net/bridge/br_input.c).
_NFT_PORTS = """\
add rule ip {table} input iifname "{pattern}" drop
"""
_NFT_GUARD = """\
add table bridge {table}
add set bridge {table} ports-{version} {{ type ifname . ether_addr . ipv4_addr ; }}
add chain bridge {table} prerouting {{ type filter hook prerouting priority -300 ; policy accept ; }}
add chain bridge {table} input {{ type filter hook input priority -200 ; policy accept ; }}
add chain bridge {table} port
flush table bridge {table}
add rule bridge {table} port ether type ip udp sport 67 drop
add rule bridge {table} port ether type ip iifname . ether saddr . ip saddr @ports-{version} accept
add rule bridge {table} port ether type arp arp htype 1 arp ptype ip arp hlen 6 arp plen 4 \
iifname . ether saddr . arp saddr ip @ports-{version} iifname . arp saddr ether . arp saddr ip @ports-{version} accept
add rule bridge {table} port drop
"""
_NFT_GUARD_PORTS = """\
add rule bridge {table} prerouting iifname "{pattern}" jump port
add rule bridge {table} input iifname "{pattern}" ether daddr & ff:ff:ff:ff:ff:f0 == 01:80:c2:00:00:00 drop
"""
# A successor's sets lose the elements of another version's: the version is part of the sets' names.
_VERSION = f"{zlib.crc32((_NFT + _NFT_PORTS + _NFT_GUARD + _NFT_GUARD_PORTS).encode()):08x}"


@dataclass(frozen=True, slots=True)
class BridgeRules:
    """The parameters of a bridge's rules.

    Attributes:
        bridge: name of the device.
        subnet: "172.30.0.0/16".
    """

    bridge: str
    subnet: str

    @property
    def table(self) -> str:
        """Name of its nftables tables, and of its iptables chain."""
        return f"pydock-{self.bridge}"

    @property
    def gateway(self) -> str:
        """The bridge's own address, without prefix length."""
        return gateway_of(self.subnet).partition("/")[0]


@dataclass(frozen=True, slots=True)
class Admission:
    """A container's access to its host from a bridge.

    Attributes:
        address: the container's, without prefix length.
        access: "none", "gateway" (the bridge's own address) or "all" (every address of the host, and link-local).
        resolvers: IPv4 name servers, whose port 53 is open.
    """

    address: str
    access: str = "none"
    resolvers: tuple[str, ...] = ()


HOST_ACCESS = "PYDOCK_HOST_ACCESS"
"""Environment variable: the access of a container on the bridge to its host, "none" or "all"."""


def host_access(environment: Mapping[str, str]) -> str:
    """Return the setting of :data:`HOST_ACCESS`: "none" unless it is set.

    Raises:
        InvalidError: it is neither "none" nor "all".
    """
    setting = environment.get(HOST_ACCESS) or "none"
    if setting not in ("none", "all"):
        raise InvalidError(f"invalid {HOST_ACCESS}: {setting}", "set it to none or all", exit_code=125)
    return setting


def port_name(address: str) -> str:
    """Return the name of the bridge port of a container's address: "pdac1e0002" for 172.30.0.2."""
    return _PREFIX + ipaddress.IPv4Address(address.partition("/")[0]).packed.hex()


def port_patterns(subnet: str) -> list[str]:
    """Return the prefixes of the names of a subnet's ports: "pdac1e" for 172.30.0.0/16."""
    network = ipaddress.IPv4Network(subnet)
    digits = -(-network.prefixlen // 4)
    blocks = network.subnets(new_prefix=min(4 * digits, 32))
    return [_PREFIX + block.network_address.packed.hex()[:digits] for block in blocks]


def port_addresses(subnet: str, names: Iterable[str]) -> list[str]:
    """Return the addresses of those devices that are ports of a subnet."""
    network = ipaddress.IPv4Network(subnet)
    found = []
    for name in names:
        digits = name[len(_PREFIX) :]
        if (
            name.startswith(_PREFIX)
            and len(digits) == 8
            and all(digit in "0123456789abcdef" for digit in digits)
        ):
            address = ipaddress.IPv4Address(int(digits, 16))
            if address in network:
                found.append(str(address))
    return found


def build_nft_script(rules: BridgeRules, addresses: Collection[str], *, guard: bool) -> str:
    """Return the script that installs a bridge's tables, whatever their state.

    nft applies it atomically.  The sets keep their elements, so the script may run beside an admission.

    Args:
        addresses: of the existing ports, for the guard.
        guard: include the table of family bridge.
    """
    names = {
        "table": rules.table,
        "bridge": rules.bridge,
        "subnet": rules.subnet,
        "gateway": rules.gateway,
        "link_local": LINK_LOCAL,
        "version": _VERSION,
    }
    patterns = [f"{pattern}*" for pattern in port_patterns(rules.subnet)]
    script = _NFT.format(**names)
    script += "".join(_NFT_PORTS.format(pattern=pattern, **names) for pattern in patterns)
    if guard:
        script += _NFT_GUARD.format(**names)
        script += "".join(_NFT_GUARD_PORTS.format(pattern=pattern, **names) for pattern in patterns)
        script += "".join(_port_element(rules, address) for address in addresses)
    return script


def build_nft_admission(rules: BridgeRules, admission: Admission, *, guard: bool) -> str:
    """Return the script that admits a container's packets.

    It only adds, so the kernel waits for no grace period.  It fails if the tables are missing or of another version, and
    if the address has another opening: close that first.
    """
    lines = _port_element(rules, admission.address) if guard else ""
    if admission.access != "none":
        verdict = {"gateway": "jump to-gateway", "all": "accept"}[admission.access]
        lines += f"add element ip {rules.table} opened-{_VERSION} {{ {admission.address} : {verdict} }}\n"
    if admission.resolvers:
        listed = ", ".join(admission.resolvers)
        lines += f"add element ip {rules.table} resolvers-{_VERSION} {{ {listed} }}\n"
    return lines


def build_nft_opened(rules: BridgeRules) -> str:
    """Return the command that lists the addresses with an opening; it fails if the admission would."""
    return f"list map ip {rules.table} opened-{_VERSION}\n"


def is_listed(listing: str, address: str) -> bool:
    """Whether the output of :func:`build_nft_opened` names an address."""
    return address in listing.replace(",", " ").split()


def build_nft_closing(rules: BridgeRules, address: str) -> str:
    """Return the script that removes an earlier container's opening from an address."""
    return f"delete element ip {rules.table} opened-{_VERSION} {{ {address} }}\n"


def build_nft_removal(rules: BridgeRules, family: str) -> str:
    """Return the script that removes a table, if it exists."""
    return f"add table {family} {rules.table}\ndelete table {family} {rules.table}\n"


def _port_element(rules: BridgeRules, address: str) -> str:
    element = f'"{port_name(address)}" . {mac_address_of(address)} . {address}'
    return f"add element bridge {rules.table} ports-{_VERSION} {{ {element} }}\n"


Rule = tuple[str, str, Sequence[str]]
"""A rule of iptables: table, chain, match and target."""


def build_iptables_rules(rules: BridgeRules) -> list[Rule]:
    """Return a bridge's rules for iptables, in their order in each chain.

    A chain of the bridge holds the equivalent of the nftables set elements (:func:`build_iptables_admission`).  New
    connections into the bridge are dropped in "mangle", before any other bridge's ACCEPT.
    """
    bridge = rules.bridge
    inside = ["-i", bridge]
    established = ["-m", "conntrack", "--ctstate", "ESTABLISHED"]
    related = ["-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED"]
    fresh = ["-m", "conntrack", "!", "--ctstate", "RELATED,ESTABLISHED"]
    reject = ["-j", "REJECT", "--reject-with", "icmp-admin-prohibited"]
    return [
        ("nat", "POSTROUTING", ["-s", rules.subnet, "!", "-o", bridge, "-j", "MASQUERADE"]),
        ("mangle", "FORWARD", ["!", *inside, "-o", bridge, *fresh, "-j", "DROP"]),
        ("filter", "FORWARD", [*inside, "-o", bridge, "-j", "ACCEPT"]),
        ("filter", "FORWARD", [*inside, "-d", LINK_LOCAL, "-j", rules.table]),
        ("filter", "FORWARD", [*inside, "-d", LINK_LOCAL, *reject]),
        ("filter", "FORWARD", [*inside, "-j", "ACCEPT"]),
        ("filter", "FORWARD", ["-o", bridge, *related, "-j", "ACCEPT"]),
        ("filter", "INPUT", [*inside, *established, "-j", "ACCEPT"]),
        ("filter", "INPUT", [*inside, "-p", "icmp", *related, "-j", "ACCEPT"]),
        ("filter", "INPUT", [*inside, "-p", "icmp", "--icmp-type", "echo-request", "-j", "ACCEPT"]),
        ("filter", "INPUT", [*inside, "-j", rules.table]),
        ("filter", "INPUT", [*inside, *reject]),
        *(
            ("filter", "INPUT", ["-i", f"{pattern}+", "-j", "DROP"])
            for pattern in port_patterns(rules.subnet)
        ),
    ]


def build_iptables_admission(rules: BridgeRules, admission: Admission) -> tuple[list[Rule], list[Rule]]:
    """Return the rules that a container's bridge chain must contain, and those that it must not."""
    source = ["-s", f"{admission.address}/32"]
    openings: dict[str, Rule] = {
        "gateway": ("filter", rules.table, [*source, "-d", f"{rules.gateway}/32", "-j", "ACCEPT"]),
        "all": ("filter", rules.table, [*source, "-j", "ACCEPT"]),
    }
    present = [rule for access, rule in openings.items() if access == admission.access]
    for resolver in admission.resolvers:
        for protocol in ("udp", "tcp"):
            match = ["-d", f"{resolver}/32", "-p", protocol, "--dport", "53", "-j", "ACCEPT"]
            present.append(("filter", rules.table, match))
    return present, [rule for access, rule in openings.items() if access != admission.access]
