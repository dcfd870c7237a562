"""The HTTP API behind Jupyter's authentication: shapes, statuses, streams, refusals; on the engine double."""

from __future__ import annotations

import json
import struct
import threading
from collections.abc import Iterator

import pytest

from tests.support.fake_engine import CREATED, IDLE, TERMINAL, WEB
from tests.support.jupyter_servers import TOKEN, JupyterServer, Response, run_jupyter


@pytest.fixture
def server(request: pytest.FixtureRequest) -> JupyterServer:
    """The server that is shared by all; for tests that change nothing."""
    shared: JupyterServer = request.getfixturevalue("hub_like")
    return shared


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JupyterServer]:
    """A server of this module's own, whose containers may be changed."""
    with run_jupyter(tmp_path_factory.mktemp("api")) as running:
        yield running


def call(
    server: JupyterServer,
    method: str,
    path: str,
    headers: dict[str, str] | None = None,
    *,
    auth: str = "token",
    body: bytes = b"",
) -> Response:
    body = body if method in ("POST", "PUT") else None
    return server.request(method, f"{server.base_url}pydock/api{path}", headers, body, auth=auth)


def message(answer: Response) -> str:
    document = json.loads(answer.body)
    assert (answer.get("Content-Type") or "").startswith("application/json")
    return str(document["message"])


# -- who may call


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/_ping"),
        ("HEAD", "/_ping"),
        ("GET", "/version"),
        ("GET", "/containers/json"),
        ("GET", "/containers/web/logs?stdout=1"),
        ("POST", "/containers/web/stop"),
        ("DELETE", "/containers/web?force=1"),
        ("PUT", "/anything"),
        ("POST", "/containers/create"),
    ],
)
def test_every_call_needs_a_user(server: JupyterServer, method: str, path: str) -> None:
    for headers in ({}, {"Authorization": "token wrong"}, {"Accept": "text/html"}):
        answer = call(server, method, path, headers, auth="none")
        assert answer.status in (403, 302 if "Accept" in headers else 403)
    assert json.loads(call(server, "GET", "/containers/web/json").body)["State"]["Running"]


def test_changes_by_cookie_need_jupyters_xsrf_token(own: JupyterServer) -> None:
    xsrf = own.cookies["_xsrf"]
    path = "/containers/web/restart"
    assert call(own, "POST", path, auth="cookie").status == 403
    assert call(own, "POST", path, {"X-XSRFToken": "wrong"}, auth="cookie").status == 403
    assert call(own, "DELETE", "/containers/web?force=1", auth="cookie").status == 403
    assert call(own, "POST", path, {"X-XSRFToken": xsrf}, auth="cookie").status == 204
    assert call(own, "POST", path, auth="token").status == 204
    foreign = {"X-XSRFToken": xsrf, "Origin": "http://evil.example"}
    assert call(own, "POST", path, foreign, auth="cookie").status in (403, 404)
    assert call(own, "GET", "/containers/json", auth="cookie").status == 200
    assert (
        call(own, "GET", "/containers/json", {"Origin": "http://evil.example"}, auth="cookie").status == 403
    )


# -- versions and routes


@pytest.mark.parametrize("version", ["", "/v1.24", "/v1.41", "/v1.51"])
def test_versions(server: JupyterServer, version: str) -> None:
    answer = call(server, "GET", f"{version}/_ping")
    assert (answer.status, answer.body) == (200, b"OK")
    assert answer.get("Api-Version") == "1.51"
    assert answer.get("OSType") == "linux"
    assert call(server, "HEAD", f"{version}/_ping").status == 200


@pytest.mark.parametrize(("version", "word"), [("v1.52", "new"), ("v2.0", "new"), ("v1.23", "old")])
def test_foreign_versions_are_refused(server: JupyterServer, version: str, word: str) -> None:
    answer = call(server, "GET", f"/{version}/_ping")
    assert answer.status == 400
    assert f"is too {word}" in message(answer)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1.51/build"),
        ("POST", "/images/create?fromImage=x"),
        ("GET", "/plugins"),
        ("POST", "/containers/web/checkpoints"),
        ("POST", "/containers/web/exec"),
        ("GET", "/containers/web/attach/ws"),
        ("DELETE", "/images/x"),
        ("POST", "/containers/json"),
        ("GET", "/"),
        ("GET", "/%ff"),
    ],
)
def test_what_comes_later_is_refused_by_name(server: JupyterServer, method: str, path: str) -> None:
    answer = call(server, method, path)
    assert answer.status == 501
    assert "is not supported yet" in message(answer)
    assert method in message(answer)


def test_version_and_info(server: JupyterServer) -> None:
    version = json.loads(call(server, "GET", "/version").body)
    assert (version["ApiVersion"], version["MinAPIVersion"]) == ("1.51", "1.24")
    assert json.loads(call(server, "GET", "/info").body)["Containers"] == 3


# -- lists


def listed(server: JupyterServer, query: str = "") -> list[str]:
    return [summary["Id"] for summary in json.loads(call(server, "GET", f"/containers/json{query}").body)]


def test_container_list(server: JupyterServer) -> None:
    assert listed(server) == [WEB, TERMINAL]
    assert listed(server, "?all=1") == [WEB, IDLE, TERMINAL]
    assert listed(server, "?all=false") == [WEB, TERMINAL]
    assert listed(server, "?limit=2") == [WEB, IDLE]
    assert listed(server, "?limit=-1") == [WEB, TERMINAL]
    for filters in ('{"name":["term"]}', '{"name":{"term":true,"web":false}}'):
        assert listed(server, f"?filters={filters.replace(' ', '')}") == [TERMINAL]


@pytest.mark.parametrize(
    "query",
    ["limit=x", "filters=x", "filters=[]", 'filters={"a":"b"}', 'filters={"a":[1]}'],
)
def test_bad_parameters(server: JupyterServer, query: str) -> None:
    answer = call(server, "GET", f"/containers/json?{query}")
    assert answer.status == 400
    assert query.split("=")[0] in message(answer)


def test_what_a_call_does_not_know_is_refused(server: JupyterServer) -> None:
    answer = call(server, "GET", "/containers/json?size=1")
    assert answer.status == 501
    assert "size" in message(answer)
    assert call(server, "GET", "/containers/json?size=0").status == 200
    assert call(server, "DELETE", "/containers/idle?link=1").status == 501


def test_an_unchanged_list_is_not_sent_again(server: JupyterServer) -> None:
    answer = call(server, "GET", "/containers/json")
    tag = answer.get("ETag")
    assert tag
    again = call(server, "GET", "/containers/json", {"If-None-Match": tag})
    assert (again.status, again.body) == (304, b"")
    assert call(server, "GET", "/containers/json?all=1", {"If-None-Match": tag}).status == 200


def test_inspect(server: JupyterServer) -> None:
    assert json.loads(call(server, "GET", "/containers/web/json").body)["Id"] == WEB
    missing = call(server, "GET", "/containers/nothing/json")
    assert missing.status == 404
    assert message(missing) == "no such container: nothing"
    name = "registry.example:5000/team/demo:latest"
    assert json.loads(call(server, "GET", f"/images/{name}/json").body)["RepoTags"] == [name]
    assert call(server, "GET", "/images/registry.example:5000%2Fteam%2Fdemo:latest/json").status == 200
    assert call(server, "GET", "/images/other/json").status == 404
    assert call(server, "GET", "/images/json").body == b"[]\n"


# -- the life cycle


def test_create(server: JupyterServer) -> None:
    """The double warns of the request that it understood."""
    body = json.dumps(
        {"Image": "demo", "Cmd": ["true"], "HostConfig": {"AutoRemove": True, "Dns": []}}
    ).encode()
    answer = call(server, "POST", "/v1.51/containers/create?name=new", body=body)
    assert answer.status == 201
    document = json.loads(answer.body)
    assert document["Id"] == CREATED
    assert json.loads(document["Warnings"][0])["HostConfig"] == {
        "AutoRemove": True,
        "LogConfig": {"Type": "json-file", "Config": {}},
    }


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        (b"", 400, "not JSON"),
        (b"[" * 100_000, 400, "not JSON"),
        (b"[]", 400, "not a JSON object"),
        (b'{"Cmd": ["true"]}', 400, "Image"),
        (b'{"Image": "demo", "Volumes": ' + b'{"/a": ' * 500 + b"1" + b"}" * 501, 400, "deeply"),
        (b'{"Image": "demo", "Cmd": "true"}', 400, "Cmd"),
        (b'{"Image": "demo", "HostConfig": {"StorageOpt": {"size": "1G"}}}', 501, "StorageOpt"),
        (b'{"Image": "absent"}', 404, "absent"),
    ],
)
def test_bad_create_requests(server: JupyterServer, body: bytes, status: int, word: str) -> None:
    answer = call(server, "POST", "/containers/create", body=body)
    assert (answer.status, word in message(answer)) == (status, True)


def test_a_taken_name(server: JupyterServer) -> None:
    answer = call(server, "POST", "/containers/create?name=web", body=b'{"Image": "demo"}')
    assert answer.status == 409


def test_life_cycle(own: JupyterServer) -> None:
    steps = [
        ("POST", "/containers/idle/kill", 409),
        ("POST", "/containers/idle/stop", 304),
        ("POST", "/containers/idle/start", 204),
        ("POST", "/containers/idle/start", 304),
        ("DELETE", "/containers/idle", 409),
        ("POST", "/containers/idle/stop?t=1", 204),
        ("POST", "/containers/idle/stop?t=x", 400),
        ("POST", "/containers/idle/restart?t=0", 204),
        ("POST", "/containers/idle/kill?signal=SIGKILL", 204),
        ("POST", "/containers/idle/rename", 400),
        ("POST", "/containers/idle/rename?name=web", 409),
        ("POST", "/containers/idle/rename?name=other", 204),
        ("DELETE", "/containers/idle?v=1", 204),
        ("DELETE", "/containers/idle", 404),
        ("POST", "/containers/idle/start", 404),
        ("POST", "/containers/idle/wait", 404),
    ]
    for method, path, status in steps:
        answer = call(own, method, path)
        assert answer.status == status, (path, answer)
        if status >= 400:
            assert message(answer)
        else:
            assert answer.body == b""


def test_wait(own: JupyterServer) -> None:
    call(own, "POST", "/containers/terminal/start")
    answers: list[Response] = []
    waiting = threading.Thread(target=lambda: answers.append(call(own, "POST", "/containers/terminal/wait")))
    waiting.start()
    assert not answers
    assert call(own, "POST", "/containers/terminal/stop").status == 204
    waiting.join(10)
    assert json.loads(answers[0].body) == {"StatusCode": 137}
    assert call(own, "POST", "/containers/web/wait?condition=sometime").status == 400


# -- logs


def frames(data: bytes) -> list[tuple[int, bytes]]:
    """Take the multiplexed format apart."""
    found = []
    while data:
        number, length = struct.unpack(">BxxxL", data[:8])
        assert len(data) >= 8 + length
        found.append((number, data[8 : 8 + length]))
        data = data[8 + length :]
    return found


LINES = [(1, b"line 0\n"), (2, b"line 1\n"), (1, b"line 2\n"), (2, b"line 3\n")]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("stdout=1&stderr=1", LINES),
        ("stdout=true", LINES[::2]),
        ("stderr=1", LINES[1::2]),
        ("stdout=1&stderr=1&tail=2", LINES[2:]),
        ("stdout=1&stderr=1&tail=all", LINES),
        ("stdout=1&stderr=1&tail=0", []),
        ("stdout=1&stderr=1&since=1700000002", LINES[2:]),
        ("stdout=1&stderr=1&since=1700000001.000000001", LINES[2:]),
        ("stdout=1&stderr=1&since=2023-11-14T22:13:22Z", LINES[2:]),
        ("stdout=1&stderr=1&until=1700000001", LINES[:1]),
        ("stdout=1&timestamps=1&tail=2", [(1, b"2023-11-14T22:13:22.000000000Z line 2\n")]),
    ],
)
def test_logs(server: JupyterServer, query: str, expected: list[tuple[int, bytes]]) -> None:
    answer = call(server, "GET", f"/containers/web/logs?{query}")
    assert answer.get("Content-Type") == "application/vnd.docker.multiplexed-stream"
    assert frames(answer.body) == expected


def test_logs_of_a_terminal_are_raw(server: JupyterServer) -> None:
    answer = call(server, "GET", "/containers/terminal/logs?stdout=1&stderr=1")
    assert answer.get("Content-Type") == "application/vnd.docker.raw-stream"
    assert answer.body == b"".join(line for _, line in LINES)


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 400),
        ("stdout=0", 400),
        ("stdout=1&tail=x", 400),
        ("stdout=1&since=yesterday", 400),
    ],
)
def test_bad_log_requests(server: JupyterServer, query: str, status: int) -> None:
    assert call(server, "GET", f"/containers/web/logs?{query}").status == status


def test_following_logs(own: JupyterServer) -> None:
    """What is there comes at once, the rest when it is written, and the stream ends with the container."""
    call(own, "POST", "/containers/web/start")
    with own.connect() as client:
        path = "/pydock/api/containers/web/logs?stdout=1&stderr=1&follow=1"
        client.sendall(
            f"GET {path} HTTP/1.1\r\nHost: {own.host}\r\nAuthorization: token {TOKEN}\r\n\r\n".encode()
        )
        data = b""
        while b"line 3\n" not in data:
            data += client.recv(65536)
        assert b"the end" not in data
        call(own, "POST", "/containers/web/stop")
        while not data.endswith(b"0\r\n\r\n"):
            piece = client.recv(65536)
            assert piece
            data += piece
        assert b"the end" in data
    call(own, "POST", "/containers/web/start")


def test_a_follower_that_leaves_holds_nothing_up(own: JupyterServer) -> None:
    for _ in range(20):  # more than there are threads in the pool
        with own.connect() as client:
            path = "/pydock/api/containers/web/logs?stdout=1&follow=1"
            client.sendall(
                f"GET {path} HTTP/1.1\r\nHost: {own.host}\r\nAuthorization: token {TOKEN}\r\n\r\n".encode()
            )
            while b"line 2\n" not in client.recv(65536):
                pass
    assert call(own, "GET", "/containers/json").status == 200


def test_networks(own: JupyterServer) -> None:
    def send(path: str, document: object) -> Response:
        return call(own, "POST", f"/networks{path}", body=json.dumps(document).encode())

    made = send(
        "/create", {"Name": "web", "Driver": "bridge", "CheckDuplicate": True, "IPAM": {"Config": []}}
    )
    assert (made.status, json.loads(made.body)) == (201, {"Id": "web" * 8, "Warning": "a warning"})
    assert send("/create", {"Name": "web"}).status == 409
    for document, status, word in (
        ({"Name": "a/b"}, 400, "invalid network name"),
        ({"Name": "x", "Driver": "overlay"}, 501, "overlay"),
        ({"Name": "x", "Colour": "red"}, 501, "Colour"),
        ([], 400, "not a JSON object"),
    ):
        refused = send("/create", document)
        assert (refused.status, word in message(refused)) == (status, True)
    assert send("/web/connect", {"Container": "c", "EndpointConfig": {"Aliases": ["a"]}}).status == 200
    assert send("/web/disconnect", {"Container": "c", "Force": True}).status == 200
    for path in ("/web/connect", "/web/disconnect"):
        assert send(path, {"Container": 1}).status == 400
        assert send(path.replace("web", "absent"), {"Container": "c"}).status == 404
    seen = json.loads(call(own, "GET", "/networks/web").body)
    assert list(seen["Containers"]) == ['c {"Aliases": ["a"]}', "c True"]
    listed = json.loads(call(own, "GET", '/networks?filters={"driver":["bridge"]}').body)
    assert listed == [{"Name": "web", "Filters": {"driver": ["bridge"]}}]
    assert call(own, "GET", "/networks/absent").status == 404
    assert json.loads(call(own, "POST", "/networks/prune").body) == {"NetworksDeleted": []}
    assert call(own, "DELETE", "/networks/web").status == 204
    assert call(own, "DELETE", "/networks/web").status == 404
