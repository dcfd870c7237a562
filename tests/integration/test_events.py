"""Events: what verbs and ends of containers record."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from pydock_core.engine import Engine
from pydock_core.store.database import events
from pydock_core.store.database.events import Event
from pydock_core.supervision.container_status import derive_status
from tests.bench.events import fill, readings
from tests.integration.conftest import Dock, wait_until


class Recorded:
    """The events since a test began."""

    def __init__(self, engine: Engine) -> None:
        self._database = engine.state.database
        self._first = events.last_id(self._database)

    def all(self) -> list[Event]:
        return events.select_after(self._database, self._first)[0]

    def of(self, name: str) -> list[str]:
        """The actions of a container or image, in order."""
        return [event.action for event in self.all() if event.attributes.get("name") == name]

    def one(self, action: str) -> Event:
        (found,) = [event for event in self.all() if event.action == action]
        return found

    def wait_for(self, name: str, actions: Sequence[str]) -> None:
        wait_until(lambda: self.of(name) == list(actions), f"{actions} of {name}")


@pytest.fixture
def recorded(engine: Engine) -> Recorded:
    return Recorded(engine)


def test_a_container_in_the_foreground(dock: Dock, engine: Engine, recorded: Recorded) -> None:
    dock("run", "--rm", "--name", "front", "-l", "team=a", "busybox", "sh", "-c", "exit 3", code=3)
    assert recorded.of("front") == ["create", "attach", "start", "die", "destroy"]
    networks = [
        (event.action, event.attributes["name"]) for event in recorded.all() if event.type == "network"
    ]
    is_connected = engine.state.launcher.default_network == "bridge"
    assert networks == ([("connect", "bridge"), ("disconnect", "bridge")] if is_connected else [])
    died = recorded.one("die")
    assert dict(died.attributes) == {
        "team": "a",
        "image": "busybox",
        "name": "front",
        "exitCode": "3",
        "execDuration": "0",
    }
    times = [event.time_ns for event in recorded.all()]
    assert times == sorted(times)


def test_the_end_of_a_detached_container_is_recorded_by_its_supervisor(
    dock: Dock, recorded: Recorded
) -> None:
    dock("run", "-d", "--name", "alone", "busybox", "sh", "-c", "exit 4")
    recorded.wait_for("alone", ["create", "start", "die"])
    assert recorded.one("die").attributes["exitCode"] == "4"
    dock("start", "-a", "alone", code=4)
    recorded.wait_for("alone", ["create", "start", "die", "attach", "start", "die"])
    dock("rm", "alone")
    assert recorded.of("alone")[-1] == "destroy"
    assert len(recorded.of("alone")) == 7


def test_a_detached_container_with_rm(dock: Dock, recorded: Recorded) -> None:
    dock("run", "-d", "--rm", "--name", "gone", "busybox", "sh", "-c", "exit 4")
    recorded.wait_for("gone", ["create", "start", "die", "destroy"])


def test_the_verbs_of_a_life(dock: Dock, recorded: Recorded) -> None:
    dock("run", "-d", "--name", "life", "busybox", "sleep", "1000")
    dock("kill", "-s", "WINCH", "life")
    dock("restart", "-t", "0", "life")
    dock("rename", "life", "later")
    dock("stop", "-t", "0", "later")
    dock("stop", "later")  # stopped: nothing happens
    dock("rm", "later")
    assert recorded.of("life") == ["create", "start", "kill", "kill", "die", "stop", "start", "restart"]
    assert recorded.of("later") == ["rename", "kill", "die", "stop", "destroy"]
    assert recorded.one("rename").attributes["oldName"] == "/life"


def test_a_container_that_does_not_start_has_no_start(dock: Dock, recorded: Recorded) -> None:
    dock("run", "--name", "never", "busybox", "nonesuch", code=127)
    dock("rm", "never")
    assert recorded.of("never") == ["create", "destroy"]


def test_an_exec_that_is_heard_and_one_that_is_not(dock: Dock, recorded: Recorded) -> None:
    dock("run", "-d", "--name", "host", "busybox", "sleep", "1000")
    dock("exec", "host", "sh", "-c", "exit 5", code=5)
    dock("exec", "-d", "host", "sh", "-c", "exit 6")
    words = "sh -c exit"
    recorded.wait_for(
        "host",
        [
            "create",
            "start",
            *(
                action
                for code in (5, 6)
                for action in (f"exec_create: {words} {code}", f"exec_start: {words} {code}", "exec_die")
            ),
        ],
    )
    created, died = (
        [event for event in recorded.all() if event.action.startswith(word)]
        for word in ("exec_create", "exec_die")
    )
    assert [event.attributes["exitCode"] for event in died] == ["5", "6"]
    assert [event.attributes["execID"] for event in died] == [event.attributes["execID"] for event in created]


def test_the_end_of_a_killed_supervisor_is_recorded_by_the_next_verb(
    dock: Dock, engine: Engine, recorded: Recorded
) -> None:
    container_id = dock.out("run", "-d", "--name", "killed", "busybox", "sleep", "1000")
    paths = engine.root.container(container_id)
    os.kill(derive_status(paths).supervisor_pid, signal.SIGKILL)
    wait_until(lambda: not derive_status(paths).is_running, "the container has ended")
    dock("ps", "-a")
    assert recorded.of("killed") == ["create", "start"]  # a read changes nothing
    dock("wait", "killed")
    assert recorded.of("killed") == ["create", "start", "die"]
    assert recorded.one("die").attributes["exitCode"] == "137"
    dock("rm", "killed")
    assert recorded.of("killed") == ["create", "start", "die", "destroy"]


def test_images(dock: Dock, engine: Engine, recorded: Recorded) -> None:
    image_id = engine.images.resolve("busybox").id
    dock("tag", "busybox", "other:1")
    dock("rmi", "other:1")
    dock("save", "-o", dock.base / "saved.tar", "busybox")
    dock("load", "-q", "-i", dock.base / "saved.tar")
    dock("create", "--name", "source", "busybox")
    dock("commit", "source", "made:1")
    dock("export", "-o", dock.base / "tree.tar", "source")
    dock("import", dock.base / "tree.tar", "imported:1")
    dock("rmi", "made:1", "imported:1", code=None)
    kinds = [(event.type, event.action) for event in recorded.all() if event.action != "delete"]
    assert kinds == [
        ("image", "tag"),
        ("image", "untag"),
        ("image", "save"),
        ("image", "load"),
        ("container", "create"),
        ("container", "commit"),
        ("container", "export"),
        ("image", "import"),
        ("image", "untag"),
        ("image", "untag"),
    ]
    assert recorded.one("tag").actor == image_id
    assert recorded.one("tag").attributes["name"] == "other:1"
    assert recorded.one("commit").attributes["imageRef"] == "made:1"


def test_the_command_has_dockers_text_and_formats(dock: Dock) -> None:
    before = f"{time.time():.6f}"
    container_id = dock.out("run", "-d", "--name", "shown", "-l", "a=1", "busybox", "true")
    dock("wait", "shown")
    now = f"{time.time() + 1:.6f}"
    interval = ("--since", before, "--until", now, "--filter", "container=shown")
    lines = dock.out("events", *interval).splitlines()
    assert len(lines) == 3
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}(Z|[+-]\d\d:\d\d) container die "
        + container_id
        + r" \(a=1, execDuration=0, exitCode=0, image=busybox, name=shown\)",
        lines[2],
    )
    document = json.loads(dock.out("events", *interval, "--format", "json").splitlines()[0])
    assert list(document) == ["status", "id", "from", "Type", "Action", "Actor", "scope", "time", "timeNano"]
    template = "{{.Type}} {{.Action}} {{.Actor.Attributes.name}} {{.From}} {{.Scope}}"
    assert dock.out("system", "events", *interval, "-f", "event=die", "--format", template) == (
        "container die shown busybox local"
    )
    result = dock("events", "--filter", "nonesuch=1", code=1)
    assert result.stderr.splitlines()[0] == "error: --filter nonesuch: unknown key"
    result = dock("events", "--since", "yesterday", code=125)
    assert "--since yesterday: not a time" in result.stderr


def test_the_command_follows(dock: Dock) -> None:
    words = ("events", "--filter", "container=followed", "--format", "{{.Action}}")
    follower = dock.start(*words, stdout=subprocess.PIPE)
    assert follower.stdout is not None
    wait_until(lambda: _is_waiting(follower.pid), "the command waits")
    dock("run", "--rm", "--name", "followed", "busybox", "true")
    actions = [follower.stdout.readline().decode().strip() for _ in range(5)]
    assert actions == ["create", "attach", "start", "die", "destroy"]
    follower.send_signal(signal.SIGINT)
    assert follower.wait(20) == 130
    follower.stdout.close()


def _is_waiting(pid: int) -> bool:
    """Whether a process has a queue of inotify."""
    with contextlib.suppress(FileNotFoundError):
        return any("inotify" in os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir())
    return False


def test_100_000_events_are_searched_in_50_milliseconds(tmp_path: Path) -> None:
    many = fill(tmp_path)
    for action, expected in zip(readings(many).values(), (1000, 4), strict=True):
        took = []
        for _ in range(5):
            began = time.process_time()
            assert action() == expected
            took.append(time.process_time() - began)
        assert min(took) < 0.05
    many.close()
