"""Reaps children that a tracer may hold, with a time limit on every wait.

A child that has ended under a tracer is a zombie that only the tracer can wait for.  wait4(2) of the parent does not
find it before the tracer has waited for it, let go of it or ended (wait_consider_task() in the kernel's kernel/exit.c).
A pidfd is readable all the same.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal


def has_ended(pid: int, seconds: float) -> bool:
    """Wait until a child has ended, but no longer than that; one that has been reaped has ended."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        return bool(poll.poll(seconds * 1000))
    finally:
        os.close(pidfd)


def reap(pid: int) -> bool:
    """Reap a child if it can be reaped now; return whether it is gone."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return True


def kill_and_reap(pid: int, seconds: float) -> bool:
    """Kill a child and reap it, but wait no longer than that; return whether it is gone.

    A child that is left has to be reaped later with ``waitpid(-1, WNOHANG)``, as the event loop does.
    """
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    return has_ended(pid, seconds) and reap(pid)


def read_held_status(pid: int) -> int:
    """Return the wait status of a child that has ended under a tracer; that of SIGKILL if the kernel does not tell.

    It is the last field of /proc/PID/stat (proc_pid_stat(5)).  The kernel shows 0 there to a process that may not trace
    the child; such a process cannot read the child's links of namespaces either (namespaces(7)).
    """
    try:
        os.readlink(f"/proc/{pid}/ns/user")
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rsplit(b" ", 1)[1])
    except (OSError, IndexError, ValueError):
        return signal.SIGKILL
