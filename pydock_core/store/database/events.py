"""The SQL of events: a verb records them in its own transaction, ``dock events`` reads them.

An event's ``id`` gives the order of recording, by which a follower reads; ``time_ns`` is the time of occurrence.  The two
orders differ if a process records an event later in place of a killed one (ARCHITECTURE.md, "Events")::

    with database.transaction() as connection:
        connection.execute("UPDATE container SET name = ? WHERE id = ?", (name, container_id))
        events.record(connection, Event("container", "rename", container_id, {"name": name}))
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pydock_core.errors import NoSpaceError, UnavailableError
from pydock_core.store.database.connection import Database

RETAINED_EVENTS = 100_000
"""The minimum number of events to keep, the newest ones (some 25 MiB)."""
_LABELS_LENGTH = 8192
_ACTION_LENGTH = 4096
_PRUNE_EVERY = 1024
_PAGE_ROWS = 2000
_COLUMNS = "time_ns, type, action, actor, attributes"


@dataclass(frozen=True, slots=True)
class Event:
    """One event: EventMessage of the Engine API 1.51.

    Attributes:
        type: "container", "image", "network", "volume" or "daemon".
        action: Docker's word, with its argument if it has one ("exec_start: sh -c true", "health_status: healthy").
        actor: id or name of the object.
        attributes: attributes of the object and the action, as in Docker.
        time_ns: since the epoch; 0: the time of recording.
        id: the order of recording, from 1; 0 if it is not recorded.
    """

    type: str
    action: str
    actor: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    time_ns: int = 0
    id: int = 0


def bounded(labels: Mapping[str, str]) -> dict[str, str]:
    """Return the labels of an object as attributes of its events, up to 8192 characters in total.

    An image with megabytes of labels could otherwise fill the disk with its containers' events.
    """
    kept = {}
    length = 0
    for key, value in labels.items():
        length += len(key) + len(value)
        if length > _LABELS_LENGTH:
            break
        kept[key] = value
    return kept


def record(connection: sqlite3.Connection, *events: Event) -> None:
    """Record events within the caller's transaction, whose commit notifies followers."""
    for event in events:
        last = connection.execute(
            f"INSERT INTO event ({_COLUMNS}) VALUES (?, ?, ?, ?, ?)",
            (
                event.time_ns or time.time_ns(),
                event.type,
                event.action[:_ACTION_LENGTH],
                event.actor,
                json.dumps(event.attributes),
            ),
        ).lastrowid
        if last is not None and last % _PRUNE_EVERY == 0:
            connection.execute("DELETE FROM event WHERE id <= ?", (last - RETAINED_EVENTS,))


def is_recorded(connection: sqlite3.Connection, event: Event) -> bool:
    """Return whether a process has recorded an event with the same actor, action and time.

    An event that predates the oldest kept one counts as recorded: it was deleted, or is from an earlier version.
    """
    found = connection.execute(
        "SELECT 1 FROM event WHERE time_ns = ?1 AND actor = ?2 AND action = ?3 "
        "UNION ALL SELECT 1 WHERE ?1 < (SELECT coalesce(min(time_ns), ?1) FROM event)",
        (event.time_ns, event.actor, event.action),
    ).fetchone()
    return found is not None


def record_once(connection: sqlite3.Connection, event: Event) -> None:
    """Record an event unless it is recorded."""
    if not is_recorded(connection, event):
        record(connection, event)


def note(database: Database, *events: Event) -> None:
    """Record events of work outside the database, which cannot be undone.

    On a full disk they are omitted: `stop` and `kill` must need no space, and may not use the reserve.
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


@dataclass(frozen=True, slots=True)
class Criteria:
    """The conditions of Docker's event filters; an empty field matches every event.

    Attributes:
        types: the accepted types.
        actions: the accepted actions.
        action_starts: additional accepted prefixes of actions.
        subjects: for each group, accepted prefixes of the actor or of the attribute "name".
        images: accepted ids or names of the image (the actor of an image's event, the attribute "image" of a
            container's); a name without a tag matches every tag.
        labels: required attributes: key, and value unless that is None.
    """

    types: Sequence[str] = ()
    actions: Sequence[str] = ()
    action_starts: Sequence[str] = ()
    subjects: Sequence[Sequence[str]] = ()
    images: Sequence[str] = ()
    labels: Sequence[tuple[str, str | None]] = ()


ALL = Criteria()


class _Where:
    """An SQL condition with its values.

    The attributes are searched as text: :func:`record` writes them in one form and escapes quotation marks within a text,
    so ``"key": "value"`` matches only a pair.
    """

    def __init__(self) -> None:
        self._texts = ["1"]
        self._values: list[object] = []

    def add(self, *alternatives: tuple[str, object]) -> None:
        """Add a condition with alternatives, each a text with one value; no alternatives add no condition."""
        if alternatives:
            self._texts.append(f"({' OR '.join(text for text, _ in alternatives)})")
            self._values += [value for _, value in alternatives]

    @property
    def text(self) -> str:
        return " AND ".join(self._texts)

    @property
    def values(self) -> list[object]:
        return self._values


_HAS_TEXT = "instr(attributes, ?)"


def _starts(column: str, text: str) -> tuple[str, object]:
    return f"instr({column}, ?) = 1", text


def _pair(key: str, value: str, *, whole: bool = True) -> tuple[str, object]:
    text = f"{json.dumps(key)}: {json.dumps(value)}"
    return _HAS_TEXT, text if whole else text[:-1]


def _of(kind: str, *conditions: tuple[str, object]) -> list[tuple[str, object]]:
    return [(f"(type = '{kind}' AND {text})", value) for text, value in conditions]


def _build_where(criteria: Criteria) -> _Where:
    where = _Where()
    where.add(*(("type = ?", value) for value in criteria.types))
    where.add(
        *(("action = ?", value) for value in criteria.actions),
        *(_starts("action", value) for value in criteria.action_starts),
    )
    for group in criteria.subjects:
        where.add(
            *(_starts("actor", value) for value in group),
            *(_pair("name", value, whole=False) for value in group),
        )
    images: list[tuple[str, object]] = []
    for value in criteria.images:
        tagged = f"{value}:"
        images += _of("image", ("actor = ?", value), _starts("actor", tagged))
        for kind, key in (("image", "name"), ("container", "image")):
            images += _of(kind, _pair(key, value), _pair(key, tagged, whole=False))
    where.add(*images)
    for key, label in criteria.labels:
        where.add((_HAS_TEXT, f"{json.dumps(key)}: ") if label is None else _pair(key, label))
    return where


def select(
    database: Database,
    criteria: Criteria = ALL,
    *,
    since_ns: int | None = None,
    until_ns: int | None = None,
    last_id: int | None = None,
) -> Iterator[Event]:
    """Yield the events of an interval, by time; concurrent changes may or may not be among them.

    Args:
        since_ns, until_ns: inclusive, since the epoch.
        last_id: the last event to include by order of recording.
    """
    where = _build_where(criteria)
    for text, value in (("time_ns >= ?", since_ns), ("time_ns <= ?", until_ns), ("id <= ?", last_id)):
        if value is not None:
            where.add((text, value))
    after = (-1, -1)
    while True:
        # In pages: a long read transaction would keep the write-ahead log growing.
        rows = database.query(
            f"SELECT {_COLUMNS}, id FROM event WHERE {where.text} AND (time_ns, id) > (?, ?) "
            "ORDER BY time_ns, id LIMIT ?",
            [*where.values, *after, _PAGE_ROWS],
        )
        yield from _events(rows)
        if len(rows) < _PAGE_ROWS:
            return
        after = (rows[-1][0], rows[-1][5])


def select_after(database: Database, event_id: int, criteria: Criteria = ALL) -> tuple[list[Event], int]:
    """Return the events recorded after one, in that order, and the id to continue from."""
    where = _build_where(criteria)
    newest = last_id(database)
    rows = database.query(
        f"SELECT {_COLUMNS}, id FROM event WHERE id > ? AND id <= ? AND {where.text} ORDER BY id",
        [event_id, newest, *where.values],
    )
    return list(_events(rows)), newest


def _events(rows: Sequence[tuple[int, str, str, str, str, int]]) -> Iterator[Event]:
    for time_ns, kind, action, actor, attributes, number in rows:
        yield Event(kind, action, actor, json.loads(attributes), time_ns, number)
