"""The port proxy as a pipe: any size, flat memory, first bytes at once, back pressure, and either side's end."""

from __future__ import annotations

import asyncio
import http.client
import socket
import threading
import time
from collections.abc import Callable

import pytest

from tests.support.jupyter_servers import TOKEN, Backends, JupyterServer, reply

MIB = 1 << 20
BIG_BYTES = 200 * MIB
FLAT_BYTES = 48 * MIB
"""How much the server may grow while a big body passes: buffers of the kernel's sockets' size, not of the
body's.
"""


def wait_until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Poll for what no event tells across the process border."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def open_request(server: JupyterServer, method: str, port: int, *headers: str) -> socket.socket:
    client = server.connect()
    head = [
        f"{method} {server.proxied(port)} HTTP/1.1",
        f"Host: {server.host}",
        f"Authorization: token {TOKEN}",
    ]
    client.sendall("\r\n".join([*head, *headers]).encode() + b"\r\n\r\n")
    return client


def read_until(client: socket.socket, end: bytes) -> bytes:
    data = b""
    while end not in data:
        piece = client.recv(65536)
        assert piece, data
        data += piece
    return data


@pytest.mark.parametrize("framing", ["fixed", "chunked", "until close"])
def test_big_download(jupyter: JupyterServer, backends: Backends, framing: str) -> None:
    piece = bytes(range(256)) * 1024

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        header = {"fixed": f"Content-Length: {BIG_BYTES}", "chunked": "Transfer-Encoding: chunked"}
        writer.write(reply(b"", header.get(framing, "Connection: close"), length=False))
        sent = b"%x\r\n%b\r\n" % (len(piece), piece) if framing == "chunked" else piece
        for _ in range(BIG_BYTES // len(piece)):
            writer.write(sent)
            await writer.drain()
        if framing == "chunked":
            writer.write(b"0\r\n\r\n")

    port = backends.serve(handle)
    jupyter.reset_peak()
    before = jupyter.peak_bytes()
    connection = http.client.HTTPConnection("127.0.0.1", jupyter.port, timeout=60)
    connection.request("GET", jupyter.proxied(port), headers={"Authorization": f"token {TOKEN}"})
    response = connection.getresponse()
    received = 0
    buffer = bytearray(MIB)
    view = memoryview(buffer)
    while count := response.readinto(buffer):
        offset = received % 256
        assert view[:256] == (piece * 2)[offset : offset + 256] or count < 256
        received += count
    connection.close()
    assert received == BIG_BYTES
    assert jupyter.peak_bytes() - before < FLAT_BYTES


@pytest.mark.parametrize("framing", ["fixed", "chunked"])
def test_big_upload(jupyter: JupyterServer, backends: Backends, framing: str) -> None:
    """Four times Jupyter's own limit for bodies would be 2 GiB; what matters is that nothing is collected."""
    counted: list[int] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        total = 0
        if b"chunked" in head:
            while size := int(await reader.readline(), 16):
                await reader.readexactly(size + 2)
                total += size
            await reader.readline()
        else:
            while total < BIG_BYTES:
                total += len(await reader.read(MIB))
        counted.append(total)
        writer.write(reply(b"%d" % total))
        await writer.drain()

    port = backends.serve(handle)
    piece = b"z" * MIB
    jupyter.reset_peak()
    before = jupyter.peak_bytes()
    header = f"Content-Length: {BIG_BYTES}" if framing == "fixed" else "Transfer-Encoding: chunked"
    with open_request(jupyter, "PUT", port, header, "Connection: close") as client:
        for _ in range(BIG_BYTES // MIB):
            client.sendall(piece if framing == "fixed" else b"%x\r\n%b\r\n" % (MIB, piece))
        if framing == "chunked":
            client.sendall(b"0\r\n\r\n")
        assert read_until(client, b"%d" % BIG_BYTES).startswith(b"HTTP/1.1 200")
    assert counted == [BIG_BYTES]
    assert jupyter.peak_bytes() - before < FLAT_BYTES


def test_a_body_above_jupyters_limit_is_taken(jupyter: JupyterServer, backends: Backends) -> None:
    """ServerApp.max_body_size (512 MiB) is about what Jupyter itself holds in memory."""
    announced = 1 << 40

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert f"Content-Length: {announced}".encode() in head
        await reader.readexactly(5)
        writer.write(reply(b"too much for me", "Connection: close", status="413 Content Too Large"))
        await writer.drain()

    with open_request(jupyter, "POST", backends.serve(handle), f"Content-Length: {announced}") as client:
        client.sendall(b"start")
        # The application answers in the middle of the upload, and the browser learns it at once.
        assert read_until(client, b"too much for me").startswith(b"HTTP/1.1 413")


def test_first_event_comes_at_once(jupyter: JupyterServer, backends: Backends) -> None:
    """Server-sent events: head and each event pass as they come, while the response goes on."""
    go_on = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        header = ("Content-Type: text/event-stream", "Transfer-Encoding: chunked")
        writer.write(reply(b"", *header, length=False))
        await writer.drain()
        for number in range(3):
            await go_on.wait()
            go_on.clear()
            event = b"data: %d\n\n" % number
            writer.write(b"%x\r\n%b\r\n" % (len(event), event))
            await writer.drain()
        await go_on.wait()
        writer.write(b"0\r\n\r\n")

    with open_request(jupyter, "GET", backends.serve(handle)) as client:
        assert b"text/event-stream" in read_until(client, b"\r\n\r\n")  # the head, before any event
        for number in range(3):
            backends.loop.call_soon_threadsafe(go_on.set)
            assert b"data: %d\n\n" % number in read_until(client, b"data: %d\n\n" % number)
        backends.loop.call_soon_threadsafe(go_on.set)
        read_until(client, b"0\r\n\r\n")


def test_request_and_response_at_the_same_time(jupyter: JupyterServer, backends: Backends) -> None:
    """An echo that answers each piece of the request before the next one is sent."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply(b"", "Transfer-Encoding: chunked", length=False))
        while size := int(await reader.readline(), 16):
            data = (await reader.readexactly(size + 2))[:-2]
            writer.write(b"%x\r\n%b\r\n" % (len(data), data))
            await writer.drain()
        await reader.readline()
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    with open_request(jupyter, "POST", backends.serve(handle), "Transfer-Encoding: chunked") as client:
        for number in range(5):
            word = b"piece %d" % number
            client.sendall(b"%x\r\n%b\r\n" % (len(word), word))
            read_until(client, word)
        client.sendall(b"0\r\n\r\n")
        read_until(client, b"0\r\n\r\n")


def test_expect_continue(jupyter: JupyterServer, backends: Backends) -> None:
    backend = backends.record(reply(b"thanks"))
    with open_request(jupyter, "POST", backend.port, "Content-Length: 4", "Expect: 100-continue") as client:
        assert read_until(client, b"\r\n\r\n").startswith(b"HTTP/1.1 100")
        client.sendall(b"data")
        read_until(client, b"thanks")
    assert backend.last.body == b"data"
    assert backend.last.get("Expect") is None


def test_slow_reader_slows_the_application_down(jupyter: JupyterServer, backends: Backends) -> None:
    sent = 0
    blocked = threading.Event()
    ended = threading.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply(b"", f"Content-Length: {BIG_BYTES}", length=False))
        piece = b"x" * MIB
        while sent < BIG_BYTES:
            writer.write(piece)
            sent += MIB
            try:
                await asyncio.wait_for(writer.drain(), 1)
            except TimeoutError:
                blocked.set()  # nothing went for a second: the pressure has come through
                await writer.drain()
        ended.set()

    port = backends.serve(handle)
    jupyter.reset_peak()
    before = jupyter.peak_bytes()
    with open_request(jupyter, "GET", port) as client:
        read_until(client, b"\r\n\r\n")
        assert blocked.wait(20)
        assert sent < 64 * MIB
        assert jupyter.peak_bytes() - before < FLAT_BYTES
        received = 0
        while received < BIG_BYTES - MIB:
            received += len(client.recv(MIB))
    assert ended.wait(10)


def test_slow_application_slows_the_upload_down(jupyter: JupyterServer, backends: Backends) -> None:
    read_on = asyncio.Event()
    total = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal total
        await reader.readuntil(b"\r\n\r\n")
        await read_on.wait()
        while total < BIG_BYTES:
            total += len(await reader.read(MIB))
        writer.write(reply(b"all of it"))
        await writer.drain()

    port = backends.serve(handle)
    jupyter.reset_peak()
    before = jupyter.peak_bytes()
    with open_request(jupyter, "POST", port, f"Content-Length: {BIG_BYTES}") as client:
        client.settimeout(1)
        sent = 0
        piece = memoryview(b"u" * MIB)
        try:
            while sent < BIG_BYTES:
                sent += client.send(piece[: min(MIB, BIG_BYTES - sent)])
        except TimeoutError:
            pass  # nothing went for a second: the pressure has come through
        assert sent < 64 * MIB
        assert jupyter.peak_bytes() - before < FLAT_BYTES
        client.settimeout(20)
        backends.loop.call_soon_threadsafe(read_on.set)
        while sent < BIG_BYTES:
            sent += client.send(piece[: min(MIB, BIG_BYTES - sent)])
        read_until(client, b"all of it")


@pytest.mark.parametrize("moment", ["waiting for the response", "in the response", "in the request"])
def test_the_application_learns_that_the_browser_left(
    jupyter: JupyterServer, backends: Backends, moment: str
) -> None:
    reached, gone = threading.Event(), threading.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if moment == "in the response":
            writer.write(reply(b"2\r\nhi\r\n", "Transfer-Encoding: chunked", length=False))
            await writer.drain()
        reached.set()
        try:
            while await reader.read(MIB):
                pass
        except ConnectionError:
            pass
        gone.set()

    port = backends.serve(handle)
    is_upload = moment == "in the request"
    with open_request(
        jupyter, "POST" if is_upload else "GET", port, f"Content-Length: {9 * is_upload}"
    ) as client:
        if is_upload:
            client.sendall(b"half")
        if moment == "in the response":
            read_until(client, b"hi")
        assert reached.wait(10)
    assert gone.wait(10)


def test_the_browser_learns_that_the_application_died_in_an_upload(
    jupyter: JupyterServer, backends: Backends
) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(10)
        writer.transport.abort()

    with open_request(jupyter, "POST", backends.serve(handle), f"Content-Length: {BIG_BYTES}") as client:
        client.settimeout(20)
        client.sendall(b"x" * 1000)
        assert read_until(client, b"\r\n\r\n").startswith(b"HTTP/1.1 502")


def test_no_connection_is_left_behind(jupyter: JupyterServer, backends: Backends) -> None:
    """After many requests of all kinds the server has no more descriptors than its pool may hold."""
    import os

    backend = backends.record(reply(b"x"))
    directory = f"/proc/{jupyter.process.pid}/fd"
    jupyter.request("GET", jupyter.proxied(backend.port))
    before = len(os.listdir(directory))
    for number in range(30):
        method = ("GET", "POST", "DELETE")[number % 3]
        jupyter.request(method, jupyter.proxied(backend.port), body=b"x" if method == "POST" else None)
        open_request(jupyter, "GET", backend.port).close()
    wait_until(lambda: len(os.listdir(directory)) <= before + 16)
