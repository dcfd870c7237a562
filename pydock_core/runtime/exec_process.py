"""The role of an additional process in a running container: from the fork to execve(2).

A container's processes see a process in their /proc as soon as it is in their PID namespace, and with CAP_SYS_PTRACE
they can open its root and its descriptors, or trace it.  A process that joins a PID namespace stays outside; its children
are inside.  So there are two processes:

1. the *joiner*, in the caller's PID namespace, invisible to containers.  It enters the control group, joins every
   namespace, makes the terminal, sets the limits, identity, capabilities and seccomp filter, and closes all
   descriptors except the standard streams and the report pipe;
2. its child, which inherits all of that, leads a session and executes the program.  CLONE_PARENT makes it a child
   of the caller.

The only descriptor of the host in the child is the write end of the report pipe, and
:mod:`pydock_core.runtime.exec_caller` treats its contents as hostile.  If a container shares the caller's PID namespace,
one process does both.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import select
import socket
import termios
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

from pydock_core import messages, syscalls
from pydock_core.errors import ConflictError, FailedError, PyDockError
from pydock_core.runtime import exec_report
from pydock_core.runtime.cgroups.group import enter
from pydock_core.runtime.console import open_console
from pydock_core.runtime.executor import Stdio
from pydock_core.runtime.init_process import (
    FAILURE,
    become_process,
    begin_process,
    give_stdio_to_mapped,
    guard_role,
    new_keyring,
    run_program,
    take_stdio,
)
from pydock_core.runtime.namespaces import become_root
from pydock_core.runtime.process_setup import ProcessPlan, die_with_parent, set_oom_score_adj, set_rlimits


@dataclass(frozen=True, slots=True)
class ExecContext:
    """The state that the joiner inherits from the caller.

    Attributes:
        link: connection to the caller; it ends when the joiner has joined.
        report_fd: write end of the pipe for later errors (:mod:`pydock_core.runtime.exec_report`); its end without an
            error means that execve(2) succeeded.
        child_pid: shared with the caller; the joiner writes the pid of its child there (see :func:`write_pid`).
        init_pidfd: of the container's init, whose namespaces are joined.
        namespaces: CLONE_NEW* bits of the namespaces to join.
        cgroup_entrances: see :func:`pydock_core.runtime.cgroups.group.enter`.
        uid_mappings: of the container's user namespace; empty if it has none of its own.
        parent_pidfd, stdio: as in :class:`pydock_core.runtime.init_process.InitContext`.
    """

    process: ProcessPlan
    link: socket.socket
    report_fd: int
    child_pid: mmap.mmap
    init_pidfd: int
    namespaces: int
    cgroup_entrances: Sequence[int]
    uid_mappings: Sequence[Mapping[str, Any]]
    parent_pidfd: int
    stdio: Stdio | None


def run_joiner(context: ExecContext) -> NoReturn:
    """Run the joiner, in a process that the caller has just forked; never return."""
    guard_role(partial(messages.send_error, context.link), lambda: _join_and_fork(context))


def write_pid(shared: mmap.mmap, pid: int) -> None:
    """Write a pid for :func:`read_pid`."""
    shared[:4] = pid.to_bytes(4, "little")


def read_pid(shared: mmap.mmap) -> int:
    """Return the pid that was written; 0 if there is none."""
    return int.from_bytes(shared[:4], "little")


def _join_and_fork(context: ExecContext) -> None:
    # The child must not be able to change the pid that the caller reads.
    context.child_pid.madvise(mmap.MADV_DONTFORK)
    has_entered = _join(context)
    # From here on the link is closed, and an error goes to the report pipe.
    guard_role(partial(exec_report.send, context.report_fd), lambda: _fork_inside(context, has_entered))


def _join(context: ExecContext) -> bool:
    """Set up everything except the PID namespace; return the result of :func:`become_process`."""
    process = context.process
    begin_process(context.parent_pidfd)
    take_stdio(context.stdio)
    set_rlimits(process)
    set_oom_score_adj(process)
    new_keyring()
    if context.uid_mappings:
        give_stdio_to_mapped(process, context.uid_mappings)
    # Before it can act in the container.
    enter(context.cgroup_entrances)
    try:
        syscalls.setns(context.init_pidfd, context.namespaces)
    except OSError as error:
        if error.errno == errno.ESRCH:
            raise ConflictError("the container has just ended") from None
        raise FailedError(f"cannot join the container's namespaces: {error.strerror}") from error
    if context.namespaces & syscalls.CLONE_NEWUSER:
        become_root()
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
        if context.parent_pidfd >= 0:
            die_with_parent(context.parent_pidfd)
    if process.terminal:
        root_fd = os.open("/", syscalls.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        master_fd, slave_fd = open_console(root_fd, process.console_size)
        messages.send(context.link, {"ok": True, "event": "console"}, [master_fd])
        for descriptor in (0, 1, 2):
            os.dup2(slave_fd, descriptor)
    return become_process(process, context.parent_pidfd)


def _fork_inside(context: ExecContext, has_entered: bool) -> None:
    syscalls.close_except(context.report_fd)
    if not context.namespaces & syscalls.CLONE_NEWPID:
        _run(context, has_entered)
    try:
        pid = syscalls.fork(syscalls.CLONE_PARENT)
    except OSError as error:
        raise _explain_fork(error) from error
    if pid:
        write_pid(context.child_pid, pid)
        os._exit(0)
    os.setsid()
    if context.parent_pidfd >= 0:
        _die_with_reader(context.report_fd)
    _run(context, has_entered)


def _run(context: ExecContext, has_entered: bool) -> NoReturn:
    if context.process.terminal:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    run_program(context.process, has_entered=has_entered)


def _die_with_reader(report_fd: int) -> None:
    """Have the kernel kill this process when its parent ends; end now if the parent, the pipe's reader, has ended.

    A pidfd of the parent would serve too, but the container could take it over (pidfd_getfd(2)).
    """
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, 9)
    poll = select.poll()
    poll.register(report_fd, 0)  # POLLERR, "the read end has been closed", is always reported: poll(2)
    if poll.poll(0):
        os._exit(FAILURE)


def _explain_fork(error: OSError) -> PyDockError:
    if error.errno == errno.ENOMEM:
        # The PID namespace accepts no more processes, because its init has ended.
        return ConflictError("the container has just ended")
    hint = {
        errno.EAGAIN: "the container has as many processes as its limit allows; end one, or raise --pids-limit",
        errno.EPERM: "the container's seccomp profile refuses clone(2), which exec needs",
    }.get(error.errno or 0, "")
    return FailedError(f"the container takes no further process: {error.strerror}", hint)
