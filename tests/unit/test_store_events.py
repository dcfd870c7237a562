"""The table of events: recorded with the change, once, in bounds, and signalled."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from pydock_core.spec.definition import Definition, complete, encode
from pydock_core.store.database import Database, containers, events
from pydock_core.store.database.containers import ContainerRow, Run
from pydock_core.store.database.events import Event

IMAGE = "sha256:" + "1" * 64
REQUEST = complete({"Image": "busybox", "Labels": {"team": "a"}})
ROW = ContainerRow("ab" * 32, "web", IMAGE, 1000, encode(Definition(REQUEST, {})))


@pytest.fixture
def database(tmp_path: Path) -> Database:
    made = Database(tmp_path / "db", signal=tmp_path / "changed")
    with made.transaction() as connection:
        connection.execute("INSERT INTO image VALUES (?, '', '', 0, 0, '{}', 0)", (IMAGE,))
    return made


def actions(database: Database) -> list[str]:
    return [event.action for event in events.select(database)]


def test_a_container_s_events_have_its_labels_image_and_name(database: Database) -> None:
    containers.insert(database, ROW, containers.Uses())
    containers.rename(database, ROW.id, "site")
    containers.delete(database, ROW.id, Run(2000, 5_000_002_000, 3, oom_killed=True))
    described = {"team": "a", "image": "busybox", "name": "site"}
    recorded = [
        (event.action, event.time_ns, dict(event.attributes)) for event in events.select_after(database, 0)[0]
    ]
    create, rename, start, oom, die, destroy = recorded
    assert create == ("create", 1000, {**described, "name": "web"})
    assert (rename[0], rename[2]) == ("rename", {**described, "oldName": "/web"})
    assert start == ("start", 2000, described)
    assert oom == ("oom", 5_000_002_000, described)
    assert die == ("die", 5_000_002_000, {**described, "execDuration": "5", "exitCode": "3"})
    assert (destroy[0], destroy[2]) == ("destroy", described)


def test_a_change_that_fails_records_nothing(database: Database) -> None:
    containers.insert(database, ROW, containers.Uses())

    def fail() -> None:
        with database.transaction() as connection:
            events.record(connection, Event("container", "start", ROW.id))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert actions(database) == ["create"]


def test_a_run_is_recorded_once_whoever_learns_of_it(database: Database) -> None:
    containers.insert(database, ROW, containers.Uses())
    for run in (Run(2000), Run(2000, 3000, 1), Run(2000, 3000, 1), Run(0)):
        with database.transaction() as connection:
            containers.record_run(connection, ROW, run)
    assert actions(database) == ["create", "start", "die"]


def test_a_run_joins_its_networks_and_leaves_those_that_it_has_at_its_end(database: Database) -> None:
    containers.insert(database, ROW, containers.Uses())

    def connect(connection: sqlite3.Connection, network_id: str, address: str) -> None:
        connection.execute(
            "INSERT INTO network VALUES (?1, ?1, 'bridge', 0, '', '', '', '{}')",
            (network_id,),
        )
        connection.execute(
            "INSERT INTO endpoint VALUES (?, ?, ?, '')",
            (network_id, ROW.id, address),
        )

    with database.transaction() as connection:
        connect(connection, "first", "10.0.0.2")
        containers.record_run(connection, ROW, Run(2000))
        connect(connection, "later", "10.0.1.2")
        containers.record_run(connection, ROW, Run(2000, 3000, 1))
    recorded = [(event.action, event.actor) for event in events.select(database)]
    assert recorded == [
        ("create", ROW.id),
        ("connect", "first"),
        ("start", ROW.id),
        ("die", ROW.id),
        ("disconnect", "first"),
        ("disconnect", "later"),
    ]


def test_a_run_from_before_the_oldest_event_is_left_out(database: Database) -> None:
    with database.transaction() as connection:
        events.record(connection, Event("image", "pull", "a", time_ns=5000))
        containers.record_run(connection, ROW, Run(2000, 3000, 1))
        containers.record_run(connection, ROW, Run(2000, 6000, 1))
    assert actions(database) == ["pull", "die"]


def test_the_newest_events_are_kept(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "RETAINED_EVENTS", 1000)
    with database.transaction() as connection:
        events.record(
            connection, *(Event("image", "tag", str(number), time_ns=number + 1) for number in range(4000))
        )
    kept = [int(event.actor) for event in events.select(database)]
    assert kept == list(range(kept[0], 4000))
    assert 1000 <= len(kept) <= 2024


def test_an_interval_is_inclusive_and_in_order_of_time(database: Database) -> None:
    with database.transaction() as connection:
        events.record(
            connection, *(Event("image", "tag", str(time), time_ns=time) for time in (30, 10, 20, 40))
        )
    found = [event.time_ns for event in events.select(database, since_ns=10, until_ns=30)]
    assert found == [10, 20, 30]
    last = events.last_id(database)
    assert [event.time_ns for event in events.select_after(database, last - 2)[0]] == [20, 40]


def test_a_commit_touches_the_signal_and_a_rollback_does_not(database: Database, tmp_path: Path) -> None:
    (tmp_path / "changed").unlink()
    with pytest.raises(ZeroDivisionError), database.transaction():
        raise ZeroDivisionError
    assert not (tmp_path / "changed").exists()
    events.note(database, Event("image", "save", IMAGE))
    assert (tmp_path / "changed").exists()


def test_a_note_on_a_full_disk_is_left_out(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pydock_core.store.database.connection.is_short", lambda *_: True)
    events.note(database, Event("image", "save", IMAGE))
    assert actions(database) == []


def test_labels_and_commands_of_any_size_take_little_space(database: Database) -> None:
    labels = {"first": "kept", "huge": "x" * 1_000_000, "later": "y"}
    definition = Definition(complete({"Image": "busybox", "Labels": labels}), {})
    row = ContainerRow("cd" * 32, "huge", IMAGE, 1000, encode(definition))
    containers.insert(database, row, containers.Uses())
    with database.transaction() as connection:
        events.record(connection, containers.build_event(row, "exec_start: " + "z" * 1_000_000))
    (size,) = database.query_one("SELECT max(length(attributes) + length(action)) FROM event")
    assert size < 10_000
    (create, *_) = events.select(database)
    assert dict(create.attributes) == {"first": "kept", "image": "busybox", "name": "huge"}
