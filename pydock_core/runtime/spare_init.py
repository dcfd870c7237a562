"""A pre-forked init, which waits for a container in a PID namespace of its own.

It has done the steps that do not depend on the bundle (parent-death signal, undumpable, its own session, default signals),
and has copied the pages that it will need.  It holds only one end of a connection and a descriptor of its parent, both
close-on-exec, so nothing of it remains after execve(2).
"""

from __future__ import annotations

import _pickle
import array
import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress

from pydock_core import syscalls
from pydock_core.messages import PACKET_BYTES
from pydock_core.runtime.executor import Stdio
from pydock_core.runtime.init_process import InitContext, InitTask, Received, run_waiting_init

_UNFIT = frozenset({"user", "time"})


class SpareInit:
    """The caller's side of a spare init.

    Attributes:
        pid: its pid, in the namespace of the caller's parent.
        link: the connection to it.
        parent_pidfd: of its parent, with which it dies.
    """

    def __init__(self, pid: int, link: socket.socket, parent_pidfd: int) -> None:
        self.pid = pid
        self.link = link
        self.parent_pidfd = parent_pidfd

    @classmethod
    def fork(cls, parent_pidfd: int, rehearse: Callable[[], None] | None) -> SpareInit:
        """Fork a spare init as a child of the caller's parent.

        Args:
            parent_pidfd: of that parent.
            rehearse: called in the spare init (:mod:`pydock_core.runtime.rehearsal`).
        """
        link, child_link = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = syscalls.fork(syscalls.CLONE_NEWPID | syscalls.CLONE_PARENT)
        if pid == 0:
            link.close()

            def receive(link: socket.socket) -> Received | None:
                if rehearse is not None:
                    rehearse()
                return _receive(link)

            run_waiting_init(InitContext(child_link, parent_pidfd), receive)
        child_link.close()
        return cls(pid, link, parent_pidfd)

    def take(self, task: InitTask, listener: socket.socket, stdio: Stdio | None) -> bool:
        """Use the spare as the init of a container; return False if it does not fit.

        It does not fit a container with a user namespace (which must own the PID namespace), with a time namespace (which
        needs another fork), or with a shared PID namespace.
        """
        namespaces = task.plan.namespaces
        if "pid" not in namespaces.new or any(namespaces.has(kind) for kind in _UNFIT):
            return False
        payload = _pickle.dumps((task, stdio is not None), 5)
        if len(payload) > PACKET_BYTES:
            return False
        fds = [listener.fileno()]
        if stdio is not None:
            fds += [stdio.stdin_fd, stdio.stdout_fd, stdio.stderr_fd]
        try:
            self.link.sendmsg([payload], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])
        except OSError:
            return False  # it was killed
        return True

    def discard(self) -> None:
        """End the spare; its parent reaps it."""
        self.link.close()
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


def _receive(link: socket.socket) -> Received | None:
    """Wait for a task; return None if the connection ends."""
    payload, fds, _, _ = socket.recv_fds(link, PACKET_BYTES + 1, 4, socket.MSG_CMSG_CLOEXEC)
    if not payload:
        return None
    task, has_streams = _pickle.loads(payload)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fileno=fds[0])
    return task, listener, Stdio(*fds[1:4]) if has_streams else None
