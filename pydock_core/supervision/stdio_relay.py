"""Relays a container's standard streams to the log, and to and from any number of attached clients.

Both directions have flow control with bounded buffers.  A client that reads slowly slows the container down, as a
slow terminal does; one that is gone is dropped; without a client, the output goes to the log only.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

from pydock_core.supervision.event_loop import HANGUP, READ, WRITE, EventLoop

if TYPE_CHECKING:
    from pydock_core.supervision.handover import Descriptors
    from pydock_core.supervision.protocol import StreamChoice

READ_BYTES = 64 * 1024
HIGH_WATER_BYTES = 256 * 1024
"""With more unsent output for one client, the container's output is not read."""
LOW_WATER_BYTES = 64 * 1024
STDIN_HIGH_WATER_BYTES = 64 * 1024

STDOUT = "stdout"
STDERR = "stderr"
_NUMBERS: Mapping[str, int] = {STDOUT: 1, STDERR: 2}


class LogSink(Protocol):
    """An open log; no method fails, or waits for a reader.

    Attributes:
        has_waiting: whether entries are buffered and need another :meth:`flush` soon.
    """

    @property
    def has_waiting(self) -> bool: ...

    def write(self, stream: str, data: bytes) -> None:
        """Accept a chunk of output."""
        ...

    def flush(self) -> bool:
        """Write complete entries; return whether there were any."""
        ...

    def close(self) -> None:
        """Write everything, and close."""
        ...


def build_frame(stream: str, data: bytes) -> bytes:
    """Return output as one frame of Docker's multiplexed stream (Engine API, ContainerAttach)."""
    return bytes((_NUMBERS[stream], 0, 0, 0)) + len(data).to_bytes(4, "big") + data


@dataclass(frozen=True, slots=True)
class ContainerStreams:
    """The supervisor's ends of a container's standard streams.

    Attributes:
        stdin_fd: to write to, the terminal's master with a terminal; None if standard input is /dev/null.
        outputs: stream name to the descriptor to read from.
        terminal: there is only one descriptor, a terminal's master, and no framing.
        stdin_once: standard input ends with the first client's.
    """

    stdin_fd: int | None
    outputs: Mapping[str, int]
    terminal: bool
    stdin_once: bool


class AttachedClient:
    """One attached client, on a non-blocking stream socket."""

    def __init__(self, relay: StdioRelay, connection: socket.socket, choice: StreamChoice) -> None:
        self._relay = relay
        self._connection = connection
        self._outputs = frozenset(name for name in (STDOUT, STDERR) if choice.get(name))
        self._pending = bytearray()
        self._reads_input = bool(choice.get("stdin"))
        self.fd = connection.fileno()
        self.is_finishing = False

    @property
    def pending_bytes(self) -> int:
        """The size of the output that the client has not received yet."""
        return len(self._pending)

    @property
    def pending(self) -> bytes:
        """The output that the client has not received yet."""
        return bytes(self._pending)

    def send_later(self, payload: bytes) -> None:
        """Send output when the client is ready for it."""
        self._pending += payload

    @property
    def feeds_input(self) -> bool:
        """Whether more standard input may come from this client."""
        return self._reads_input

    def events(self) -> int:
        """Return the poll(2) events to wait for on the socket."""
        reads = self._reads_input and not self._relay.is_stdin_full
        return (READ if reads else 0) | (WRITE if self._pending else 0)

    def send(self, stream: str, data: bytes, frame: bytes) -> None:
        """Send output to the client: ``data`` with a terminal, else ``frame``."""
        if stream not in self._outputs:
            return
        payload = data if self._relay.terminal else frame
        if not self._pending:
            try:
                sent = self._connection.send(payload, socket.MSG_NOSIGNAL)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._relay.drop(self)
                return
            if sent == len(payload):
                return
            payload = payload[sent:]
        self._pending += payload
        self._relay.update(self)

    def on_event(self, events: int) -> None:
        """Handle readiness of the socket."""
        if events & WRITE and self._pending:
            self._send_pending()
        if self._connection.fileno() < 0:
            return
        if events & (READ | HANGUP) and self._reads_input:
            self._read_input()
        elif events & HANGUP:
            self._relay.drop(self)

    def _send_pending(self) -> None:
        try:
            sent = self._connection.send(memoryview(self._pending)[:READ_BYTES], socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return
        except OSError:
            self._relay.drop(self)
            return
        del self._pending[:sent]
        self._relay.update(self)

    def _read_input(self) -> None:
        try:
            data = self._connection.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._relay.feed(data)
        else:
            self._reads_input = False
            self._relay.on_input_end()
            self._relay.update(self)

    def close(self) -> None:
        """Close the socket; the client sees the end of the output."""
        self._connection.close()


class StdioRelay:
    """The relay of one container.

    Args:
        loop: calls it when a stream or a client is ready.
    """

    def __init__(self, loop: EventLoop) -> None:
        self._loop = loop
        self._log: LogSink | None = None
        self._clients: dict[int, AttachedClient] = {}
        self._outputs: dict[int, str] = {}
        self._stdin_fd: int | None = None
        self._stdin_pending = bytearray()
        self._stdin_ends = False
        self._stdin_once = False
        self._is_held = False
        self._has_begun = False
        self.terminal = False

    def begin(self, streams: ContainerStreams, log: LogSink | None) -> None:
        """Begin to relay streams, to the log too; the relay closes their descriptors."""
        self._log = log
        self._has_begun = True
        self.terminal = streams.terminal
        self._stdin_once = streams.stdin_once and not streams.terminal
        self._stdin_fd = streams.stdin_fd
        for name, fd in streams.outputs.items():
            os.set_blocking(fd, False)
            self._outputs[fd] = name
            self._loop.watch(fd, READ, partial(self._on_stream, fd))
        if self._stdin_fd is not None and self._stdin_fd not in self._outputs:
            os.set_blocking(self._stdin_fd, False)
            # With no events: a pipe's write end reports an error when nobody can read it any more.
            self._loop.watch(self._stdin_fd, 0, self._on_stdin)
        for client in list(self._clients.values()):
            self.update(client)
        self._write_stdin()  # input of clients that attached before the start
        self._close_stdin_if_done()

    def save(self, streams: Descriptors) -> tuple[bytes, bool, bytes]:
        """Return the state, with which another process goes on (:meth:`restore`); there is at most one client.

        Args:
            streams: the descriptors of the streams and of the client; those that this object has closed become -1.
        """
        for name in (STDOUT, STDERR, "console"):
            if getattr(streams, name) not in self._outputs:
                setattr(streams, name, -1)
        if streams.stdin != self._stdin_fd:
            streams.stdin = -1
        client = next(iter(self._clients.values()), None)
        if client is None:
            streams.attachment = -1
        return bytes(self._stdin_pending), self._stdin_ends, b"" if client is None else client.pending

    def restore(self, state: tuple[bytes, bool, bytes]) -> None:
        """Go on where another object has ended with :meth:`save`; call this after :meth:`attach` and before :meth:`begin`."""
        self._stdin_pending += state[0]
        self._stdin_ends = state[1]
        for client in self._clients.values():
            client.send_later(state[2])

    # -- output ------------------------------------------------------------------------------------------

    def _on_stream(self, fd: int, events: int) -> None:
        if events & WRITE:  # a terminal's master, which is standard input too
            self._write_stdin()
        if events & (READ | HANGUP):
            self._read_output(fd)

    def _read_output(self, fd: int) -> bool:
        """Read once; return whether there may be more."""
        try:
            data = os.read(fd, READ_BYTES)
        except BlockingIOError:
            return False
        except OSError as error:
            # EIO: no process has the terminal's other side open (pty(7) says little; Linux: tty_read on hang-up).
            if error.errno != errno.EIO:
                raise
            data = b""
        if not data:
            self._end_output(fd)
            return False
        stream = self._outputs[fd]
        if self._log is not None:
            self._log.write(stream, data)
        if self._clients:
            frame = b"" if self.terminal else build_frame(stream, data)
            for client in list(self._clients.values()):
                client.send(stream, data, frame)
            self._hold_or_release()
        return True

    def _end_output(self, fd: int) -> None:
        self._loop.forget(fd)
        del self._outputs[fd]
        if fd == self._stdin_fd:
            self._stdin_fd = None
        os.close(fd)

    def _hold_or_release(self) -> None:
        most = max((client.pending_bytes for client in self._clients.values()), default=0)
        if not self._is_held and most > HIGH_WATER_BYTES:
            self._is_held = True
            for fd in self._outputs:
                self._loop.pause(fd)
        elif self._is_held and most <= LOW_WATER_BYTES:
            self._is_held = False
            for fd in self._outputs:
                self._loop.resume(fd, self._output_events(fd))

    def _output_events(self, fd: int) -> int:
        return READ | (WRITE if fd == self._stdin_fd and self._stdin_pending else 0)

    def drain(self) -> None:
        """Read the rest of the pipes after the container's processes have ended, without regard to slow clients."""
        for fd in list(self._outputs):
            while fd in self._outputs and self._read_output(fd):
                pass

    # -- clients -----------------------------------------------------------------------------------------

    def attach(self, connection: socket.socket, choice: StreamChoice) -> None:
        """Serve a client; the relay closes its socket."""
        connection.setblocking(False)
        client = AttachedClient(self, connection, choice)
        self._clients[client.fd] = client
        self._loop.watch(client.fd, client.events(), client.on_event)
        if client.feeds_input and self.is_stdin_full:
            self._loop.pause(client.fd)

    def update(self, client: AttachedClient) -> None:
        """Follow a change of a client's state: wait for other events, resume the container's output, or drop the client."""
        if client.fd not in self._clients:
            return
        if client.is_finishing and not client.pending_bytes:
            self.drop(client)
            return
        if client.feeds_input and self.is_stdin_full and not client.pending_bytes:
            # Even its hang-up has to wait until its earlier input has been written.
            self._loop.pause(client.fd)
        else:
            self._loop.resume(client.fd)
            self._loop.change(client.fd, client.events())
        self._hold_or_release()

    def drop(self, client: AttachedClient) -> None:
        """Forget a client; standard input ends with it if the client could still have sent some."""
        if self._clients.pop(client.fd, None) is None:
            return
        self._loop.forget(client.fd)
        client.close()
        if client.feeds_input:
            self.on_input_end()
        self._hold_or_release()

    def finish_clients(self) -> bool:
        """Drop, at the end, the clients that have received everything; return whether others remain."""
        for client in list(self._clients.values()):
            client.is_finishing = True
            self.update(client)
        return bool(self._clients)

    # -- standard input ----------------------------------------------------------------------------------

    @property
    def awaits_input(self) -> bool:
        """Whether more standard input may come from a client."""
        return any(client.feeds_input for client in self._clients.values())

    @property
    def is_stdin_full(self) -> bool:
        """Whether clients' input is left unread until the container has read."""
        return len(self._stdin_pending) >= STDIN_HIGH_WATER_BYTES

    def feed(self, data: bytes) -> None:
        """Accept a client's standard input; discard it if the container has none."""
        if self._stdin_ends or (self._stdin_fd is None and self._has_begun):
            return
        self._stdin_pending += data
        self._write_stdin()
        if self.is_stdin_full:
            for client in list(self._clients.values()):
                self.update(client)

    def _write_stdin(self) -> None:
        if self._stdin_fd is None:
            return
        was_full = self.is_stdin_full
        while self._stdin_pending:
            try:
                sent = os.write(self._stdin_fd, memoryview(self._stdin_pending)[:READ_BYTES])
            except BlockingIOError:
                break
            except OSError:  # EPIPE, or EIO of a terminal: there is no reader
                self._close_stdin()
                break
            del self._stdin_pending[:sent]
        self._close_stdin_if_done()
        if self._stdin_fd is not None and not self._is_held:
            write = WRITE if self._stdin_pending else 0
            self._loop.change(self._stdin_fd, write | (READ if self._stdin_fd in self._outputs else 0))
        if was_full and not self.is_stdin_full:
            for client in list(self._clients.values()):
                self.update(client)

    def _on_stdin(self, events: int) -> None:
        if events & HANGUP:
            self._close_stdin()
        else:
            self._write_stdin()

    def on_input_end(self) -> None:
        """Handle the end of a client's standard input."""
        if self._stdin_once:
            self._stdin_ends = True
            self._close_stdin_if_done()

    def _close_stdin_if_done(self) -> None:
        if self._stdin_ends and self._stdin_once and not self._stdin_pending:
            self._close_stdin()

    def _close_stdin(self) -> None:
        self._stdin_pending.clear()
        self._stdin_ends = True
        if self._stdin_fd is None or self._stdin_fd in self._outputs:
            return
        self._loop.forget(self._stdin_fd)
        os.close(self._stdin_fd)
        self._stdin_fd = None
        for client in list(self._clients.values()):
            self.update(client)

    def close(self) -> None:
        """Close every descriptor of the container."""
        self._close_stdin()
        for fd in list(self._outputs):
            self._loop.forget(fd)
            os.close(fd)
        self._outputs.clear()
        self._stdin_fd = None
