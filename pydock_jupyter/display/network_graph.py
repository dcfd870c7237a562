"""Networks, running containers, and the places of containers on networks: the data of a diagram.  Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Network:
    """One network.

    Attributes:
        name: of the network.
        driver: "bridge", "host" or "null".
        subnets: with their gateways, "172.30.0.0/16" and "172.30.0.1"; IPv4 first.
        is_internal: nothing outside is reached from it.
    """

    name: str
    driver: str
    subnets: tuple[tuple[str, str], ...] = ()
    is_internal: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """A container's place on one network.

    Attributes:
        network: its name.
        addresses: without prefix length, IPv4 first; none on host and none.
        names: by which the other containers of the network find it; empty where there is no name service.
    """

    network: str
    addresses: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Member:
    """One container that runs.

    Attributes:
        name: of the container.
        state: "running" or "paused".
        image: as it was named.
        places: one per network.
        ports: published ones, "127.0.0.1:8080 → 80/tcp".
        shares: the container whose network it has; empty if it has networks of its own.
    """

    name: str
    state: str
    image: str
    places: tuple[Place, ...] = ()
    ports: tuple[str, ...] = ()
    shares: str = ""


@dataclass(frozen=True, slots=True)
class NetworkGraph:
    """A diagram's networks and containers, in the order in which they are drawn."""

    networks: tuple[Network, ...]
    members: tuple[Member, ...]

    def place(self, member: Member, network: Network) -> Place | None:
        """Return a container's place on a network; None if it is not on it."""
        return next((place for place in member.places if place.network == network.name), None)

    def on(self, network: Network) -> list[Member]:
        """Return the containers on a network."""
        return [member for member in self.members if self.place(member, network)]
