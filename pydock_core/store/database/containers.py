"""The SQL of containers, their volumes and their addresses."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from pydock_core.errors import ConflictError, NotFoundError
from pydock_core.store.database import events
from pydock_core.store.database.connection import Database
from pydock_core.store.database.events import Event
from pydock_core.store.database.volumes import NewVolume, add


@dataclass(frozen=True, slots=True)
class ContainerRow:
    """One container: ``definition`` is the stored form of :mod:`pydock_core.spec.definition`."""

    id: str
    name: str
    image_id: str
    created_ns: int
    definition: str


class Uses(NamedTuple):
    """The objects that a container uses beside its image.

    Attributes:
        volumes: volumes by name, to record those that do not exist.
        unnamed: generated names of volumes.
        targets: mount point of each volume, and whether it is writable.
        images: ids of the mounted images.
    """

    volumes: Mapping[str, NewVolume] = {}
    unnamed: frozenset[str] = frozenset()
    targets: Mapping[str, Sequence[tuple[str, bool]]] = {}
    images: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Run:
    """A run of a container, from its start to its end, as recorded by its supervisor.

    Attributes:
        started_at_ns: since the epoch; 0 if the process never ran.
        finished_at_ns: since the epoch; 0 while it runs.
        exit_code: 0 to 255.
        oom_killed: whether the kernel killed a process of the container because memory ran out.
    """

    started_at_ns: int
    finished_at_ns: int = 0
    exit_code: int = 0
    oom_killed: bool = False


_COLUMNS = "id, name, image_id, created_ns, definition"


def insert(database: Database, row: ContainerRow, uses: Uses, *, durable: bool = True) -> None:
    """Record a container and the volumes and images it uses.

    Args:
        uses: the volumes and the mounted images.
        durable: see :meth:`Database.transaction`.

    Raises:
        ConflictError: the name is taken.
        NotFoundError: the image has been removed in the meantime.
    """
    with database.transaction(durable=durable) as connection:
        for image_id in (row.image_id, *uses.images):
            if connection.execute("SELECT 1 FROM image WHERE id = ?", (image_id,)).fetchone() is None:
                raise NotFoundError(
                    f"image {image_id} was removed just now", "dock images lists what there is", exit_code=125
                )
        try:
            connection.execute(
                f"INSERT INTO container ({_COLUMNS}) VALUES (?, ?, ?, ?, ?)",
                (row.id, row.name, row.image_id, row.created_ns, row.definition),
            )
        except sqlite3.IntegrityError:
            raise _taken(connection, row.name) from None
        for name, volume in uses.volumes.items():
            add(connection, name, volume, row.created_ns)
        connection.executemany(
            "INSERT INTO container_volume (container_id, volume, anonymous, targets) VALUES (?, ?, ?, ?)",
            [
                (row.id, name, int(name in uses.unnamed), json.dumps(uses.targets.get(name, ())))
                for name in uses.volumes
            ],
        )
        connection.executemany(
            "INSERT INTO mounted_image VALUES (?, ?)", [(row.id, image_id) for image_id in uses.images]
        )
        events.record(connection, build_event(row, "create", time_ns=row.created_ns))


def build_event(row: ContainerRow, action: str, *, time_ns: int = 0, **attributes: str) -> Event:
    """Return an event of a container, with its labels, image and name among the attributes, as in Docker."""
    request = json.loads(row.definition).get("request", {})
    described = {
        **events.bounded(request.get("Labels") or {}),
        "image": request.get("Image", ""),
        "name": row.name,
    }
    return Event("container", action, row.id, {**described, **attributes}, time_ns)


def record_run(connection: sqlite3.Connection, row: ContainerRow, run: Run) -> None:
    """Record a run's start and end unless they are recorded; the first process to learn of them does so."""
    if not run.started_at_ns:
        return
    uses = connection.execute(
        "SELECT volume, targets FROM container_volume WHERE container_id = ? ORDER BY volume", (row.id,)
    ).fetchall()
    for name, targets in uses:
        for target, is_writable in json.loads(targets):
            mounted = build_mount_event(row.id, name, target, is_writable, run.started_at_ns)
            events.record_once(connection, mounted)
    networks = connection.execute(
        "SELECT id, name, driver FROM endpoint JOIN network ON id = network_id WHERE container_id = ? ORDER BY name",
        (row.id,),
    ).fetchall()
    started = build_event(row, "start", time_ns=run.started_at_ns)
    if not events.is_recorded(connection, started):
        # A network that was connected later has an event of its own.
        connected = [
            _build_network_event("connect", row.id, network, run.started_at_ns) for network in networks
        ]
        events.record(connection, *connected, started)
    if not run.finished_at_ns:
        return
    if run.oom_killed:
        events.record_once(connection, build_event(row, "oom", time_ns=run.finished_at_ns))
    seconds = (run.finished_at_ns - run.started_at_ns) // 1_000_000_000
    ended = {"execDuration": str(seconds), "exitCode": str(run.exit_code)}
    died = build_event(row, "die", time_ns=run.finished_at_ns, **ended)
    if not events.is_recorded(connection, died):
        left = [
            _build_network_event("disconnect", row.id, network, run.finished_at_ns) for network in networks
        ]
        events.record(connection, died, *left)
    for name, _ in uses:
        attributes = {"container": row.id, "driver": "local"}
        events.record_once(connection, Event("volume", "unmount", name, attributes, run.finished_at_ns))


def build_mount_event(container_id: str, name: str, target: str, is_writable: bool, time_ns: int) -> Event:
    """Return the event of a volume that a container has mounted, as in Docker."""
    attributes = {
        "container": container_id,
        "destination": target,
        "driver": "local",
        "propagation": "",
        "read/write": str(is_writable).lower(),
    }
    return Event("volume", "mount", name, attributes, time_ns)


def _build_network_event(action: str, container_id: str, network: Sequence[str], time_ns: int) -> Event:
    """Return the event of a network (id, name, driver) that a container has joined or left, as in Docker."""
    network_id, name, driver = network
    attributes = {"container": container_id, "name": name, "type": driver}
    return Event("network", action, network_id, attributes, time_ns)


def _taken(connection: sqlite3.Connection, name: str) -> ConflictError:
    owner = connection.execute("SELECT id FROM container WHERE name = ?", (name,)).fetchone()
    return ConflictError(
        f"container name {name!r} is taken by {owner[0][:12] if owner else 'another container'}",
        f"choose another name, or remove that container, even if it runs: dock rm -f {name}",
        exit_code=125,
    )


def all_rows(database: Database) -> list[ContainerRow]:
    """Return every container, the newest first."""
    rows = database.query(f"SELECT {_COLUMNS} FROM container ORDER BY created_ns DESC, rowid DESC")
    return [ContainerRow(*row) for row in rows]


def names_of(database: Database, ids: Iterable[str]) -> list[str]:
    """Return the names of containers by full id; the short id of one that was removed."""
    names = {full: database.query_one("SELECT name FROM container WHERE id = ?", (full,)) for full in ids}
    return [found[0] if found is not None else full[:12] for full, found in names.items()]


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
        before = _row(connection, container_id)
        try:
            connection.execute("UPDATE container SET name = ? WHERE id = ?", (name, container_id))
        except sqlite3.IntegrityError:
            raise _taken(connection, name) from None
        if before is not None:
            event = build_event(replace(before, name=name), "rename", oldName=f"/{before.name}")
            events.record(connection, event)


def redefine(database: Database, row: ContainerRow, definition: str, action: str) -> bool:
    """Replace a container's definition, and record an event; return False if it no longer has the definition of ``row``."""
    with database.transaction() as connection:
        changed = connection.execute(
            "UPDATE container SET definition = ? WHERE id = ? AND definition = ?",
            (definition, row.id, row.definition),
        ).rowcount
        if changed:
            events.record(connection, build_event(replace(row, definition=definition), action))
        return bool(changed)


def _row(connection: sqlite3.Connection, container_id: str) -> ContainerRow | None:
    found = connection.execute(f"SELECT {_COLUMNS} FROM container WHERE id = ?", (container_id,)).fetchone()
    return ContainerRow(*found) if found else None


def delete(
    database: Database, container_id: str, run: Run | None = None, *, durable: bool = True
) -> list[str]:
    """Delete a container and its addresses; return the names of its anonymous volumes without other users.

    Args:
        run: the last run, whose end may not be recorded yet.
        durable: see :meth:`Database.transaction`.
    """
    with database.transaction(durable=durable) as connection:
        row = _row(connection, container_id)
        if row is not None:
            if run is not None:
                record_run(connection, row, run)
            events.record(connection, build_event(row, "destroy"))
        volumes = connection.execute(
            "SELECT volume FROM container_volume WHERE container_id = ?1 AND anonymous = 1 AND NOT EXISTS "
            "(SELECT 1 FROM container_volume AS other WHERE other.volume = container_volume.volume "
            "AND other.container_id <> ?1)",
            (container_id,),
        ).fetchall()
        connection.execute("DELETE FROM container WHERE id = ?", (container_id,))
        connection.execute("DELETE FROM endpoint WHERE container_id = ?", (container_id,))
    return [row[0] for row in volumes]
