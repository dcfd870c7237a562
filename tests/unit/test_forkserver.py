"""The fork server: replies, children, who may ask, and how it gives its place to another."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pydock_core import messages
from pydock_core.errors import ConflictError, InvalidError
from pydock_core.supervision import forkserver, server_start
from pydock_core.supervision.forkserver import ForkServer, Kind, Operation, Request
from pydock_core.supervision.server_start import ServerSpec, ask_server


def write_pid(request: Request) -> None:
    os.write(request.fds[0], b"%d" % os.getpid())


def wait_for_word(request: Request) -> None:
    os.write(request.fds[0], b"up")
    os.read(request.fds[1], 1)


def write_how(ahead: bool, request: Request) -> None:
    """Say who carries a request out, and settle it when told to."""
    os.write(request.fds[0], b"%d %d" % (os.getpid(), ahead))
    os.read(request.fds[1], 1)
    request.settle()
    os.read(request.fds[1], 1)


def refuse(request: Request) -> None:
    raise ConflictError("it is taken")


def die(request: Request) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


_after_fork: list[Callable[[], None]] = []
os.register_at_fork(after_in_child=lambda: [call() for call in _after_fork])

OPERATIONS: Mapping[str, Operation] = {
    "ping": Operation(Kind.IMMEDIATE, lambda request: {"pid": os.getpid()}),
    "echo": Operation(Kind.CALL, lambda request: {"echo": request.document["text"], "pid": os.getpid()}),
    "refuse": Operation(Kind.CALL, refuse),
    "die": Operation(Kind.CALL, die),
    "session": Operation(Kind.SESSION, write_pid),
    "long_session": Operation(Kind.SESSION, wait_for_word),
    "job": Operation(Kind.JOB, wait_for_word),
    "prepared": Operation(
        Kind.SESSION, prepare=lambda ahead, unblock: unblock() or partial(write_how, ahead)
    ),
}

Start = Callable[..., int]


@pytest.fixture
def spec(tmp_path: Path) -> ServerSpec:
    return ServerSpec("test server", "no.module", tmp_path / "x.sock")


@pytest.fixture
def start(spec: ServerSpec, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Start servers in forked children of the test; where a client would start one, one is started so."""
    pids: list[int] = []

    def fork_server(version: str = "1", idle_seconds: float = 60.0) -> int:
        ready, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if pid == 0:
            ready.close()
            facts = {
                "socket_path": str(spec.socket_path), "lock_path": str(spec.lock_path),
                "idle_seconds": idle_seconds, "version": version,
            }  # fmt: skip
            try:
                forkserver.detach(theirs.fileno())  # above all of the lock, which the client holds
                ForkServer(OPERATIONS, facts).serve(theirs)
            finally:
                os._exit(0)
        theirs.close()
        assert messages.receive(ready) == ({"ok": True}, [])
        ready.close()
        pids.append(pid)
        return pid

    monkeypatch.setattr(server_start, "code_version", lambda: "1")
    monkeypatch.setattr(server_start, "_spawn", lambda spec, fd: _spawn_here(fork_server, fd))
    yield fork_server
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            continue


def _spawn_here(fork_server: Start, ready_fd: int) -> None:
    fork_server()
    with socket.socket(fileno=os.dup(ready_fd)) as ready:
        messages.send(ready, {"ok": True})


def ended(pid: int) -> bool:
    return os.waitpid(pid, os.WNOHANG)[0] == pid


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def ask(spec: ServerSpec, **document: Any) -> dict[str, Any] | None:
    return ask_server(spec, document)


def test_the_server_and_its_children_reply(spec: ServerSpec, start: Start) -> None:
    pid = start()
    assert ask(spec, op="ping") == {"ok": True, "pid": pid}
    reply = ask(spec, op="echo", text="x")
    assert reply is not None
    assert reply["echo"] == "x"
    assert reply["pid"] != pid
    with pytest.raises(ConflictError, match="it is taken"):
        ask(spec, op="refuse")
    with pytest.raises(InvalidError, match="unknown request"):
        ask(spec, op="nonsense")
    assert ask(spec, op="die") is None  # and the server goes on
    assert ask(spec, op="ping") == {"ok": True, "pid": pid}


def test_a_session_is_a_child_in_a_session_of_its_own(spec: ServerSpec, start: Start) -> None:
    pid = start()
    read_fd, write_fd = os.pipe()
    reply = ask_server(spec, {"op": "session"}, [write_fd])
    os.close(write_fd)
    assert reply is not None
    with open(read_fd, "rb") as stream:
        assert (
            int(stream.read()) == reply["pid"]
        )  # and its end: the server has kept no copy of the descriptor
    wait_until(lambda: not Path(f"/proc/{reply['pid']}").exists())  # no zombie is left
    assert ask(spec, op="ping") == {"ok": True, "pid": pid}


def test_it_leaves_when_idle_and_the_next_client_starts_another(spec: ServerSpec, start: Start) -> None:
    pid = start(idle_seconds=0.05)
    wait_until(lambda: ended(pid))
    assert not spec.socket_path.exists()
    reply = ask(spec, op="ping")
    assert reply is not None
    assert reply["pid"] != pid


def test_it_stays_for_a_job_and_not_for_a_session(spec: ServerSpec, start: Start) -> None:
    for operation, stays in (("job", True), ("long_session", False)):
        pid = start(idle_seconds=0.1)
        up_read, up_write = os.pipe()
        word_read, word_write = os.pipe()
        assert ask_server(spec, {"op": operation}, [up_write, word_read]) is not None
        assert os.read(up_read, 2) == b"up"
        if stays:
            time.sleep(0.3)  # the time in which it must not leave: nothing to wait for
            assert ask(spec, op="ping") == {"ok": True, "pid": pid}
            os.write(word_write, b"x")
        wait_until(lambda pid=pid: ended(pid))  # type: ignore[misc]  # a lambda's default has no type
        os.write(word_write, b"x")
        messages.close_all([up_read, up_write, word_read, word_write])


def test_another_version_takes_its_place_at_once(spec: ServerSpec, start: Start) -> None:
    old = start(version="0")
    reply = ask(spec, op="ping")
    assert reply is not None
    assert reply["pid"] != old
    wait_until(lambda: ended(old))


def test_a_client_that_says_nothing_keeps_nobody_waiting(spec: ServerSpec, start: Start) -> None:
    pid = start()
    with messages.connect(str(spec.socket_path)) as silent:
        assert ask(spec, op="ping") == {"ok": True, "pid": pid}
        silent.settimeout(20)
        assert messages.receive(silent) is None  # and in the end it is closed


def test_rubbish_is_dropped(spec: ServerSpec, start: Start) -> None:
    pid = start()
    with messages.connect(str(spec.socket_path)) as client:
        client.send(b"rubbish")
        assert messages.receive(client) is None
    assert ask(spec, op="ping") == {"ok": True, "pid": pid}


def test_sigterm_ends_it_and_frees_its_place(spec: ServerSpec, start: Start) -> None:
    pid = start()
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: ended(pid))
    assert not spec.socket_path.exists()


def test_many_clients_at_once_while_servers_leave(spec: ServerSpec, start: Start) -> None:
    """Whatever the moment, every client gets an answer, from one server at a time."""
    failures: list[BaseException] = []

    def client() -> None:
        try:
            for _ in range(20):
                reply = None
                while reply is None:  # the server left between two steps: asking again is the client's part
                    reply = ask(spec, op="echo", text="x")
                assert reply["echo"] == "x"
        except BaseException as error:  # noqa: BLE001 - carried to the test
            failures.append(error)

    first = start()
    threads = [threading.Thread(target=client) for _ in range(8)]
    for thread in threads:
        thread.start()
    os.kill(first, signal.SIGTERM)
    for thread in threads:
        thread.join()
    assert failures == []
    wait_until(lambda: ended(first))


class Prepared:
    """One request of the operation that is prepared: who carries it out, and whether that was made ahead."""

    def __init__(self, spec: ServerSpec) -> None:
        read_fd, write_fd = os.pipe()
        word_fd, self._word_fd = os.pipe()
        pipe = os.readlink(f"/proc/self/fd/{write_fd}")
        reply = ask_server(spec, {"op": "prepared"}, [write_fd, word_fd])
        pid, ahead = os.read(read_fd, 100).split()
        for fd in (read_fd, write_fd, word_fd):
            os.close(fd)
        self.pid, self.was_ahead = int(pid), ahead == b"1"
        self.copies = [*map(os.readlink, Path(f"/proc/{self.pid}/fd").iterdir())].count(pipe)
        assert reply == {"ok": True, "pid": self.pid}

    def settle(self) -> None:
        os.write(self._word_fd, b"x")

    def end(self) -> None:
        os.close(self._word_fd)
        wait_until(lambda: not Path(f"/proc/{self.pid}").exists() or is_zombie(self.pid))


def children(pid: int) -> list[int]:
    """The server's children except the oldest, from which its spares are forked."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found[1:] if not is_zombie(int(child))]


def is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_a_spare_waits_and_is_replaced_when_its_request_is_settled(spec: ServerSpec, start: Start) -> None:
    server = start()
    wait_until(lambda: len(children(server)) == 1)
    (spare,) = children(server)
    first = Prepared(spec)
    assert (first.pid, first.was_ahead) == (spare, True)
    assert children(server) == [spare], "no other is made while somebody waits for the first"
    second = Prepared(spec)  # so it is forked for the request
    assert not second.was_ahead
    assert (first.copies, second.copies) == (1, 1), "a peer sees the end when a request closes its descriptor"
    first.settle()
    assert not Prepared(spec).was_ahead, "the second one is not settled"
    second.settle()
    first.end()
    second.end()


def test_a_spare_that_was_killed_is_replaced(spec: ServerSpec, start: Start) -> None:
    server = start()
    wait_until(lambda: len(children(server)) == 1)
    (spare,) = children(server)
    os.kill(spare, signal.SIGKILL)
    wait_until(lambda: children(server) == [])
    request = Prepared(spec)
    assert request.pid != spare
    request.settle()
    wait_until(lambda: len(children(server)) == 2)
    request.end()


def test_a_killed_template_is_replaced(spec: ServerSpec, start: Start) -> None:
    server = start()
    wait_until(lambda: len(children(server)) == 1)
    template = int(Path(f"/proc/{server}/task/{server}/children").read_text().split()[0])
    os.kill(template, signal.SIGKILL)
    wait_until(lambda: is_zombie(template))
    first = Prepared(spec)  # the spare, unless the template was killed before it had told the server
    second = Prepared(spec)
    assert not second.was_ahead
    assert second.copies == 1, "the new template has no descriptor of the request"
    first.settle()
    second.settle()
    first.end()
    second.end()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_spare_ends_with_its_server_and_a_request_does_not(
    spec: ServerSpec, start: Start, number: signal.Signals
) -> None:
    server = start()
    wait_until(lambda: len(children(server)) == 1)
    request = Prepared(spec)
    request.settle()
    wait_until(lambda: len(children(server)) == 2)
    (spare,) = set(children(server)) - {request.pid}
    os.kill(server, number)
    wait_until(lambda: ended(server))
    wait_until(lambda: is_zombie(spare))
    assert not is_zombie(request.pid)
    request.end()


def test_a_server_of_other_code_gives_up_its_spare(spec: ServerSpec, start: Start) -> None:
    server = start(version="2")
    wait_until(lambda: len(children(server)) == 1)
    (spare,) = children(server)
    request = Prepared(spec)
    assert request.pid != spare
    wait_until(lambda: is_zombie(spare))
    request.end()


def test_a_signal_that_comes_right_after_the_fork_is_not_lost(
    spec: ServerSpec, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupt of a program whose command was just being forked had no effect."""
    test = os.getpid()

    def interrupt_children_of_the_server() -> None:
        if os.getppid() != test:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(sys.modules[__name__], "_after_fork", [interrupt_children_of_the_server])
    start()
    out_fd, in_fd = os.pipe()
    word_fd, give_fd = os.pipe()
    ask_server(spec, {"op": "job"}, [in_fd, word_fd])
    messages.close_all([in_fd, word_fd])
    assert os.read(out_fd, 10) != b"up"
    messages.close_all([out_fd, give_fd])


def test_a_missing_directory_is_told(tmp_path: Path, start: Start) -> None:
    from pydock_core.errors import NotFoundError

    with pytest.raises(NotFoundError, match="is missing"):
        ask(ServerSpec("test server", "no.module", tmp_path / "none" / "x.sock"), op="ping")


def test_the_version_is_of_this_code() -> None:
    assert server_start.code_version() == server_start.code_version()
    assert len(server_start.code_version()) == 16


SERVED = """
import importlib, sys
from pydock_core.store.worker import ALLOWED_FUNCTIONS
from pydock_core.supervision.supervisor_process import preload
preload()
names = ["pydock_core.network.service", "pydock_core.network.bridge", "pydock_core.network.firewall"]
names += ["pydock_core.supervision.worker_process", "pydock_core.runtime.command_executor"]
for name in [*names, *(function.partition(":")[0] for function in ALLOWED_FUNCTIONS)]:
    importlib.import_module(name)
print(*{module.__file__ for name, module in sys.modules.items() if name.split(".")[0] == "pydock_core"}, sep="\\n")
"""


def test_the_version_sees_every_package_that_a_server_executes() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SERVED], capture_output=True, text=True, check=True, cwd=Path.cwd()
    )
    package = Path(server_start.__file__).parent.parent
    executed = {str(Path(file).parent.relative_to(package)) for file in done.stdout.splitlines()}
    assert executed <= {".", *server_start._SERVED_PACKAGES}
