"""Reaps children that a tracer may hold, with a time limit on every wait.

A child that has ended under a tracer is a zombie that only the tracer can wait for.  The parent's wait4(2) does not
find it until the tracer has waited for it, detached or ended (wait_consider_task() in the kernel's kernel/exit.c).
A pidfd of it is readable nevertheless.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal


def has_ended(pid: int, seconds: float) -> bool:
    """Wait for a child's end, at most ``seconds``; return whether it has ended (a reaped one has)."""
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
    """Kill a child and reap it, waiting at most ``seconds``; return whether it is gone.

    A remaining child must be reaped later with ``waitpid(-1, WNOHANG)``, as the event loop does.
    """
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    return has_ended(pid, seconds) and reap(pid)


def read_status(pid: int) -> int | None:
    """Return the wait status of a process that has ended and was not reaped; None if it cannot be read.

    It is the last field of /proc/PID/stat (proc_pid_stat(5)).  The kernel hides it (0) from a process that may not trace
    that one; such a process cannot read its namespace links either (namespaces(7)).
    """
    try:
        os.readlink(f"/proc/{pid}/ns/user")
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rsplit(b" ", 1)[1])
    except (OSError, IndexError, ValueError):
        return None


def read_held_status(pid: int) -> int:
    """Return the wait status of a child that has ended under a tracer; SIGKILL's if it cannot be read."""
    status = read_status(pid)
    return signal.SIGKILL if status is None else status
