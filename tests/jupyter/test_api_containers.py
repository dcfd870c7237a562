"""The whole server side on real containers: ports without a network, the life cycle, and the API's shapes."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from pydock_core.paths import StateRoot
from pydock_core.supervision.client import Zygote
from tests.bench.samples import BUSYBOX, busybox_archive
from tests.support.jupyter_servers import JupyterServer, Response, run_jupyter, server_environment

pytestmark = pytest.mark.skipif(not BUSYBOX.exists(), reason="needs /bin/busybox (Debian: busybox-static)")


def read_definitions() -> Any:
    """Read the specification's definitions.

    Docker's own engine, written in Go, sends null for an empty list or map whatever the specification says,
    and every client takes it; so it is allowed here.
    """

    def allow_null(schema: Any) -> Any:
        if isinstance(schema, list):
            return [allow_null(item) for item in schema]
        if not isinstance(schema, dict):
            return schema
        changed = {key: allow_null(value) for key, value in schema.items()}
        if changed.get("type") in ("array", "object"):
            changed["type"] = [changed["type"], "null"]
        return changed

    definitions = allow_null(json.loads((Path(__file__).parent / "engine_api_1.51.json").read_text()))
    # The default, which the specification cannot express: a pointer in Docker's own engine.
    definitions["definitions"]["Resources"]["properties"]["MemorySwappiness"]["type"] = ["integer", "null"]
    return definitions


SPECIFICATION = read_definitions()
SERVE = "mkdir -p /www && echo hello > /www/index.txt && echo ready && echo oops >&2 && exec httpd -f -p 8000 -h /www"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JupyterServer]:
    """A server with the extension as it is installed, and a running container called site."""
    home = tmp_path_factory.mktemp("containers")
    archive = busybox_archive(home / "busybox.tar")
    with run_jupyter(home, "/user/me/", extension="pydock_jupyter") as running:
        assert not (home / "pydock").exists()  # a server's start touches nothing
        dock(home, "load", "-i", str(archive))
        dock(home, "run", "-d", "--name", "site", "--network", "none", "busybox", "sh", "-c", SERVE)
        try:
            yield running
        finally:
            dock(home, "rm", "-f", *dock(home, "ps", "-aq").split())
            root = StateRoot(home / "pydock" / "data", home / "pydock" / "run")
            os.kill(Zygote(root).ping()["pid"], signal.SIGTERM)


def dock(home: Path, *words: str) -> str:
    """Run the program on the state root of the server."""
    command = [sys.executable, "-m", "pydock_core", *words]
    done = subprocess.run(
        command,
        env=server_environment(home),
        capture_output=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout.decode()


def call(server: JupyterServer, method: str, path: str, document: Any = None) -> Response:
    body = None if method != "POST" else b"" if document is None else json.dumps(document).encode()
    return server.request(method, f"{server.base_url}pydock/api{path}", body=body, auth="token")


def load(server: JupyterServer, path: str) -> Any:
    answer = call(server, "GET", path)
    assert answer.status == 200, answer
    return json.loads(answer.body)


def fetch_until(server: JupyterServer, path: str, is_there: Callable[[Response], bool]) -> Response:
    """Ask again until an answer is as wanted, as the page that says "nothing answers" does."""
    deadline = time.monotonic() + 20
    while not is_there(answer := server.request("GET", path)):
        assert time.monotonic() < deadline, answer
        time.sleep(0.05)
    return answer


def check(document: Any, name: str) -> None:
    """Validate against a definition of the specification."""
    jsonschema.validate(document, {"$ref": f"#/definitions/{name}", **SPECIFICATION})


def test_a_port_without_a_network(server: JupyterServer) -> None:
    path = server.proxied(8000, "/index.txt", "site")
    assert fetch_until(server, path, lambda answer: answer.status == 200).body == b"hello\n"
    container_id = load(server, "/containers/site/json")["Id"]
    for name in (container_id, container_id[:12]):
        assert server.request("GET", server.proxied(8000, "/index.txt", name)).body == b"hello\n"
    assert server.request("GET", server.proxied(8000, "/nothing", "site")).status == 404
    nothing = server.request("GET", server.proxied(8001, "/", "site"))
    assert nothing.status == 503
    assert "container site does not answer on port 8001" in json.loads(nothing.body)["message"]
    assert server.request("GET", server.proxied(8000, "/", "other")).status == 404


def test_a_container_is_created_and_started(server: JupyterServer) -> None:
    request = {
        "Image": "busybox",
        "Cmd": ["sh", "-c", "cat /data/file; echo $A; exec sleep 1000"],
        "Env": ["A=b"],
        "Labels": {"made": "by http"},
        "HostConfig": {
            "NetworkMode": "none",
            "Mounts": [{"Type": "volume", "Source": "shared", "Target": "/data"}],
            "CapDrop": ["ALL"],
            "RestartPolicy": {"Name": "no"},
            "Init": None,
        },
        "NetworkingConfig": {"EndpointsConfig": {"none": {}}},
    }
    check(request, "ContainerConfig")
    answer = call(server, "POST", "/v1.51/containers/create?name=made", request)
    assert answer.status == 201
    created = json.loads(answer.body)
    check(created, "ContainerCreateResponse")
    assert call(server, "POST", f"/containers/{created['Id']}/start").status == 204
    document = load(server, "/containers/made/json")
    check(document, "ContainerInspectResponse")
    assert document["State"]["Running"]
    assert call(server, "DELETE", "/containers/made?force=1").status == 204
    assert document["HostConfig"]["CapDrop"] == ["ALL"]
    assert (document["Config"]["Env"][-1], document["Config"]["Labels"]) == ("A=b", {"made": "by http"})
    assert document["Mounts"][0]["Name"] == "shared"


def test_the_proxy_follows_the_life_of_a_container(server: JupyterServer) -> None:
    path = server.proxied(8000, "/index.txt", "site")
    fetch_until(server, path, lambda answer: answer.status == 200)
    assert call(server, "POST", "/containers/site/restart?t=0").status == 204
    fetch_until(server, path, lambda answer: answer.status == 200)
    assert call(server, "POST", "/containers/site/stop?t=0").status == 204
    stopped = server.request("GET", path)
    assert stopped.status == 409
    assert "not running" in json.loads(stopped.body)["message"]
    assert call(server, "POST", "/containers/site/stop").status == 304
    assert call(server, "POST", "/containers/site/kill").status == 409
    assert call(server, "POST", "/containers/site/start").status == 204
    assert call(server, "POST", "/containers/site/start").status == 304
    fetch_until(server, path, lambda answer: answer.status == 200)
    assert call(server, "DELETE", "/containers/site").status == 409


def test_a_name_that_moves_is_followed(server: JupyterServer) -> None:
    home = server.root.parent
    old, new = server.proxied(8000, "/index.txt", "first"), server.proxied(8000, "/index.txt", "second")
    dock(home, "run", "-d", "--name", "first", "--network", "none", "busybox", "sh", "-c", SERVE)
    fetch_until(server, old, lambda answer: answer.status == 200)
    assert call(server, "POST", "/containers/first/rename?name=second").status == 204
    fetch_until(server, new, lambda answer: answer.status == 200)
    fetch_until(server, old, lambda answer: answer.status == 404)
    changed = SERVE.replace("hello", "other")
    dock(home, "run", "-d", "--name", "first", "--network", "none", "busybox", "sh", "-c", changed)
    fetch_until(server, old, lambda answer: answer.body == b"other\n")
    for name in ("first", "second"):
        assert call(server, "DELETE", f"/containers/{name}?force=1").status == 204
        assert call(server, "DELETE", f"/containers/{name}").status == 404


def test_shapes(server: JupyterServer) -> None:
    summaries = load(server, "/containers/json?all=1")
    assert [summary["Names"] for summary in summaries] == [["/site"]]
    for summary in summaries:
        check(summary, "ContainerSummary")
    check(load(server, "/containers/site/json"), "ContainerInspectResponse")
    images = load(server, "/images/json")
    assert images
    for image in images:
        check(image, "ImageSummary")
    check(load(server, "/images/busybox/json"), "ImageInspect")
    check(load(server, f"/images/{images[0]['Id']}/json"), "ImageInspect")
    check(load(server, "/version"), "SystemVersion")
    check(load(server, "/info"), "SystemInfo")
    for path in ("/containers/nothing/json", "/images/nothing/json", "/events"):
        check(json.loads(call(server, "GET", path).body), "ErrorResponse")


def test_filters(server: JupyterServer) -> None:
    for filters, count in (('{"name":["site"]}', 1), ('{"status":["exited"]}', 0), ('{"label":["x"]}', 0)):
        assert len(load(server, f"/containers/json?all=1&filters={filters}")) == count
    assert call(server, "GET", '/containers/json?filters={"unknown":["x"]}').status == 400


def test_logs_and_exit_code(server: JupyterServer) -> None:
    home = server.root.parent
    script = "echo out; echo err >&2; exit 3"
    dock(home, "run", "-d", "--name", "short", "--network", "none", "busybox", "sh", "-c", script)
    answer = call(server, "POST", "/containers/short/wait")
    assert json.loads(answer.body) == {"StatusCode": 3}
    check(json.loads(answer.body), "ContainerWaitResponse")
    logs = call(server, "GET", "/containers/short/logs?stdout=1&stderr=1&follow=1")
    assert logs.get("Content-Type") == "application/vnd.docker.multiplexed-stream"
    frames = {b"\x01\0\0\0\0\0\0\x04out\n", b"\x02\0\0\0\0\0\0\x04err\n"}
    assert {logs.body[:12], logs.body[12:]} == frames
    assert call(server, "DELETE", "/containers/short").status == 204
    assert call(server, "POST", "/containers/short/wait").status == 404


def test_start_imports_no_engine() -> None:
    """What a server's start imports; the network and the database come with the first request."""
    program = (
        "import sys, pydock_jupyter, pydock_jupyter.server.extension;"
        "print(sorted({'pyroute2', 'sqlite3', 'pydock_core.engine', 'IPython', 'ipywidgets'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, timeout=60)
    assert done.stdout.decode().strip() == "[]"


def test_the_extension_is_enabled_by_its_configuration(tmp_path: Path) -> None:
    """The file that the wheel installs into etc/jupyter enables what ``_jupyter_server_extension_points``
    names.
    """
    import pydock_jupyter

    shutil.copytree(Path(pydock_jupyter.__file__).parent / "jupyter-config", tmp_path / "config")
    command = [sys.executable, "-m", "jupyter_server.extension.serverextension", "list"]
    done = subprocess.run(
        command, env=server_environment(tmp_path), capture_output=True, check=True, timeout=60
    )
    shown = re.sub(r"\x1b\[[0-9]+m", "", (done.stdout + done.stderr).decode())
    section = shown.split(f"Config dir: {tmp_path / 'config'}")[1].split("Config dir:")[0]
    assert re.search(r"pydock_jupyter\s+enabled", section), shown
    assert re.search(r"Validating pydock_jupyter\.\.\.\s+pydock_jupyter .*OK", section), shown
