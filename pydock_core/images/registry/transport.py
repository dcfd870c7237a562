"""One HTTP exchange with any host: pooled connections, TLS, proxies, time limits.

It follows no redirect, retries nothing, and knows no credentials.  A time limit for silence is not enough, because a
peer that sends a byte now and then is never silent: the head of an answer and a document also have a deadline.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import ipaddress
import itertools
import math
import socket
import ssl
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

from pydock_core.errors import CorruptError, InvalidError, PyDockError, UnavailableError, UnsupportedError
from pydock_core.images.registry.failure import BrokenConnectionError, mapped_failures
from pydock_core.images.registry.header import parse_length
from pydock_core.images.registry.settings import CONNECT_SECONDS, Certificates, RegistrySettings, host_name

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

PATIENCE = 3
"""A head or a document may take this many times the limit for silence."""
PIECE_BYTES = 1 << 20
_DRAIN_BYTES = 4096
_DRAIN_SECONDS = 1.0
"""A new connection costs less than a longer wait for the rest of an unwanted body."""
_CONNECTIONS_PER_HOST = 16
USER_AGENT = "pydock"


class Origin(NamedTuple):
    """Scheme, host and port of an address: the extent of its credentials."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str, subject: str) -> Origin:
        """Return the origin of an absolute http or https address.

        Raises:
            CorruptError: the address is invalid; ``subject`` names its origin.
        """
        try:
            parts = urllib.parse.urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise CorruptError(f"{subject} gave an invalid address: {error}") from error
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise CorruptError(f"{subject} gave an address that is neither http nor https")
        return cls(parts.scheme, parts.hostname, port or (443 if parts.scheme == "https" else 80))

    @property
    def name(self) -> str:
        """HOST, or HOST:PORT if the port is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.scheme == "https" else 80) else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.name}"


class TimedReader(io.RawIOBase):
    """The bytes of a connection, until a deadline.

    Args:
        raw: the connection's bytes.
        connected: the connection; its present time limit is the limit for silence.
    """

    def __init__(self, raw: io.RawIOBase, connected: socket.socket) -> None:
        self._raw = raw
        self._connected = connected
        self.silence_seconds = connected.gettimeout() or math.inf
        self._end_seconds = math.inf

    def expect_within(self, seconds: float) -> None:
        """Set the deadline, from now; a later read raises TimeoutError."""
        self._end_seconds = time.monotonic() + seconds

    def readinto(self, buffer: WriteableBuffer, /) -> int | None:
        """Read the available bytes (io.RawIOBase)."""
        left_seconds = self._end_seconds - time.monotonic()
        if left_seconds <= 0:
            raise TimeoutError("the deadline has passed")
        limit_seconds = min(self.silence_seconds, left_seconds)
        if math.isfinite(limit_seconds) and limit_seconds != self._connected.gettimeout():
            self._connected.settimeout(limit_seconds)
        return self._raw.readinto(buffer)

    def readable(self) -> bool:
        """Return True (io.RawIOBase)."""
        return True

    def close(self) -> None:
        """Release the connection (io.RawIOBase)."""
        self._raw.close()
        super().close()


class TimedAnswer(http.client.HTTPResponse):
    """An answer whose head has a deadline; the reader of its body sets another one.

    Attributes:
        timed: the connection's bytes.
    """

    def __init__(
        self, sock: socket.socket, debuglevel: int = 0, method: str | None = None, url: str | None = None
    ) -> None:
        super().__init__(sock, debuglevel, method, url)
        self.timed = TimedReader(self.fp.detach(), sock)
        self.timed.expect_within(PATIENCE * self.timed.silence_seconds)
        self.fp = io.BufferedReader(self.timed)


class Response:
    """An answer with its body unread; a context manager that gives the connection back or closes it.

    Attributes:
        silence_seconds: the limit for silence, after which the connection counts as stalled.
    """

    def __init__(self, raw: urllib3.BaseHTTPResponse, url: str, origin: Origin, method: str) -> None:
        self._raw = raw
        answer = getattr(raw, "_original_response", None)  # what requests, too, relies on
        if not isinstance(answer, TimedAnswer):
            raise TypeError("not a connection of this transport")
        self._timed = answer.timed
        self.silence_seconds = self._timed.silence_seconds
        self._method = method
        self.url = url
        self.origin = origin
        self.status = raw.status
        self.headers: Mapping[str, str] = raw.headers

    def header_values(self, name: str) -> list[str]:
        """Return the values of all headers of one name."""
        return list(self._raw.headers.getlist(name))

    @property
    def length(self) -> int | None:
        """The Content-Length; None if the end is marked otherwise."""
        return parse_length(self.headers.get("Content-Length"))

    @property
    def ends_by_closing(self) -> bool:
        """Whether the body's end cannot be told from a broken connection."""
        return self.length is None and "chunked" not in self.headers.get("Transfer-Encoding", "").lower()

    @property
    def content_type(self) -> str:
        """The media type without parameters, in lower case."""
        return self.headers.get("Content-Type", "").partition(";")[0].strip().lower()

    def read1(self, limit_bytes: int) -> bytes:
        """Return the available bytes, at least one; b"" at the end.

        Raises:
            BrokenConnectionError: it broke before the end, or nothing came for too long.
        """
        self._timed.expect_within(PATIENCE * self.silence_seconds)
        return self._read1(limit_bytes)

    def _read1(self, limit_bytes: int) -> bytes:
        with mapped_failures(self.origin.name):
            return self._raw.read1(limit_bytes, decode_content=False)

    def read_document(self, limit_bytes: int, subject: str) -> bytes:
        """Return the whole body.

        Raises:
            CorruptError: it is larger than ``limit_bytes``.
            BrokenConnectionError: it broke before the end, or comes too slowly.
        """
        pieces, total = [], 0
        self._timed.expect_within(PATIENCE * self.silence_seconds)
        while piece := self._read1(PIECE_BYTES):
            total += len(piece)
            if total > limit_bytes:
                raise CorruptError(f"{subject} is larger than {limit_bytes >> 20} MiB")
            pieces.append(piece)
        if self._method != "HEAD" and self.length is not None and total < self.length:
            raise BrokenConnectionError(f"{self.origin.name}: the connection was closed in mid-answer")
        return b"".join(pieces)

    def read_beginning(self, limit_bytes: int = 16384) -> bytes:
        """Return the beginning of the body: all that comes in time and without an error."""
        pieces, total = [], 0
        self._timed.expect_within(self.silence_seconds)
        with contextlib.suppress(PyDockError):
            while total < limit_bytes and (piece := self._read1(limit_bytes - total)):
                pieces.append(piece)
                total += len(piece)
        return b"".join(pieces)

    def close(self) -> None:
        """Give the connection back if little is left of the body, else close it."""
        empty = self._method == "HEAD" or self.status in (204, 304)
        if empty or (self.length is not None and self.length <= _DRAIN_BYTES):
            self._timed.expect_within(min(_DRAIN_SECONDS, self.silence_seconds))
            with contextlib.suppress(PyDockError):
                while self._read1(_DRAIN_BYTES):
                    pass
        with contextlib.suppress(OSError, urllib3.exceptions.HTTPError):
            self._raw.close()

    def __enter__(self) -> Response:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            with contextlib.suppress(OSError, urllib3.exceptions.HTTPError):
                self._raw.close()


class Transport:
    """Connections to any number of hosts; thread-safe.

    Args:
        settings: which hosts are insecure, and certificates.
        timeout_seconds: the limit for silence, after which a connection counts as stalled.
    """

    def __init__(self, settings: RegistrySettings, timeout_seconds: float) -> None:
        self._settings = settings
        self._timeout_seconds = timeout_seconds
        self._lock = threading.Lock()
        self._pools: dict[Origin, urllib3.HTTPConnectionPool] = {}
        self._managers: list[urllib3.PoolManager] = []
        self._sockets: set[socket.socket] = set()
        self._closed = threading.Event()
        self._pool_classes = _pool_classes(self)

    def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | Iterable[bytes] | None = None,
    ) -> Response:
        """Send one request, and return the answer's head; an iterable body needs a Content-Length header.

        Raises:
            BrokenConnectionError: no connection, or no answer.
            TlsError: no secure connection.
            UnavailableError: the transport is closed.
        """
        origin = Origin.of(url, "the registry")
        self._check_open()
        pool = self._pool(origin)
        parts = urllib.parse.urlsplit(url)
        target = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
        timeout = urllib3.Timeout(connect=CONNECT_SECONDS, read=self._timeout_seconds)
        with mapped_failures(origin.name, self._closed, self._settings):
            raw = pool.urlopen(
                method,
                target,
                body=body,
                headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **headers},
                retries=False,
                redirect=False,
                timeout=timeout,
                preload_content=False,
                decode_content=False,
                assert_same_host=False,
            )
        return Response(raw, url, origin, method)

    def wait(self, seconds: float) -> None:
        """Wait until a time has passed or the transport is closed.

        Raises:
            UnavailableError: it is closed.
        """
        self._closed.wait(seconds)
        self._check_open()

    def close(self) -> None:
        """Close all connections; threads that wait for one get an error."""
        self._closed.set()
        with self._lock:
            pools, sockets = list(self._pools.values()), list(self._sockets)
            self._pools.clear()
        for connected in sockets:
            with contextlib.suppress(OSError):
                connected.shutdown(socket.SHUT_RDWR)
        for pool in pools:
            pool.close()

    def opened(self, connected: socket.socket) -> None:
        """Register a new connection: it gets the limit for silence, and ends with the transport."""
        connected.settimeout(self._timeout_seconds)
        with self._lock:
            self._sockets.add(connected)
        if self._closed.is_set():
            with contextlib.suppress(OSError):
                connected.shutdown(socket.SHUT_RDWR)

    def ended(self, connected: socket.socket) -> None:
        """Unregister a closed connection."""
        with self._lock:
            self._sockets.discard(connected)

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise UnavailableError("the transfer was interrupted")

    def _pool(self, origin: Origin) -> urllib3.HTTPConnectionPool:
        with self._lock:
            pool = self._pools.get(origin)
        if pool is not None:
            return pool
        options: dict[str, Any] = {"maxsize": _CONNECTIONS_PER_HOST}
        if origin.scheme == "https":
            options["ssl_context"] = self._tls_context(origin)
        proxy = proxy_for(origin)
        manager = urllib3.ProxyManager(**proxy, **options) if proxy else urllib3.PoolManager(**options)
        manager.pool_classes_by_scheme = self._pool_classes
        with self._lock:
            if origin not in self._pools:
                self._managers.append(manager)
                self._pools[origin] = manager.connection_from_host(origin.host, origin.port, origin.scheme)
            return self._pools[origin]

    def _tls_context(self, origin: Origin) -> ssl.SSLContext:
        host = f"[{origin.host}]" if ":" in origin.host else origin.host
        # The directory is named with a port if the reference is.
        names = [f"{host}:{origin.port}"] if origin.port != 443 else [host, f"{host}:443"]
        found = next(
            (name for name in names if self._settings.certificates(name) != Certificates()), names[0]
        )
        certificates = self._settings.certificates(found)
        files = (*certificates.authorities, *itertools.chain.from_iterable(certificates.client))
        try:
            context = ssl.create_default_context()
            if not certificates.authorities and any(map(self._settings.is_insecure, names)):
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            for authority in certificates.authorities:
                context.load_verify_locations(authority)
            for certificate, key in certificates.client:
                context.load_cert_chain(certificate, key)
        except (OSError, ssl.SSLError) as error:
            raise InvalidError(
                f"cannot use the certificates for {found}: {error.strerror or error}",
                f"look into {files[0].parent}" if files else "are the host's own certificates there?",
            ) from error
        return context


def _pool_classes(owner: Transport) -> dict[str, type[urllib3.HTTPConnectionPool]]:
    """Return pools whose connections register with their owner, which can then end them."""

    class Plain(HTTPConnection):
        response_class = TimedAnswer

        def connect(self) -> None:
            super().connect()
            # An unchecked certificate is configured as such (insecure-registries): urllib3 is not to warn of it for each
            # connection.
            self.is_verified = True
            if self.sock is not None:
                owner.opened(self.sock)

        def close(self) -> None:
            if self.sock is not None:
                owner.ended(self.sock)
            super().close()

    class Secure(Plain, HTTPSConnection):
        pass

    class PlainPool(urllib3.HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(urllib3.HTTPSConnectionPool):
        ConnectionCls = Secure

    return {"http": PlainPool, "https": SecurePool}


def proxy_for(origin: Origin) -> dict[str, Any] | None:
    """Return the arguments of a ProxyManager for an origin, from the environment; None for a direct connection.

    HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY, in either case, as the standard library reads them; never for
    loopback, as in Go.

    Raises:
        InvalidError: the proxy's address is invalid.
        UnsupportedError: the proxy speaks another protocol than HTTP.
    """
    proxies = urllib.request.getproxies()
    address = proxies.get(origin.scheme) or proxies.get("all")
    if not address or _is_loopback(origin.host) or urllib.request.proxy_bypass(origin.name):
        return None
    if "://" not in address:
        address = "http://" + address
    try:
        parts = urllib.parse.urlsplit(address)
        without_user = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        host = urllib3.util.parse_url(without_user).host
    except ValueError:  # a bracket that is not closed, a port that is not a number; urllib3's own, too
        host = None
    if not host:
        # The address may contain a password, so it is not shown.
        raise InvalidError(
            f"the address of the proxy for {origin.scheme} is invalid",
            f"write {origin.scheme.upper()}_PROXY=http://[USER:PASSWORD@]HOST:PORT",
        )
    if parts.scheme not in ("http", "https"):
        raise UnsupportedError(
            f"the proxy for {origin.scheme} is of kind {parts.scheme!r}",
            "only http and https proxies are spoken to",
        )
    arguments: dict[str, Any] = {"proxy_url": without_user}
    if parts.username is not None:
        secret = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
        arguments["proxy_headers"] = urllib3.make_headers(proxy_basic_auth=secret)
    return arguments


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host_name(host)).is_loopback
    except ValueError:
        return False
