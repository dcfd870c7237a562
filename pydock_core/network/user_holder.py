"""The holder of an ordinary user's network namespace: it makes the namespace, and ends when no container uses it any more.

It watches the ports of the bridges.  A few seconds after the last one has gone, it removes the record and exits.  The
namespace, its bridges and its rules go with it; the uplink follows.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import sys
import time
import traceback
from pathlib import Path
from typing import NoReturn

from pydock_core import syscalls
from pydock_core.network.rules import is_port_name
from pydock_core.runtime.process_identity import ProcessIdentity
from pydock_core.supervision import user_network
from pydock_core.supervision.event_loop import READ, EventLoop
from pydock_core.supervision.network_namespace import set_loopback_up

IDLE_SECONDS = 5.0
"""The time that the namespace outlives its last port or the last preparation of a start."""
_LINK_EVENTS = 0x1  # RTMGRP_LINK of rtnetlink(7)
_RECEIVE_BYTES = 65536
_STDERR = 2


def fork_holder(run: Path) -> ProcessIdentity:
    """Fork a holder; return it when its namespace exists.

    The caller is in the user namespace that will own the namespace, and holds the lock of the record.

    Args:
        run: the directory of the state root.

    Raises:
        OSError: the namespace cannot be made.
    """
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        os.close(read_fd)
        _run(run, write_fd)
    os.close(write_fd)
    try:
        answer = os.read(read_fd, 16)
    finally:
        os.close(read_fd)
    if answer != b"ready":
        code = int(answer or b"0")
        raise OSError(code, os.strerror(code) if code else "the process ended")
    return ProcessIdentity.of(pid)


def _run(run: Path, ready_fd: int) -> NoReturn:
    try:
        os.setsid()
        syscalls.close_except(_STDERR, ready_fd)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        try:
            syscalls.unshare(syscalls.CLONE_NEWNET)
            set_loopback_up()
            holder = _Holder(run)
        except OSError as error:
            os.write(ready_fd, str(error.errno or 0).encode())
            raise
        os.write(ready_fd, b"ready")
        os.close(ready_fd)
        holder.run()
    except BaseException:  # noqa: BLE001 - the process ends here; its log gets the traceback
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(0)


class _Holder:
    def __init__(self, run: Path) -> None:
        self._run = run
        self._loop = EventLoop()
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        self._links = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
        self._links.bind((0, _LINK_EVENTS))
        self._has_ports = False

    def run(self) -> None:
        """Serve until the namespace is not used any more."""
        self._loop.watch(self._links.fileno(), READ, self._on_links)
        self._loop.call_later(IDLE_SECONDS, self._on_idle)
        self._loop.run()

    def _on_links(self, _: int) -> None:
        try:
            self._links.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:  # ENOBUFS: events were lost, so look again
            pass
        had_ports, self._has_ports = self._has_ports, _has_ports()
        if had_ports and not self._has_ports:
            self._loop.call_later(IDLE_SECONDS, self._on_idle)

    def _on_idle(self) -> None:
        """End, unless a port has appeared or a start is under way."""
        if _has_ports():
            return  # the end of the last one calls again
        try:
            lock_fd = os.open(user_network.lock_file(self._run), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:  # the state root has been removed
            self._loop.stop()
            return
        record = user_network.record_file(self._run)
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            idle_seconds = time.time() - os.stat(record).st_mtime
            if 0 <= idle_seconds < IDLE_SECONDS:
                self._loop.call_later(IDLE_SECONDS - idle_seconds, self._on_idle)
                return
            network = user_network.read(self._run)
            if network is not None and network.holder.pid == os.getpid():
                record.unlink()
        except BlockingIOError:
            self._loop.call_later(IDLE_SECONDS, self._on_idle)
            return
        except FileNotFoundError:
            pass  # the start that made this holder failed
        finally:
            os.close(lock_fd)
        self._loop.stop()


def _has_ports() -> bool:
    return any(is_port_name(name) for _, name in socket.if_nameindex())
