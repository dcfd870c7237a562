"""Runs one storage job in a process; the zygote's half of :class:`pydock_core.supervision.client.Zygote`."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import socket
import traceback
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydock_core import messages
from pydock_core.errors import FailedError, PyDockError

if TYPE_CHECKING:
    from pydock_core.supervision.protocol import WorkerEvent


def run(document: Mapping[str, Any], fds: list[int]) -> None:
    """Perform the job of a "work" request.

    The process ends as soon as its client closes the status socket or dies: nothing else would stop a job that fills the
    disk.  An unfinished job leaves a workspace or a trash directory, which the next command sweeps.

    Args:
        document: a :class:`pydock_core.supervision.protocol.WorkRequest`.
        fds: the status socket, then the job's descriptors.
    """
    from pydock_core.store.worker import perform  # late: only workers need the store

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    status = socket.socket(fileno=fds.pop(0))
    end_with_peer(status)

    def tell(event: WorkerEvent) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            messages.send(status, event)

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
    except Exception as error:  # noqa: BLE001 - the seam: every error of a job becomes a PyDockError
        traceback.print_exc()
        wrapped = FailedError(f"{document['function']} failed: {type(error).__name__}: {error}")
        tell({"event": "failed", "error": wrapped.to_json()})


def end_with_peer(status: socket.socket) -> None:
    """End this process when the other end of a socket is closed, also in the middle of a system call.

    The kernel sends SIGIO when the state of the socket changes (fcntl(2), O_ASYNC; socket(7)), which interrupts blocking
    system calls.  A waiting thread would be simpler, but setns(2) refuses to move a process with threads into a mount
    namespace.
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
