"""``dock system check``: each kind of inconsistency is made by hand, found, mended, and then nothing is left of it."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pydock_core import syscalls
from pydock_core.engine import Engine
from pydock_core.engine.consistency.finding import Finding
from pydock_core.paths import StateRoot
from pydock_core.runtime.cgroups import read_layout
from pydock_core.store.blobs import BlobStore
from pydock_core.store.database import containers
from pydock_core.store.removal_lock import hold_removal_lock
from pydock_core.store.workspace import open_workspace
from pydock_core.supervision.container_status import derive_status
from tests.integration.conftest import Dock, archive, dock, end_servers, engine, nothing_is_left, wait_until
from tests.support.process import has_ended

__all__ = ["archive", "dock", "engine", "nothing_is_left"]  # fixtures

SLEEP = ("busybox", "sleep", "1000")
STRANGER = "5" * 64
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user has no such thing")


def seen(engine: Engine) -> list[tuple[str, str]]:
    """What is found, and changes nothing."""
    return [(finding.kind, finding.problem) for finding in engine.system.check()]


def mend(engine: Engine, kind: str, problem: str) -> Finding:
    """Find one inconsistency, mend it, and find nothing more; return what was found."""
    (found,) = engine.system.check()
    assert found.kind == kind
    assert problem in found.problem
    assert found.can_repair
    (mended,) = engine.system.check(repair=True)
    assert (mended.state, mended.error) == ("repaired", "")
    assert seen(engine) == []
    return found


def kill_supervisor(engine: Engine, container_id: str) -> None:
    status = derive_status(engine.root.container(container_id))
    os.kill(status.supervisor_pid, signal.SIGKILL)
    wait_until(lambda: has_ended(status.pid), "its process has gone")


# -- nothing to find ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("driver", ["directory", pytest.param("erofs", marks=needs_root)])
def test_a_healthy_root_is_clean(
    dock: Dock, engine: Engine, tmp_path: Path, archive: Path, driver: str
) -> None:
    base = tmp_path / "state"
    program = Dock(base)
    environment = {**program.environment(), "PYDOCK_SNAPSHOTTER": driver}
    words = program.words("load", "-q", "-i", archive)
    loaded = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    if "erofs" in loaded.stderr.lower():
        pytest.skip(loaded.stderr)
    assert loaded.returncode == 0, loaded.stderr
    program("volume", "create", "kept")
    program("create", "--name", "made", "-v", "/fresh", *SLEEP)
    program("run", "--name", "ended", "-v", "kept:/kept", "busybox", "true")
    program("run", "-d", "--name", "up", "-v", "kept:/kept", "--init", *SLEEP)
    program("run", "-d", "--name", "again", "--restart", "always", "busybox", "false")
    try:
        result = program("system", "check")
        assert result.stdout == "no inconsistencies found\n"
        assert program.out("system", "check", "--format", "json") == ""
        assert program.out("system", "check", "--repair") == "no inconsistencies found"
        assert program.out("ps", "-q", "--filter", "name=up") != ""
    finally:
        program("rm", "-f", "-v", "made", "ended", "up", "again")
        end_servers(StateRoot(base / "data", base / "run"))


def test_what_is_in_progress_is_not_found(dock: Dock, engine: Engine) -> None:
    root = engine.root
    made: list[Path] = [root.containers / STRANGER, root.trash / "layer-1", root.volumes / "coming"]
    with (
        hold_removal_lock(root.trash),
        open_workspace(root.temporary, "load", shutil.rmtree),
        BlobStore(root.images).lock(exclusive=False),
    ):
        for path in made[:2]:
            path.mkdir()
        stray = BlobStore(root.images).blob_path("sha256:" + "0" * 64)
        stray.write_bytes(b"arriving")
        assert seen(engine) == []
        stray.unlink()
        for path in made[:2]:
            path.rmdir()
    partial = root.images / "partial"
    partial.mkdir(exist_ok=True)
    with open(partial / ("1" * 64), "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert seen(engine) == []
        os.unlink(file.name)


def test_a_busy_root_is_clean(dock: Dock, engine: Engine) -> None:
    stop = threading.Event()
    errors: list[str] = []

    def work(name: str) -> None:
        while not stop.is_set():
            for words in (
                ("run", "--rm", "-v", f"{name}:/data", "busybox", "true"),
                ("run", "-d", "--name", name, *SLEEP),
                ("rm", "-f", name),
                ("volume", "rm", name),
            ):
                done = dock(*words, code=None)
                if done.returncode:
                    errors.append(done.stderr)

    threads = [threading.Thread(target=work, args=(f"busy{number}",)) for number in range(2)]
    for thread in threads:
        thread.start()
    try:
        found = [seen(engine) for _ in range(6)]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert found == [[]] * 6
    assert errors == []


# -- containers --------------------------------------------------------------------------------------------


def test_a_killed_supervisor(dock: Dock, engine: Engine) -> None:
    container_id = dock.out("run", "-d", "--name", "orphan", *SLEEP)
    kill_supervisor(engine, container_id)
    result = dock("system", "check", code=1)
    assert result.stdout.splitlines()[0].split() == ["KIND", "NAME", "FOUND", "REPAIR"]
    assert "container" in result.stdout
    assert "orphan" in result.stdout
    assert result.stderr == "hint: dock system check --repair repairs what can be repaired\n"
    (line,) = dock("system", "check", "--format", "json", code=1).stdout.splitlines()
    assert json.loads(line)["State"] == "found"
    assert len(seen(engine)) == 1, "a look changes nothing"
    mend(engine, "container", "its supervisor was killed")
    assert dock.out("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "orphan") == "exited 137"
    assert "die" in dock.out("events", "--since", "1m", "--until", "0s", "--format", "{{.Action}}")


def test_a_killed_keeper_and_its_supervisor(dock: Dock, engine: Engine) -> None:
    dock("run", "-d", "--name", "again", "--restart", "always", "busybox", "false")
    paths = engine.root.container(dock.out("inspect", "-f", "{{.Id}}", "again"))
    # Its back-off becomes long enough to be met between two runs.
    wait_until(lambda: derive_status(paths).restart_count >= 4, "it has restarted some times")
    wait_until(lambda: derive_status(paths).status == "restarting", "it is between two runs")
    assert seen(engine) == []
    wait_until(lambda: derive_status(paths).status == "restarting", "it is between two runs")
    os.kill(derive_status(paths).supervisor_pid, signal.SIGKILL)
    wait_until(lambda: derive_status(paths).status == "exited", "it has exited")
    mend(engine, "container", "its supervisor was killed")


def test_an_ended_container_of_a_killed_client(dock: Dock, engine: Engine) -> None:
    container_id = dock.out("run", "-d", "--rm", "--name", "brief", "-v", "/data", *SLEEP)
    kill_supervisor(engine, container_id)
    mend(engine, "container", "its supervisor was killed")
    assert dock.out("ps", "-aq") == ""
    assert dock.out("volume", "ls", "-q") == ""


def test_directories_without_a_row(dock: Dock, engine: Engine) -> None:
    for path in (engine.root.containers / STRANGER / "bundle", engine.root.run / "c" / STRANGER):
        path.mkdir(parents=True)
    mend(engine, "container", "it is not recorded")
    assert not (engine.root.containers / STRANGER).exists()
    assert not (engine.root.run / "c" / STRANGER).exists()


def test_a_running_container_without_a_row(dock: Dock, engine: Engine) -> None:
    container_id = dock.out("run", "-d", *SLEEP)
    status = derive_status(engine.root.container(container_id))
    containers.delete(engine.state.database, container_id)
    mend(engine, "container", "it runs, but is not recorded")
    assert not Path(f"/proc/{status.pid}").exists()


def test_records_that_cannot_be_read(dock: Dock, engine: Engine) -> None:
    container_id = dock.out("run", "-d", "--name", "torn", "busybox", "true")
    dock("wait", "torn")
    paths = engine.root.container(container_id)
    wait_until(lambda: derive_status(paths).status == "exited", "it has exited")
    paths.exit_file.write_text("{")
    mend(engine, "container", "exit.json cannot be read")
    assert dock.out("inspect", "-f", "{{.State.Status}}", "torn") == "created"
    paths.control_socket.touch()
    mend(engine, "container", "a control socket without a supervisor")


def test_a_container_without_its_image(dock: Dock, engine: Engine) -> None:
    container_id = dock.out("create", "--name", "bare", *SLEEP)
    with engine.state.database.transaction() as connection:
        connection.execute("UPDATE container SET image_id = 'sha256:00' WHERE id = ?", (container_id,))
    (found,) = engine.system.check(repair=True)
    assert (found.state, found.can_repair) == ("found", False)
    assert "dock rm bare" in found.remedy
    dock("rm", "bare")
    assert seen(engine) == []


# -- volumes -----------------------------------------------------------------------------------------------


def test_a_volume_without_a_row_is_kept(dock: Dock, engine: Engine) -> None:
    data = engine.root.volumes / "lost" / "_data"
    data.mkdir(parents=True)
    (data / "file").write_text("kept")
    mend(engine, "volume", "it is not recorded")
    assert dock.out("run", "--rm", "-v", "lost:/data", "busybox", "cat", "/data/file") == "kept"
    dock("volume", "rm", "lost")
    (engine.root.volumes / "not a name").mkdir()
    (found,) = engine.system.check(repair=True)
    assert "move" in found.remedy
    (engine.root.volumes / "not a name").rmdir()


def test_a_volume_whose_removal_was_interrupted(dock: Dock, engine: Engine) -> None:
    dock("run", "--rm", "-v", "half:/data", "busybox", "touch", "/data/file")
    (engine.root.volumes / "half").rename(engine.root.trash / "volume:half:0123")
    mend(engine, "volume", "its removal was interrupted")
    assert dock.out("run", "--rm", "-v", "half:/data", "busybox", "ls", "/data") == "file"
    dock("volume", "rm", "half")


def test_a_volume_without_files_and_one_without_a_row_in_use(dock: Dock, engine: Engine) -> None:
    dock("run", "--name", "user", "-v", "gone:/data", "busybox", "true")
    engine.state.worker.call(
        "pydock_core.store.trees:remove_tree", {"path": str(engine.root.volumes / "gone")}
    )
    mend(engine, "volume", "its files are missing")
    with engine.state.database.transaction() as connection:
        connection.execute("DELETE FROM volume WHERE name = 'gone'")
    shutil.rmtree(engine.root.volumes / "gone")
    mend(engine, "volume", "container")
    dock("rm", "user")
    dock("volume", "rm", "gone")


def test_the_trash_and_unfinished_files(dock: Dock, engine: Engine) -> None:
    (engine.root.trash / "layer-1" / "deep").mkdir(parents=True)
    mend(engine, "file", "its removal was interrupted")
    (engine.root.temporary / "load-1").mkdir()
    (engine.root.temporary / "load-1" / "lock").touch()
    mend(engine, "file", "a killed process left it unfinished")
    assert os.listdir(engine.root.temporary) == os.listdir(engine.root.trash) == []


# -- images ------------------------------------------------------------------------------------------------


def test_parts_of_images_that_nothing_refers_to(dock: Dock, engine: Engine) -> None:
    blobs = BlobStore(engine.root.images)
    blobs.blob_path("sha256:" + "0" * 64).write_bytes(b"stray")
    mend(engine, "blob", "no image refers to it")
    (engine.root.images / "partial").mkdir(exist_ok=True)
    (engine.root.images / "partial" / ("1" * 64)).write_bytes(b"part")
    mend(engine, "blob", "no image refers to it")
    layer = engine.root.layers / "directory" / ("2" * 64)
    (layer / "fs").mkdir(parents=True)
    mend(engine, "layer", "no image refers to it")
    assert not layer.exists()


def test_a_missing_layer_is_made_again(dock: Dock, engine: Engine) -> None:
    snapshotter = engine.state.snapshotter
    (diff_id,) = snapshotter.diff_ids()
    snapshotter.remove(diff_id)
    mend(engine, "image", "layers are missing")
    assert dock.out("run", "--rm", "busybox", "echo", "whole") == "whole"


def test_a_missing_blob_and_a_wrong_index(dock: Dock, engine: Engine) -> None:
    index = engine.root.images / "index.json"
    index.write_text("{}")
    mend(engine, "file", "it does not list the images")
    image_id = dock.out("images", "-q", "--no-trunc")
    path = BlobStore(engine.root.images).blob_path(image_id)
    content = path.read_bytes()
    path.unlink()
    (found,) = engine.system.check(repair=True)
    assert (found.kind, found.state) == ("image", "found")
    assert "blobs are missing: config" in found.problem
    assert "dock rmi" in found.remedy
    path.write_bytes(content)
    assert seen(engine) == []


# -- the host ----------------------------------------------------------------------------------------------


@needs_root
def test_a_mount_in_the_hosts_table(dock: Dock, engine: Engine) -> None:
    dock("create", "--name", "made", *SLEEP)
    place = engine.root.containers / dock.out("inspect", "-f", "{{.Id}}", "made") / "a place"
    place.mkdir(parents=True)
    syscalls.mount("tmpfs", str(place), "tmpfs")
    mend(engine, "mount", "the host's mount table has it")
    assert not os.path.ismount(place)


@needs_root
def test_control_groups(dock: Dock, engine: Engine) -> None:
    container_id = dock.out("create", "--name", "made", *SLEEP)
    layout = read_layout()
    parent = next(iter(layout.v1.values())) if layout.v1 else layout.unified
    assert parent is not None
    group = parent / "pydock" / container_id
    group.mkdir(parents=True)
    other = parent / "pydock" / STRANGER  # another state root's, for all that is known
    other.mkdir()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stray:
        (group / "cgroup.procs").write_text(str(stray.pid))
        mend(engine, "control group", "the container does not run")
        assert stray.wait(10) == -signal.SIGKILL
    assert not group.exists()
    dock("rm", "made")
    group.mkdir()  # events tell that the container was this root's
    mend(engine, "control group", "the container does not run")
    assert other.exists()
    other.rmdir()


def test_a_damaged_database(dock: Dock, engine: Engine) -> None:
    engine.close()
    with sqlite3.connect(engine.root.database) as raw:
        raw.execute("INSERT INTO tag VALUES ('ghost', 'latest', 'sha256:00')")
    (found,) = engine.system.check(repair=True)
    assert (found.kind, found.state) == ("database", "found")
    assert "refers to a missing row" in found.problem
    with sqlite3.connect(engine.root.database) as raw:
        raw.execute("DELETE FROM tag WHERE repository = 'ghost'")
    assert seen(engine) == []
