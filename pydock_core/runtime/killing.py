"""Kills a container's processes, though they are frozen or held by a tracer, within a bounded time."""

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
    """Kill a process of a container and wait until it runs no more; reaping is its parent's business.

    An init waits for every process of its PID namespace to be reaped.  Those that ``execute`` made are children
    of this process, whose caller reaps them after this: where they are all that is left, init is as good as dead.
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
                f"a process of the container does not die within {_DEATH_TIMEOUT_SECONDS:.0f} seconds"
            )


GONE, ENDED, RUNNING = range(3)


def child_state(pid: int) -> int:
    """Say whether a child of this process has been reaped, waits for that, or runs."""
    try:
        found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return GONE
    return RUNNING if found is None else ENDED


def kill_and_reap(pids: Iterable[int], group: ContainerCgroup | None, left: set[int] | None = None) -> None:
    """Kill children of this process and reap them, though they be frozen in a control group.

    Args:
        left: takes the pid of a child that has ended but that its tracer holds: the caller reaps it later, as it
            reaps every process that ``execute`` made.
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
