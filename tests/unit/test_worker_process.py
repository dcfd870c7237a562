"""A worker ends with its client, whatever it is doing then."""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from pydock_core import messages
from pydock_core.store import worker
from pydock_core.store.tar_writer import TarWriter, write_all
from pydock_core.supervision import worker_process

HOLE_BYTES = 1 << 44


def write_a_hole() -> None:
    hole_fd = os.memfd_create("hole")
    os.ftruncate(hole_fd, HOLE_BYTES)
    null_fd = os.open("/dev/null", os.O_WRONLY)
    TarWriter(lambda data: write_all(null_fd, data), null_fd).copy(hole_fd, HOLE_BYTES)


def fill_a_pipe() -> None:
    _, write_fd = os.pipe()
    write_all(write_fd, bytes(1 << 22))


def compute() -> None:
    while True:
        sum(range(1000))


def wait_for_a_thread() -> None:
    thread = threading.Thread(target=threading.Event().wait, daemon=True)
    thread.start()
    thread.join()


JOBS: Sequence[Callable[[], None]] = (write_a_hole, fill_a_pipe, compute, wait_for_a_thread)


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("before", [True, False])
def test_a_worker_ends_with_its_client(
    monkeypatch: pytest.MonkeyPatch, job: Callable[[], None], before: bool
) -> None:
    def perform(
        function: str, arguments: object, fds: object, progress: Callable[[dict[str, Any]], None]
    ) -> None:
        for number in range(300):  # what the client reads must not pass for its end
            progress({"current": number})
        job()

    monkeypatch.setattr(worker, "perform", perform)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if before:
        ours.close()
    pid = os.fork()
    if pid == 0:
        try:
            ours.close()
            worker_process.run({"function": "x", "arguments": {}}, [theirs.detach()])
        finally:
            os._exit(0)
    theirs.close()
    pidfd = os.pidfd_open(pid)
    try:
        if not before:
            for number in range(300):
                message = messages.receive(ours)
                assert message is not None
                assert message[0]["progress"] == {"current": number}
            assert not select.select([pidfd], [], [], 0)[0]
            ours.close()
        assert select.select([pidfd], [], [], 10)[0], "the worker goes on without its client"
    finally:
        os.kill(pid, signal.SIGKILL)
        os.close(pidfd)
        os.waitpid(pid, 0)
