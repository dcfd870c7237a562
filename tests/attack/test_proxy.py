"""What a hostile or broken application, a foreign page and a slow client cannot do through the proxy."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydock_jupyter.server.origin_header import DROPPED, filter_link, is_password_challenge
from tests.support.jupyter_servers import TOKEN, Backend, Backends, JupyterServer, reply, run_jupyter

MIB = 1 << 20
POISON = reply(b"poison", "X-Poison: 1")

# -- bytes that belong to no response


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("GET", reply(b"hello")),
        ("GET", reply(b"5\r\nhello\r\n0\r\n\r\n", "Transfer-Encoding: chunked", length=False)),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"),
        ("HEAD", reply(b"hello")),
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
        ("POST", b"HTTP/1.1 100 Continue\r\n\r\n" + reply(b"hello")),
    ],
    ids=str,
)
def test_bytes_after_a_response_do_not_become_the_next_one(
    jupyter: JupyterServer, backends: Backends, method: str, answer: bytes
) -> None:
    backend = backends.record(answer + POISON, reply(b"second"))
    path = jupyter.proxied(backend.port)
    first = jupyter.request(method, path, body=b"x" if method == "POST" else None)
    assert first.status in (200, 204, 304)
    second = jupyter.request("GET", path)
    assert (second.body, second.get("X-Poison")) == (b"second", None)
    assert backend.connections == 2


def test_bytes_that_come_while_a_connection_is_idle(jupyter: JupyterServer, backends: Backends) -> None:
    answered, poisoned = asyncio.Event(), threading.Event()
    connections: list[int] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(1)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply(b"connection %d" % len(connections)))
        if len(connections) == 1:
            await answered.wait()
            writer.write(POISON)
            await writer.drain()
            poisoned.set()
        await reader.read()

    path = jupyter.proxied(backends.serve(handle))
    assert jupyter.request("GET", path).body == b"connection 1"
    backends.loop.call_soon_threadsafe(answered.set)
    assert poisoned.wait(10)
    assert jupyter.request("GET", path).body == b"connection 2"


def test_informational_responses_end(jupyter: JupyterServer, backends: Backends) -> None:
    """Each is read in a deeper call; thousands of them would be the end of the stack."""
    backend = backends.record(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 5000 + reply(b"x"))
    assert jupyter.request("GET", jupyter.proxied(backend.port)).status == 502
    few = backends.record(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 5 + reply(b"x"))
    assert jupyter.request("GET", jupyter.proxied(few.port)).body == b"x"


# -- headers


def test_names_that_cgi_confuses_do_not_reach_the_application(
    jupyter: JupyterServer, backend: Backend
) -> None:
    forged = {
        "Content_Length": "0",
        "Transfer_Encoding": "chunked",
        "X_Forwarded_For": "6.6.6.6",
        "X_Forwarded-Host": "evil.example",
        "X.Forwarded.Proto": "https",
        "Cookie_": "a=b",
        "X-Fine-1": "kept",
    }
    assert jupyter.request("POST", jupyter.proxied(backend.port), forged, b"12345").status == 200
    assert backend.last.body == b"12345"
    names = {line.split(b":")[0].decode() for line in backend.last.head.split(b"\r\n")[1:] if line}
    assert "X-Fine-1" in names
    assert all(name.replace("-", "").isalnum() for name in names)


def test_headers_that_act_on_the_origin_do_not_reach_the_page(
    jupyter: JupyterServer, backends: Backends
) -> None:
    prefix = "{prefix}"
    headers = [f"{name.title()}: x" for name in DROPPED]
    headers += [
        "Link: </lab>; rel=prerender",
        "Link: </api/shutdown>; rel=preload; as=fetch, </next?a=1,2>; rel=next",
        'WWW-Authenticate: Basic realm="Jupyter password"',
        'WWW-Authenticate: Bearer realm="x", Digest realm="Jupyter password"',
        "WWW-Authenticate: Bearer",
        "SourceMap: /app.js.map",
        "X-Accel-Buffering: no",
        "Content-Security-Policy: default-src 'self'",
        "Cross-Origin-Opener-Policy: same-origin",
    ]
    backend = backends.record(reply(b"x", *headers, status="401 Unauthorized"))
    prefix = jupyter.proxied(backend.port, "")
    answer = jupyter.request("GET", jupyter.proxied(backend.port))
    assert answer.status == 401
    assert not {name.lower() for name, _ in answer.headers} & set(DROPPED)
    assert answer.all("Link") == [f"<{prefix}/next?a=1,2>; rel=next"]
    assert answer.all("WWW-Authenticate") == ["Bearer"]
    assert answer.get("SourceMap") == f"{prefix}/app.js.map"
    assert answer.get("X-Accel-Buffering") == "no"
    assert answer.get("Cross-Origin-Opener-Policy") == "same-origin"
    assert answer.all("Content-Security-Policy") == ["default-src 'self'", "frame-ancestors 'self'"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("</a>; rel=next", "<P/a>; rel=next"),
        ('</a>; rel="next last"; title="x, y; z"', '<P/a>; rel="next last"; title="x, y; z"'),
        ("</a>; rel=next,</b>;REL=Prev", "<P/a>; rel=next, <P/b>;REL=Prev"),
        ("</a>; rel=PRELOAD", None),
        ('</a>; rel="next preload"', None),
        ("</a>; rel=next; rel=preload", None),
        ("</a>; rev=next", None),
        ("</a>", None),
        ("</a>; rel=made-up", None),
        ("</a>; rel='next", None),
        ('</a>; rel="next', None),
        ("</a> x </b>; rel=next", None),
        ("x", None),
        ("", None),
    ],
)
def test_links(value: str, expected: str | None) -> None:
    assert filter_link(value, lambda target: f"P{target}") == expected


@given(st.text('<>;,="/ arelxt', max_size=40))
def test_no_link_is_both_kept_and_active(value: str) -> None:
    kept = filter_link(f"</a>; rel=preload{value}", lambda target: target)
    assert kept is None or not kept.startswith("</a>; rel=preload")


@pytest.mark.parametrize(
    "value", ["Basic", 'basic realm="x"', "X, NTLM", "Negotiate abc=", "Bearer x,Digest y"]
)
def test_challenges_that_open_a_dialog(value: str) -> None:
    assert is_password_challenge(value)
    assert not is_password_challenge(f"Bearer realm=no{value.split()[0].lower().strip(',')}x")


# -- requests that do not say whence they come


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "upgrade"])
def test_a_cookie_alone_changes_nothing(jupyter: JupyterServer, backend: Backend, method: str) -> None:
    path = jupyter.proxied(backend.port)
    cookie = {"Cookie": jupyter.cookie}
    if method == "upgrade":
        method = "GET"
        cookie |= {"Connection": "Upgrade", "Upgrade": "websocket"}
    before = jupyter.dials()
    answer = jupyter.request(method, path, cookie, b"x", auth="none")
    assert answer.status == 403
    assert jupyter.request(method, path, {**cookie, "X-XSRFToken": "guess"}, b"x", auth="none").status == 403
    assert jupyter.dials() == before
    assert backend.requests == []
    # A client that is not a browser says who it is by a token, or by the XSRF value as in Jupyter's API.
    proof = {**cookie, "X-XSRFToken": jupyter.cookies["_xsrf"]}
    if method != "GET":
        assert jupyter.request(method, path, proof, b"x", auth="none").status == 200
    token = {"Authorization": f"token {TOKEN}"}
    assert jupyter.request(method, path, {**cookie, **token}, b"x", auth="none").status == 200


# -- slow clients


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JupyterServer]:
    """A server with small bounds."""
    options = [
        "--PyDockProxy.max_requests_per_port=3",
        "--PyDockProxy.max_requests=5",
        "--PyDockProxy.body_idle_seconds=0.4",
        "--PyDockProxy.pass_password_challenges=True",
    ]
    with run_jupyter(tmp_path_factory.mktemp("strict"), "/", *options) as server:
        yield server


def begin(server: JupyterServer, port: int, *headers: str, method: str = "POST") -> socket.socket:
    client = server.connect()
    head = [
        f"{method} {server.proxied(port)} HTTP/1.1",
        f"Host: {server.host}",
        f"Authorization: token {TOKEN}",
    ]
    client.sendall("\r\n".join([*head, *headers]).encode() + b"\r\n\r\n")
    return client


def read_all(client: socket.socket) -> bytes:
    data = b""
    while piece := client.recv(65536):
        data += piece
    return data


@pytest.mark.parametrize("content_type", ["application/json", "application/x-www-form-urlencoded"])
def test_a_client_that_stops_in_its_body_is_let_go(
    strict: JupyterServer, backends: Backends, content_type: str
) -> None:
    ended = threading.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read()
        finally:
            ended.set()

    port = backends.serve(handle)
    cookie = f"Cookie: {strict.cookie}"
    with begin(strict, port, f"Content-Type: {content_type}", "Content-Length: 100", cookie) as client:
        client.sendall(b"half")
        assert read_all(client).startswith(b"HTTP/1.1 408")  # and the connection ends
    assert content_type != "application/json" or ended.wait(10)


def test_a_client_that_stops_after_the_response_has_begun(strict: JupyterServer, backends: Backends) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply(b"2\r\nhi\r\n", "Transfer-Encoding: chunked", length=False))
        await reader.read()

    with begin(strict, backends.serve(handle), "Content-Length: 100") as client:
        data = read_all(client)
    assert data.startswith(b"HTTP/1.1 200")
    assert not data.endswith(b"0\r\n\r\n")


def test_an_application_that_reads_slowly_is_not_the_clients_fault(
    strict: JupyterServer, backends: Backends
) -> None:
    total = 64 * MIB
    read_on = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await read_on.wait()
        received = 0
        while received < total:
            received += len(await reader.read(MIB))
        writer.write(reply(b"all of it", "Connection: close"))
        await writer.drain()

    with begin(strict, backends.serve(handle), f"Content-Length: {total}", "Connection: close") as client:
        client.settimeout(1.2)  # three times what the client itself may take
        sent = 0
        piece = memoryview(b"u" * MIB)
        with suppress(TimeoutError):
            while sent < total:
                sent += client.send(piece[: min(MIB, total - sent)])
        assert sent < total
        client.settimeout(20)
        backends.loop.call_soon_threadsafe(read_on.set)
        while sent < total:
            sent += client.send(piece[: min(MIB, total - sent)])
        assert read_all(client).endswith(b"all of it")


def test_requests_under_way_are_bounded(strict: JupyterServer, backends: Backends) -> None:
    """Also WebSockets and streams; what has ended, however, makes room."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"websocket" in head:
            writer.write(b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        else:
            writer.write(reply(b"2\r\nhi\r\n", "Transfer-Encoding: chunked", length=False))
        await reader.read()

    one, other = backends.serve(handle), backends.serve(handle)
    quick = backends.record()
    upgrade = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
    for _ in range(2):
        opened = [begin(strict, one, method="GET") for _ in range(2)]
        opened.append(begin(strict, one, *upgrade, method="GET"))
        for client in opened:
            assert client.recv(65536).startswith((b"HTTP/1.1 200", b"HTTP/1.1 101"))
        full = strict.request("GET", strict.proxied(one))
        assert full.status == 503
        assert b"3 requests to port" in full.body
        assert strict.request("GET", strict.proxied(quick.port)).body == b"hello"  # another port has room
        opened += [begin(strict, other, method="GET") for _ in range(2)]
        for client in opened[3:]:
            assert client.recv(65536).startswith(b"HTTP/1.1 200")
        full = strict.request("GET", strict.proxied(quick.port))
        assert full.status == 503
        assert b"5 proxied requests" in full.body
        for client in opened:
            client.close()
        deadline = time.monotonic() + 20
        while strict.request("GET", strict.proxied(quick.port)).status == 503:
            assert time.monotonic() < deadline, "the server has not seen the clients go"
        for _ in range(9):
            assert strict.request("GET", strict.proxied(quick.port)).status == 200
            assert strict.request("GET", strict.proxied(quick.port, "")).status == 302
            assert strict.request("POST", strict.proxied(quick.port), body=b"x").status == 200


def test_password_dialogs_can_be_allowed(strict: JupyterServer, backends: Backends) -> None:
    backend = backends.record(reply(b"", "WWW-Authenticate: Basic realm=x", status="401 Unauthorized"))
    answer = strict.request("GET", strict.proxied(backend.port))
    assert answer.get("WWW-Authenticate") == "Basic realm=x"


def test_a_refused_request_does_not_wait_for_its_body(jupyter: JupyterServer, backend: Backend) -> None:
    """Who is not logged in keeps no connection by announcing a body."""
    with jupyter.connect() as client:
        head = f"POST {jupyter.proxied(backend.port)} HTTP/1.1\r\nHost: {jupyter.host}\r\nContent-Length: 9\r\n\r\n"
        client.sendall(head.encode())
        assert read_all(client).startswith(b"HTTP/1.1 403")
