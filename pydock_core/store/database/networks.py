"""The SQL of networks and of containers' addresses on them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pydock_core.errors import ConflictError, NotFoundError
from pydock_core.store.database import events
from pydock_core.store.database.connection import Database
from pydock_core.store.database.events import Event

DEFAULT_NETWORK = "bridge"
PREDEFINED = ("bridge", "host", "none")
"""The networks that every database has."""


@dataclass(frozen=True, slots=True)
class NetworkRow:
    """One network.

    Attributes:
        id: 64 hexadecimal digits.
        driver: "bridge", "host" or "null".
        bridge: device on the host; empty until it is chosen.
        subnet: "172.30.0.0/16"; empty until it is chosen.
        subnet6: "fd00::/64"; empty without IPv6.
        definition: the stored form of :mod:`pydock_core.spec.network`.
    """

    id: str
    name: str
    driver: str
    created_ns: int
    bridge: str
    subnet: str
    subnet6: str
    definition: str


@dataclass(frozen=True, slots=True)
class EndpointRow:
    """A container's addresses on a network, with prefix length; ``address6`` is empty without IPv6."""

    network_id: str
    container_id: str
    address: str
    address6: str = ""


Addresses = tuple[str, str]
"""An IPv4 and an IPv6 address, each with prefix length; the second may be empty."""

_COLUMNS = "id, name, driver, created_ns, bridge, subnet, subnet6, definition"


def find_by_name(database: Database, name: str) -> NetworkRow | None:
    """Return the network with exactly this name; None if there is none."""
    row = database.query_one(f"SELECT {_COLUMNS} FROM network WHERE name = ?", (name,))
    return None if row is None else NetworkRow(*row)


def find(database: Database, reference: str) -> NetworkRow:
    """Return the network that a full id, a name or a unique id prefix names.

    Raises:
        NotFoundError: there is none.
        ConflictError: the prefix fits several.
    """
    rows = database.query(
        f"SELECT {_COLUMNS} FROM network WHERE id = ?1 OR name = ?1 ORDER BY id = ?1 DESC", (reference,)
    )
    if rows:
        return NetworkRow(*rows[0])
    if reference and all(character in "0123456789abcdef" for character in reference):
        rows = database.query(
            f"SELECT {_COLUMNS} FROM network WHERE id >= ? AND id < ?", (reference, reference + "g")
        )
    if len(rows) > 1:
        raise ConflictError(f"{reference!r} fits {len(rows)} networks", "give more digits of the id")
    if not rows:
        raise NotFoundError(f"no such network: {reference}", "dock network ls lists them")
    return NetworkRow(*rows[0])


def all_rows(database: Database) -> list[NetworkRow]:
    """Return every network, by name."""
    return [NetworkRow(*row) for row in database.query(f"SELECT {_COLUMNS} FROM network ORDER BY name")]


def insert(database: Database, row: NetworkRow, *noted: Event) -> None:
    """Record a network, and events; ConflictError if the name or the bridge's name is taken."""
    with database.transaction() as connection:
        taken = connection.execute("SELECT name FROM network WHERE bridge = ?", (row.bridge,)).fetchone()
        if taken:
            raise ConflictError(
                f"the bridge name {row.bridge} is that of network {taken[0]}", "choose another bridge name"
            )
        try:
            connection.execute(
                f"INSERT INTO network ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    row.id,
                    row.name,
                    row.driver,
                    row.created_ns,
                    row.bridge,
                    row.subnet,
                    row.subnet6,
                    row.definition,
                ),
            )
        except sqlite3.IntegrityError:
            raise ConflictError(
                f"network {row.name} already exists",
                f"choose another name, or remove it: dock network rm {row.name}",
            ) from None
        events.record(connection, *noted)


def set_subnet(database: Database, network_id: str, bridge: str, old_subnet: str, subnet: str) -> NetworkRow:
    """Set a network's bridge and subnet, unless another process has since ``old_subnet`` was read.

    If the subnet changes, the network's containers lose their addresses and claim new ones when they start.

    Raises:
        NotFoundError: the network is gone.
    """
    with database.transaction() as connection:
        changed = connection.execute(
            "UPDATE network SET bridge = ?, subnet = ? WHERE id = ? AND subnet = ?",
            (bridge, subnet, network_id, old_subnet),
        ).rowcount
        if changed:
            connection.execute("DELETE FROM endpoint WHERE network_id = ?", (network_id,))
        row = connection.execute(f"SELECT {_COLUMNS} FROM network WHERE id = ?", (network_id,)).fetchone()
    if row is None:
        raise NotFoundError(f"no such network: {network_id[:12]}", "dock network ls lists them")
    return NetworkRow(*row)


def delete(database: Database, network_id: str, *noted: Event) -> None:
    """Delete a network and the addresses on it, and record events."""
    with database.transaction() as connection:
        if connection.execute("DELETE FROM network WHERE id = ?", (network_id,)).rowcount:
            events.record(connection, *noted)


def endpoints_of_container(
    database: Database, container_id: str
) -> dict[str, tuple[NetworkRow, EndpointRow]]:
    """Return the networks on which a container has addresses, by the network's name."""
    rows = database.query(
        f"SELECT {_COLUMNS}, network_id, container_id, address, address6 "
        "FROM endpoint JOIN network ON network.id = network_id WHERE container_id = ?",
        (container_id,),
    )
    return {row[1]: (NetworkRow(*row[:8]), EndpointRow(*row[8:])) for row in rows}


def endpoints_of_network(database: Database, network_id: str) -> list[EndpointRow]:
    """Return the addresses on a network."""
    rows = database.query(
        "SELECT network_id, container_id, address, address6 FROM endpoint WHERE network_id = ?", (network_id,)
    )
    return [EndpointRow(*row) for row in rows]


def claim(
    database: Database,
    network_id: str,
    container_id: str,
    choose: Callable[[Mapping[str, Addresses], Addresses | None], Addresses],
) -> EndpointRow:
    """Record a container's addresses on a network until it is removed or disconnected.

    Args:
        choose: returns the addresses from those of the other containers by id and the container's current ones;
            pure and quick (it runs in the transaction).

    Raises:
        NotFoundError: the network or the container is gone.
    """
    with database.transaction() as connection:
        if not connection.execute("SELECT 1 FROM network WHERE id = ?", (network_id,)).fetchone():
            raise NotFoundError(
                f"no such network: {network_id[:12]}", "dock network ls lists them", exit_code=125
            )
        if not connection.execute("SELECT 1 FROM container WHERE id = ?", (container_id,)).fetchone():
            raise NotFoundError(
                f"no such container: {container_id[:12]}", "it was removed just now", exit_code=125
            )
        rows = connection.execute(
            "SELECT container_id, address, address6 FROM endpoint WHERE network_id = ?", (network_id,)
        ).fetchall()
        others = {row[0]: (row[1], row[2]) for row in rows}
        held = others.pop(container_id, None)
        chosen = choose(others, held)
        if chosen != held:
            connection.execute(
                "INSERT OR REPLACE INTO endpoint VALUES (?, ?, ?, ?)", (network_id, container_id, *chosen)
            )
    return EndpointRow(network_id, container_id, *chosen)


def release(database: Database, network_id: str, container_id: str) -> None:
    """Delete a container's addresses on a network."""
    with database.transaction() as connection:
        connection.execute(
            "DELETE FROM endpoint WHERE network_id = ? AND container_id = ?", (network_id, container_id)
        )


def disconnect(
    database: Database, network_id: str, container_id: str, change: Callable[[str], str], *noted: Event
) -> None:
    """Delete a container's addresses on a network, change its definition, and record events."""
    with database.transaction() as connection:
        connection.execute(
            "DELETE FROM endpoint WHERE network_id = ? AND container_id = ?", (network_id, container_id)
        )
        _change_definition(connection, container_id, change)
        events.record(connection, *noted)


def connect(
    database: Database, network_id: str, container_id: str, change: Callable[[str], str], *noted: Event
) -> None:
    """Add a network to a container's definition, and record events.

    Args:
        change: returns the new stored form of the definition from the current one; pure and quick.

    Raises:
        NotFoundError: the network or the container is gone.
    """
    with database.transaction() as connection:
        if not connection.execute("SELECT 1 FROM network WHERE id = ?", (network_id,)).fetchone():
            raise NotFoundError(f"no such network: {network_id[:12]}", "dock network ls lists them")
        if not _change_definition(connection, container_id, change):
            raise NotFoundError(f"no such container: {container_id[:12]}", "dock ps -a lists them")
        events.record(connection, *noted)


def _change_definition(
    connection: sqlite3.Connection, container_id: str, change: Callable[[str], str]
) -> bool:
    row = connection.execute("SELECT definition FROM container WHERE id = ?", (container_id,)).fetchone()
    if row is not None:
        connection.execute("UPDATE container SET definition = ? WHERE id = ?", (change(row[0]), container_id))
    return row is not None
