"""The two applications that it is all about, at their usual commands: JupyterLab and TensorBoard, for real."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import websocket

from tests.support.jupyter_servers import JupyterServer, Response, free_port, server_environment

INNER_TOKEN = "the-applications-token"
MARK = ".pydock"


@contextmanager
def run_application(server: JupyterServer, home: Path, port: int, *command: str) -> Iterator[int]:
    """Run a program until it answers through the proxy."""
    home.mkdir(parents=True, exist_ok=True)
    with open(home / "log", "wb") as log:
        process = subprocess.Popen(
            [sys.executable, *command], env=server_environment(home), stdout=log, stderr=log, cwd=home
        )
    try:
        deadline = time.monotonic() + 60
        while server.request("GET", server.proxied(port)).status == 503:
            assert process.poll() is None, (home / "log").read_text()
            assert time.monotonic() < deadline, (home / "log").read_text()
            time.sleep(0.1)  # a foreign program does not tell when it listens
        yield port
    finally:
        process.terminate()
        process.wait(20)


class Browser:
    """Keeps cookies by path, as far as the proxy needs it."""

    def __init__(self, server: JupyterServer) -> None:
        self.server = server
        self.cookies: dict[str, str] = {}

    def request(
        self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes | None = None
    ) -> Response:
        sent = {"Cookie": self.cookie, "Sec-Fetch-Site": "same-origin", **(headers or {})}
        answer = self.server.request(method, path, sent, body)
        for line in answer.all("Set-Cookie"):
            name, _, value = line.partition(";")[0].partition("=")
            assert MARK in value or not name.startswith(("_xsrf", "username-"))
            self.cookies[name] = value
        return answer

    @property
    def cookie(self) -> str:
        return "; ".join(f"{name}={value}" for name, value in self.cookies.items())


@pytest.fixture(params=["jupyter", "hub_like"])
def outer(request: pytest.FixtureRequest) -> JupyterServer:
    server: JupyterServer = request.getfixturevalue(request.param)
    return server


def test_jupyterlab_runs_a_cell(outer: JupyterServer, tmp_path: Path) -> None:
    """``jupyter lab --ip=0.0.0.0 --allow-root`` with a token of its own, whose cookies have the outer one's
    names.
    """
    port = free_port()
    command = ("-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}")
    disabled = "--ServerApp.jpserver_extensions={'pydock_jupyter':False}"
    with run_application(
        outer, tmp_path / "lab", port, *command, disabled, f"--IdentityProvider.token={INNER_TOKEN}"
    ):
        prefix = outer.proxied(port, "")
        browser = Browser(outer)
        # Without its token the inner Jupyter asks for it, under the prefix.
        answer = browser.request("GET", f"{prefix}/lab", {"Accept": "text/html"})
        assert answer.status == 302
        assert (answer.get("Location") or "").startswith(f"{prefix}/login?next=")

        page = browser.request("GET", f"{prefix}/lab?token={INNER_TOKEN}", {"Accept": "text/html"})
        assert page.status == 200
        assert any(name.startswith("username-localhost") for name in browser.cookies)
        match = re.search(
            rb'id="jupyter-config-data" type="application/json">\s*(.*?)\s*</script>', page.body, re.S
        )
        assert match is not None
        config = json.loads(match[1])
        assert config["baseUrl"] == f"{prefix}/"
        assert config["fullStaticUrl"] == f"{prefix}/static/lab"
        scripts = [found.decode() for found in re.findall(rb'src="([^"]+)"', page.body)]
        assert scripts[0].startswith(f"{outer.base_url}pydock/shim.js?v=")
        assert len(scripts) > 1
        for script in scripts[1:]:
            assert script.startswith(f"{prefix}/static/lab/")
            assert browser.request("GET", script).status == 200

        # From now on cookies alone: the inner login's, and the XSRF value as JupyterLab reads it.
        browser.request("GET", f"{prefix}/login")
        xsrf = re.search(r"\b_xsrf=([^;]*)\b", browser.cookie)
        assert xsrf is not None
        token = {"X-XSRFToken": xsrf[1]}
        body = json.dumps({"name": "python3"}).encode()
        assert browser.request("POST", f"{prefix}/api/kernels", body=body).status == 403
        created = browser.request("POST", f"{prefix}/api/kernels", token, body)
        assert created.status == 201, created.body
        kernel = json.loads(created.body)["id"]
        assert created.get("Location") == f"{prefix}/api/kernels/{kernel}"

        assert (
            execute(outer, f"{prefix}/api/kernels/{kernel}/channels", browser.cookie, "print(6 * 7)")
            == "42\n"
        )
        assert browser.request("DELETE", f"{prefix}/api/kernels/{kernel}", token).status == 204


def execute(server: JupyterServer, path: str, cookie: str, code: str) -> str:
    """Run code over a kernel's WebSocket; return what it printed."""
    session = uuid.uuid4().hex
    client = websocket.create_connection(
        f"ws://{server.host}{path}?session_id={session}",
        timeout=40,
        cookie=f"{cookie}; {server.cookie}",
        origin=f"http://{server.host}",
        host=server.host,
    )
    try:
        header = {
            "msg_id": "m1",
            "msg_type": "execute_request",
            "session": session,
            "username": "",
            "version": "5.3",
        }
        content = {"code": code, "silent": False, "store_history": False, "user_expressions": {}}
        message = {
            "header": header,
            "parent_header": {},
            "metadata": {},
            "content": content,
            "channel": "shell",
        }
        client.send(json.dumps(message))
        printed = ""
        while True:
            got = json.loads(client.recv())
            if got["parent_header"].get("msg_id") != "m1":
                continue
            if got["msg_type"] == "stream":
                printed += got["content"]["text"]
            if got["msg_type"] == "status" and got["content"]["execution_state"] == "idle":
                return printed
    finally:
        client.close()


def test_tensorboard_serves_scalars(outer: JupyterServer, tmp_path: Path) -> None:
    from tensorboard.summary import Writer

    writer = Writer(str(tmp_path / "logs"))
    for step in range(5):
        writer.add_scalar("loss", 1 / (step + 1), step)
    writer.close()
    port = free_port()
    command = ("-m", "tensorboard.main", "--logdir", str(tmp_path / "logs"), "--port", str(port))
    with run_application(outer, tmp_path / "home", port, *command):
        browser = Browser(outer)
        prefix = outer.proxied(port, "")
        page = browser.request("GET", f"{prefix}/", {"Accept": "text/html", "Accept-Encoding": "gzip"})
        assert page.status == 200
        assert b"<title>TensorBoard</title>" in page.body
        script = browser.request("GET", f"{prefix}/index.js", {"Accept-Encoding": "gzip"})
        assert (script.status, script.get("Content-Encoding")) == (200, "gzip")
        deadline = time.monotonic() + 30
        while not (tags := json.loads(browser.request("GET", f"{prefix}/data/plugin/scalars/tags").body)):
            assert time.monotonic() < deadline
            time.sleep(0.1)  # it reads its log directory in the background
        assert tags["."]["loss"]["displayName"] == ""
        answer = browser.request("GET", f"{prefix}/data/plugin/scalars/scalars?run=.&tag=loss")
        assert [(step, round(value, 3)) for _, step, value in json.loads(answer.body)][:2] == [
            (0, 1.0),
            (1, 0.5),
        ]
        multi = browser.request(
            "POST",
            f"{prefix}/data/plugin/scalars/scalars_multirun",
            {"Content-Type": "application/x-www-form-urlencoded", "Origin": f"http://{outer.host}"},
            b"tag=loss&runs=.",
        )
        assert len(json.loads(multi.body)["."]) == 5
