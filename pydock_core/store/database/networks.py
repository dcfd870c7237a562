"""The SQL of networks and of the addresses on them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from pydock_core.store.database.connection import Database


@dataclass(frozen=True, slots=True)
class NetworkRow:
    """One bridge network: its device on the host, and its subnet as "172.30.0.0/16"."""

    name: str
    bridge: str
    subnet: str


def find(database: Database, name: str) -> NetworkRow | None:
    """Return the network with a name; None if there is none."""
    row = database.query_one("SELECT name, bridge, subnet FROM network WHERE name = ?", (name,))
    return None if row is None else NetworkRow(*row)


def ensure(database: Database, name: str, bridge: str, choose_subnet: Callable[[], str]) -> NetworkRow:
    """Return a network; choose a subnet for a new one."""
    rows = database.query("SELECT name, bridge, subnet FROM network WHERE name = ?", (name,))
    if not rows:
        subnet = choose_subnet()
        with database.transaction() as connection:
            connection.execute("INSERT OR IGNORE INTO network VALUES (?, ?, ?)", (name, bridge, subnet))
            rows = connection.execute(
                "SELECT name, bridge, subnet FROM network WHERE name = ?", (name,)
            ).fetchall()
    return NetworkRow(*rows[0])


def renumber(database: Database, network: NetworkRow, subnet: str) -> NetworkRow:
    """Give a network another subnet; its containers lose their addresses, and claim new ones when they start."""
    with database.transaction() as connection:
        connection.execute("DELETE FROM address WHERE network = ?", (network.name,))
        connection.execute("UPDATE network SET subnet = ? WHERE name = ?", (subnet, network.name))
    return replace(network, subnet=subnet)


def address_of(database: Database, network: str, container_id: str) -> str:
    """Return a container's address, "" for none."""
    rows = database.query(
        "SELECT address FROM address WHERE network = ? AND container_id = ?", (network, container_id)
    )
    return str(rows[0][0]) if rows else ""


def claim_address(
    database: Database, network: str, choose: Callable[[Collection[str]], str], container_id: str
) -> str:
    """Return a container's address, which it keeps until it is removed; assign one if it has none.

    Args:
        choose: returns a free address, given the taken ones; pure and quick, because it runs in the transaction.
    """
    with database.transaction() as connection:
        rows = connection.execute(
            "SELECT container_id, address FROM address WHERE network = ?", (network,)
        ).fetchall()
        held = dict(rows)
        if container_id not in held:
            held[container_id] = choose(list(held.values()))
            connection.execute(
                "INSERT INTO address VALUES (?, ?, ?)", (network, held[container_id], container_id)
            )
        return str(held[container_id])
