"""The data of a diagram: networks, running containers, and their endpoints.  Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Network:
    """One network.

    Attributes:
        name: the network's name.
        driver: "bridge", "host" or "null".
        subnets: pairs of subnet and gateway, "172.30.0.0/16" and "172.30.0.1"; IPv4 first.
        is_internal: whether it has no connection to the outside.
    """

    name: str
    driver: str
    subnets: tuple[tuple[str, str], ...] = ()
    is_internal: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """A container's endpoint on one network.

    Attributes:
        network: the network's name.
        addresses: addresses without prefix length, IPv4 first; empty on the networks host and none.
        names: the container's names on the network, without its short id; empty without a name service.
    """

    network: str
    addresses: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Member:
    """One running container.

    Attributes:
        name: the container's name.
        state: "running" or "paused".
        image: the image's name, as given.
        places: its endpoints, one per network.
        ports: published ports, "127.0.0.1:8080 → 80/tcp".
        shares: the container whose network it shares; empty if it has its own networks.
    """

    name: str
    state: str
    image: str
    places: tuple[Place, ...] = ()
    ports: tuple[str, ...] = ()
    shares: str = ""


@dataclass(frozen=True, slots=True)
class NetworkGraph:
    """A diagram's networks and containers, in drawing order."""

    networks: tuple[Network, ...]
    members: tuple[Member, ...]

    def place(self, member: Member, network: Network) -> Place | None:
        """Return a container's endpoint on a network; None if it has none."""
        return next((place for place in member.places if place.network == network.name), None)

    def on(self, network: Network) -> list[Member]:
        """Return the containers on a network."""
        return [member for member in self.members if self.place(member, network)]
