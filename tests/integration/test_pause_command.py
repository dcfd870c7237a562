"""pause and unpause: every process stands still, and each command says what it makes of a paused container."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator

import pytest

from pydock_core.engine import Engine
from pydock_core.runtime.cgroups import probe_cgroups
from pydock_core.store.database import events
from pydock_core.supervision.container_status import derive_status
from tests.integration.conftest import Dock, wait_until
from tests.support.process import has_ended

HAS_FREEZER = os.geteuid() == 0 or (probe_cgroups().version == 2 and probe_cgroups().available)
needs_freezer = pytest.mark.skipif(not HAS_FREEZER, reason="no cgroup with a freezer for this user")
COUNT = "i=0; while true; do i=$((i+1)); echo $i > /next; mv /next /count; done"


@pytest.fixture
def paused(dock: Dock) -> Iterator[str]:
    """The name of a paused container that counted."""
    name = "paused"
    dock("run", "-d", "--name", name, "busybox", "sh", "-c", COUNT)
    wait_until(lambda: dock("exec", name, "cat", "/count", code=None).returncode == 0, "it counts")
    assert dock.out("pause", name) == name
    yield name
    dock("rm", "-f", name)


def count(dock: Dock, engine: Engine, name: str) -> str:
    """What the container has counted, read without it."""
    return (engine.root.container(dock.out("inspect", "-f", "{{.Id}}", name)).upper / "count").read_text()


@needs_freezer
def test_a_paused_container_stands_still_and_goes_on(dock: Dock, engine: Engine, paused: str) -> None:
    before = count(dock, engine, paused)
    state = json.loads(dock.out("inspect", "-f", "{{json .State}}", paused))
    assert (state["Status"], state["Paused"], state["Running"]) == ("paused", True, True)
    assert dock.out("ps", "--format", "{{.Names}} {{.State}} {{.Status}}").endswith("(Paused)")
    assert dock.out("ps", "--filter", "status=paused", "--format", "{{.Names}}") == paused
    assert dock.out("ps", "-q", "--filter", "status=running") == ""
    assert dock.out("info", "-f", "{{.ContainersPaused}}") == "1"
    assert count(dock, engine, paused) == before
    assert dock.out("unpause", paused) == paused
    wait_until(lambda: count(dock, engine, paused) != before, "the container goes on")
    assert dock.out("ps", "--format", "{{.State}}") == "running"
    recorded = events.select_after(engine.state.database, 0)[0]
    assert [event.action for event in recorded if event.attributes["name"] == paused][-2:] == [
        "pause",
        "unpause",
    ]


@needs_freezer
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["pause"], "is already paused"),
        (["start"], "is paused"),
        (["attach"], "is paused"),
        (["rm"], "is paused"),
    ],
)
def test_what_a_paused_container_refuses(dock: Dock, paused: str, words: list[str], message: str) -> None:
    result = dock(*words, paused, code=1)
    assert message in result.stderr.splitlines()[0]
    assert dock.out("ps", "--format", "{{.State}}") == "paused"


@needs_freezer
def test_an_exec_is_refused_at_once(dock: Dock, paused: str) -> None:
    result = dock("exec", paused, "true", code=1)
    assert result.stderr.splitlines() == [
        f"error: container {paused} is paused",
        f"hint: let it go on: dock unpause {paused}",
    ]


@needs_freezer
@pytest.mark.parametrize(
    "words", [["stop", "-t", "20"], ["kill"], ["kill", "-s", "TERM"], ["restart", "-t", "20"], ["rm", "-f"]]
)
def test_it_can_be_ended(dock: Dock, words: list[str]) -> None:
    script = "trap 'exit 3' TERM; while true; do sleep 0.05; done"
    dock("run", "-d", "--name", "ended", "busybox", "sh", "-c", script)
    dock("pause", "ended")
    dock(*words, "ended")
    if words[0] == "rm":
        return
    if words[0] == "restart":
        assert dock.out("ps", "--format", "{{.State}}") == "running"
    else:
        assert dock.out("wait", "ended") == ("137" if words == ["kill"] else "3")
    assert dock.out("inspect", "-f", "{{.State.Paused}}", "ended") == "false"


@needs_freezer
def test_another_signal_waits_for_the_container(dock: Dock) -> None:
    script = "trap 'echo heard' USR1; while true; do sleep 0.05; done"
    dock("run", "-d", "--name", "waits", "busybox", "sh", "-c", script)
    dock("pause", "waits")
    dock("kill", "-s", "USR1", "waits")
    assert dock.out("inspect", "-f", "{{.State.Paused}}", "waits") == "true"
    assert dock.out("logs", "waits") == ""
    dock("unpause", "waits")
    wait_until(lambda: dock.out("logs", "waits") == "heard", "the signal is handled")


@needs_freezer
def test_a_commit_leaves_it_paused(dock: Dock, engine: Engine, paused: str) -> None:
    dock("commit", paused, "committed:1")
    assert dock.out("inspect", "-f", "{{.State.Paused}}", paused) == "true"
    before = count(dock, engine, paused)
    dock("run", "--rm", "committed:1", "cat", "/count")
    assert count(dock, engine, paused) == before
    dock("rmi", "-f", "committed:1")


@needs_freezer
def test_a_killed_supervisor_takes_a_paused_container_along(dock: Dock, engine: Engine) -> None:
    container_id = dock.out("run", "-d", "--name", "left", "busybox", "sleep", "1000")
    dock("pause", "left")
    status = derive_status(engine.root.container(container_id))
    os.kill(status.supervisor_pid, 9)
    wait_until(lambda: not derive_status(engine.root.container(container_id)).is_running, "it has ended")
    assert dock.out("ps", "-a", "--format", "{{.State}} {{.Status}}") == "exited Exited (137)"
    assert dock.out("wait", "left") == "137"
    wait_until(lambda: has_ended(status.pid), "its process is gone")


def test_what_does_not_run_cannot_be_paused(dock: Dock) -> None:
    dock("create", "--name", "idle", "busybox", "true")
    for word in ("pause", "unpause"):
        assert "container idle is not running" in dock(word, "idle", code=1).stderr
    dock("run", "-d", "--name", "runs", "busybox", "sleep", "1000")
    refused = dock("unpause", "runs", code=1).stderr
    assert refused.startswith("error: container runs is not paused\nhint: ")


@pytest.mark.skipif(HAS_FREEZER, reason="a user without a freezer")
def test_without_a_freezer_it_is_refused_with_the_reason(dock: Dock) -> None:
    dock("run", "-d", "--name", "runs", "busybox", "sleep", "1000")
    result = dock("pause", "runs", code=1)
    assert "has no control group with a freezer" in result.stderr
    assert "hint: " in result.stderr
    assert dock.out("ps", "--format", "{{.State}}") == "running"


@needs_freezer
def test_a_waiting_client_is_answered(dock: Dock) -> None:
    dock("run", "-d", "--name", "awaited", "busybox", "sleep", "1000")
    dock("pause", "awaited")
    waiter = dock.start("wait", "awaited", stdout=subprocess.PIPE)
    dock("kill", "awaited")
    output, _ = waiter.communicate(timeout=20)
    assert output == b"137\n"
