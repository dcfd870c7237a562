"""Kill any process of the process model at any step: nothing is lost, nothing is left, and the next command goes on."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pydock_core import messages
from pydock_core.errors import ConflictError, UnavailableError
from pydock_core.paths import StateRoot
from pydock_core.runtime.embedded import EmbeddedExecutor
from pydock_core.runtime.executor import Stdio
from pydock_core.supervision import container_status as process
from pydock_core.supervision import network_namespace as supervisor_network
from pydock_core.supervision import supervisor, supervisor_process
from pydock_core.supervision.client import Streams, Zygote, wait_for_exit
from pydock_core.supervision.forkserver import Request
from pydock_core.supervision.handover import Handover
from pydock_core.supervision.maker import Maker
from pydock_core.supervision.starter import Starter
from pydock_core.supervision.supervisor import Supervisor
from tests.support.supervised import (
    BUSYBOX,
    Box,
    build_process,
    end_boxes,
    end_server,
    leftovers,
    make_lower,
    wait_until,
)

pytestmark = pytest.mark.skipif(not BUSYBOX.exists(), reason="needs /bin/busybox (Debian: busybox-static)")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StateRoot]:
    base = tmp_path_factory.mktemp("crash")
    state_root = StateRoot(base / "data", base / "run")
    state_root.ensure()
    make_lower(base / "lower")
    yield state_root
    left = leftovers(state_root)
    end_boxes(state_root)
    end_server(Zygote(state_root).ping()["pid"])
    assert not any(left.values())


@pytest.fixture
def lower(root: StateRoot) -> Path:
    return root.data.parent / "lower"


def processes_of(box: Box) -> list[int]:
    """Processes in whose mount namespace something of the container is mounted."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if box.id in (entry / "mountinfo").read_text():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def assert_clean(box: Box) -> None:
    """Nothing of the container is left: no process, no mount, no cgroup, no socket."""
    wait_until(lambda: not processes_of(box), "every process of the container has ended")
    left = leftovers(box.root)
    assert not any(box.id in item for items in left.values() for item in items)


def test_the_zygote_is_killed(root: StateRoot, lower: Path) -> None:
    box = Box(root, lower, ["sleep", "1000"])
    with box.launch() as launch:
        first = Zygote(root).ping()["pid"]
        end_server(first)
        assert box.status().is_running
        assert box.client.state()["status"] == "running"
        other = Box(root, lower, ["sh", "-c", "exit 3"])
        with other.launch() as second:  # starts another zygote
            end = second.wait(10)
        assert end is not None
        assert end.exit_code == 3
        assert Zygote(root).ping()["pid"] != first
        box.client.stop(signal.SIGKILL)
        ended = launch.wait(10)
    assert ended is not None
    assert ended.exit_code == 137


def test_a_supervisor_is_killed(root: StateRoot, lower: Path) -> None:
    box = Box(root, lower, ["sh", "-c", "echo up; sleep 1000 & sleep 1000"])
    null_fd = os.open(os.devnull, os.O_RDWR)
    with box.launch(Streams()) as launch:
        wait_until(lambda: box.log() == b"up\n", "the container is up")
        session = box.client.exec_(build_process(["sleep", "1000"]), Stdio(null_fd, null_fd, null_fd))
        end_server(box.status().supervisor_pid)
        with pytest.raises(UnavailableError, match="killed"):
            launch.wait(10)
        with pytest.raises(UnavailableError, match="killed"):
            session.wait(10)
        session.close()
        assert launch.attachment is not None
        launch.attachment.close()
    os.close(null_fd)
    seen = box.status()
    assert (seen.status, seen.exit_code, seen.error, seen.finished_at_ns) == ("exited", 137, "", 0)
    status = box.reaped()
    assert (status.status, status.exit_code, status.error) == ("exited", 137, "")
    assert status.started_at_ns < status.finished_at_ns
    assert_clean(box)
    with pytest.raises(ConflictError, match="not running"):
        box.client.stop()
    with box.launch():  # and it can be started again
        assert box.status().is_running
        box.client.stop(signal.SIGKILL)
    assert_clean(box)


def test_a_killed_supervisor_is_seen_by_the_next_start_too(root: StateRoot, lower: Path) -> None:
    box = Box(root, lower, ["sleep", "1000"])
    with box.launch():
        end_server(box.status().supervisor_pid)
    with box.launch():
        assert box.status().is_running
        box.client.stop(signal.SIGKILL)
    assert_clean(box)


def test_many_see_a_killed_supervisor_at_once(root: StateRoot, lower: Path) -> None:
    box = Box(root, lower, ["sleep", "1000"])
    with box.launch():
        end_server(box.status().supervisor_pid)
    statuses: list[Any] = []
    threads = [threading.Thread(target=lambda: statuses.append(wait_for_exit(box.paths))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(statuses)) == 1
    assert (statuses[0].status, statuses[0].exit_code) == ("exited", 137)
    assert_clean(box)


# A supervisor that is killed at a step: the test forks it itself, with one function replaced by one that
# kills.

Patch = Callable[[pytest.MonkeyPatch], None]


def kill_before(owner: Any, name: str, count: int = 1) -> Patch:
    return lambda patch: _kill_around(patch, owner, name, count, before=True)


def kill_after(owner: Any, name: str, count: int = 1) -> Patch:
    return lambda patch: _kill_around(patch, owner, name, count, before=False)


def _kill_around(patch: pytest.MonkeyPatch, owner: Any, name: str, count: int, *, before: bool) -> None:
    real = getattr(owner, name)
    calls = [0]

    def replaced(*arguments: Any, **keywords: Any) -> Any:
        calls[0] += 1
        if before and calls[0] == count:
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*arguments, **keywords)
        if calls[0] == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    patch.setattr(owner, name, replaced)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: the test is the zygote itself")

STARTING: dict[str, Patch] = {
    "lock": kill_after(process, "take_lock"),
    "first state": kill_after(process.StateRecord, "write", 1),
    "log": kill_after(Starter, "_open_log"),
    "network": kill_after(supervisor_network, "enter"),
    "before planning": kill_before(Maker, "begin"),
    "planning": kill_after(Maker, "begin"),
    "before making": kill_before(Maker, "go"),
    "making": kill_after(Maker, "go"),
    "control socket": kill_after(Starter, "_listen"),
    "started": kill_after(Maker, "finish"),
}
ENDING: dict[str, Patch] = {
    "running": kill_after(process.StateRecord, "write", 2),
    "before serving": kill_before(Supervisor, "__init__"),
    "serving": kill_after(Supervisor, "begin"),
    "before the exit record": kill_before(process.ExitRecord, "write"),
    "exit record": kill_after(process.ExitRecord, "write"),
    "socket gone": kill_after(Supervisor, "_close_control"),
    "before delete": kill_before(EmbeddedExecutor, "delete"),
    "deleted": kill_after(EmbeddedExecutor, "delete"),
    "before unmounting": kill_before(supervisor, "unmount_all"),
    "unmounted": kill_after(supervisor, "unmount_all"),
    "before it is told": kill_after(Supervisor, "_end"),
}


def run_supervisor(box: Box, patch: Patch, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run a supervisor, changed by ``patch``, to its end; return its wait status.  It ends in the same way as its starter."""
    return os.waitpid(fork_supervisor(box, patch, monkeypatch), 0)[1]


def fork_supervisor(box: Box, patch: Patch, monkeypatch: pytest.MonkeyPatch) -> int:
    """Fork a supervisor of this process, changed by ``patch``; return its pid when it has the plan."""
    status, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        try:
            status.close()
            os.setsid()
            patch(monkeypatch)
            supervise = supervisor_process.prepare(False, lambda: None)
            supervise(Request({}, [theirs.detach()]))
        finally:
            os._exit(99)
    theirs.close()
    with status:
        messages.send(status, {"plan": str(box.paths.plan_file)})
        messages.receive(status)  # "started", or the end
    return pid


@needs_root
@pytest.mark.parametrize("step", [*STARTING, *ENDING])
def test_a_supervisor_is_killed_at(
    step: str, root: StateRoot, lower: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The starter does all of it, because the container ends at once."""
    _kill_at(step, root, lower, monkeypatch)


@needs_root
@pytest.mark.parametrize("step", ENDING)
def test_a_supervisor_is_killed_after_the_hand_over_at(
    step: str, root: StateRoot, lower: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Starter, "_is_plain", lambda _: False)
    _kill_at(step, root, lower, monkeypatch)


@needs_root
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_starter_is_killed_around_the_hand_over(
    when: str, root: StateRoot, lower: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = Box(root, lower, ["sleep", "1000"])
    kill = kill_before if when == "before" else kill_after
    pid = fork_supervisor(box, kill(Handover, "send"), monkeypatch)
    if when == "after":
        wait_until(lambda: box.client.state()["status"] == "running", "the supervisor serves")
        box.client.stop(signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    assert os.WIFSIGNALED(status) == (when == "before")
    wait_until(lambda: not process.is_locked(box.paths.lock_file), "the lock is free")
    assert (box.reaped().status, box.reaped().exit_code) == ("exited", 137)
    assert_clean(box)


def _kill_at(step: str, root: StateRoot, lower: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    starts = step in STARTING
    box = Box(root, lower, ["sleep", "1000"] if starts else ["sh", "-c", "echo done; exit 3"])
    status = run_supervisor(box, (STARTING if starts else ENDING)[step], monkeypatch)
    assert os.WIFSIGNALED(status), f"the step was not reached: {os.waitstatus_to_exitcode(status)}"
    # A starter, or an init that waits to be started, shares the lock until its parent's death has reached it.
    wait_until(lambda: not process.is_locked(box.paths.lock_file), "the lock is free")
    found = box.reaped()
    if starts:
        assert found.status == "created"
        assert not found.is_running
    else:
        assert found.status == "exited"
        unknown = ("running", "before serving", "serving", "before the exit record")
        known = step not in unknown
        assert found.exit_code == (3 if known else 137)
    assert box.status() == found
    assert_clean(box)
    with box.launch() as launch:
        if starts:
            box.client.stop(signal.SIGKILL)
        end = launch.wait(10)
    assert end is not None
    assert end.exit_code == (137 if starts else 3)
    assert_clean(box)


def kill_maker(patch: pytest.MonkeyPatch) -> None:
    """Kill the maker, the starter's next sibling, when it has been told to go."""
    real = Maker.go

    def go(maker: Maker) -> None:
        real(maker)
        children = Path(f"/proc/{os.getppid()}/task/{os.getppid()}/children").read_text().split()
        os.kill(min(pid for pid in map(int, children) if pid > os.getpid()), signal.SIGKILL)

    patch.setattr(Maker, "go", go)


@needs_root
def test_a_maker_is_killed(root: StateRoot, lower: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box = Box(root, lower, ["sleep", "1000"])
    assert os.waitstatus_to_exitcode(run_supervisor(box, kill_maker, monkeypatch)) == 99  # it returned
    assert box.status().status == "created"
    assert "killed" in box.status().error
    assert_clean(box)


CLIENT = """
import json, os, signal, sys
from pathlib import Path
sys.path[:0] = json.loads(sys.argv[1])
from pydock_core.paths import StateRoot
from pydock_core import messages
from pydock_core.supervision.client import Streams, Zygote
calls = 0
def dying(real):
    def wrapper(*arguments):
        global calls
        result = real(*arguments)
        calls += 1
        if calls == int(sys.argv[4]):
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return wrapper
messages.connect, messages.send, messages.receive = map(dying, (messages.connect, messages.send, messages.receive))
base = Path(sys.argv[2])
launch = Zygote(StateRoot(base / "data", base / "run")).supervise(Path(sys.argv[3]), attach=Streams())
print("whole", flush=True)
launch.wait()
"""


@pytest.mark.parametrize("step", range(1, 7))
def test_a_client_is_killed_at(step: int, root: StateRoot, lower: Path) -> None:
    """Steps: connected, asked, answered by the zygote, plan sent, told "started", told "exited"."""
    Zygote(root).ping()
    box = Box(root, lower, ["sh", "-c", "echo ran; exit 3"])
    words = [
        sys.executable,
        "-c",
        CLIENT,
        json.dumps(sys.path),
        str(root.data.parent),
        str(box.paths.plan_file),
        str(step),
    ]
    client = subprocess.run(words, capture_output=True, timeout=30, check=False)
    assert client.returncode == -signal.SIGKILL, client.stderr
    if step < 4:
        assert box.status().status == "created"
        with box.launch() as launch:
            launch.wait(10)
    wait_until(lambda: box.status().status == "exited", "the container runs to its end without its client")
    assert box.status().exit_code == 3
    assert box.log() == b"ran\n"
    assert_clean(box)


def test_many_clients_start_one_zygote(tmp_path: Path) -> None:
    state_root = StateRoot(tmp_path / "data", tmp_path / "run")
    state_root.ensure()
    program = (
        "import json, sys; sys.path[:0] = json.loads(sys.argv[1]); from pathlib import Path\n"
        "from pydock_core.paths import StateRoot; from pydock_core.supervision.client import Zygote\n"
        "print(Zygote(StateRoot(Path(sys.argv[2]), Path(sys.argv[3]))).ping()['pid'])"
    )
    words = [sys.executable, "-c", program, json.dumps(sys.path), str(state_root.data), str(state_root.run)]
    clients = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(12)]
    pids = {client.communicate(timeout=60)[0].strip() for client in clients}
    assert len(pids) == 1, pids
    end_server(int(pids.pop()))


def test_twenty_at_once(root: StateRoot, lower: Path) -> None:
    boxes = [Box(root, lower, ["sh", "-c", f"echo {number}; read x; exit {number}"], open_stdin=True, stdin_once=True)
             for number in range(20)]  # fmt: skip
    failures: list[BaseException] = []

    def run(number: int, box: Box) -> None:
        try:
            with box.launch(Streams()) as launch:
                assert launch.attachment is not None
                wait_until(lambda: box.log() == b"%d\n" % number, "it has spoken")
                barrier.wait(60)
                launch.attachment.close()
                end = launch.wait(30)
                assert end is not None
                assert end.exit_code == number
        except BaseException as error:  # noqa: BLE001 - carried to the test
            failures.append(error)
            barrier.abort()

    barrier = threading.Barrier(len(boxes))
    threads = [threading.Thread(target=run, args=item) for item in enumerate(boxes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    for box in boxes:
        assert box.status().status == "exited"
    assert not any(leftovers(root).values())


def test_one_container_is_started_by_many_and_runs_once(root: StateRoot, lower: Path) -> None:
    box = Box(root, lower, ["sh", "-c", "echo x; read y"], open_stdin=True)
    outcomes: list[str] = []

    def start() -> None:
        try:
            box.launch().close()
            outcomes.append("started")
        except ConflictError:
            outcomes.append("refused")

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["refused"] * 5 + ["started"]
    next(_ for _ in box.client.follow() if box.log())
    box.client.stop(signal.SIGKILL)
    assert box.log() == b"x\n"
    assert_clean(box)
