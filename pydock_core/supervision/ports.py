"""Forwards published ports: listens in the host's network namespace, connects in the container's.

The starter binds the sockets in the host's network namespace; a child of the supervisor, which is in the container's,
forwards.
TCP data goes through splice(2), so it is never copied to user space.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from pydock_core import syscalls
from pydock_core.errors import ConflictError, DeniedError, InvalidError, PyDockError, UnavailableError
from pydock_core.supervision import dial
from pydock_core.supervision.event_loop import HANGUP, READ, WRITE, EventLoop
from pydock_core.supervision.plan import PublishedPort

_BACKLOG = 1024
_SPLICE_BYTES = 1024 * 1024
_SPLICE_FLAGS = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK
_POOL_PIPES = 64
_ACCEPT_PAUSE_SECONDS = 0.1
_DATAGRAM_BYTES = 65535
_UDP_IDLE_SECONDS = 90.0
_STDERR = 2


@dataclass(frozen=True, slots=True)
class Listener:
    """A bound socket (for TCP, a listening one) and its published port, with the chosen host port."""

    socket: socket.socket
    port: PublishedPort


def listen(ports: Sequence[PublishedPort]) -> list[Listener]:
    """Bind every published port, in the network namespace of the caller.

    Raises:
        ConflictError: a port is taken (exit_code 125).
        DeniedError: a port below the unprivileged ones, without the right to it.
        InvalidError: the address is malformed.
        UnavailableError: the host does not have the address.
    """
    listeners: list[Listener] = []
    try:
        for port in ports:
            listeners.append(_listen_in_range(port) if port.last_host_port else _listen_one(port))
    except BaseException:
        for listener in listeners:
            listener.socket.close()
        raise
    return listeners


def is_outside(port: PublishedPort) -> bool:
    """Whether other hosts reach a published port: it is not on loopback (RFC 1122, section 3.2.1.3)."""
    return not port.host_ip.startswith("127.") and port.host_ip != "::1"


def _listen_in_range(port: PublishedPort) -> Listener:
    """Bind the first free port of a range."""
    for number in range(port.host_port, port.last_host_port + 1):
        try:
            return _listen_one(replace(port, host_port=number, last_host_port=0))
        except ConflictError:
            continue
    raise ConflictError(
        f"every port from {port.host_port} to {port.last_host_port} of {port.host_ip} is in use",
        "publish a wider range, or a port of the kernel's choice",
        exit_code=125,
    )


def _listen_one(port: PublishedPort) -> Listener:
    family = socket.AF_INET6 if ":" in port.host_ip else socket.AF_INET
    kind = socket.SOCK_STREAM if port.protocol == "tcp" else socket.SOCK_DGRAM
    try:
        bound = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    except OSError as error:
        raise _explain(error, port) from error
    try:
        if kind == socket.SOCK_STREAM:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind((port.host_ip, port.host_port))
        if kind == socket.SOCK_STREAM:
            bound.listen(_BACKLOG)
    except OSError as error:
        bound.close()
        raise _explain(error, port) from error
    return Listener(bound, replace(port, host_port=bound.getsockname()[1]))


def _explain(error: OSError, port: PublishedPort) -> PyDockError:
    host = f"[{port.host_ip}]" if ":" in port.host_ip else port.host_ip
    subject = f"port {host}:{port.host_port}" + ("/udp" if port.protocol == "udp" else "")
    if error.errno == errno.EADDRINUSE:
        return ConflictError(
            f"{subject} is already in use", hint="publish another host port, or leave it out", exit_code=125
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return DeniedError(
            f"cannot bind {subject}: permission denied",
            hint="ports below net.ipv4.ip_unprivileged_port_start need root",
            exit_code=125,
        )
    if isinstance(error, socket.gaierror):
        return InvalidError(f"{port.host_ip!r} is not an IP address", exit_code=125)
    if error.errno == errno.EADDRNOTAVAIL:
        return UnavailableError(
            f"cannot bind {subject}: this host has no such address",
            hint="`ip address` shows the host's; without an address, the port is published on loopback",
            exit_code=125,
        )
    return UnavailableError(f"cannot bind {subject}: {error.strerror}", exit_code=125)


class _PipePool:
    """Pipes for data in transit: an idle connection holds none, and so takes two descriptors instead of six."""

    def __init__(self) -> None:
        self._free: list[tuple[int, int]] = []

    def take(self) -> tuple[int, int]:
        return self._free.pop() if self._free else os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def give_back(self, pipe: tuple[int, int], *, is_empty: bool) -> None:
        if is_empty and len(self._free) < _POOL_PIPES:
            self._free.append(pipe)
        else:
            os.close(pipe[0])
            os.close(pipe[1])


class _Direction:
    """One direction of a connection: copies data from the source to the target, then the end of the stream."""

    def __init__(self, source: socket.socket, target: socket.socket, pool: _PipePool) -> None:
        self.source = source
        self.target = target
        self._pool = pool
        self._pipe: tuple[int, int] | None = None
        self._in_pipe = 0
        self._at_end = False
        self.is_done = False

    @property
    def wants_read(self) -> bool:
        return not self._at_end and self._in_pipe == 0

    @property
    def wants_write(self) -> bool:
        return self._in_pipe > 0

    def move(self) -> None:
        """Move the data that is ready; OSError if a side is broken."""
        while not self.is_done:
            if self._in_pipe == 0 and not self._fill():
                break
            if self._in_pipe and not self._empty():
                break
        if self._in_pipe == 0:
            self.release()

    def _fill(self) -> bool:
        if self._at_end:
            self._pass_end_on()
            return False
        if self._pipe is None:
            self._pipe = self._pool.take()
        try:
            count = os.splice(self.source.fileno(), self._pipe[1], _SPLICE_BYTES, flags=_SPLICE_FLAGS)
        except BlockingIOError:
            return False
        self._in_pipe = count
        if count == 0:
            self._at_end = True
            self._pass_end_on()
            return False
        return True

    def _empty(self) -> bool:
        assert self._pipe is not None
        try:
            self._in_pipe -= os.splice(
                self._pipe[0], self.target.fileno(), self._in_pipe, flags=_SPLICE_FLAGS
            )
        except BlockingIOError:
            return False
        return True

    def _pass_end_on(self) -> None:
        self.is_done = True
        with suppress(OSError):
            self.target.shutdown(socket.SHUT_WR)

    def release(self) -> None:
        if self._pipe is not None:
            self._pool.give_back(self._pipe, is_empty=self._in_pipe == 0)
            self._pipe = None


class _Connection:
    """A pair of connected sockets, forwarded in both directions."""

    def __init__(self, forwarder: Forwarder, client: socket.socket, server: socket.socket) -> None:
        self._loop = forwarder.loop
        self._sockets = (client, server)
        self._ways = (
            _Direction(client, server, forwarder.pool),
            _Direction(server, client, forwarder.pool),
        )
        self._events = {client.fileno(): READ, server.fileno(): READ}
        for side in self._sockets:
            side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            side.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            self._loop.watch(side.fileno(), READ, self._on_event)

    def _on_event(self, events: int) -> None:
        try:
            for way in self._ways:
                way.move()
        except OSError:  # reset by one side
            self._close(abort=True)
            return
        if all(way.is_done for way in self._ways):
            self._close(abort=False)
            return
        if events & HANGUP and not any(way.wants_write for way in self._ways):
            # An orderly shutdown of both directions would have been handled by now: the connection was reset.
            self._close(abort=True)
            return
        self._wait()

    def _wait(self) -> None:
        for side in self._sockets:
            events = 0
            for way in self._ways:
                if way.source is side and way.wants_read:
                    events |= READ
                if way.target is side and way.wants_write:
                    events |= WRITE
            if self._events[side.fileno()] == events:
                continue
            self._events[side.fileno()] = events
            if events:
                self._loop.resume(side.fileno())
                self._loop.change(side.fileno(), events)
            else:
                self._loop.pause(side.fileno())  # a hang-up would be reported again and again

    def _close(self, *, abort: bool) -> None:
        for way in self._ways:
            way.release()
        for side in self._sockets:
            self._loop.forget(side.fileno())
            if abort:
                _abort(side)
            side.close()


def _abort(side: socket.socket) -> None:
    """Make close(2) send a reset, so that a broken connection does not look complete: socket(7), SO_LINGER."""
    with suppress(OSError):
        side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")


class _UdpSessions:
    """Datagrams of one published port: a connected socket inside per client address, dropped when idle."""

    def __init__(self, forwarder: Forwarder, listener: Listener) -> None:
        self._forwarder = forwarder
        self._loop = forwarder.loop
        self._listener = listener
        self._sessions: dict[Any, _UdpSession] = {}

    def start(self) -> None:
        self._loop.watch(self._listener.socket.fileno(), READ, self._on_event)

    def _on_event(self, _: int) -> None:
        for _ in range(64):
            try:
                data, client = self._listener.socket.recvfrom(_DATAGRAM_BYTES)
            except OSError:
                return
            session = self._sessions.get(client)
            if session is None:
                try:
                    session = _UdpSession(self, client)
                except OSError:
                    continue
                self._sessions[client] = session
            session.send(data)

    def connect(self) -> socket.socket:
        """Connect to the container's own address, or to loopback if it has none; UDP cannot try several addresses."""
        host = self._forwarder.hosts[-1] if len(self._forwarder.hosts) > 2 else self._forwarder.hosts[0]
        kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        inside = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind)
        try:
            inside.connect((host, self._listener.port.container_port))
        except OSError:
            inside.close()
            raise
        return inside

    def reply(self, client: Any, data: bytes) -> None:
        """Send a datagram back to a client."""
        with suppress(OSError):
            self._listener.socket.sendto(data, client)

    def end(self, client: Any) -> None:
        """Forget a client."""
        self._sessions.pop(client, None)


class _UdpSession:
    def __init__(self, owner: _UdpSessions, client: Any) -> None:
        self._owner = owner
        self._client = client
        self._loop = owner._loop
        self._socket = owner.connect()
        self._loop.watch(self._socket.fileno(), READ, self._on_event)
        self._timer = self._loop.call_later(_UDP_IDLE_SECONDS, self._on_idle)
        self._was_used = False

    def send(self, data: bytes) -> None:
        self._was_used = True
        with suppress(OSError):  # refused: as lost as any datagram
            self._socket.send(data)

    def _on_event(self, _: int) -> None:
        self._was_used = True
        for _ in range(64):
            try:
                data = self._socket.recv(_DATAGRAM_BYTES)
            except OSError:
                return
            self._owner.reply(self._client, data)

    def _on_idle(self) -> None:
        if self._was_used:
            self._was_used = False
            self._timer = self._loop.call_later(_UDP_IDLE_SECONDS, self._on_idle)
            return
        self._owner.end(self._client)
        self._loop.forget(self._socket.fileno())
        self._socket.close()


class Forwarder:
    """Forwards the connections of a set of listeners, in an event loop."""

    def __init__(self, loop: EventLoop, listeners: Sequence[Listener], hosts: tuple[str, ...]) -> None:
        self.loop = loop
        self.pool = _PipePool()
        self.hosts = hosts
        self._listeners = listeners

    def start(self) -> None:
        """Begin to accept."""
        for listener in self._listeners:
            if listener.port.protocol == "udp":
                _UdpSessions(self, listener).start()
            else:
                self.loop.watch(listener.socket.fileno(), READ, partial(self._accept, listener))

    def _accept(self, listener: Listener, _: int) -> None:
        for _ in range(64):
            try:
                client, _ = listener.socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    # Out of descriptors: the connections stay in the backlog, and retrying at once would spin.
                    self.loop.pause(listener.socket.fileno())
                    self.loop.call_later(
                        _ACCEPT_PAUSE_SECONDS, partial(self.loop.resume, listener.socket.fileno())
                    )
                    return
                continue  # the client has gone: accept(2)
            client.setblocking(False)
            self._dial(client, listener.port.container_port)

    def _dial(self, client: socket.socket, port: int) -> None:
        def on_done(server: socket.socket | None, _: int) -> None:
            if server is None:
                _abort(client)
                client.close()
            else:
                _Connection(self, client, server)

        dial.Dial(self.loop, self.hosts, port, on_done).start()


def fork_forwarder(listeners: Sequence[Listener], hosts: tuple[str, ...]) -> int:
    """Fork the forwarding process; return its pid.  It dies with its parent, and is ended by a kill.

    Args:
        listeners: the child gets copies of their sockets.
        hosts: addresses in the container: :func:`pydock_core.supervision.dial.addresses`.
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
        _close_others([_STDERR, *(listener.socket.fileno() for listener in listeners)])
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        loop = EventLoop()
        Forwarder(loop, listeners, hosts).start()
        loop.run()
    finally:
        os._exit(1)


def _close_others(kept_fds: Sequence[int]) -> None:
    first = 0
    for fd in sorted(kept_fds):
        if first < fd:
            syscalls.close_range(first, fd - 1)
        first = fd + 1
    syscalls.close_range(first)
