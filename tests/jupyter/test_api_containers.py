"""The whole server side on real containers: ports without a network, the life cycle, and the API's shapes."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jsonschema
import pytest

from pydock_core.paths import StateRoot
from pydock_core.supervision.client import Zygote
from tests.bench.samples import BUSYBOX, busybox_archive
from tests.support.jupyter_servers import TOKEN, JupyterServer, Response, run_jupyter, server_environment

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
AUTHORIZATION = f"Authorization: token {TOKEN}"
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
    for path in ("/containers/nothing/json", "/images/nothing/json", "/plugins"):
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


def test_events_of_the_past_and_of_the_future(server: JupyterServer) -> None:
    filters = quote(json.dumps({"container": ["short-lived"], "event": ["create", "die"]}))
    home = server.root.parent
    dock(home, "run", "--rm", "--name", "short-lived", "--network", "none", "busybox", "true")
    answer = call(server, "GET", f"/events?since=1&until={time.time() + 0.001:.9f}&filters={filters}")
    past = [json.loads(line) for line in answer.body.splitlines()]
    assert [message["Action"] for message in past] == ["create", "die"]
    for message in past:
        check(message, "EventMessage")
    path = f"{server.base_url}pydock/api/events?filters={filters}"
    for _ in range(10):  # more than there are threads in the pool; each leaves in the middle
        with server.connect() as client:
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: {server.host}\r\n{AUTHORIZATION}\r\n\r\n".encode())
            data = client.recv(65536)
            assert data.startswith(b"HTTP/1.1 200")
    with server.connect() as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: {server.host}\r\n{AUTHORIZATION}\r\n\r\n".encode())
        data = client.recv(65536)
        dock(home, "run", "--rm", "--name", "short-lived", "--network", "none", "busybox", "true")
        while b'"Action":"die"' not in data:
            piece = client.recv(65536)
            assert piece
            data += piece
        assert b'"Action":"create"' in data
    assert call(server, "GET", "/events?filters=" + quote('{"nonesuch":["1"]}')).status == 400


def test_pause_top_and_stats(server: JupyterServer) -> None:
    home = server.root.parent
    dock(home, "run", "-d", "--name", "seen", "--network", "none", "busybox", "sleep", "1000")
    top = load(server, "/containers/seen/top?ps_args=-o+pid,args")
    assert top["Titles"] == ["PID", "COMMAND"]
    assert [fields[1] for fields in top["Processes"]] == ["sleep 1000"]
    stats = load(server, "/containers/seen/stats?stream=0")
    assert stats["precpu_stats"]["system_cpu_usage"] < stats["cpu_stats"]["system_cpu_usage"]
    assert stats["pids_stats"]["current"] == 1
    if os.geteuid() == 0:  # there is a freezer
        assert call(server, "POST", "/containers/seen/pause").status == 204
        assert load(server, "/containers/seen/json")["State"]["Paused"]
        assert call(server, "POST", "/containers/seen/pause").status == 409
        assert call(server, "POST", "/containers/seen/unpause").status == 204
    dock(home, "rm", "-f", "seen")


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


def test_networks_that_every_host_has(server: JupyterServer) -> None:
    listed = load(server, "/networks")
    assert [network["Name"] for network in listed] == ["bridge", "host", "none"]
    for network in listed:
        check(network, "Network")
        assert load(server, f"/networks/{network['Id'][:12]}") == network
        assert call(server, "DELETE", f"/networks/{network['Name']}").status == 400


def test_volumes(server: JupyterServer) -> None:
    asked = {"Name": "made", "Labels": {"a": "b"}, "DriverOpts": {"type": "tmpfs", "device": "tmpfs"}}
    answer = call(server, "POST", "/v1.51/volumes/create", asked)
    assert answer.status == 201
    volume = json.loads(answer.body)
    check(volume, "Volume")
    assert (volume["Name"], volume["Labels"], volume["Options"]) == ("made", {"a": "b"}, asked["DriverOpts"])
    assert load(server, "/volumes/made") == volume
    filters = quote(json.dumps({"label": ["a=b"]}))
    listed = load(server, f"/volumes?filters={filters}")
    assert [item["Name"] for item in listed["Volumes"]] == ["made"]
    check(listed, "VolumeListResponse")
    assert call(server, "POST", "/volumes/create", {"ClusterVolumeSpec": {"Group": "x"}}).status == 501
    assert call(server, "PUT", "/volumes/made?version=1", {}).status == 501
    assert call(server, "POST", "/volumes/create", {"Driver": "convoy"}).status == 501
    assert call(server, "POST", "/volumes/create", {"Name": "a b"}).status == 400
    assert call(server, "DELETE", "/volumes/made").status == 204
    assert call(server, "DELETE", "/volumes/made").status == 404
    assert call(server, "DELETE", "/volumes/made?force=1").status == 204
    request = {
        "Image": "busybox",
        "Cmd": ["true"],
        "HostConfig": {"NetworkMode": "none", "Binds": ["held:/x"]},
    }
    assert call(server, "POST", "/containers/create?name=holder", request).status == 201
    assert call(server, "DELETE", "/volumes/held").status == 409
    assert call(server, "DELETE", "/containers/holder").status == 204
    pruned = json.loads(
        call(server, "POST", f"/volumes/prune?filters={quote(json.dumps({'all': ['true']}))}").body
    )
    assert "held" in pruned["VolumesDeleted"]


def test_archives(server: JupyterServer) -> None:
    place = "/containers/site/archive?path="
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        info = tarfile.TarInfo("dir/file")
        info.size = 3 << 20
        archive.addfile(info, io.BytesIO(b"x" * info.size))
    sent = put(server, f"/v1.51{place}/tmp", buffer.getvalue())
    assert sent.status == 200, sent.body
    described = call(server, "HEAD", f"{place}/tmp/dir/file")
    found = json.loads(base64.b64decode(described.get("X-Docker-Container-Path-Stat") or ""))
    assert {key: found[key] for key in ("name", "size", "linkTarget")} == {
        "name": "file",
        "size": 3 << 20,
        "linkTarget": "",
    }
    answer = call(server, "GET", f"{place}/tmp/dir")
    assert (answer.status, answer.get("Content-Type")) == (200, "application/x-tar")
    with tarfile.open(fileobj=io.BytesIO(answer.body)) as received:
        assert [member.name for member in received] == ["dir", "dir/file"]
    assert call(server, "GET", f"{place}/nope").status == 404
    assert call(server, "HEAD", f"{place}/nope").status == 404
    assert call(server, "GET", "/containers/site/archive").status == 400
    assert call(server, "GET", "/containers/nobody/archive?path=/").status == 404
    assert put(server, f"{place}/nope", buffer.getvalue()).status == 404
    assert put(server, f"{place}/tmp/dir/file", buffer.getvalue()).status == 400
    assert put(server, f"{place}/tmp", b"x" * 2000).status in (400, 500)
    refused = server.request(
        "PUT", f"{server.base_url}pydock/api{place}/tmp", {}, buffer.getvalue(), auth="none"
    )
    assert refused.status == 403


def put(server: JupyterServer, path: str, body: bytes) -> Response:
    """Send an archive."""
    headers = {"Content-Type": "application/x-tar"}
    return server.request("PUT", f"{server.base_url}pydock/api{path}", headers, body, auth="token")
