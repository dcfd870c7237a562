"""Connections to container ports: dialling, a bounded pool of idle connections, one HTTP exchange.

Dialling creates a socket inside the container's network namespace (see the engine), so a connection never reaches the
host's network.  Tornado's HTTP/1.1 implementation serves as the client; bodies stream in both directions.
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
"""The part of a body in memory, per direction and layer."""

_PARAMETERS = HTTP1ConnectionParameters(
    chunk_size=CHUNK_BYTES, max_header_size=256 * 1024, max_body_size=sys.maxsize
)
_MAX_INFORMATIONAL = 10
"""Tornado reads each informational response in a nested call, in older versions without a limit."""
_CHUNKED_BY_TORNADO = frozenset({"POST", "PUT", "PATCH"})

Key = tuple[str, int]
"""A full container id and a port."""

Dial = Callable[[str, int], socket.socket]


class BackendClosedError(Exception):
    """The application closed the connection or violated the protocol before its response."""


class ResponseReceiver(Protocol):
    """Receives the response of an exchange."""

    def on_head(self, status: int, reason: str, headers: httputil.HTTPHeaders) -> Awaitable[None] | None: ...

    def on_body(self, data: bytes) -> Awaitable[None] | None:
        """Take a piece of the body; the next one is read when the awaitable completes (back pressure)."""
        ...


class _BackendStream(IOStream):
    """A stream that keeps TCP_NODELAY set; HTTP1Connection toggles it around every message."""

    def set_nodelay(self, value: bool) -> None:
        """Keep the option as it is."""

    def has_unread(self) -> bool:
        """Return whether bytes or the end of the stream have arrived outside of a response.

        An application may exceed its Content-Length or send a body with HEAD, 204 or 304.  These bytes would be read
        as the start of the next response (RFC 9112, section 6.3).
        """
        if self.closed() or self._read_buffer_size:
            return True
        poller = select.poll()
        poller.register(self.socket, select.POLLIN | select.POLLRDHUP)
        return bool(poller.poll(0))


class Pool:
    """Idle keep-alive connections by container id and port, bounded in number and age.

    A connection leaves the pool as soon as the application closes it or its container exits.  Not thread-safe; used
    on the event loop only.

    Args:
        dial: returns a connected socket; it blocks and runs in ``executor``.
        per_key: the maximum number of idle connections to one port.
        total: the maximum number of idle connections; the oldest is closed first.
        idle_seconds: the maximum idle time, below that of common servers.  gunicorn's 2 s is an exception; therefore
            only repeatable requests use an idle connection.
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
        """Return the idle connection used last, or None."""
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
        """Open a new connection.

        Raises:
            PyDockError: as ``Engine.dial``.
        """
        loop = asyncio.get_running_loop()
        dialled = await loop.run_in_executor(self._executor, self._dial, *key)
        if dialled.family in (socket.AF_INET, socket.AF_INET6):
            dialled.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return _BackendStream(dialled, read_chunk_size=CHUNK_BYTES)

    def release(self, key: Key, stream: IOStream) -> None:
        """Keep a connection for the next request; close it if it has unread bytes."""
        assert isinstance(stream, _BackendStream)
        if stream.has_unread():
            stream.close()
            return
        streams = self._by_key.setdefault(key, [])
        timer = asyncio.get_running_loop().call_later(self._idle_seconds, stream.close)
        streams.append(stream)
        self._idle[stream] = (key, timer)
        # The callback also makes the stream listen, so that it detects the application's close while idle.
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

    Call :meth:`send_head`, :meth:`send_body` any number of times and :meth:`finish_request`; concurrently, after
    :meth:`send_head`, call :meth:`receive`.  Then return ``stream`` to the pool if :attr:`is_reusable`, or call
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
        """Send the request's head.  ``Transfer-Encoding`` in ``headers`` announces a chunked body."""
        chunked = "Transfer-Encoding" in headers
        if method in _CHUNKED_BY_TORNADO:
            if not chunked and "Content-Length" not in headers:
                headers["Content-Length"] = "0"
        else:
            self._frame_chunks = chunked  # Tornado's client does not send chunks with these methods
        self._connection.write_headers(httputil.RequestStartLine(method, target, ""), headers)

    async def send_body(self, data: bytes) -> None:
        """Send a piece of the body; return when the kernel has it.  No effect after the application's close."""
        if self._frame_chunks:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        if not self.stream.closed() and not self._request_finished:
            await self._connection.write(data)

    def finish_request(self) -> None:
        """Mark the end of the request's body."""
        if self.stream.closed() or self._request_finished:
            return
        if self._frame_chunks:
            self._connection.write(b"0\r\n\r\n")
        self._request_finished = True
        self._connection.finish()

    async def receive(self) -> bool:
        """Read the response and pass it to the receiver.

        Returns:
            True if the response is complete or the connection detached; False if the response was interrupted.

        Raises:
            BackendClosedError: the connection ended before a response.
        """
        if self._request_finished:
            with contextlib.suppress(StreamClosedError):  # the delegate knows already
                await self._connection.read_response(self)
        else:
            # The response may end before the request, but the reader waits for both.
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
        """Whether the connection can carry another request."""
        return self._keep_alive and self._request_finished and self._ended.done() and not self.stream.closed()

    def abort(self) -> None:
        """Close the connection in any state."""
        self.stream.close()

    # -- called by Tornado

    def headers_received(
        self,
        start_line: httputil.RequestStartLine | httputil.ResponseStartLine,
        headers: httputil.HTTPHeaders,
    ) -> Awaitable[None] | None:
        assert isinstance(start_line, httputil.ResponseStartLine)
        code = start_line.code
        if code < 200 and not (code == 101 and self._upgrade):
            if code == 101:
                raise httputil.HTTPInputError("unexpected 101 Switching Protocols")
            self._informational += 1
            if self._informational > _MAX_INFORMATIONAL:
                raise httputil.HTTPInputError("too many informational responses")
            return None  # the proxy has already sent a 100 to the client
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
        # A body that ends with the connection is complete only after an orderly close.
        error = self.stream.error
        self._end(not (isinstance(error, OSError) and error.errno))

    def on_connection_close(self) -> None:
        if self._head_received:
            self._end(False)

    def _end(self, is_complete: bool) -> None:
        if not self._ended.done():
            self._ended.set_result(is_complete)


def _retrieve(reading: asyncio.Future[bool]) -> None:
    """Retrieve the exception of an abandoned reader, so that asyncio does not log it."""
    if not reading.cancelled():
        reading.exception()
