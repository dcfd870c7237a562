"""Values derived from a network's row: firewall rules, gateway, documents of the Engine API.  Pure."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from pydock_core.network.rules import BridgeRules
from pydock_core.spec.definition import EndpointSettings
from pydock_core.store.database.networks import DEFAULT_NETWORK, PREDEFINED, EndpointRow, NetworkRow
from pydock_core.supervision.logs import format_time

if TYPE_CHECKING:
    from pydock_core.spec.network import BridgeOptions, IpamPool, NetworkRequest


class Network:
    """A network's row, with its definition decoded on demand.

    Attributes:
        row: the network's row.
    """

    def __init__(self, row: NetworkRow) -> None:
        self.row = row

    @property
    def is_predefined(self) -> bool:
        """Whether it is one of bridge, host and none."""
        return self.row.name in PREDEFINED

    @property
    def is_bridge(self) -> bool:
        """Whether containers get an interface on it."""
        return self.row.driver == "bridge"

    @property
    def has_names(self) -> bool:
        """Whether its containers find each other by name; as in Docker, not on the default bridge."""
        return self.row.name != DEFAULT_NETWORK

    @cached_property
    def request(self) -> NetworkRequest:
        """Its definition."""
        from pydock_core.spec.network import (
            decode,  # late: the default bridge, which most containers use, has none
        )

        return decode(self.row.definition)

    @cached_property
    def options(self) -> BridgeOptions:
        """Its options."""
        from pydock_core.spec.network import read_options

        return read_options(self.request["Options"])

    @property
    def is_internal(self) -> bool:
        """Whether it has no connection to the outside."""
        return not self.is_predefined and self.request["Internal"]

    def pool(self, version: int) -> IpamPool:
        """Return the definition of the subnet of one family."""
        for pool in self.request["Pools"]:
            if (":" in pool["Subnet"]) == (version == 6):
                return pool
        return {"Subnet": "", "IPRange": "", "Gateway": "", "AuxiliaryAddresses": {}}

    @cached_property
    def rules(self) -> BridgeRules:
        """The parameters of its firewall rules; its bridge and subnet are already chosen."""
        row = self.row
        if self.is_predefined:
            return BridgeRules(row.bridge, row.subnet)
        return BridgeRules(
            row.bridge,
            row.subnet,
            self.pool(4)["Gateway"],
            row.subnet6,
            self.pool(6)["Gateway"] if row.subnet6 else "",
            internal=self.is_internal,
            masquerade=self.options.masquerade,
            link_local=self.options.link_local,
        )


def build_network(network: Network, containers: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return Network of the Engine API.

    Args:
        containers: NetworkContainer of the Engine API by container id; None for a listing.
    """
    row, request = network.row, network.request
    configs = []
    if network.is_bridge and row.subnet:
        rules = network.rules
        for version, subnet, gateway in ((4, row.subnet, rules.gateway), (6, row.subnet6, rules.gateway6)):
            if subnet:
                pool = network.pool(version)
                given = {"IPRange": pool["IPRange"], "AuxiliaryAddresses": pool["AuxiliaryAddresses"]}
                extra = {name: value for name, value in given.items() if value}
                configs.append({"Subnet": subnet, "Gateway": gateway, **extra})
    return {
        "Name": row.name,
        "Id": row.id,
        "Created": format_time(row.created_ns),
        "Scope": "local",
        "Driver": row.driver,
        "EnableIPv4": True,
        "EnableIPv6": request["EnableIPv6"],
        "IPAM": {"Driver": "default", "Options": {}, "Config": configs},
        "Internal": request["Internal"],
        "Attachable": request["Attachable"],
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": containers or {},
        "Options": request["Options"],
        "Labels": request["Labels"],
    }


def build_endpoint(network: Network, endpoint: EndpointRow, settings: EndpointSettings) -> dict[str, Any]:
    """Return the fields of the Engine API's EndpointSettings for a current attachment."""
    from hashlib import sha256  # late: few commands show endpoints

    from pydock_core.network.addresses import mac_address_of

    address, _, prefix = endpoint.address.partition("/")
    address6, _, prefix6 = endpoint.address6.partition("/")
    return {
        "NetworkID": network.row.id,
        "EndpointID": sha256(f"{network.row.id} {endpoint.container_id}".encode()).hexdigest(),
        "Gateway": "" if network.is_internal else network.rules.gateway,
        "IPAddress": address,
        "MacAddress": settings["MacAddress"] or mac_address_of(address),
        "IPPrefixLen": int(prefix),
        "IPv6Gateway": "" if network.is_internal else network.rules.gateway6,
        "GlobalIPv6Address": address6,
        "GlobalIPv6PrefixLen": int(prefix6 or 0),
    }
