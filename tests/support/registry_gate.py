"""A server in front of a registry that passes on what is asked for, until a test stops it."""

from __future__ import annotations

import contextlib
import http.client
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.support.network_namespace import NetworkNamespace
from tests.support.registry import Registry
from tests.support.scripted_server import Exchange, Scripted, scripted_server

_PIECE_BYTES = 64 << 10
_HEADERS = ("Content-Type", "Content-Length", "Content-Range", "Docker-Content-Digest")

Gate = Callable[[Exchange, int], None]
"""Called before each piece of an answer's body, with how much of it has been passed on; may wait."""


@contextmanager
def registry_gate(inside: NetworkNamespace, registry: Registry, gate: Gate) -> Iterator[Scripted]:
    """Run one; it passes on GET and HEAD, which is all that a pull asks for."""

    def pass_on(exchange: Exchange) -> None:
        connection = http.client.HTTPConnection(registry.host, timeout=20)
        with contextlib.closing(connection), contextlib.suppress(ConnectionError):
            headers = {name: exchange.headers[name] for name in ("Accept", "Range") if exchange.headers[name]}
            connection.request(exchange.command, exchange.path, headers=headers)
            answer = connection.getresponse()
            exchange.send_response(answer.status)
            for name in _HEADERS:
                if value := answer.getheader(name):
                    exchange.send_header(name, value)
            exchange.end_headers()
            passed = 0
            gate(exchange, passed)
            while piece := answer.read(_PIECE_BYTES):
                exchange.wfile.write(piece)
                passed += len(piece)
                gate(exchange, passed)

    # The server's threads are outside; its socket only is inside.
    with scripted_server(inside, lambda exchange: inside(pass_on, exchange)) as server:
        yield server
