"""The process from which a fork server forks its spares.

A page is private to a process as soon as every process that shared it has changed its own copy.  So each page that the server
changes while it serves would cost every earlier child one page.  This process only receives descriptors and forks.
"""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Callable
from typing import NoReturn

from pydock_core import syscalls

_AHEAD = b"ahead"
_NOW = b"now"
_REPLY_BYTES = 32
_ANCILLARY_BYTES = socket.CMSG_SPACE(4)

RunSpare = Callable[[int, bool], NoReturn]
"""Runs in a spare, with all signals blocked; the arguments are the descriptor of its connection, and whether it is forked
before any request."""


class Template:
    """The server's side.  The process ends with the connection, and so with the server, even if the server is killed.

    Args:
        link: a connection to the process.
    """

    def __init__(self, link: socket.socket) -> None:
        self._link = link

    @classmethod
    def fork(cls, fork: Callable[[], int], shed: Callable[[], None], run_spare: RunSpare) -> Template:
        """Fork the process.

        Args:
            fork: forks, with all signals blocked in the child.
            shed: resets signal handlers and closes the server's descriptors in the child.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if fork() == 0:
            try:
                ours.close()
                shed()
                syscalls.close_except(theirs.fileno())  # of the request at hand
                _run(theirs, run_spare)
            finally:
                os._exit(0)
        theirs.close()
        return cls(ours)

    def fork_spare(self, link: socket.socket, *, ahead: bool) -> int:
        """Fork a spare as a child of the server; return its pid.

        Args:
            link: its connection, of which it receives a copy.

        Raises:
            EOFError: the process was killed.
            OSError: the fork failed.
        """
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [link.fileno()]))
        try:
            self._link.sendmsg([_AHEAD if ahead else _NOW], [rights], socket.MSG_NOSIGNAL)
            reply = self._link.recv(_REPLY_BYTES)
        except ConnectionError as error:
            raise EOFError from error
        if not reply:
            raise EOFError
        pid = int(reply)
        if pid < 0:
            raise OSError(-pid, os.strerror(-pid))
        return pid

    def close(self) -> None:
        """Let the process end."""
        self._link.close()


def _run(link: socket.socket, run_spare: RunSpare) -> None:
    while True:
        kind, ancillary, _, _ = link.recvmsg(_REPLY_BYTES, _ANCILLARY_BYTES, socket.MSG_CMSG_CLOEXEC)
        if not kind:
            return
        spare_fd = memoryview(ancillary[0][2]).cast("i")[0]
        try:
            pid = syscalls.fork(syscalls.CLONE_PARENT)
        except OSError as error:
            pid = -(error.errno or 1)
        if pid == 0:
            link.close()
            run_spare(spare_fd, kind == _AHEAD)
        os.close(spare_fd)
        link.send(b"%d" % pid)
