"""Finds the subnets of the host's bridges that connect containers, whoever made them: PyDock, Docker, podman.

The uplink of an ordinary user's network connects with the rights of a process of the host, so it could reach the containers on
these bridges.  A bridge with a port of another kind than veth (a network card, a virtual machine) leads to a network outside.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from socket import AF_INET, AF_INET6

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkDumpInterrupted


@dataclass(frozen=True, slots=True)
class Link:
    """A network device of the host.

    Attributes:
        kind: the type in ip-link(8): "bridge", "veth"; "" for a network card.
        master: the index of the bridge whose port it is; 0 if it is none.
    """

    index: int
    kind: str
    master: int


def read_container_subnets() -> list[str]:
    """Return these subnets of the caller's network namespace.

    Raises:
        NetlinkError: the kernel refuses a request.
    """
    while True:
        with suppress(NetlinkDumpInterrupted):  # something changed meanwhile
            return _read_container_subnets()


def _read_container_subnets() -> list[str]:
    with IPRoute() as route:
        links = [
            Link(
                link["index"],
                link.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") or "",
                link.get_attr("IFLA_MASTER") or 0,
            )
            for link in route.get_links()
        ]
        addresses = [
            (item["index"], f"{item.get_attr('IFA_ADDRESS')}/{item['prefixlen']}")
            for item in route.get_addr()
        ]
        ways_out = {
            item.get_attr("RTA_OIF")
            for family in (AF_INET, AF_INET6)
            for item in route.get_default_routes(family=family)
        }
    return find_container_subnets(links, addresses, ways_out)


def find_container_subnets(
    links: Iterable[Link], addresses: Iterable[tuple[int, str]], ways_out: Collection[int | None]
) -> list[str]:
    """Return the subnets of the bridges all of whose ports are veth devices; link-local ones are left out.

    Args:
        links: all devices.
        addresses: the index of a device and one of its addresses, with prefix length.
        ways_out: the indices of the devices of default routes.
    """
    links = list(links)
    outward = {link.master for link in links if link.kind != "veth"} | set(ways_out)
    bridges = {link.index for link in links if link.kind == "bridge"} - outward
    networks = (ipaddress.ip_interface(text).network for index, text in addresses if index in bridges)
    return list(dict.fromkeys(str(network) for network in networks if not network.is_link_local))
