"""What is derived from a container's small records."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pydock_core.errors import CorruptError
from pydock_core.paths import ContainerPaths
from pydock_core.runtime.process_identity import ProcessIdentity
from pydock_core.runtime.record_file import write_json
from pydock_core.supervision.container_status import (
    ExitRecord,
    StateRecord,
    Status,
    derive_status,
    is_locked,
    take_lock,
)
from pydock_core.supervision.plan import PublishedPort, read_plan
from pydock_core.supervision.reaper import reap_killed

ME = ProcessIdentity.of(os.getpid())


@pytest.fixture
def paths(tmp_path: Path) -> ContainerPaths:
    made = ContainerPaths(tmp_path / "data" / "containers" / ("a" * 64), tmp_path / "run" / "c" / ("a" * 64))
    made.data.mkdir(parents=True)
    made.run.mkdir(parents=True)
    return made


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process
        process.kill()


def test_without_records_it_is_created(paths: ContainerPaths) -> None:
    assert derive_status(paths) == Status("created")


def test_with_the_lock_held_it_is_starting_then_running(paths: ContainerPaths) -> None:
    lock_fd = take_lock(paths.lock_file)
    assert lock_fd is not None
    assert derive_status(paths).status == "starting"
    StateRecord(None, ME, 0, (), "embedded").write(paths.state_file)
    assert derive_status(paths) == Status("starting", supervisor_pid=os.getpid())
    ports = (PublishedPort("127.0.0.1", 8080, 80),)
    StateRecord(ME, ME, 5, ports, "embedded").write(paths.state_file)
    assert derive_status(paths) == Status(
        "running", pid=os.getpid(), supervisor_pid=os.getpid(), started_at_ns=5, ports=ports
    )
    os.close(lock_fd)


def test_an_exit_record_says_exited_or_why_not_started(paths: ContainerPaths) -> None:
    ExitRecord(3, True, "", 5, 6).write(paths.exit_file)
    assert derive_status(paths) == Status(
        "exited", exit_code=3, oom_killed=True, started_at_ns=5, finished_at_ns=6
    )
    ExitRecord(127, False, "not there", 0, 0).write(paths.exit_file)
    assert derive_status(paths) == Status("created", exit_code=127, error="not there")


def test_a_killed_supervisor_is_recorded_once_and_its_process_reaped(
    paths: ContainerPaths, sleeper: subprocess.Popen[bytes]
) -> None:
    StateRecord(ProcessIdentity.of(sleeper.pid), ME, 5, (), "embedded").write(paths.state_file)
    seen = derive_status(paths)
    assert (seen.status, seen.exit_code, seen.error, seen.started_at_ns) == ("exited", 137, "", 5)
    assert sleeper.poll() is None, "a look at it kills nothing"
    assert {path.name for path in (*paths.run.iterdir(), *paths.data.iterdir())} == {"state.json"}
    status = reap_killed(paths)
    assert replace(status, finished_at_ns=0) == seen
    assert status.finished_at_ns > 5
    assert sleeper.wait(10) == -signal.SIGKILL
    assert not paths.state_file.exists()
    assert not is_locked(paths.lock_file)
    assert derive_status(paths) == status


def test_another_process_with_the_same_number_is_left_alone(
    paths: ContainerPaths, sleeper: subprocess.Popen[bytes]
) -> None:
    real = ProcessIdentity.of(sleeper.pid)
    for other in (
        ProcessIdentity(real.pid, real.start_ticks - 1, real.boot_id),
        ProcessIdentity(real.pid, real.start_ticks, "another boot"),
    ):
        StateRecord(other, ME, 5, (), "embedded").write(paths.state_file)
        paths.exit_file.unlink(missing_ok=True)
        assert reap_killed(paths).exit_code == 137
        assert sleeper.poll() is None


def test_a_number_that_only_a_thread_has_now_is_of_a_process_that_is_gone() -> None:
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    try:
        assert thread.native_id is not None
        assert ProcessIdentity(thread.native_id, ME.start_ticks, ME.boot_id).open() is None
    finally:
        end.set()
        thread.join()


def test_a_supervisor_killed_while_starting_leaves_the_last_runs_record(paths: ContainerPaths) -> None:
    StateRecord(None, ME, 0, (), "embedded").write(paths.state_file)
    status = derive_status(paths)
    assert (status.status, status.exit_code) == ("created", 137)
    assert "killed while it started" in status.error
    assert reap_killed(paths) == replace(status, finished_at_ns=derive_status(paths).finished_at_ns)
    ExitRecord(3, False, "", 5, 6).write(paths.exit_file)
    StateRecord(None, ME, 0, (), "embedded").write(paths.state_file)
    assert derive_status(paths).exit_code == 3


def test_a_reader_does_not_disturb_the_lock(paths: ContainerPaths) -> None:
    assert not is_locked(paths.lock_file)
    lock_fd = take_lock(paths.lock_file)
    assert lock_fd is not None
    assert is_locked(paths.lock_file)
    assert take_lock(paths.lock_file) is None
    os.close(lock_fd)
    assert not is_locked(paths.lock_file)
    again = take_lock(paths.lock_file)
    assert again is not None
    os.close(again)


def test_a_torn_record_is_told(paths: ContainerPaths) -> None:
    paths.exit_file.write_text("{")
    with pytest.raises(CorruptError):
        derive_status(paths)
    paths.plan_file.write_text("[]")
    with pytest.raises(CorruptError):
        read_plan(paths.plan_file)
    write_json(paths.plan_file, {"container_id": "x"})
    with pytest.raises(CorruptError, match="malformed"):
        read_plan(paths.plan_file)


def test_records_are_replaced_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "record"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert path.read_text() == '{"a": 1}'
    assert os.listdir(tmp_path) == ["record"]


def test_a_process_that_ended_is_not_alive() -> None:
    with subprocess.Popen(["true"]) as process:
        identity = ProcessIdentity.of(process.pid)
        assert identity.start_ticks > 0
        process.wait()
    assert not identity.is_alive()
    assert identity.open() is None
