"""Builds the firewall's rules of one bridge, for nftables and for iptables.  Pure.

The rules guarantee (nftables; iptables lacks the guard):

- Guard, family bridge: a port sends only IPv4, ARP and, on a bridge with IPv6, IPv6, from its assigned MAC and IP
  addresses, and advertises only those.  Every other frame is dropped before the bridge learns from it: other sources,
  router advertisements and redirects, DHCP server replies, VLAN tags, reserved multicast.
- Host: a container reaches neither the host's own addresses nor link-local ones (cloud metadata), except for
  echo requests, replies, and the name servers of its resolv.conf.
- Forwarding: outgoing packets take the host's address; only replies and packets from outside for a published
  port (:mod:`pydock_core.network.port_rules`) come in, so other bridges have no access.  No packet is
  forwarded to or from an internal bridge.

A port's name, MAC address and set element all follow from its IPv4 address.  So an element never becomes wrong:
the end of a container needs no clean-up, and attaching a container is one ``add element``, whatever the number of containers.
Elements with a requested MAC address or an IPv6 address can become wrong: they are recorded, and the next admission of
the same IPv4 address removes them.
"""

from __future__ import annotations

import ipaddress
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from pydock_core.errors import InvalidError
from pydock_core.network.addresses import gateway_of, link_local_of, mac_address_of

NO_NFT = "this host has no nft"
NO_BRIDGE_FAMILY = "this kernel has no nftables for bridges (CONFIG_NF_TABLES_BRIDGE)"
"""Reasons why containers of a bridge can impersonate each other."""
LINK_LOCAL = "169.254.0.0/16"  # RFC 3927; cloud metadata is at 169.254.169.254
_PREFIX = "pd"

METADATA6 = "fd00:ec2::/32"
"""The cloud metadata service's addresses in IPv6."""

_NFT = """\
add table {family} {table}
add map {family} {table} opened-{version} {{ type {type} : verdict ; }}
add set {family} {table} resolvers-{version} {{ type {type} ; }}
add chain {family} {table} postrouting {{ type nat hook postrouting priority srcnat ; policy accept ; }}
add chain {family} {table} input {{ type filter hook input priority filter ; policy accept ; }}
add chain {family} {table} forward {{ type filter hook forward priority filter ; policy accept ; }}
add chain {family} {table} from-container
add chain {family} {table} guarded
add chain {family} {table} to-gateway
flush table {family} {table}
add rule {family} {table} to-gateway {family} daddr {gateway} accept
add rule {family} {table} guarded {family} saddr vmap @opened-{version}
add rule {family} {table} guarded {family} daddr @resolvers-{version} udp dport 53 accept
add rule {family} {table} guarded {family} daddr @resolvers-{version} tcp dport 53 accept
add rule {family} {table} guarded reject with {icmp} type admin-prohibited
add rule {family} {table} from-container ct state established accept
add rule {family} {table} from-container meta l4proto {l4proto} ct state related accept
add rule {family} {table} from-container {icmp} type {requests} accept
add rule {family} {table} from-container jump guarded
add rule {family} {table} input iifname "{bridge}" jump from-container
add rule {family} {table} forward iifname "{bridge}" oifname "{bridge}" accept
"""
_NFT_MASQUERADE = """\
add rule {family} {table} postrouting {family} saddr {subnet} oifname != "{bridge}" masquerade
"""
_NFT_LINK_LOCAL = """\
add rule {family} {table} forward iifname "{bridge}" {family} daddr {link_local} jump guarded
"""
_NFT_OUTSIDE = """\
add rule {family} {table} forward iifname "{bridge}" accept
add rule {family} {table} forward oifname "{bridge}" ct state established,related accept
add rule {family} {table} forward oifname "{bridge}" meta iifkind != "bridge" ct status dnat accept
add rule {family} {table} forward oifname "{bridge}" drop
"""
_NFT_INTERNAL = """\
add rule {family} {table} forward iifname "{bridge}" drop
add rule {family} {table} forward oifname "{bridge}" drop
"""
# A frame to 01:80:c2:00:00:0X passes no prerouting hook and is the host's, received by the port itself
# (br_handle_frame in net/bridge/br_input.c).
_NFT_PORTS = """\
add rule {family} {table} input iifname "{pattern}" drop
"""
_NFT_GUARD = """\
add table bridge {table}
add set bridge {table} ports-{version} {{ type ifname . ether_addr . ipv4_addr ; }}
add set bridge {table} custom-{version} {{ type ifname . ether_addr . ipv4_addr ; }}
add chain bridge {table} prerouting {{ type filter hook prerouting priority -300 ; policy accept ; }}
add chain bridge {table} input {{ type filter hook input priority -200 ; policy accept ; }}
add chain bridge {table} port
flush table bridge {table}
add rule bridge {table} port ether type ip udp sport 67 drop
add rule bridge {table} port ether type ip iifname . ether saddr . ip saddr @ports-{version} accept
add rule bridge {table} port ether type ip iifname . ether saddr . ip saddr @custom-{version} accept
add rule bridge {table} port ether type arp arp htype != 1 drop
add rule bridge {table} port ether type arp arp ptype != ip drop
add rule bridge {table} port ether type arp arp hlen != 6 drop
add rule bridge {table} port ether type arp arp plen != 4 drop
add rule bridge {table} port ether type arp \
iifname . ether saddr . arp saddr ip @ports-{version} iifname . arp saddr ether . arp saddr ip @ports-{version} accept
add rule bridge {table} port ether type arp \
iifname . ether saddr . arp saddr ip @custom-{version} iifname . arp saddr ether . arp saddr ip @custom-{version} accept
"""
# 134 and 137: a router's advertisement and redirect; 547: a DHCPv6 server.  A neighbour's advertisement names its
# target 8 bytes into the message (RFC 4861, section 4.4).
_NFT_GUARD6 = """\
add set bridge {table} ports6-{version} {{ typeof iifname . ether saddr . ip6 saddr ; }}
add set bridge {table} targets-{version} {{ typeof iifname . @th,64,128 ; }}
add rule bridge {table} port ether type ip6 udp sport 547 drop
add rule bridge {table} port ether type ip6 icmpv6 type {{ 134, 137 }} drop
add rule bridge {table} port ether type ip6 icmpv6 type 136 iifname . @th,64,128 != @targets-{version} drop
add rule bridge {table} port ether type ip6 iifname . ether saddr . ip6 saddr @ports6-{version} accept
"""
_NFT_GUARD_END = """\
add rule bridge {table} port drop
"""
_NFT_GUARD_PORTS = """\
add rule bridge {table} prerouting iifname "{pattern}" jump port
add rule bridge {table} input iifname "{pattern}" ether daddr & ff:ff:ff:ff:ff:f0 == 01:80:c2:00:00:00 drop
"""
_TEMPLATES = (
    *(_NFT, _NFT_MASQUERADE, _NFT_LINK_LOCAL, _NFT_OUTSIDE, _NFT_INTERNAL, _NFT_PORTS),
    *(_NFT_GUARD, _NFT_GUARD6, _NFT_GUARD_END, _NFT_GUARD_PORTS),
)
# A successor's sets lose the elements of another version's: the version is part of the sets' names.
_VERSION = f"{zlib.crc32(''.join(_TEMPLATES).encode()):08x}"


@dataclass(frozen=True, slots=True)
class BridgeRules:
    """The parameters of a bridge's rules.

    Attributes:
        bridge: name of the device.
        subnet: "172.30.0.0/16".
        chosen_gateway: the bridge's own address, without prefix length; empty for the subnet's first host.
        subnet6: "fd00::/64"; empty without IPv6.
        chosen_gateway6: as ``chosen_gateway``.
        internal: whether forwarding to and from other networks is disabled.
        masquerade: whether outgoing packets take the host's address.
        link_local: whether link-local addresses beyond the host (cloud metadata) are open.
    """

    bridge: str
    subnet: str
    chosen_gateway: str = ""
    subnet6: str = ""
    chosen_gateway6: str = ""
    internal: bool = False
    masquerade: bool = True
    link_local: bool = False

    @property
    def table(self) -> str:
        """Name of its nftables tables, and of its iptables chain."""
        return f"pydock-{self.bridge}"

    @property
    def gateway(self) -> str:
        """The bridge's own address, without prefix length."""
        return self.chosen_gateway or gateway_of(self.subnet).partition("/")[0]

    @property
    def gateway6(self) -> str:
        """The bridge's own IPv6 address, without prefix length; empty without IPv6."""
        if not self.subnet6:
            return ""
        return self.chosen_gateway6 or gateway_of(self.subnet6).partition("/")[0]

    @property
    def own_addresses(self) -> list[str]:
        """The bridge's own addresses, with prefix length."""
        pairs = ((self.gateway, self.subnet), (self.gateway6, self.subnet6))
        return [f"{address}/{subnet.partition('/')[2]}" for address, subnet in pairs if subnet]


@dataclass(frozen=True, slots=True)
class Admission:
    """A container's access to its host from a bridge.

    Attributes:
        address: the container's address, without prefix length.
        access: "none", "gateway" (the bridge's own address) or "all" (every address of the host, and link-local).
        resolvers: IPv4 name servers, whose port 53 is open.
        mac_address: MAC address of its interface; empty to derive it from the address.
        address6: its IPv6 address, without prefix length; empty for none.
    """

    address: str
    access: str = "none"
    resolvers: tuple[str, ...] = ()
    mac_address: str = ""
    address6: str = ""

    @property
    def hardware(self) -> str:
        """The MAC address of its interface."""
        return self.mac_address or mac_address_of(self.address)


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


def is_port_name(name: str) -> bool:
    """Whether a network device has the name of a container's bridge port."""
    digits = name[len(_PREFIX) :]
    return (
        name.startswith(_PREFIX) and len(digits) == 8 and all(digit in "0123456789abcdef" for digit in digits)
    )


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
        if is_port_name(name):
            address = ipaddress.IPv4Address(int(name[len(_PREFIX) :], 16))
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
    patterns = [f"{pattern}*" for pattern in port_patterns(rules.subnet)]
    script = _build_family(rules, patterns, _FAMILY, rules.subnet, rules.gateway)
    if rules.subnet6:
        script += _build_family(rules, patterns, _FAMILY6, rules.subnet6, rules.gateway6)
    if guard:
        names = {"table": rules.table, "version": _VERSION}
        script += _NFT_GUARD.format(**names)
        script += _NFT_GUARD6.format(**names) if rules.subnet6 else ""
        script += _NFT_GUARD_END.format(**names)
        script += "".join(_NFT_GUARD_PORTS.format(pattern=pattern, **names) for pattern in patterns)
        script += "".join(_build_elements(rules, Admission(address)) for address in addresses)
    return script


_FAMILY = {
    "family": "ip",
    "type": "ipv4_addr",
    "icmp": "icmp",
    "l4proto": "icmp",
    "requests": "echo-request",
    "link_local": LINK_LOCAL,
}
_FAMILY6 = {
    "family": "ip6",
    "type": "ipv6_addr",
    "icmp": "icmpv6",
    "l4proto": "ipv6-icmp",
    "requests": "{ echo-request, nd-neighbor-solicit, nd-neighbor-advert }",
    "link_local": METADATA6,
}


def _build_family(
    rules: BridgeRules, patterns: Iterable[str], family: Mapping[str, str], subnet: str, gateway: str
) -> str:
    names = {
        "table": rules.table,
        "bridge": rules.bridge,
        "version": _VERSION,
        "subnet": subnet,
        "gateway": gateway,
        **family,
    }
    parts = [_NFT]
    if rules.internal:
        parts.append(_NFT_INTERNAL)
    else:
        parts += [_NFT_MASQUERADE] if rules.masquerade else []
        parts += [] if rules.link_local else [_NFT_LINK_LOCAL]
        parts.append(_NFT_OUTSIDE)
    script = "".join(part.format(**names) for part in parts)
    return script + "".join(_NFT_PORTS.format(pattern=pattern, **names) for pattern in patterns)


def build_nft_admission(rules: BridgeRules, admission: Admission, *, guard: bool) -> str:
    """Return the script that admits a container's packets.

    It only adds, so the kernel waits for no grace period.  It fails if the tables are missing or of another version, and
    if the address has another opening: close that first.
    """
    lines = _build_elements(rules, admission) if guard else ""
    lines += _build_openings(rules, admission)
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


def lasting_elements(rules: BridgeRules, admission: Admission) -> list[str]:
    """Return the elements of an admission that become wrong when another container gets its IPv4 address."""
    lines = _build_elements(rules, admission).splitlines()
    lines += _build_openings(rules, admission).splitlines()
    return [line for line in lines if f" ports-{_VERSION} " not in line and " ip " not in line]


def build_nft_withdrawal(elements: Iterable[str]) -> str:
    """Return the script that removes elements of :func:`lasting_elements`; missing ones are ignored.

    Elements of another version are already gone with its sets.
    """
    own = [line for line in elements if f"-{_VERSION} " in line]
    return "".join(f"{line}\n{line.replace('add', 'delete', 1)}\n" for line in own)


def find_dropping_chain(listing: str) -> str:
    """Return the base chain of forwarded IPv4 packets whose policy drops, in the output of ``nft list chains``; "" for none."""
    table = chain = ""
    for line in map(str.strip, listing.splitlines()):
        if line.startswith("table "):
            table = line.removesuffix("{").strip()
        elif line.startswith("chain "):
            chain = line.removesuffix("{").strip()
        elif (
            table.startswith(("table ip ", "table inet "))
            and "hook forward" in line
            and "policy drop" in line
        ):
            return f"{table}, {chain}"
    return ""


def build_nft_removal(rules: BridgeRules, family: str) -> str:
    """Return the script that removes a table, if it exists."""
    return f"add table {family} {rules.table}\ndelete table {family} {rules.table}\n"


def _build_openings(rules: BridgeRules, admission: Admission) -> str:
    lines = ""
    for family, address in (("ip", admission.address), ("ip6", admission.address6)):
        if admission.access != "none" and address:
            verdict = {"gateway": "jump to-gateway", "all": "accept"}[admission.access]
            lines += f"add element {family} {rules.table} opened-{_VERSION} {{ {address} : {verdict} }}\n"
    return lines


def _build_elements(rules: BridgeRules, admission: Admission) -> str:
    """Return the guard's elements of one port."""
    port, hardware = f'"{port_name(admission.address)}"', admission.hardware
    name = "ports" if hardware == mac_address_of(admission.address) else "custom"
    elements = [(name, f"{port} . {hardware} . {admission.address}")]
    if rules.subnet6 and admission.address6:
        for address in (admission.address6, link_local_of(hardware)):
            elements.append(("ports6", f"{port} . {hardware} . {address}"))
            elements.append(("targets", f"{port} . 0x{ipaddress.IPv6Address(address).packed.hex()}"))
    return "".join(
        f"add element bridge {rules.table} {name}-{_VERSION} {{ {element} }}\n" for name, element in elements
    )


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
