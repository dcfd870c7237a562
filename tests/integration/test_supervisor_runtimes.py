"""Supervisors with other OCI runtimes in the executor's place, and storage jobs in the zygote's workers."""

from __future__ import annotations

import os
import select
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from pydock_core.errors import DeniedError, NotFoundError, PyDockError
from pydock_core.paths import StateRoot
from pydock_core.runtime.executor import Stdio
from pydock_core.supervision.client import Streams, Zygote
from pydock_core.supervision.container_status import is_locked
from tests.support.process import has_ended
from tests.support.supervised import (
    BUSYBOX,
    Box,
    build_process,
    end_boxes,
    end_server,
    leftovers,
    make_lower,
    read_frames,
    wait_until,
)

pytestmark = [
    pytest.mark.skipif(
        os.geteuid() != 0, reason="needs root: rootless, what these runtimes can do is their affair"
    ),
    pytest.mark.skipif(not BUSYBOX.exists(), reason="needs /bin/busybox (Debian: busybox-static)"),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StateRoot]:
    base = tmp_path_factory.mktemp("runtimes")
    state_root = StateRoot(base / "data", base / "run")
    state_root.ensure()
    make_lower(base / "lower")
    pid = Zygote(state_root).ping()["pid"]
    yield state_root
    left = leftovers(state_root)
    end_boxes(state_root)
    end_server(pid)
    assert not any(left.values())


@pytest.fixture
def lower(root: StateRoot) -> Path:
    return root.data.parent / "lower"


@pytest.fixture(params=["crun", "runc"])
def program(request: pytest.FixtureRequest) -> str:
    found = shutil.which(str(request.param))
    if found is None:
        pytest.skip(f"needs {request.param} (Debian: {request.param})")
    return found


def test_a_whole_life(root: StateRoot, lower: Path, program: str) -> None:
    box = Box(
        root, lower, ["sh", "-c", "echo out; echo err >&2; read x; exit 7"], executor=program, open_stdin=True
    )
    with box.launch(Streams()) as launch:
        assert launch.attachment is not None
        read_fd, write_fd = os.pipe()
        null_fd = os.open(os.devnull, os.O_RDWR)
        with box.client.exec_(
            build_process(["sh", "-c", "echo inside; exit 5"]), Stdio(null_fd, write_fd, write_fd)
        ) as session:
            assert session.wait(10) == 5
        os.close(write_fd)
        with open(read_fd, "rb") as output:
            assert output.read() == b"inside\n"
        with pytest.raises(PyDockError) as caught:
            box.client.exec_(build_process(["/nosuch"]), Stdio(null_fd, null_fd, null_fd))
        assert caught.value.exit_code == 127
        os.close(null_fd)
        launch.attachment.sendall(b"\n")
        with launch.attachment:
            assert read_frames(launch.attachment) == {1: b"out\n", 2: b"err\n"}
        end = launch.wait(10)
    assert end is not None
    assert end.exit_code == 7
    assert not any(leftovers(root).values())


def test_a_terminal(root: StateRoot, lower: Path, program: str) -> None:
    box = Box(
        root, lower, ["sh", "-c", "read x; stty size"], executor=program, terminal=True, open_stdin=True
    )
    with box.launch(Streams()) as launch:
        assert launch.attachment is not None
        box.client.resize(12, 34)
        launch.attachment.sendall(b"\n")
        with launch.attachment:
            output = b""
            while b"12 34" not in output:
                assert select.select([launch.attachment], [], [], 10)[0]
                output += launch.attachment.recv(1000)
        launch.wait(10)


def test_a_command_that_is_not_there(root: StateRoot, lower: Path, program: str) -> None:
    box = Box(root, lower, ["/nosuch"], executor=program)
    with pytest.raises(NotFoundError) as caught:
        box.launch()
    assert caught.value.exit_code == 127
    assert (box.status().status, box.status().exit_code) == ("created", 127)
    assert not any(leftovers(root).values())


def test_the_supervisor_is_killed(root: StateRoot, lower: Path, program: str) -> None:
    box = Box(root, lower, ["sleep", "1000"], executor=program)
    with box.launch():
        init = box.status().pid
        end_server(box.status().supervisor_pid)
        wait_until(lambda: not is_locked(box.paths.lock_file), "its starter has ended with it")
    status = box.reaped()
    assert (status.status, status.exit_code, status.error) == ("exited", 137, "")
    wait_until(lambda: has_ended(init), "the container's process has ended")
    assert not any(leftovers(root).values())
    with box.launch():
        assert box.client.stop(signal.SIGKILL) == 137


def test_a_storage_job_runs_in_a_worker(root: StateRoot) -> None:
    tree = root.trash / "tree"
    (tree / "deep").mkdir(parents=True)
    Zygote(root).call("pydock_core.store.trees:remove_tree", {"path": str(tree)})
    assert not tree.exists()


def test_what_is_no_storage_job_is_refused(root: StateRoot) -> None:
    with pytest.raises(DeniedError, match="not a storage job"):
        Zygote(root).call("os:system", {"command": "true"})


def test_a_jobs_own_error_arrives(root: StateRoot) -> None:
    with pytest.raises(PyDockError, match="unexpected"):
        Zygote(root).call("pydock_core.store.trees:remove_tree", {"unexpected": 1})
