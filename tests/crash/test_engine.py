"""Any process may be killed at any instant: nothing is lost, and the next command shows the truth and tidies up."""

from __future__ import annotations

import importlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest

from pydock_core.engine import Engine
from pydock_core.errors import NotFoundError
from pydock_core.paths import StateRoot
from pydock_core.supervision.client import Streams, Zygote
from pydock_core.supervision.container_status import derive_status
from tests.integration.conftest import Dock, archive, dock, engine, nothing_is_left, wait_until
from tests.support.killed import run_in_fork
from tests.support.process import has_ended

__all__ = ["archive", "dock", "engine", "nothing_is_left"]  # fixtures


def containers_on_disk(dock: Dock) -> list[str]:
    return os.listdir(dock.base / "data" / "containers")


def test_a_killed_client_of_run_rm_leaves_a_container_that_tidies_itself(dock: Dock) -> None:
    with dock.start("run", "--rm", "-i", "--name", "left", "busybox", "cat", stdin=subprocess.PIPE) as client:
        wait_until(lambda: dock.out("ps", "-q") != "", "it runs")
        client.kill()
        client.wait()
    assert dock.out("ps", "--format", "{{.Names}} {{.State}}") in ("left running", "")
    dock("stop", "-t", "0", "left", code=None)
    wait_until(lambda: dock.out("ps", "-aq") == "", "it is not listed")
    wait_until(lambda: containers_on_disk(dock) == [], "its files are gone")


def test_a_killed_supervisor_is_told_and_the_container_starts_again(dock: Dock, engine: Engine) -> None:
    container_id = dock.out(
        "run",
        "-d",
        "--name",
        "orphan",
        "busybox",
        "sh",
        "-c",
        "echo kept >> /tmp/file; cat /tmp/file; exec sleep 1000",
    )
    wait_until(lambda: "kept" in dock.out("logs", "orphan"), "it has written")
    status = derive_status(engine.root.container(container_id))
    os.kill(status.supervisor_pid, signal.SIGKILL)
    wait_until(lambda: dock.out("ps", "-q") == "", "it does not run")
    state = json.loads(dock.out("inspect", "orphan"))[0]["State"]
    assert (state["Status"], state["ExitCode"], state["Pid"]) == ("exited", 137, 0)
    wait_until(lambda: has_ended(status.pid), "its process has gone")
    assert dock.out("logs", "orphan") == "kept"
    dock("start", "orphan")
    wait_until(lambda: dock.out("logs", "orphan") == "kept\nkept\nkept", "its layer was kept")


def read_files(engine: Engine) -> dict[Path, tuple[int, int]]:
    """The files of containers, the trash and temporary files, with inode and modification time."""
    root = engine.root
    found = {}
    for top in (root.containers, root.run / "c", root.trash, root.temporary):
        for path in top.rglob("*"):
            status = path.lstat()
            found[path] = (status.st_ino, status.st_mtime_ns)
    return found


def test_reads_leave_the_remains_of_killed_processes(dock: Dock, engine: Engine) -> None:
    container_id = dock.out("run", "-d", "--name", "killed", "busybox", "sleep", "1000")
    status = derive_status(engine.root.container(container_id))
    os.kill(status.supervisor_pid, signal.SIGKILL)
    wait_until(lambda: has_ended(status.pid), "its process has gone")
    orphan = engine.root.containers / ("0" * 64)
    orphan.mkdir()
    (engine.root.trash / "left").mkdir()
    before = read_files(engine)
    for words in ("ps", "ps -as", "inspect -s killed", "logs killed", "port killed", "images", "info"):
        dock(*words.split(), code=None)
    fresh = Engine(engine.root)
    assert fresh.containers.list(all=True)[0]["Status"].startswith("Exited (137)")
    fresh.close()
    assert read_files(engine) == before
    dock("rm", "killed")
    assert not orphan.exists()
    assert not (engine.root.trash / "left").exists()


def test_a_killed_zygote_changes_nothing(dock: Dock, engine: Engine) -> None:
    dock("run", "-d", "-i", "--name", "survivor", "busybox", "sh", "-c", "read line; echo got $line")
    pid = Zygote(engine.root).ping()["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: has_ended(pid), "the zygote has gone")
    assert dock.out("exec", "survivor", "echo", "alive") == "alive"
    assert dock.out("run", "--rm", "busybox", "echo", "new") == "new"
    assert dock("attach", "survivor", stdin=b"through\n").stdout == "got through\n"


CHANGES = frozenset(
    "os.rename os.mkdir os.remove os.rmdir os.chmod open sqlite3.connect socket.connect".split()
)
"""Python's audit events of what changes the file system or reaches another process; each is a step."""


def run_once(base: Path, step: int) -> None:
    """Run and remove a container; die before one of the steps."""
    # Imported here, so that no step is an import.
    importlib.import_module("pydock_core.engine.launch")
    importlib.import_module("pydock_core.spec.merge")
    steps = itertools.count(1)

    def trace(event: str, _: object) -> None:
        if event in CHANGES and next(steps) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    engine = Engine(StateRoot(base / "data", base / "run"))
    engine.state.sweep_once()
    sys.addaudithook(trace)
    request = {"Image": "busybox", "Cmd": ["true"], "HostConfig": {"NetworkMode": "none", "AutoRemove": True}}
    container_id, _ = engine.containers.create(request)
    with engine.containers.start(container_id, attach=Streams(stdin=False)) as launch:
        launch.wait()
    engine.containers.remove(container_id)
    for (
        thread
    ) in threading.enumerate():  # one removes the files; the interpreter would wait for it at its exit
        if thread is not threading.current_thread():
            thread.join()


@pytest.mark.timeout(300)
def test_a_client_killed_at_every_step_leaves_nothing_behind(dock: Dock) -> None:
    total = None
    step = 1
    while total is None:
        assert step < 300, "the client never finishes"
        code = run_in_fork(partial(run_once, dock.base, step))
        assert code in (0, -signal.SIGKILL)
        if code == 0:
            total = step
        step += 1 if step < 12 else 3
    # What was created and never started is a container, and nobody's to remove; the rest is gone.
    for name in dock.out("ps", "-aq").split():
        assert dock.out("inspect", "--format", "{{.State.Status}}", name) == "created"
        dock("rm", name)

    def is_tidy() -> bool:
        dock("container", "prune", "-f")  # a look, such as ps, tidies nothing up
        return dock.out("ps", "-aq") == "" and containers_on_disk(dock) == []

    wait_until(is_tidy, "everything is tidied up")
    assert os.listdir(dock.base / "data" / "trash") == []
    assert os.listdir(dock.base / "run" / "c") == []
    assert total > 10


def test_a_container_that_is_removed_while_it_is_started(
    dock: Dock, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    container_id = dock.out("create", "--name", "brief", "--network", "none", "busybox", "true")
    prepare = engine.state.launcher._network

    def remove_before(*words: object) -> object:
        dock("rm", "brief")
        return prepare(*words)  # type: ignore[arg-type]  # as it was called

    monkeypatch.setattr(engine.state.launcher, "_network", remove_before)
    with pytest.raises(NotFoundError, match="brief was removed while it was being started"):
        engine.containers.start(container_id)
    assert dock.out("system", "check") == "no inconsistencies found"
