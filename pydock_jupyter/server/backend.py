"""Connections to container ports: dialling, a bounded pool of idle ones, and one HTTP exchange over one of
them.

A dial makes a socket inside the container's network namespace (see the engine), so it never meets the host's
network. The protocol is Tornado's own HTTP/1.1 machinery in its client role; bodies stream both ways and
nothing is collected.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import sys
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from typing import Protocol

from tornado import httputil
from tornado.http1connection import HTTP1Connection, HTTP1ConnectionParameters
from tornado.iostream import IOStream, StreamClosedError

CHUNK_BYTES = 256 * 1024
"""How much of a body is in memory at once, per direction and layer."""

_PARAMETERS = HTTP1ConnectionParameters(
    chunk_size=CHUNK_BYTES, max_header_size=256 * 1024, max_body_size=sys.maxsize
)
_MAX_INFORMATIONAL = 10
"""Tornado reads each informational response in a deeper call, and older versions without a bound."""
_CHUNKED_BY_TORNADO = frozenset({"POST", "PUT", "PATCH"})

Key = tuple[str, int]
"""A full container id and a port."""

Dial = Callable[[str, int], socket.socket]


class BackendClosedError(Exception):
    """The application closed the connection, or broke the protocol, before it had answered."""


class ResponseReceiver(Protocol):
    """Who takes the response of an exchange."""

    def on_head(self, status: int, reason: str, headers: httputil.HTTPHeaders) -> Awaitable[None] | None: ...

    def on_body(self, data: bytes) -> Awaitable[None] | None:
        """Take a piece of the body; the next one is read when the awaitable is done (back pressure)."""
        ...


class _BackendStream(IOStream):
    """A stream whose TCP_NODELAY is set once: HTTP1Connection would toggle it around every message."""

    def set_nodelay(self, value: bool) -> None:
        """Do nothing; see the class."""

    def has_unread(self) -> bool:
        """Whether bytes, or the end, have come that belong to no response.

        Of an application that sends more than its Content-Length says, or a body where none may be (HEAD, 204,
        304), they would be read as the start of the next response (RFC 9112, section 6.3).
        """
        if self.closed() or self._read_buffer_size:
            return True
        poller = select.poll()
        poller.register(self.socket, select.POLLIN | select.POLLRDHUP)
        return bool(poller.poll(0))


class Pool:
    """Idle keep-alive connections by container id and port, bounded in number and age.

    A connection that its application closes, be it because the container ended, leaves the pool in that
        moment: the
    kernel tells so, whatever the reason.  Not thread-safe; used on the event loop only.

    Args:
        dial: makes a connected socket; blocking, so it runs in ``executor``.
        per_key: idle connections kept for one port.
        total: idle connections kept altogether; the oldest goes first.
        idle_seconds: how long one may idle; less than what common servers allow (gunicorn's 2 s is the
            exception, and is why only requests that can be repeated use an idle connection).
    """

    def __init__(
        self,
        dial: Dial,
        executor: Executor,
        *,
        per_key: int = 16,
        total: int = 64,
        idle_seconds: float = 15.0,
    ) -> None:
        self._dial = dial
        self._executor = executor
        self._per_key = per_key
        self._total = total
        self._idle_seconds = idle_seconds
        self._idle: OrderedDict[_BackendStream, tuple[Key, asyncio.TimerHandle]] = OrderedDict()
        self._by_key: dict[Key, list[_BackendStream]] = {}

    def __len__(self) -> int:
        return len(self._idle)

    def take(self, key: Key) -> IOStream | None:
        """Return an idle connection, the one used last, or None."""
        streams = self._by_key.get(key)
        while streams:
            stream = streams[-1]
            self._forget(stream)
            if stream.has_unread():
                stream.close()
                continue
            stream.set_close_callback(None)
            return stream
        return None

    async def connect(self, key: Key) -> IOStream:
        """Dial anew.

        Raises:
            PyDockError: as ``Engine.dial``.
        """
        loop = asyncio.get_running_loop()
        dialled = await loop.run_in_executor(self._executor, self._dial, *key)
        if dialled.family in (socket.AF_INET, socket.AF_INET6):
            dialled.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return _BackendStream(dialled, read_chunk_size=CHUNK_BYTES)

    def release(self, key: Key, stream: IOStream) -> None:
        """Keep a connection for the next request; one with bytes left over is closed."""
        assert isinstance(stream, _BackendStream)
        if stream.has_unread():
            stream.close()
            return
        streams = self._by_key.setdefault(key, [])
        timer = asyncio.get_running_loop().call_later(self._idle_seconds, stream.close)
        streams.append(stream)
        self._idle[stream] = (key, timer)
        # The callback also makes the stream listen, so that the application's close is noticed while idle.
        stream.set_close_callback(lambda: self._forget(stream))
        if len(streams) > self._per_key:
            self._discard(streams[0])
        elif len(self._idle) > self._total:
            self._discard(next(iter(self._idle)))

    def close(self) -> None:
        for stream in list(self._idle):
            self._discard(stream)

    def _discard(self, stream: _BackendStream) -> None:
        self._forget(stream)
        stream.close()

    def _forget(self, stream: _BackendStream) -> None:
        entry = self._idle.pop(stream, None)
        if entry is None:
            return
        key, timer = entry
        timer.cancel()
        streams = self._by_key[key]
        streams.remove(stream)
        if not streams:
            del self._by_key[key]


class Exchange(httputil.HTTPMessageDelegate):
    """One request and its response over one connection.

    Usage: :meth:`send_head`, any number of :meth:`send_body`, :meth:`finish_request`; beside that, from the
        first of
    these on, :meth:`receive`.  Then either :meth:`is_reusable` and :meth:`stream` goes back to the pool, or
    :meth:`abort`.
    """

    def __init__(self, stream: IOStream, receiver: ResponseReceiver, *, upgrade: bool = False) -> None:
        self.stream = stream
        self.detached: IOStream | None = None
        self._receiver = receiver
        self._upgrade = upgrade
        self._connection = HTTP1Connection(stream, is_client=True, params=_PARAMETERS)
        self._informational = 0
        self._frame_chunks = False
        self._request_finished = False
        self._head_received = False
        self._keep_alive = False
        self._ended: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def send_head(self, method: str, target: str, headers: httputil.HTTPHeaders) -> None:
        """Send the request's head.  A body in chunks is announced by ``Transfer-Encoding`` in ``headers``."""
        chunked = "Transfer-Encoding" in headers
        if method in _CHUNKED_BY_TORNADO:
            if not chunked and "Content-Length" not in headers:
                headers["Content-Length"] = "0"
        else:
            self._frame_chunks = chunked  # Tornado's client sends no chunks with these methods
        self._connection.write_headers(httputil.RequestStartLine(method, target, ""), headers)

    async def send_body(self, data: bytes) -> None:
        """Send a piece of the body; returns when the kernel has it.  After the application's close it does
        nothing.
        """
        if self._frame_chunks:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        if not self.stream.closed() and not self._request_finished:
            await self._connection.write(data)

    def finish_request(self) -> None:
        """Say that the body is whole."""
        if self.stream.closed() or self._request_finished:
            return
        if self._frame_chunks:
            self._connection.write(b"0\r\n\r\n")
        self._request_finished = True
        self._connection.finish()

    async def receive(self) -> bool:
        """Read the response and hand it to the receiver.

        Returns:
            True when the response is whole (or the connection has been detached), False when it broke off.

        Raises:
            BackendClosedError: nothing of a response came.
        """
        if self._request_finished:
            with contextlib.suppress(StreamClosedError):  # the delegate has been told
                await self._connection.read_response(self)
        else:
            # The response can end before the request; the reader itself waits for both.
            reading = asyncio.ensure_future(self._connection.read_response(self))
            reading.add_done_callback(_retrieve)
            await asyncio.wait({reading, self._ended}, return_when=asyncio.FIRST_COMPLETED)
        if self._ended.done():
            return self._ended.result()
        if not self._head_received:
            raise BackendClosedError
        return self.detached is not None

    @property
    def is_reusable(self) -> bool:
        """Whether another request may follow on this connection."""
        return self._keep_alive and self._request_finished and self._ended.done() and not self.stream.closed()

    def abort(self) -> None:
        """Close the connection, whatever is under way."""
        self.stream.close()

    # -- the delegate that Tornado calls

    def headers_received(
        self,
        start_line: httputil.RequestStartLine | httputil.ResponseStartLine,
        headers: httputil.HTTPHeaders,
    ) -> Awaitable[None] | None:
        assert isinstance(start_line, httputil.ResponseStartLine)
        code = start_line.code
        if code < 200 and not (code == 101 and self._upgrade):
            if code == 101:
                raise httputil.HTTPInputError("a switch of protocols that was not asked for")
            self._informational += 1
            if self._informational > _MAX_INFORMATIONAL:
                raise httputil.HTTPInputError("too many informational responses")
            return None  # the client got its 100 from us already
        self._head_received = True
        if code == 101:
            self.detached = self._connection.detach()
        else:
            options = {o.strip().lower() for o in headers.get("Connection", "").split(",")}
            is_new = start_line.version != "HTTP/1.0"
            self._keep_alive = "close" not in options if is_new else "keep-alive" in options
        return self._receiver.on_head(code, start_line.reason or "", headers)

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        return self._receiver.on_body(chunk)

    def finish(self) -> None:
        # A body that lasts until the close is whole only if the close was an orderly one.
        error = self.stream.error
        self._end(not (isinstance(error, OSError) and error.errno))

    def on_connection_close(self) -> None:
        if self._head_received:
            self._end(False)

    def _end(self, is_whole: bool) -> None:
        if not self._ended.done():
            self._ended.set_result(is_whole)


def _retrieve(reading: asyncio.Future[bool]) -> None:
    """Take the exception of a finished reader, whose message has been dealt with by then."""
    if not reading.cancelled():
        reading.exception()
