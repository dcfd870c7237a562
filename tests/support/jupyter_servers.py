"""Real Jupyter servers as subprocesses on loopback, and tiny backends that record what they are sent."""

from __future__ import annotations

import asyncio
import http.client
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
TOKEN = "secret-jupyter-token"

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Response:
    """A response as it came."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def get(self, name: str) -> str | None:
        values = self.all(name)
        return ", ".join(values) if values else None


@dataclass
class JupyterServer:
    """A running Jupyter server.  ``root`` is its root directory, where the engine double writes its dials."""

    port: int
    base_url: str
    root: Path
    process: subprocess.Popen[bytes]
    cookies: dict[str, str] = field(default_factory=dict)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def cookie(self) -> str:
        return "; ".join(f"{name}={value}" for name, value in self.cookies.items())

    def proxied(self, port: int, path: str = "/", container: str = "web") -> str:
        return f"{self.base_url}pydock/c/{container}/{port}{path}"

    def connect(self, timeout: float = 20) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout)

    def request(
        self,
        method: str,
        path: str,
        headers: dict[str, str] | list[tuple[str, str]] | None = None,
        body: bytes | None = None,
        *,
        auth: str = "cookie",
    ) -> Response:
        """Send a request.

        Args:
            auth: "cookie" as a browser that is logged in, "token" in the Authorization header, or "none".
        """
        lines = list(headers.items() if isinstance(headers, dict) else headers or [])
        names = {name.lower() for name, _ in lines}
        if auth == "cookie":
            own = [value for name, value in lines if name.lower() == "cookie"]
            lines = [(name, value) for name, value in lines if name.lower() != "cookie"]
            lines.append(("Cookie", "; ".join([*own, self.cookie])))
            if method not in ("GET", "HEAD", "OPTIONS") and not names & {"origin", "sec-fetch-site"}:
                lines.append(("Sec-Fetch-Site", "same-origin"))  # as every browser does
        elif auth == "token":
            lines.append(("Authorization", f"token {TOKEN}"))
        if body is not None and not names & {"content-length", "transfer-encoding"}:
            lines.append(("Content-Length", str(len(body))))
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.putrequest(method, path, skip_host="host" in names, skip_accept_encoding=True)
            for name, value in lines:
                connection.putheader(name, value)
            connection.endheaders(body)
            response = connection.getresponse()
            return Response(response.status, response.getheaders(), response.read())
        finally:
            connection.close()

    def dials(self) -> list[str]:
        path = self.root / "dials"
        return path.read_text().splitlines() if path.exists() else []

    def reset_peak(self) -> None:
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def peak_bytes(self) -> int:
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no VmHWM")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def server_environment(home: Path) -> dict[str, str]:
    """An environment in which Jupyter reads and writes nothing outside of ``home``."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL") if name in os.environ}
    return kept | {
        "HOME": str(home),
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "JUPYTER_PLATFORM_DIRS": "1",
        "PYTHONPATH": str(HERE),
        "PYDOCK_ROOT": str(home / "pydock"),
    }


@contextmanager
def run_jupyter(
    home: Path,
    base_url: str = "/",
    *options: str,
    extension: str = "fake_engine",
    module: str = "jupyter_server",
) -> Iterator[JupyterServer]:
    """Run a Jupyter server until the block ends; it answers when the block begins."""
    root = home / "root"
    root.mkdir(parents=True)
    port = free_port()
    enabled = {name: name == extension for name in ("pydock_jupyter", "fake_engine")}
    command = [
        sys.executable,
        "-m",
        module,
        "--no-browser",
        "--allow-root",
        "--ip=127.0.0.1",
        f"--port={port}",
        "--ServerApp.port_retries=0",
        f"--ServerApp.base_url={base_url}",
        f"--IdentityProvider.token={TOKEN}",
        f"--ServerApp.root_dir={root}",
        f"--ServerApp.jpserver_extensions={enabled}",
        *options,
    ]
    log = home / "log"
    with open(log, "wb") as output:
        process = subprocess.Popen(
            command, env=server_environment(home), stdout=output, stderr=subprocess.STDOUT, cwd=root
        )
    server = JupyterServer(port, base_url, root, process)
    try:
        _await_answer(server, log)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await_answer(server: JupyterServer, log: Path) -> None:
    """Poll until the server answers, and log in."""
    deadline = time.monotonic() + 40
    while True:
        assert server.process.poll() is None, log.read_text()
        try:
            answer = server.request("GET", f"{server.base_url}api/me", auth="token")
        except OSError:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)  # nothing tells when a foreign server listens
        else:
            break
    assert answer.status == 200, log.read_text()
    login = server.request("GET", f"{server.base_url}login", auth="none")  # the form brings the XSRF cookie
    for line in [*answer.all("Set-Cookie"), *login.all("Set-Cookie")]:
        name, _, value = line.partition(";")[0].partition("=")
        server.cookies[name] = value


# -- backends


@dataclass
class Recorded:
    """A request as a backend received it, byte for byte."""

    head: bytes
    body: bytes

    @property
    def line(self) -> bytes:
        return self.head.split(b"\r\n", 1)[0]

    def all(self, name: str) -> list[str]:
        found = []
        for line in self.head.decode("latin-1").split("\r\n")[1:]:
            key, separator, value = line.partition(":")
            if separator and key.lower() == name.lower():
                found.append(value.strip())
        return found

    def get(self, name: str) -> str | None:
        values = self.all(name)
        assert len(values) <= 1, values
        return values[0] if values else None


@dataclass
class Backend:
    """A recording backend: answers each request with the next of ``answers``, the last one again and again."""

    port: int
    requests: list[Recorded] = field(default_factory=list)
    answers: list[bytes] = field(default_factory=list)
    connections: int = 0

    @property
    def last(self) -> Recorded:
        return self.requests[-1]


class Backends:
    """Starts servers on an event loop in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self._servers: list[asyncio.Server] = []

    def serve(self, handle: Serve) -> int:
        """Serve connections with a coroutine, which ends with its connection; returns the port."""

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await handle(reader, writer)
            except (ConnectionError, asyncio.IncompleteReadError):
                pass
            finally:
                writer.close()

        async def start() -> int:
            server = await asyncio.start_server(accept, "127.0.0.1", 0, limit=1 << 20)
            self._servers.append(server)
            return int(server.sockets[0].getsockname()[1])

        return asyncio.run_coroutine_threadsafe(start(), self.loop).result(10)

    def record(self, *answers: bytes) -> Backend:
        """Serve HTTP/1.1 with canned answers, and record the requests."""
        backend = Backend(0, answers=list(answers) or [reply(b"hello")])

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            backend.connections += 1
            while True:
                try:
                    head = await reader.readuntil(b"\r\n\r\n")
                except asyncio.IncompleteReadError:
                    return
                backend.requests.append(Recorded(head, await read_body(reader, head)))
                answer = backend.answers.pop(0) if len(backend.answers) > 1 else backend.answers[0]
                writer.write(answer)
                await writer.drain()
                if b"connection: close" in answer.lower():
                    return

        backend.port = self.serve(handle)
        return backend

    def close(self) -> None:
        async def stop() -> None:
            for server in self._servers:
                server.close()
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(stop(), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()


def reply(body: bytes = b"", *headers: str, status: str = "200 OK", length: bool = True) -> bytes:
    """Build a response."""
    lines = [f"HTTP/1.1 {status}", *headers] + ([f"Content-Length: {len(body)}"] if length else [])
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


async def read_body(reader: asyncio.StreamReader, head: bytes) -> bytes:
    lowered = head.lower()
    if b"\r\ntransfer-encoding: chunked" in lowered:
        body = b""
        while size := int(await reader.readline(), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readline()
        return body
    for line in lowered.split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return await reader.readexactly(int(line.split(b":")[1]))
    return b""
