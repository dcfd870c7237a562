"""Kills a container's processes within a bounded time, even if they are frozen or held by a tracer."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Collection, Iterable

from pydock_core.errors import FailedError
from pydock_core.runtime import reaping
from pydock_core.runtime.cgroups import ContainerCgroup

_DEATH_TIMEOUT_SECONDS = 10.0
_DEATH_POLL_MS = 5


def kill_and_wait(pidfd: int, group: ContainerCgroup | None, executed: Collection[int] = ()) -> None:
    """Kill a process of a container and wait until it has ended; its parent reaps it.

    An init waits until every process of its PID namespace has been reaped.  The exec processes are children of this
    process, and the caller reaps them afterwards, so an init that only waits for them counts as ended.
    """
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    deadline = time.monotonic() + _DEATH_TIMEOUT_SECONDS
    while not poll.poll(_DEATH_POLL_MS):
        states = {child_state(pid) for pid in executed}
        if ENDED in states and RUNNING not in states:
            return
        if group is not None:
            group.thaw()  # each time: the container's processes may freeze one another while they die
        if time.monotonic() > deadline:
            raise FailedError(
                f"a process of the container did not end within {_DEATH_TIMEOUT_SECONDS:.0f} seconds"
            )


GONE, ENDED, RUNNING = range(3)


def child_state(pid: int) -> int:
    """Return whether a child of this process has been reaped, is a zombie, or runs."""
    try:
        found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return GONE
    return RUNNING if found is None else ENDED


def kill_and_reap(pids: Iterable[int], group: ContainerCgroup | None, left: set[int] | None = None) -> None:
    """Kill children of this process and reap them, even in a frozen control group.

    Args:
        left: receives the pid of a child that has ended but is held by its tracer: the caller reaps it later, like every
            exec process.
    """
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            pidfd = os.pidfd_open(pid)
            try:
                kill_and_wait(pidfd, group)
            finally:
                os.close(pidfd)
            if not reaping.reap(pid) and left is not None:
                left.add(pid)
