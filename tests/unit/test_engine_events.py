"""Events are read by time and filters, and followed without polling by any number of readers."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pydock_core import syscalls
from pydock_core.change_watch import ChangeWatch
from pydock_core.engine import Engine, Watcher
from pydock_core.engine.watch import Snapshot
from pydock_core.errors import InvalidError
from pydock_core.paths import StateRoot
from pydock_core.store.database import events
from pydock_core.store.database.events import Event

WEB, DB = "ab" * 32, "cd" * 32
LONG_SECONDS = 30


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = Engine(StateRoot(tmp_path / "data", tmp_path / "run"))
    yield made
    made.close()


def record(engine: Engine, *recorded: Event) -> None:
    with engine.state.database.transaction() as connection:
        events.record(connection, *recorded)


def container(action: str, actor: str = WEB, time_ns: int = 0, **attributes: str) -> Event:
    name = "web" if actor == WEB else "db"
    return Event("container", action, actor, {"image": "demo:1", "name": name, **attributes}, time_ns)


@pytest.fixture
def past(engine: Engine) -> Engine:
    """An engine with one event a second."""
    happened = [
        Event("image", "pull", "demo:1", {"name": "demo"}),
        container("create", team="a", said='"team": "b"'),
        container("create", DB, team="b"),
        container("exec_start: sh -c true"),
        container("die", exitCode="1"),
        Event("network", "connect", "n1", {"container": WEB, "name": "bridge", "type": "bridge"}),
        Event("volume", "create", "cache", {"driver": "local"}),
    ]
    record(
        engine,
        *(
            Event(one.type, one.action, one.actor, one.attributes, number * 10**9)
            for number, one in enumerate(happened, 1)
        ),
    )
    return engine


@pytest.mark.parametrize(
    ("filters", "seconds"),
    [
        ({}, [1, 2, 3, 4, 5, 6, 7]),
        ({"type": ["image", "volume"]}, [1, 7]),
        ({"event": ["create"]}, [2, 3, 7]),
        ({"event": ["exec_start"]}, [4]),
        ({"event": ["exec_start: sh -c true"]}, [4]),
        ({"event": ["exec"]}, []),
        ({"container": ["web"]}, [2, 4, 5]),
        ({"container": [DB[:12], "nonesuch"]}, [3]),
        ({"container": ["web"], "event": ["die"]}, [5]),
        ({"image": ["demo"]}, [1, 2, 3, 4, 5]),
        ({"image": ["demo:1"]}, [1, 2, 3, 4, 5]),
        ({"image": ["dem"]}, []),
        ({"label": ["team=b"]}, [3]),
        ({"label": ["team"]}, [2, 3]),
        ({"label": ["team=a", "team=b"]}, []),
        ({"network": ["bridge"]}, [6]),
        ({"volume": ["cache"]}, [7]),
        ({"scope": ["local"], "type": ["volume"]}, [7]),
        ({"scope": ["swarm"]}, []),
        ({"plugin": ["x"]}, []),
    ],
)
def test_filters(past: Engine, filters: dict[str, list[str]], seconds: list[int]) -> None:
    found = [message["time"] for message in past.events.stream(0, 10**10, filters)]
    assert found == seconds


def test_an_unknown_filter_and_a_wrong_interval_are_refused(engine: Engine) -> None:
    with pytest.raises(InvalidError, match="nonesuch: unknown key"):
        engine.events.stream(filters={"nonesuch": ["1"]})
    with pytest.raises(InvalidError, match="--since is after --until"):
        engine.events.stream(2, 1)


def test_the_message_is_dockers(past: Engine) -> None:
    message, *_ = past.events.stream(5 * 10**9, 5 * 10**9)
    assert message == {
        "status": "die",
        "id": WEB,
        "from": "demo:1",
        "Type": "container",
        "Action": "die",
        "Actor": {"ID": WEB, "Attributes": {"exitCode": "1", "image": "demo:1", "name": "web"}},
        "scope": "local",
        "time": 5,
        "timeNano": 5 * 10**9,
    }
    (message,) = past.events.stream(until_ns=10**9)
    assert (message["Type"], "from" in message) == ("image", False)


def test_more_than_a_page_is_read_whole_and_in_order(engine: Engine) -> None:
    count = 2 * events._PAGE_ROWS + 1
    record(engine, *(container("die", time_ns=1 + number // 3) for number in range(count)))
    times = [message["timeNano"] for message in engine.events.stream(0, 10**9)]
    assert times == [1 + number // 3 for number in range(count)]


FOLLOWER = """
import sys, json
from pathlib import Path
from pydock_core.engine import Engine
from pydock_core.paths import StateRoot
engine = Engine(StateRoot(Path(sys.argv[1]), Path(sys.argv[2])))
stream = engine.events.stream(filters={"event": ["last", "start"]})
print("ready", flush=True)
for message in stream:
    print(json.dumps(message), flush=True)
    if message["Action"] == "last":
        break
"""


def test_several_processes_follow(engine: Engine) -> None:
    words = [sys.executable, "-c", FOLLOWER, str(engine.root.data), str(engine.root.run)]
    followers = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    record(engine)  # the database is there
    for follower in followers:
        assert follower.stdout is not None
        assert follower.stdout.readline() == "ready\n"
    for number in range(50):
        record(engine, container("start", number=str(number)), container("kill"))
    record(engine, container("last"))
    for follower in followers:
        output, _ = follower.communicate(timeout=LONG_SECONDS)
        heard = [json.loads(line) for line in output.splitlines()]
        numbers = [message["Actor"]["Attributes"].get("number") for message in heard]
        assert numbers == [*map(str, range(50)), None]
        assert follower.returncode == 0


def test_a_follower_waits_without_using_the_processor(engine: Engine) -> None:
    stream = engine.events.stream()
    used: list[float] = []
    first = threading.Event()

    def follow() -> None:
        for _ in stream:
            used.append(time.thread_time())
            first.set()

    thread = threading.Thread(target=follow)
    thread.start()
    record(engine, container("start"))
    assert first.wait(LONG_SECONDS)
    threading.Event().wait(0.5)
    record(engine, container("die"))
    while len(used) < 2:
        assert thread.is_alive()
    stream.close()
    thread.join(LONG_SECONDS)
    assert not thread.is_alive()
    assert used[1] - used[0] < 0.02


def test_a_stream_ends_at_its_time_with_what_was_recorded_by_then(engine: Engine) -> None:
    until_ns = time.time_ns() + 300_000_000
    stream = engine.events.stream(until_ns=until_ns)
    threading.Timer(0.1, lambda: record(engine, container("start"))).start()
    assert [message["Action"] for message in stream] == ["start"]
    assert time.time_ns() >= until_ns


def test_what_is_recorded_while_the_past_is_read_comes_once(engine: Engine) -> None:
    record(engine, container("create"))
    stream = engine.events.stream(since_ns=0)
    record(engine, container("start"))
    iterator = iter(stream)
    assert [next(iterator)["Action"] for _ in range(2)] == ["create", "start"]
    record(engine, container("die"))
    assert next(iterator)["Action"] == "die"
    stream.close()
    assert list(iterator) == []


def test_a_watch_sees_every_change_and_can_be_interrupted(tmp_path: Path) -> None:
    watch = ChangeWatch(tmp_path / "changed")
    assert not watch.wait(0)
    os.utime(tmp_path / "changed")
    assert watch.wait(0)
    assert not watch.wait(0)
    watch.interrupt()
    assert not watch.wait(LONG_SECONDS)
    (tmp_path / "changed").unlink()
    while watch.wait(0):
        pass
    os.utime(tmp_path / "changed")  # it was made again
    assert watch.wait(LONG_SECONDS)
    watch.close()
    watch.close()
    watch.interrupt()


def test_a_watch_beyond_the_users_limit_looks_once_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> int:
        raise OSError(errno.EMFILE, "")

    monkeypatch.setattr(syscalls, "inotify_init", fail)
    watch = ChangeWatch(tmp_path / "changed")
    before = time.monotonic()
    assert watch.wait()
    assert 0.5 < time.monotonic() - before < LONG_SECONDS
    watch.interrupt()
    assert watch.wait(0)
    watch.close()


def test_the_watcher_looks_at_once_after_a_change(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = threading.Semaphore(0)
    lists: list[Any] = []

    def on_look(snapshot: Snapshot) -> None:
        lists.append(snapshot)
        looks.release()

    watcher = Watcher(lambda: engine, interval_seconds=LONG_SECONDS)
    watcher.add(on_look)
    try:
        assert looks.acquire(timeout=LONG_SECONDS)
        before = time.monotonic()
        record(engine, container("start"))
        assert looks.acquire(timeout=LONG_SECONDS)
        watcher.wake()
        assert looks.acquire(timeout=LONG_SECONDS)
        assert time.monotonic() - before < LONG_SECONDS / 2
    finally:
        watcher.remove(on_look)
    assert watcher.join(LONG_SECONDS)
