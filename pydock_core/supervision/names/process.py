"""The process of a container's name server; it dies with its supervisor."""

from __future__ import annotations

import os
import resource
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from pydock_core import syscalls
from pydock_core.supervision.event_loop import EventLoop
from pydock_core.supervision.names.server import Directory, NameServer

_STDERR = 2
_MOST_DESCRIPTORS = 1024


def fork_server(
    udp: socket.socket, tcp: socket.socket, settings: Path, go_outside: Callable[[], None]
) -> int:
    """Fork the name server; return its pid.

    Args:
        udp, tcp: sockets from :func:`pydock_core.supervision.names.server.open_sockets`; the caller keeps its own.
        settings: path of the document from :func:`pydock_core.supervision.names.server.build_settings`.
        go_outside: moves the child into the network namespace from which it forwards queries.
    """
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        go_outside()
        # Its input comes from the container, so it drops every privilege but its user's.
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
        syscalls.capset(0, 0, 0)
        syscalls.close_except(_STDERR, udp.fileno(), tcp.fileno())
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = min(hard, _MOST_DESCRIPTORS) if hard > 0 else _MOST_DESCRIPTORS
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        loop = EventLoop()
        NameServer(loop, Directory(settings), udp, tcp).start()
        loop.run()
    except BaseException:  # noqa: BLE001 - the process ends here; the supervisor's log gets the traceback
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(1)
