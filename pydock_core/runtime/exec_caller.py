"""The caller's side of :mod:`pydock_core.runtime.exec_process`: forks the joiner and reads its reports.

Every wait has a time limit, because a container may freeze its control group or stop the process, and the caller is a
supervisor with other clients.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydock_core import messages, syscalls
from pydock_core.errors import FailedError, PyDockError
from pydock_core.runtime import exec_report
from pydock_core.runtime.exec_process import ExecContext, read_pid, run_joiner
from pydock_core.runtime.executor import CreatedProcess, Stdio
from pydock_core.runtime.process_setup import ProcessPlan


@dataclass(frozen=True, slots=True)
class ExecTarget:
    """The container's namespaces and control group, which the process joins.

    Attributes:
        init_pidfd, namespaces, cgroup_entrances, uid_mappings: as in :class:`ExecContext`.
        patience_seconds: the time limit until the process executes its program.
        kill: kills these pids, children of the caller, even in a frozen control group, and reaps those that no tracer
            holds.
    """

    init_pidfd: int
    namespaces: int
    cgroup_entrances: Sequence[int]
    uid_mappings: Sequence[Mapping[str, Any]]
    patience_seconds: float
    kill: Callable[[Sequence[int]], None]


def execute(
    target: ExecTarget, plan: ProcessPlan, stdio: Stdio | None, *, die_with_caller: bool
) -> CreatedProcess:
    """Run an additional process in a container; return when it executes its program.

    Raises:
        PyDockError: it did not execute its program, and is gone.
    """
    link, joiner_link = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    report_fd, joiner_report_fd = os.pipe2(os.O_CLOEXEC)
    parent_pidfd = os.pidfd_open(os.getpid()) if die_with_caller else -1
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, report_fd)
        child_pid = stack.enter_context(mmap.mmap(-1, mmap.PAGESIZE))
        stack.enter_context(link)
        try:
            context = ExecContext(
                process=plan,
                link=joiner_link,
                report_fd=joiner_report_fd,
                child_pid=child_pid,
                init_pidfd=target.init_pidfd,
                namespaces=target.namespaces,
                cgroup_entrances=target.cgroup_entrances,
                uid_mappings=target.uid_mappings,
                parent_pidfd=parent_pidfd,
                stdio=stdio,
            )
            with _undumpable():
                joiner = os.fork()
                if joiner == 0:
                    run_joiner(context)
        finally:
            joiner_link.close()
            messages.close_all([joiner_report_fd, *([parent_pidfd] if parent_pidfd >= 0 else [])])
        return _follow(target, joiner, child_pid, link, report_fd)


@contextlib.contextmanager
def _undumpable() -> Iterator[None]:
    """Make children undumpable from their first instant: with the host's PID namespace, the container sees them."""
    dumpable = syscalls.prctl(syscalls.PR_GET_DUMPABLE)
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    try:
        yield
    finally:
        if dumpable == 1:
            syscalls.prctl(syscalls.PR_SET_DUMPABLE, 1)


def _follow(
    target: ExecTarget, joiner: int, child_pid: mmap.mmap, link: socket.socket, report_fd: int
) -> CreatedProcess:
    deadline = time.monotonic() + target.patience_seconds
    console_fd: int | None = None
    left = [joiner]
    try:
        console_fd = _read_link(link, deadline)
        report = read_report(report_fd, deadline)
        if report:
            raise exec_report.parse(report)
        if target.namespaces & syscalls.CLONE_NEWPID:
            # It has closed the pipe, so it ends at once.  It is in the host's PID namespace, out of reach of the
            # container's tracers, so neither a signal nor a freezer can delay it.
            os.waitpid(joiner, 0)
            left = [pid] if (pid := read_pid(child_pid)) else []
        if not left:
            raise FailedError(
                "the process that was to enter the container has ended",
                "a seccomp profile must allow what exec needs of the kernel: clone, setsid and prctl among them",
            )
    except BaseException as error:
        messages.close_all([] if console_fd is None else [console_fd])
        try:
            target.kill([*left, *([pid] if (pid := read_pid(child_pid)) and pid not in left else [])])
        except (PyDockError, OSError) as failure:
            error.add_note(f"and the clean-up failed: {failure}")
        raise
    return CreatedProcess(left[0], console_fd)


def _read_link(link: socket.socket, deadline: float) -> int | None:
    """Read until the joiner has joined; return the received terminal, or raise the received error."""
    console_fd: int | None = None
    while True:
        try:
            _wait_for(link.fileno(), deadline)
            received = messages.receive(link)
            if received is None:
                return console_fd
            document, fds = received
            console_fd = fds[0] if fds else console_fd
            messages.checked(document)
        except ConnectionResetError:
            return console_fd  # it was killed
        except BaseException:
            messages.close_all([] if console_fd is None else [console_fd])
            raise


def read_report(report_fd: int, deadline: float) -> bytes:
    """Read until the program is executed or the process has ended, at most the size of a report."""
    report = b""
    while len(report) <= exec_report.REPORT_BYTES:
        _wait_for(report_fd, deadline)
        piece = os.read(report_fd, exec_report.REPORT_BYTES + 1)
        if not piece:
            break
        report += piece
    return report


def _wait_for(descriptor: int, deadline: float) -> None:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        raise FailedError(
            "the process did not start its program in time",
            "the container may have frozen its control group, or stopped the process",
        )
