"""An HTTP server on loopback whose answers a test scripts, and that remembers what it was asked."""

from __future__ import annotations

import contextlib
import http.server
import json
import socket
import ssl
import threading
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.support.certificates import Pair
from tests.support.network_namespace import NetworkNamespace


@dataclass(frozen=True)
class Seen:
    """A request that came."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    peer: tuple[str, int]

    @property
    def target(self) -> str:
        """The path without the query."""
        return self.path.partition("?")[0]

    @property
    def query(self) -> dict[str, list[str]]:
        return urllib.parse.parse_qs(self.path.partition("?")[2])


class Exchange(http.server.BaseHTTPRequestHandler):
    """One request, for the script to answer."""

    protocol_version = "HTTP/1.1"
    server: _Server
    seen: Seen

    def answer(
        self,
        status: int = 200,
        body: bytes | dict[str, Any] = b"",
        headers: Mapping[str, str] | None = None,
        *,
        length: int | None = None,
    ) -> None:
        """Answer whole; ``length`` is what Content-Length claims, -1 for none at all."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if length != -1:
            self.send_header("Content-Length", str(len(data) if length is None else length))
        else:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
        if length not in (None, -1):
            self.break_off()

    def break_off(self) -> None:
        """Close the connection here and now."""
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)

    def stall(self) -> None:
        """Say nothing until the server ends."""
        self.wfile.flush()
        self.server.ended.wait()
        self.close_connection = True

    def handle_one_request(self) -> None:
        with contextlib.suppress(OSError):
            super().handle_one_request()

    def _handle(self) -> None:
        body = b""
        if self.headers.get("Content-Length"):
            body = self.rfile.read(int(self.headers["Content-Length"]))
        self.seen = Seen(self.command, self.path, dict(self.headers.items()), body, self.client_address)
        with self.server.lock:
            self.server.requests.append(self.seen)
        self.server.script(self)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _handle

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], script: Callable[[Exchange], None]) -> None:
        super().__init__(address, Exchange)
        self.script = script
        self.requests: list[Seen] = []
        self.lock = threading.Lock()
        self.ended = threading.Event()

    def handle_error(self, request: object, address: object) -> None:
        """A client that has gone is no error here."""


@dataclass
class Scripted:
    """A running server."""

    server: _Server
    scheme: str

    @property
    def port(self) -> int:
        return int(self.server.server_address[1])

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}"

    @property
    def requests(self) -> list[Seen]:
        """What it was asked, without what every client asks first."""
        with self.server.lock:
            return [seen for seen in self.server.requests if seen.path != "/v2/"]


@contextmanager
def scripted_server(
    inside: NetworkNamespace, script: Callable[[Exchange], None], tls: Pair | None = None
) -> Iterator[Scripted]:
    """Run a server inside a namespace; ``script`` answers each request, in a thread of its own."""
    server = inside(_Server, ("127.0.0.1", 0), script)
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls.certificate, tls.key)
        # The handshake is the handler thread's: one that fails or hangs is nobody else's business.
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield Scripted(server, "https" if tls else "http")
    finally:
        server.ended.set()
        server.shutdown()
        thread.join()
        server.server_close()
