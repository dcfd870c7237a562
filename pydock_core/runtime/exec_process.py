"""The role of a further process in a running container: from the fork to execve(2).

A PID namespace is joined by the children of whoever joins it, so a process stands in between for a moment: it
joins, forks with CLONE_PARENT, which makes the new process a child of the caller, and ends.  Both are not
dumpable from before the first fork on: the container's processes see the second, and must reach neither its
memory nor, through /proc/PID/exe, the interpreter's file.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from pydock_core import syscalls
from pydock_core.errors import ConflictError, FailedError
from pydock_core.runtime import messages
from pydock_core.runtime.cgroups.group import enter
from pydock_core.runtime.console import make_controlling, open_console
from pydock_core.runtime.executor import Stdio
from pydock_core.runtime.init_process import (
    begin_process,
    finish_process,
    give_stdio_to_mapped,
    guard_role,
    new_keyring,
)
from pydock_core.runtime.process_setup import ProcessPlan, die_with_parent, set_oom_score_adj, set_rlimits


@dataclass(frozen=True, slots=True)
class ExecContext:
    """What the process inherits from the caller.

    Attributes:
        link: connection to the caller; its end without an error means that execve(2) succeeded.
        pid_write_fd: takes the pid of the new process, in decimal, from the process in between.
        init_pidfd: of the container's init, whose namespaces are joined.
        namespaces: CLONE_NEW* bits of the namespaces to join, without the PID namespace.
        cgroup_entrances: see :func:`pydock_core.runtime.cgroups.group.enter`.
        uid_mappings: of the container's user namespace; empty where it has none of its own.
        parent_pidfd, stdio: as in :class:`pydock_core.runtime.init_process.InitContext`.
    """

    process: ProcessPlan
    link: socket.socket
    pid_write_fd: int
    init_pidfd: int
    namespaces: int
    cgroup_entrances: Sequence[int]
    uid_mappings: Sequence[Mapping[str, Any]]
    parent_pidfd: int
    stdio: Stdio | None


def run_between(context: ExecContext) -> NoReturn:
    """Join the container's PID namespace, fork :func:`run_exec` into it, tell its pid; never returns."""
    guard_role(context.link, lambda: _fork_inside(context))


def _fork_inside(context: ExecContext) -> None:
    try:
        syscalls.setns(context.init_pidfd, syscalls.CLONE_NEWPID)
        pid = syscalls.fork(syscalls.CLONE_PARENT)
    except OSError as error:
        # ESRCH: init has ended; ENOMEM: its PID namespace takes no more processes, for the same reason.
        if error.errno in (errno.ESRCH, errno.ENOMEM):
            raise ConflictError("the container has just ended") from None
        raise FailedError(f"the container's PID namespace cannot be joined: {error.strerror}") from error
    if pid == 0:
        run_exec(context)
    os.write(context.pid_write_fd, str(pid).encode())
    os._exit(0)


def run_exec(context: ExecContext) -> NoReturn:
    """Be a further process of a container; never returns.  It has just been forked."""
    guard_role(context.link, lambda: _run(context))


def _run(context: ExecContext) -> None:
    process = context.process
    os.close(context.pid_write_fd)
    begin_process(context.parent_pidfd, context.stdio)
    set_rlimits(process)
    set_oom_score_adj(process)
    new_keyring()
    if context.uid_mappings:
        give_stdio_to_mapped(process, context.uid_mappings)
    # Before it can do anything in the container.
    enter(context.cgroup_entrances)
    messages.close_all(context.cgroup_entrances)
    try:
        syscalls.setns(context.init_pidfd, context.namespaces)
    except OSError as error:
        raise FailedError(f"the container's namespaces cannot be joined: {error.strerror}") from error
    if context.namespaces & syscalls.CLONE_NEWUSER:
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
        if context.parent_pidfd >= 0:
            die_with_parent(context.parent_pidfd)
    if process.terminal:
        root_fd = os.open("/", syscalls.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        master_fd, slave_fd = open_console(root_fd, process.console_size)
        messages.send(context.link, {"ok": True, "event": "console"}, [master_fd])
        os.close(master_fd)
        make_controlling(slave_fd)
    finish_process(process, context.parent_pidfd)
