"""The panel's stream: what it sends, when, to whom, and that it ends with its client."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pydock_core.api import EngineAccess
from pydock_jupyter.server.panel import build_operation
from tests.support.event_loop import run_async
from tests.support.fake_engine import IDLE, FakeEngine
from tests.support.jupyter_servers import TOKEN, JupyterServer, run_jupyter

WAIT_SECONDS = 10


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JupyterServer]:
    with run_jupyter(tmp_path_factory.mktemp("panel")) as running:
        yield running


def test_sends_the_whole_content_then_changes(server: JupyterServer) -> None:
    path = f"{server.base_url}pydock/panel"
    assert server.request("GET", path, auth="none").status == 403
    assert server.request("GET", path, {"Origin": "http://evil.example"}, auth="cookie").status == 403
    with server.connect() as client, client.makefile("rb") as stream:
        client.sendall(
            f"GET {path} HTTP/1.1\r\nHost: {server.host}\r\nAuthorization: token {TOKEN}\r\n\r\n".encode()
        )
        lines = read_lines(stream)
        content = next(lines)
        assert content.keys() == {"containers", "images", "problem"}
        assert (content["images"], content["problem"]) == ([], None)
        idle = {row["id"]: row for row in content["containers"]}[IDLE]
        assert (idle["name"], idle["up"], idle["ports"]) == ("idle", False, [])
        answer = server.request(
            "POST", f"{server.base_url}pydock/api/containers/idle/start", body=b"", auth="token"
        )
        assert answer.status == 204
        change = next(lines)
        assert change.keys() == {"containers"}
        assert {row["id"]: row["up"] for row in change["containers"]}[IDLE]


def read_lines(stream: Any) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects of a chunked response."""
    for line in stream:
        if line.startswith(b"{"):
            yield json.loads(line)


def test_ends_with_its_client(tmp_path: Path) -> None:
    engine: Any = FakeEngine(tmp_path)
    handler: Any = SimpleNamespace(allow=lambda: None, set_header=lambda name, value: None, lines=[])
    handler.write = handler.lines.append

    async def flush() -> None:
        handler.on_gone()

    handler.flush = flush
    operation = build_operation(EngineAccess(lambda: engine))
    run_async(asyncio.wait_for(operation(handler), WAIT_SECONDS))
    assert len(handler.lines) == 1
    for thread in threading.enumerate():
        if thread.name == "pydock-watch":
            thread.join(WAIT_SECONDS)
            assert not thread.is_alive()
