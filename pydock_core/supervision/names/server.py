"""The name server of one container: answers for its networks, and forwards other names to servers outside.

It runs in its own process, outside of the container's network namespace; only its two listening sockets are inside.
Its forwarding sockets can therefore reach the host's servers, including a resolver on the host's loopback.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from pydock_core.supervision.event_loop import READ, WRITE, EventLoop, Timer
from pydock_core.supervision.names import message
from pydock_core.supervision.names.message import AAAA, PTR, A, MalformedQuery, Query
from pydock_core.supervision.names.names_file import CachedFile, NetworkNames

SERVER_TIMEOUT_SECONDS = 2.0
"""The time to wait for one server before querying the next."""
_MOST_FORWARDED = 256
_MOST_CLIENTS = 64
_CLIENT_IDLE_SECONDS = 10.0
_BATCH = 64
_RECEIVE_BYTES = 65535
_BACKLOG = 64
_DNS_PORT = 53

Reply = Callable[[bytes], None]


class Directory:
    """The name server's data: its settings and its networks' names, both read from files.

    Args:
        settings: path of the document from :func:`build_settings`, which is replaced when the container's networks change.
    """

    def __init__(self, settings: Path) -> None:
        self._settings = CachedFile(settings)
        self._networks: list[NetworkNames] = []
        self._links: dict[str, str] = {}
        self._hosts: dict[str, list[str]] = {}
        self._turn = 0
        self.servers: tuple[str, ...] = ()

    def refresh(self) -> None:
        """Read changed files again."""
        if self._settings.refresh():
            document = self._settings.document
            self._networks = [
                NetworkNames(name, Path(directory)) for name, directory in document.get("networks", ())
            ]
            self._links = {alias.lower(): name.lower() for alias, name in document.get("links", ())}
            self._hosts = {}
            for name, address in document.get("hosts", ()):
                self._hosts.setdefault(name, []).append(address)
            self.servers = tuple(document.get("servers", ()))
        for network in self._networks:
            network.refresh()

    def look_up(self, name: str) -> list[str]:
        """Return the addresses of a lower-case name; the order rotates between calls."""
        found = self._addresses(self._links.get(name, name)) or self._hosts.get(name, [])
        if len(found) > 1:
            self._turn += 1
            start = self._turn % len(found)
            found = found[start:] + found[:start]
        return found

    def _addresses(self, name: str) -> list[str]:
        for network in self._networks:
            found = network.addresses(name)
            if not found and name.endswith("." + network.network):
                found = network.addresses(name[: -len(network.network) - 1])
            if found:
                return found
        return []

    def name_of(self, address: str) -> str:
        """Return the name of an address; "" if the address is unknown."""
        return next(filter(None, (network.name_of(address) for network in self._networks)), "")


def build_settings(
    networks: Iterable[tuple[str, str]],
    servers: Sequence[str],
    links: Iterable[tuple[str, str]],
    hosts: Iterable[tuple[str, str]],
) -> dict[str, Any]:
    """Return the document of a name server's settings.

    Args:
        networks: name and directory of each network, in search order.
        servers: addresses of upstream servers.
        links: pairs of an alias and its target name.
        hosts: pairs of a name and its address.
    """
    return {
        "networks": [list(pair) for pair in networks],
        "servers": list(servers),
        "links": [list(pair) for pair in links],
        "hosts": [list(pair) for pair in hosts],
    }


def answer(directory: Directory, query: Query, limit_bytes: int) -> bytes | None:
    """Return the answer to a query for a known name or address; None for a query to forward."""
    if not query.is_standard:
        return message.build_answer(query, code=message.NOT_IMPLEMENTED, limit_bytes=limit_bytes)
    if query.kind == PTR and (address := message.reverse_address(query.name)):
        name = directory.name_of(address)
        records = [(PTR, message.encode_name(name))] if name else []
        return message.build_answer(query, records, limit_bytes=limit_bytes) if name else None
    addresses = directory.look_up(query.name)
    if not addresses:
        return None
    family = {A: socket.AF_INET, AAAA: socket.AF_INET6}.get(query.kind)
    found = [(query.kind, ipaddress.ip_address(text).packed) for text in addresses if _family(text) == family]
    return message.build_answer(query, found, limit_bytes=limit_bytes)


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def open_sockets() -> tuple[socket.socket, socket.socket]:
    """Return a server's listening UDP and TCP socket, made in the caller's network namespace.

    Postcondition: queries to 127.0.0.11, port 53, reach them.  If the kernel cannot redirect that port, the sockets are
    bound to it, and the container cannot run a name server on 0.0.0.0:53.
    """
    from pydock_core.supervision.names.redirect import ADDRESS, PORT, redirect

    def bind(port: int) -> tuple[socket.socket, socket.socket]:
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        for item in (udp, tcp):
            item.bind((ADDRESS, port))
        tcp.listen(_BACKLOG)
        return udp, tcp

    udp, tcp = bind(0)
    try:
        redirect(udp.getsockname()[1], tcp.getsockname()[1])
    except OSError:
        udp.close()
        tcp.close()
        udp, tcp = bind(PORT)
    return udp, tcp


class NameServer:
    """A name server in an event loop.

    Args:
        udp, tcp: its listening sockets.
    """

    def __init__(self, loop: EventLoop, directory: Directory, udp: socket.socket, tcp: socket.socket) -> None:
        self.loop = loop
        self.directory = directory
        self.forwarded = 0
        self.clients = 0
        self._udp = udp
        self._tcp = tcp

    def start(self) -> None:
        """Begin to serve."""
        self.loop.watch(self._udp.fileno(), READ, self._on_datagrams)
        self.loop.watch(self._tcp.fileno(), READ, self._on_connections)

    def _on_datagrams(self, _: int) -> None:
        for _ in range(_BATCH):
            try:
                data, client = self._udp.recvfrom(_RECEIVE_BYTES)
            except OSError:
                return
            self.serve(data, partial(self._reply, client), is_stream=False)

    def _reply(self, client: Any, data: bytes) -> None:
        with suppress(OSError):  # the client is gone, or its buffer is full: it repeats the query
            self._udp.sendto(data, client)

    def _on_connections(self, _: int) -> None:
        for _ in range(_BATCH):
            try:
                accepted, _address = self._tcp.accept()
            except OSError:
                return
            if self.clients >= _MOST_CLIENTS:
                accepted.close()
                continue
            accepted.setblocking(False)
            _StreamClient(self, accepted)

    def serve(self, data: bytes, reply: Reply, *, is_stream: bool) -> bool:
        """Answer a message at once or after forwarding it; return whether ``reply`` is or will be called."""
        try:
            query = message.parse_query(data)
        except MalformedQuery as error:
            if error.identifier is not None:
                reply(message.build_format_error(error.identifier))
            return error.identifier is not None
        self.directory.refresh()
        limit_bytes = message.LARGEST_BYTES if is_stream else query.size_bytes
        known = answer(self.directory, query, limit_bytes)
        if known is not None:
            reply(known)
        elif not self.directory.servers:
            # No other names exist here; an error would make the client wait and repeat the query.
            reply(message.build_answer(query, code=message.NAME_ERROR, limit_bytes=limit_bytes))
        elif self.forwarded >= _MOST_FORWARDED:
            reply(message.build_answer(query, code=message.SERVER_FAILURE, limit_bytes=limit_bytes))
        else:
            kind = _StreamForward if is_stream else _DatagramForward
            kind(self, query, data, reply, limit_bytes).start()
        return True


class _Forward:
    """A query that is forwarded to upstream servers, one after the other."""

    kind = socket.SOCK_DGRAM
    first_event = READ

    def __init__(self, server: NameServer, query: Query, data: bytes, reply: Reply, limit_bytes: int) -> None:
        self.query = query
        self.data = data
        self._server = server
        self._loop = server.loop
        self._reply = reply
        self._limit_bytes = limit_bytes
        self._left = list(server.directory.servers)
        self._timer: Timer | None = None
        self.socket: socket.socket | None = None
        self.identifier = 0
        server.forwarded += 1

    def start(self) -> None:
        """Query the next server; if none is left, report the failure to the client."""
        while self._left:
            address = self._left.pop(0)
            self.identifier = struct.unpack(">H", os.urandom(2))[0]
            kind = self.kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
            try:
                self.socket = socket.socket(_family(address), kind)
                with suppress(BlockingIOError):
                    self.socket.connect((address, _DNS_PORT))
                self._loop.watch(self.socket.fileno(), self.first_event, self._on_event)
                self.begin()
            except OSError:
                self._release()
                continue
            self._timer = self._loop.call_later(SERVER_TIMEOUT_SECONDS, self.next)
            return
        failure = message.build_answer(self.query, code=message.SERVER_FAILURE, limit_bytes=self._limit_bytes)
        self._end(failure)

    def begin(self) -> None:
        """Send as much as possible without blocking."""

    def _on_event(self, _: int) -> None:
        try:
            self.on_ready()
        except BlockingIOError:
            return
        except OSError:
            self.next()

    def on_ready(self) -> None:
        """Continue with the current server; OSError if it fails."""

    def next(self) -> None:
        """Abandon the current server."""
        self._release()
        self.start()

    def accept(self, data: bytes) -> bool:
        """Forward a valid answer to the client."""
        if not message.is_answer_to(self.query, data, self.identifier):
            return False
        self._end(message.with_identifier(data, self.query.identifier))
        return True

    def _end(self, data: bytes) -> None:
        self._release()
        self._server.forwarded -= 1
        self._reply(data)

    def _release(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.socket is not None:
            self._loop.forget(self.socket.fileno())
            self.socket.close()
            self.socket = None

    def change(self, events: int) -> None:
        """Change the awaited events of the server's socket."""
        assert self.socket is not None
        self._loop.change(self.socket.fileno(), events)


class _DatagramForward(_Forward):
    """A query over UDP, from its own port: an answer must come from the server and have the query's id."""

    def begin(self) -> None:
        assert self.socket is not None
        self.socket.send(message.with_identifier(self.data, self.identifier))

    def on_ready(self) -> None:
        for _ in range(_BATCH):
            assert self.socket is not None
            if self.accept(self.socket.recv(_RECEIVE_BYTES)):
                return


class _StreamForward(_Forward):
    """A query over TCP."""

    kind = socket.SOCK_STREAM
    first_event = WRITE

    def begin(self) -> None:
        packet = message.with_identifier(self.data, self.identifier)
        self._unsent = struct.pack(">H", len(packet)) + packet
        self._received = b""

    def on_ready(self) -> None:
        assert self.socket is not None
        if self._unsent:
            self._unsent = self._unsent[self.socket.send(self._unsent) :]
            if not self._unsent:
                self.change(READ)
            return
        chunk = self.socket.recv(_RECEIVE_BYTES)
        self._received += chunk
        data = _first_message(self._received)
        if (data is None and not chunk) or (data is not None and not self.accept(data)):
            self.next()


def _first_message(stream: bytes) -> bytes | None:
    """Return the first message of a TCP stream; None if it is incomplete (RFC 1035, section 4.2.2)."""
    if len(stream) < 2:
        return None
    length = struct.unpack_from(">H", stream)[0]
    return stream[2 : 2 + length] if len(stream) >= 2 + length else None


class _StreamClient:
    """A client over TCP: its queries are answered one after the other."""

    def __init__(self, server: NameServer, connection: socket.socket) -> None:
        self._server = server
        self._loop = server.loop
        self._socket = connection
        self._received = b""
        self._unsent = b""
        self._is_closed = False
        server.clients += 1
        self._loop.watch(connection.fileno(), READ, self._on_event)
        self._timer = self._loop.call_later(_CLIENT_IDLE_SECONDS, self._close)

    def _on_event(self, _: int) -> None:
        try:
            if self._unsent:
                self._send()
                return
            chunk = self._socket.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        if not chunk:
            self._close()
            return
        self._received += chunk
        self._serve_next()

    def _serve_next(self) -> None:
        data = _first_message(self._received)
        if data is None:
            return
        self._received = self._received[2 + len(data) :]
        self._loop.pause(self._socket.fileno())  # further queries wait in the kernel
        if not self._server.serve(data, self._reply, is_stream=True):
            self._close()

    def _reply(self, data: bytes) -> None:
        if self._is_closed:
            return
        self._unsent = struct.pack(">H", len(data)) + data
        self._loop.resume(self._socket.fileno(), WRITE)
        self._timer.cancel()
        self._timer = self._loop.call_later(_CLIENT_IDLE_SECONDS, self._close)

    def _send(self) -> None:
        self._unsent = self._unsent[self._socket.send(self._unsent) :]
        if not self._unsent:
            self._loop.change(self._socket.fileno(), READ)
            self._serve_next()

    def _close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._server.clients -= 1
            self._timer.cancel()
            self._loop.forget(self._socket.fileno())
            self._socket.close()
