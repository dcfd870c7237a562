"""WebSockets through the proxy: negotiated end to end, any size, either side's end, and who may open one."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from tornado import httpclient, httpserver, web, websocket

from tests.support.event_loop import run_async
from tests.support.jupyter_servers import TOKEN, Backend, Backends, JupyterServer, free_port

MIB = 1 << 20


class Echo(websocket.WebSocketHandler):
    """Echoes; remembers how it was opened and how it was closed."""

    seen: list[Echo] = []  # noqa: RUF012 - shared by the handlers of one test, see the fixture

    def open(self, *_args: str) -> None:
        self.ended = asyncio.Event()
        self.pongs: list[bytes] = []
        type(self).seen.append(self)

    def get_compression_options(self) -> dict[str, Any] | None:
        return {} if self.request.path.endswith("/compressed") else None

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        return subprotocols[-1] if subprotocols else None

    def check_origin(self, origin: str) -> bool:
        return origin == f"http://{self.request.host}"

    def on_message(self, message: str | bytes) -> Any:
        if message == "close":
            self.close(4001, "as you like")
        elif message == "ping":
            self.ping(b"are you there")
        else:
            return self.write_message(message, binary=isinstance(message, bytes))
        return None

    def on_pong(self, data: bytes) -> None:
        self.write_message(b"pong: " + data, binary=True)

    def on_close(self) -> None:
        self.ended.set()


@pytest.fixture
def echo(backends: Backends) -> Iterator[int]:
    """The port of an echoing application."""
    Echo.seen.clear()

    async def start() -> tuple[httpserver.HTTPServer, int]:
        application = web.Application([(r"/.*", Echo)], websocket_max_message_size=64 * MIB)
        server = httpserver.HTTPServer(application)
        port = free_port()
        server.listen(port, "127.0.0.1")
        return server, port

    async def stop(server: httpserver.HTTPServer) -> None:
        server.stop()
        await server.close_all_connections()

    server, port = asyncio.run_coroutine_threadsafe(start(), backends.loop).result(10)
    yield port
    asyncio.run_coroutine_threadsafe(stop(server), backends.loop).result(10)


Talk = Callable[[websocket.WebSocketClientConnection], Awaitable[None]]


def converse(
    server: JupyterServer,
    port: int,
    talk: Talk,
    path: str = "/ws",
    headers: dict[str, str] | None = None,
    **options: Any,
) -> None:
    """Open a WebSocket as a logged-in page does, and talk."""

    async def run() -> None:
        request = httpclient.HTTPRequest(
            f"ws://{server.host}{server.proxied(port, path)}",
            headers={"Cookie": server.cookie, "Origin": f"http://{server.host}", **(headers or {})},
        )
        client = await websocket.websocket_connect(request, max_message_size=64 * MIB, **options)
        protocol = client.protocol
        assert protocol is not None
        try:
            await talk(client)
        finally:
            client.close()
            while protocol.stream is not None and not protocol.stream.closed():
                await asyncio.sleep(0.01)  # the closing handshake; bounded below

    run_async(asyncio.wait_for(run(), 30))


@pytest.mark.parametrize("base", ["jupyter", "hub_like"])
def test_echo(request: pytest.FixtureRequest, base: str, echo: int) -> None:
    async def talk(client: websocket.WebSocketClientConnection) -> None:
        for message in ("hello", "ünïcode", b"\x00\xff", ""):
            await client.write_message(message, binary=isinstance(message, bytes))
            assert await client.read_message() == message

    server: JupyterServer = request.getfixturevalue(base)
    converse(server, echo, talk)
    (handler,) = Echo.seen
    got = handler.request
    assert got.headers["Host"] == f"localhost:{echo}"
    assert got.headers["Origin"] == f"http://localhost:{echo}"
    assert got.headers["X-Forwarded-Prefix"] == server.proxied(echo, "")
    assert "Cookie" not in got.headers
    assert got.uri == "/ws"


def test_subprotocol_and_compression_are_negotiated_end_to_end(jupyter: JupyterServer, echo: int) -> None:
    async def talk(client: websocket.WebSocketClientConnection) -> None:
        assert client.selected_subprotocol == "b"
        assert "permessage-deflate" in client.headers["Sec-WebSocket-Extensions"]
        text = "squeeze me " * 100_000
        await client.write_message(text)
        assert await client.read_message() == text
        # The wire carried far less, both ways.
        assert client.protocol is not None
        assert client.protocol._wire_bytes_in < len(text) / 20

    options = {"compression_options": {}, "subprotocols": ["a", "b"]}
    converse(jupyter, echo, talk, "/compressed", **options)

    async def plain(client: websocket.WebSocketClientConnection) -> None:
        assert "Sec-WebSocket-Extensions" not in client.headers

    converse(jupyter, echo, plain, compression_options={})


def test_big_frames(jupyter: JupyterServer, echo: int) -> None:
    async def talk(client: websocket.WebSocketClientConnection) -> None:
        message = os.urandom(MIB) * 24
        await client.write_message(message, binary=True)
        assert await client.read_message() == message

    converse(jupyter, echo, talk)


def test_ping_and_pong_pass(jupyter: JupyterServer, echo: int) -> None:
    async def talk(client: websocket.WebSocketClientConnection) -> None:
        await client.write_message("ping")
        assert await client.read_message() == b"pong: are you there"

    converse(jupyter, echo, talk)


def test_the_application_closes(jupyter: JupyterServer, echo: int) -> None:
    async def talk(client: websocket.WebSocketClientConnection) -> None:
        await client.write_message("close")
        assert await client.read_message() is None
        assert (client.close_code, client.close_reason) == (4001, "as you like")

    converse(jupyter, echo, talk)


def test_the_browser_closes(jupyter: JupyterServer, backends: Backends, echo: int) -> None:
    async def talk(client: websocket.WebSocketClientConnection) -> None:
        client.close(4002, "bye")
        assert await client.read_message() is None

    converse(jupyter, echo, talk)
    (handler,) = Echo.seen
    asyncio.run_coroutine_threadsafe(asyncio.wait_for(handler.ended.wait(), 10), backends.loop).result(15)
    assert (handler.close_code, handler.close_reason) == (4002, "bye")


def test_the_browser_disappears(jupyter: JupyterServer, backends: Backends, echo: int) -> None:
    async def talk(client: websocket.WebSocketClientConnection) -> None:
        assert client.protocol is not None
        client.protocol._abort()

    converse(jupyter, echo, talk)
    (handler,) = Echo.seen
    asyncio.run_coroutine_threadsafe(asyncio.wait_for(handler.ended.wait(), 10), backends.loop).result(15)
    assert handler.close_code is None


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:1"},
        {"Cookie": ""},
        {"Cookie": "", "Authorization": "token wrong"},
    ],
    ids=str,
)
def test_others_may_not_open_one(jupyter: JupyterServer, echo: int, headers: dict[str, str]) -> None:
    before = jupyter.dials()

    async def talk(_client: websocket.WebSocketClientConnection) -> None:
        raise AssertionError("it was opened")

    with pytest.raises(httpclient.HTTPClientError) as caught:
        converse(jupyter, echo, talk, headers=headers)
    assert caught.value.code == 403
    assert Echo.seen == []
    assert jupyter.dials() == before


def test_a_token_opens_one_from_anywhere(jupyter: JupyterServer, echo: int) -> None:
    async def talk(client: websocket.WebSocketClientConnection) -> None:
        await client.write_message("hello")
        assert await client.read_message() == "hello"

    foreign = {"Cookie": "", "Authorization": f"token {TOKEN}"}
    converse(jupyter, echo, talk, headers={**foreign, "Origin": f"http://{jupyter.host}"})
    converse(jupyter, echo, talk, f"/ws?token={TOKEN}&x=1", {"Cookie": ""})
    assert [handler.request.uri for handler in Echo.seen] == ["/ws", "/ws?x=1"]
    assert all("Authorization" not in handler.request.headers for handler in Echo.seen)


def upgrade_headers(protocol: str) -> dict[str, str]:
    return {
        "Connection": "Upgrade",
        "Upgrade": protocol,
        "Sec-Fetch-Site": "same-origin",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version": "13",
    }


def test_a_refused_upgrade_is_an_ordinary_response(jupyter: JupyterServer, backend: Backend) -> None:
    answer = jupyter.request("GET", jupyter.proxied(backend.port, "/ws"), upgrade_headers("websocket"))
    assert (answer.status, answer.body) == (200, b"hello")
    assert backend.last.get("Connection") == "Upgrade"
    assert backend.last.get("Upgrade") == "websocket"
    assert backend.last.get("Sec-WebSocket-Key") == "dGhlIHNhbXBsZSBub25jZQ=="


def test_other_upgrades_are_not_passed_on(jupyter: JupyterServer, backend: Backend) -> None:
    for method, protocol in (("GET", "h2c"), ("GET", "tcp"), ("POST", "websocket")):
        assert jupyter.request(method, jupyter.proxied(backend.port), upgrade_headers(protocol)).status == 200
        assert backend.last.get("Upgrade") is None
        assert backend.last.get("Connection") is None


def test_nothing_to_connect_to(jupyter: JupyterServer) -> None:
    headers = upgrade_headers("websocket")
    assert jupyter.request("GET", jupyter.proxied(free_port()), headers).status == 503
    assert jupyter.request("GET", jupyter.proxied(80, "/", "nothing"), headers).status == 404
    assert jupyter.request("GET", jupyter.proxied(80, "/", "idle"), headers).status == 409
