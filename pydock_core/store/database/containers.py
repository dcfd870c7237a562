"""The SQL of containers, their volumes and their addresses."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pydock_core.errors import ConflictError, NotFoundError
from pydock_core.store.database.connection import Database


@dataclass(frozen=True, slots=True)
class ContainerRow:
    """One container: ``definition`` is the stored form of :mod:`pydock_core.spec.definition`."""

    id: str
    name: str
    image_id: str
    created_ns: int
    definition: str


@dataclass(frozen=True, slots=True)
class VolumeRow:
    """One volume; ``users`` is the number of containers that use it."""

    name: str
    created_ns: int
    anonymous: bool
    users: int


_COLUMNS = "id, name, image_id, created_ns, definition"


def insert(
    database: Database, row: ContainerRow, volumes: Mapping[str, bool], *, durable: bool = True
) -> None:
    """Record a container and the volumes it uses.

    Args:
        volumes: names, and whether each is anonymous.
        durable: see :meth:`Database.transaction`.

    Raises:
        ConflictError: the name is taken.
        NotFoundError: the image has been removed in the meantime.
    """
    with database.transaction(durable=durable) as connection:
        if connection.execute("SELECT 1 FROM image WHERE id = ?", (row.image_id,)).fetchone() is None:
            raise NotFoundError(
                f"image {row.image_id} was removed just now", "dock images lists what there is", exit_code=125
            )
        try:
            connection.execute(
                f"INSERT INTO container ({_COLUMNS}) VALUES (?, ?, ?, ?, ?)",
                (row.id, row.name, row.image_id, row.created_ns, row.definition),
            )
        except sqlite3.IntegrityError:
            raise _taken(connection, row.name) from None
        connection.executemany(
            "INSERT OR IGNORE INTO volume VALUES (?, ?, ?)",
            [(name, row.created_ns, int(anonymous)) for name, anonymous in volumes.items()],
        )
        connection.executemany(
            "INSERT INTO container_volume VALUES (?, ?)", [(row.id, name) for name in volumes]
        )


def _taken(connection: sqlite3.Connection, name: str) -> ConflictError:
    owner = connection.execute("SELECT id FROM container WHERE name = ?", (name,)).fetchone()
    return ConflictError(
        f"container name {name!r} is taken by {owner[0][:12] if owner else 'another container'}",
        f"choose another name, or remove that container: dock rm {name}",
        exit_code=125,
    )


def all_rows(database: Database) -> list[ContainerRow]:
    """Return every container, the newest first."""
    rows = database.query(f"SELECT {_COLUMNS} FROM container ORDER BY created_ns DESC, rowid DESC")
    return [ContainerRow(*row) for row in rows]


def find(database: Database, reference: str) -> ContainerRow:
    """Return the container with a full id, a name or a unique id prefix.

    Raises:
        NotFoundError: there is none.
        ConflictError: the prefix matches several.
    """
    name = reference.removeprefix("/")
    rows = database.query(f"SELECT {_COLUMNS} FROM container WHERE id = ? OR name = ?", (reference, name))
    if not rows and len(reference) >= 1 and all(character in "0123456789abcdef" for character in reference):
        rows = database.query(
            f"SELECT {_COLUMNS} FROM container WHERE id >= ? AND id < ?", (reference, reference + "g")
        )
    if len(rows) > 1:
        exact = [row for row in rows if row[0] == reference]
        if not exact:
            raise ConflictError(f"{reference!r} fits {len(rows)} containers", "give more digits of the id")
        rows = exact
    if not rows:
        raise NotFoundError(f"no such container: {reference}", "dock ps -a lists them")
    return ContainerRow(*rows[0])


def rename(database: Database, container_id: str, name: str) -> None:
    """Give a container another name.

    Raises:
        ConflictError: the name is taken.
    """
    with database.transaction() as connection:
        try:
            connection.execute("UPDATE container SET name = ? WHERE id = ?", (name, container_id))
        except sqlite3.IntegrityError:
            raise _taken(connection, name) from None


def delete(database: Database, container_id: str, *, durable: bool = True) -> list[str]:
    """Delete a container and its addresses; return the names of the anonymous volumes that only it used."""
    with database.transaction(durable=durable) as connection:
        volumes = connection.execute(
            "SELECT volume.name FROM container_volume JOIN volume ON volume.name = container_volume.volume "
            "WHERE container_id = ? AND anonymous = 1 AND NOT EXISTS (SELECT 1 FROM container_volume AS other "
            "WHERE other.volume = volume.name AND other.container_id <> ?)",
            (container_id, container_id),
        ).fetchall()
        connection.execute("DELETE FROM container WHERE id = ?", (container_id,))
        connection.execute("DELETE FROM address WHERE container_id = ?", (container_id,))
    return [row[0] for row in volumes]


def all_volumes(database: Database) -> list[VolumeRow]:
    """Return every volume, by name."""
    rows = database.query(
        "SELECT name, created_ns, anonymous, (SELECT count(*) FROM container_volume WHERE volume = name) "
        "FROM volume ORDER BY name"
    )
    return [
        VolumeRow(name, created_ns, bool(anonymous), users) for name, created_ns, anonymous, users in rows
    ]


def delete_volumes(database: Database, names: Sequence[str]) -> None:
    """Delete volumes."""
    with database.transaction() as connection:
        connection.executemany("DELETE FROM volume WHERE name = ?", [(name,) for name in names])


def delete_unused_volume(database: Database, name: str, discard: Callable[[], object]) -> bool:
    """Delete a volume that no container uses, and discard its files.

    Args:
        discard: renames the files away, within the transaction, so that a container that is created at the same time
            begins with a new volume of the name.

    Returns:
        whether it was deleted.
    """
    with database.transaction() as connection:
        forgotten = connection.execute(
            "DELETE FROM volume WHERE name = ?1 "
            "AND NOT EXISTS (SELECT 1 FROM container_volume WHERE volume = ?1)",
            (name,),
        ).rowcount
        if forgotten:
            discard()
        return bool(forgotten)
