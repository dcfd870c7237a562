"""The SQL of events: a verb records them in its own transaction, ``dock events`` reads them.

An event's ``id`` is the order of recording, which a follower reads on from; ``time_ns`` is the time of what happened.  The
two differ if another process records later what a killed process did not (ARCHITECTURE.md, "Events")::

    with database.transaction() as connection:
        connection.execute("UPDATE container SET name = ? WHERE id = ?", (name, container_id))
        events.record(connection, Event("container", "rename", container_id, {"name": name}))
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from pydock_core.errors import NoSpaceError, UnavailableError
from pydock_core.store.database.connection import Database

RETAINED_EVENTS = 100_000
"""At least the newest so many are kept (some 25 MiB)."""
_PRUNE_EVERY = 1024
_COLUMNS = "time_ns, type, action, actor, attributes"


@dataclass(frozen=True, slots=True)
class Event:
    """One event: EventMessage of the Engine API 1.51.

    Attributes:
        type: "container", "image", "network", "volume" or "daemon".
        action: Docker's word, with its argument if it has one ("exec_start: sh -c true", "health_status: healthy").
        actor: id or name of the object.
        attributes: of the object and of the action, as Docker has them.
        time_ns: since the epoch; 0: the time of recording.
        id: the order of recording, from 1; 0 if it is not recorded.
    """

    type: str
    action: str
    actor: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    time_ns: int = 0
    id: int = 0


def record(connection: sqlite3.Connection, *events: Event) -> None:
    """Record events within the caller's transaction, which tells followers when it is committed."""
    for event in events:
        last = connection.execute(
            f"INSERT INTO event ({_COLUMNS}) VALUES (?, ?, ?, ?, ?)",
            (
                event.time_ns or time.time_ns(),
                event.type,
                event.action,
                event.actor,
                json.dumps(event.attributes),
            ),
        ).lastrowid
        if last is not None and last % _PRUNE_EVERY == 0:
            connection.execute("DELETE FROM event WHERE id <= ?", (last - RETAINED_EVENTS,))


def record_once(connection: sqlite3.Connection, event: Event) -> None:
    """Record an event that another process may have recorded: one with this actor, action and time.

    An event from before the oldest that is kept is left out: it was recorded and deleted, or is of an earlier version.
    """
    is_known = connection.execute(
        "SELECT 1 FROM event WHERE time_ns = ?1 AND actor = ?2 AND action = ?3 "
        "UNION ALL SELECT 1 WHERE ?1 < (SELECT coalesce(min(time_ns), ?1) FROM event)",
        (event.time_ns, event.actor, event.action),
    ).fetchone()
    if is_known is None:
        record(connection, event)


def note(database: Database, *events: Event) -> None:
    """Record events of something that has happened outside the database, and so cannot be undone.

    On a full disk they are left out: `stop` and `kill` need no space, and the reserve is not theirs.
    """
    if events and database.has_room:
        try:
            with database.transaction(durable=False) as connection:
                record(connection, *events)
        except (NoSpaceError, UnavailableError):
            return


def last_id(database: Database) -> int:
    """Return the id of the newest event; 0 if there is none."""
    return int(database.query_one("SELECT coalesce(max(id), 0) FROM event")[0])


def select(
    database: Database,
    *,
    after_id: int | None = None,
    since_ns: int | None = None,
    until_ns: int | None = None,
) -> Iterator[Event]:
    """Yield the events of an interval by time, or by order of recording with ``after_id``.

    Args:
        after_id: only those that were recorded after this one.
        since_ns, until_ns: inclusive, since the epoch.
    """
    conditions = ["1"]
    for text, value in (("id > ?", after_id), ("time_ns >= ?", since_ns), ("time_ns <= ?", until_ns)):
        if value is not None:
            conditions.append(text)
    values = [value for value in (after_id, since_ns, until_ns) if value is not None]
    order = "time_ns, id" if after_id is None else "id"
    rows = database.query(
        f"SELECT {_COLUMNS}, id FROM event WHERE {' AND '.join(conditions)} ORDER BY {order}", values
    )
    for time_ns, kind, action, actor, attributes, number in rows:
        yield Event(kind, action, actor, json.loads(attributes), time_ns, number)
