"""The SQL of volumes, and of the containers that use them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pydock_core.errors import NotFoundError
from pydock_core.store.database import events
from pydock_core.store.database.connection import Database
from pydock_core.store.database.events import Event


@dataclass(frozen=True, slots=True)
class NewVolume:
    """A volume to record unless its name exists.

    Attributes:
        anonymous: made without a name; a prune removes it, and ``rm -v`` and ``--rm`` remove it with its container.
        labels: the volume's labels.
        options: the local driver's options: "type", "device", "o"; empty for a plain directory.
    """

    anonymous: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class VolumeRow:
    """One recorded volume; ``users`` is the number of containers that use it."""

    name: str
    created_ns: int
    anonymous: bool
    users: int
    labels: dict[str, str] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)


_SELECT = (
    "SELECT name, created_ns, anonymous, (SELECT count(*) FROM container_volume WHERE volume = name), "
    "labels, options FROM volume "
)


def _row(values: tuple[str, int, int, int, str, str]) -> VolumeRow:
    name, created_ns, anonymous, users, labels, options = values
    return VolumeRow(name, created_ns, bool(anonymous), users, json.loads(labels), json.loads(options))


def add(connection: sqlite3.Connection, name: str, volume: NewVolume, created_ns: int) -> None:
    """Record a volume within a transaction; an existing one is unchanged."""
    added = connection.execute(
        "INSERT OR IGNORE INTO volume (name, created_ns, anonymous, labels, options) VALUES (?, ?, ?, ?, ?)",
        (
            name,
            created_ns,
            int(volume.anonymous),
            json.dumps(dict(volume.labels)),
            json.dumps(dict(volume.options)),
        ),
    ).rowcount
    if added:
        events.record(connection, Event("volume", "create", name, {"driver": "local"}, created_ns))


def create(database: Database, name: str, volume: NewVolume, created_ns: int) -> VolumeRow:
    """Record a volume and return it; an existing one is unchanged."""
    with database.transaction() as connection:
        add(connection, name, volume, created_ns)
        row: VolumeRow = _row(connection.execute(_SELECT + "WHERE name = ?", (name,)).fetchone())
    return row


def find(database: Database, name: str) -> VolumeRow:
    """Return a volume.

    Raises:
        NotFoundError: the name does not exist.
    """
    values = database.query_one(_SELECT + "WHERE name = ?", (name,))
    if values is None:
        raise NotFoundError(f"no such volume: {name}", "dock volume ls lists them")
    return _row(values)


def all_volumes(database: Database) -> list[VolumeRow]:
    """Return every volume, by name."""
    return [_row(values) for values in database.query(_SELECT + "ORDER BY name")]


def users(database: Database, name: str) -> list[str]:
    """Return the ids of the containers that use a volume."""
    rows = database.query("SELECT container_id FROM container_volume WHERE volume = ? ORDER BY 1", (name,))
    return [row[0] for row in rows]


def delete_unused(
    database: Database, name: str, put_away: Callable[[], object], *, durable: bool = True
) -> bool:
    """Delete an unused volume, and move its files away.

    Args:
        put_away: renames the files; called within the transaction, so that a container made meanwhile gets a new
            volume of the name.
        durable: see :meth:`Database.transaction`.

    Returns:
        Whether it was deleted.
    """
    with database.transaction(durable=durable) as connection:
        forgotten = connection.execute(
            "DELETE FROM volume WHERE name = ?1 "
            "AND NOT EXISTS (SELECT 1 FROM container_volume WHERE volume = ?1)",
            (name,),
        ).rowcount
        if forgotten:
            put_away()
            events.record(connection, Event("volume", "destroy", name, {"driver": "local"}))
        return bool(forgotten)


def if_recorded(database: Database, name: str, action: Callable[[], object]) -> bool:
    """Run an action if a volume is recorded, while no other process can record or delete one."""
    with database.transaction() as connection:
        found = connection.execute("SELECT 1 FROM volume WHERE name = ?", (name,)).fetchone() is not None
        if found:
            action()
        return found
