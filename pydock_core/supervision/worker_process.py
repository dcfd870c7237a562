"""Runs one storage job in a process; the zygote's half of :class:`pydock_core.supervision.client.ZygoteWorker`."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import socket
import traceback
from collections.abc import Mapping
from typing import Any

from pydock_core import messages
from pydock_core.errors import FailedError, PyDockError


def run(document: Mapping[str, Any], fds: list[int]) -> None:
    """Perform the job of a "work" request; its first descriptor is the status socket, the others are the
    job's.

    The process ends as soon as its client has closed the status socket, or died: nobody else would stop a job that
    fills the disk.  A half-done job leaves a workspace or a trash directory, which the next command sweeps.
    """
    from pydock_core.store.worker import perform  # late: only workers need the store

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    status = socket.socket(fileno=fds.pop(0))
    end_with_peer(status)

    def tell(message: Mapping[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            messages.send(status, message)

    try:
        result = perform(
            str(document["function"]),
            document["arguments"],
            fds,
            lambda progress: tell({"event": "progress", "progress": progress}),
        )
        tell({"event": "done", "result": result})
    except PyDockError as error:
        tell({"event": "failed", "error": error.to_json()})
    except Exception as error:  # noqa: BLE001 - the seam: whatever a job raises reaches its caller as our error
        traceback.print_exc()
        wrapped = FailedError(f"{document['function']} failed: {type(error).__name__}: {error}")
        tell({"event": "failed", "error": wrapped.to_json()})


def end_with_peer(status: socket.socket) -> None:
    """Have this process end when the other end of a socket is closed, in whatever loop it is then.

    The kernel sends SIGIO when the state of the socket changes (fcntl(2), O_ASYNC; socket(7)); system calls that wait,
    or write without end, are interrupted.  A thread that waits would do as well, but setns(2) refuses to join a mount
    namespace from a process with threads.
    """
    hangup = select.poll()
    hangup.register(status, 0)  # POLLHUP is always reported

    def look(*_: object) -> None:
        if hangup.poll(0):
            os._exit(1)

    signal.signal(signal.SIGIO, look)
    fcntl.fcntl(status, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(status, fcntl.F_SETFL, fcntl.fcntl(status, fcntl.F_GETFL) | os.O_ASYNC)
    look()  # it may have been closed before
