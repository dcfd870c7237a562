"""The port proxy over HTTP: what an application is sent, what the browser gets back, and who may ask."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from pathlib import Path

import pytest

from tests.support.jupyter_servers import (
    TOKEN,
    Backend,
    Backends,
    JupyterServer,
    free_port,
    reply,
    run_jupyter,
)

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
UNSAFE = ("POST", "PUT", "PATCH", "DELETE")
MARK = ".pydock"


@pytest.fixture(params=["/", "/user/me/"])
def server(request: pytest.FixtureRequest) -> JupyterServer:
    """Both servers, one after the other."""
    chosen: JupyterServer = request.getfixturevalue("jupyter" if request.param == "/" else "hub_like")
    return chosen


# -- addressing


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/a/b",
        "/a%2Fb/%2e%2e/c",
        "/../../../api/contents",
        "//double//slash",
        "/%ff%00%0d%0aX-Evil:1",
        "/semi;colon=1?x=1&y=%20&&z",
        "/?",
        "/page?next=/pydock/c/web/1/#f",
    ],
)
def test_path_passes_byte_for_byte(server: JupyterServer, backend: Backend, path: str) -> None:
    answer = server.request("GET", server.proxied(backend.port, path))
    assert answer.status == 200
    expected = path.removesuffix("?")  # an empty query is none (RFC 3986 lets a proxy say either)
    assert backend.last.line == f"GET {expected} HTTP/1.1".encode()


def test_bytes_above_ascii_are_percent_encoded(jupyter: JupyterServer, backend: Backend) -> None:
    with jupyter.connect() as client:
        target = jupyter.proxied(backend.port, "/").encode() + b"\xc3\xa9?\xff"
        head = b"GET %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: token %b\r\n\r\n"
        client.sendall(head % (target, TOKEN.encode()))
        assert client.makefile("rb").readline().startswith(b"HTTP/1.1 403")  # the host is not local
        client.close()
    with jupyter.connect() as client:
        head = b"GET %b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: token %b\r\n\r\n"
        client.sendall(head % (target, TOKEN.encode()))
        assert read_all(client).startswith(b"HTTP/1.1 200")
    assert backend.last.line == b"GET /%C3%A9?%FF HTTP/1.1"


@pytest.mark.parametrize("container", ["web", "a1" * 32, "a1a1a1a1a1a1", "a1"])
def test_container_is_named_by_name_id_or_prefix(
    jupyter: JupyterServer, backend: Backend, container: str
) -> None:
    assert jupyter.request("GET", jupyter.proxied(backend.port, "/", container)).body == b"hello"


def test_missing_slash_is_redirected(server: JupyterServer, backend: Backend) -> None:
    answer = server.request("GET", server.proxied(backend.port, "?a=%2F"))
    assert answer.status == 302
    assert answer.get("Location") == server.proxied(backend.port, "/?a=%2F")
    assert server.request("POST", server.proxied(backend.port, ""), body=b"x").status == 200
    assert backend.last.line == b"POST / HTTP/1.1"


@pytest.mark.parametrize(
    ("rest", "status"),
    [
        ("nothing/80/", 404),
        ("b/80/", 409),  # an ambiguous prefix
        ("web/0/", 400),
        ("web/65536/", 400),
        ("web/99999999999/", 400),
        ("web/http/", 404),
        ("web", 404),
        ("web/-1/", 404),
        ("../80/", 404),
        ("..%2F..%2Fetc/80/", 404),
        ("127.0.0.1:22/80/", 404),
        ("web%00/80/", 404),
        ("web/%38%30/", 404),
        ("web@evil.example/80/", 404),
        ("/80/", 404),
    ],
)
def test_nothing_but_a_containers_port_can_be_named(jupyter: JupyterServer, rest: str, status: int) -> None:
    before = jupyter.dials()
    answer = jupyter.request("GET", f"/pydock/c/{rest}")
    assert answer.status == status
    assert json.loads(answer.body)["message"]
    assert jupyter.dials() == before


def test_absolute_request_target_leads_nowhere(jupyter: JupyterServer, backend: Backend) -> None:
    target = f"http://127.0.0.1:{backend.port}/"
    assert jupyter.request("GET", target).status in (400, 404)
    assert jupyter.request("GET", f"http://{jupyter.host}{jupyter.proxied(backend.port)}").status in (
        400,
        404,
    )
    assert backend.requests == []


# -- authentication


@pytest.mark.parametrize("method", METHODS)
def test_every_method_needs_a_user(server: JupyterServer, backend: Backend, method: str) -> None:
    before = server.dials()
    answer = server.request(method, server.proxied(backend.port), auth="none")
    assert answer.status == 403
    wrong = {"Authorization": "token wrong"}
    assert server.request(method, server.proxied(backend.port), wrong, auth="none").status == 403
    assert backend.requests == []
    assert server.dials() == before


@pytest.mark.parametrize("auth", ["cookie", "token"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_reaches_the_application(
    server: JupyterServer, backend: Backend, method: str, auth: str
) -> None:
    body = b"data" if method in ("POST", "PUT", "PATCH", "DELETE") else None
    answer = server.request(method, server.proxied(backend.port, "/x"), body=body, auth=auth)
    assert answer.status == 200
    assert answer.body == (b"" if method == "HEAD" else b"hello")
    assert answer.get("Content-Length") == "5"
    assert backend.last.line == f"{method} /x HTTP/1.1".encode()
    assert backend.last.body == (body or b"")


def test_unknown_method_is_refused(jupyter: JupyterServer, backend: Backend) -> None:
    assert jupyter.request("PROPFIND", jupyter.proxied(backend.port)).status == 405
    assert backend.requests == []


def test_a_page_without_login_leads_to_the_login(server: JupyterServer, backend: Backend) -> None:
    path = server.proxied(backend.port, "/x?y=1")
    answer = server.request("GET", path, {"Accept": "text/html,*/*"}, auth="none")
    assert answer.status == 302
    assert (answer.get("Location") or "").startswith(f"{server.base_url}login?next=%2F")
    assert backend.requests == []


# -- other sites


OTHER = "http://evil.example"


@pytest.mark.parametrize("method", UNSAFE)
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": OTHER},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
    ],
    ids=str,
)
def test_unsafe_requests_of_other_sites_are_refused(
    jupyter: JupyterServer, backend: Backend, method: str, headers: dict[str, str]
) -> None:
    answer = jupyter.request(method, jupyter.proxied(backend.port), headers, b"x")
    assert answer.status == 403
    assert backend.requests == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": OTHER},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"},
    ],
    ids=str,
)
def test_other_sites_may_not_embed_or_read(
    jupyter: JupyterServer, backend: Backend, headers: dict[str, str]
) -> None:
    assert jupyter.request("GET", jupyter.proxied(backend.port), headers).status == 403
    assert backend.requests == []


def test_what_other_sites_and_own_pages_may(jupyter: JupyterServer, backend: Backend) -> None:
    path = jupyter.proxied(backend.port)
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert jupyter.request("GET", path, link).status == 200
    own = {"Sec-Fetch-Site": "same-origin", "Origin": f"http://{jupyter.host}"}
    assert jupyter.request("POST", path, own, b"x").status == 200
    assert jupyter.request("POST", path, {"Origin": f"http://{jupyter.host}"}, b"x").status == 200
    no_referrer = {"Sec-Fetch-Site": "same-origin", "Origin": "null"}
    assert jupyter.request("POST", path, no_referrer, b"x").status == 200
    # A token says whom the request comes from, as in Jupyter.
    assert jupyter.request("POST", path, {"Origin": OTHER}, b"x", auth="token").status == 200


# -- what the application is sent


def test_request_headers(server: JupyterServer, backend: Backend) -> None:
    prefix = server.proxied(backend.port, "")
    headers = [
        ("User-Agent", "browser"),
        ("X-Twice", "1"),
        ("X-Twice", "2"),
        ("Accept-Encoding", "gzip, br"),
        ("Origin", f"http://{server.host}"),
        ("Referer", f"http://{server.host}{prefix}/page?token={TOKEN}&x=1"),
        ("Connection", "keep-alive, X-Hop"),
        ("X-Hop", "1"),
        ("Keep-Alive", "timeout=5"),
        ("TE", "trailers"),
        ("Proxy-Authorization", "Basic x"),
        ("Upgrade", "h2c"),
        ("X-Forwarded-For", "6.6.6.6"),
        ("X-Forwarded-Prefix", "/evil"),
        ("Forwarded", "for=6.6.6.6"),
    ]
    assert server.request("GET", server.proxied(backend.port), headers).status == 200
    got = backend.last
    assert got.get("Host") == f"localhost:{backend.port}"
    assert got.get("User-Agent") == "browser"
    assert got.all("X-Twice") == ["1", "2"]
    assert got.get("Accept-Encoding") == "gzip, br"
    assert got.get("Origin") == f"http://localhost:{backend.port}"
    assert got.get("Referer") == f"http://localhost:{backend.port}/page?x=1"
    assert got.get("X-Forwarded-For") == "127.0.0.1"
    assert got.get("X-Forwarded-Host") == server.host
    assert got.get("X-Forwarded-Proto") == "http"
    assert got.get("X-Forwarded-Prefix") == prefix
    for name in ("Connection", "X-Hop", "Keep-Alive", "TE", "Proxy-Authorization", "Upgrade", "Forwarded"):
        assert got.get(name) is None


def test_referer_of_a_jupyter_page_says_the_origin_only(jupyter: JupyterServer, backend: Backend) -> None:
    headers = {"Referer": f"http://{jupyter.host}/lab?token={TOKEN}"}
    jupyter.request("GET", jupyter.proxied(backend.port), headers)
    assert backend.last.get("Referer") == f"http://localhost:{backend.port}/"
    jupyter.request("GET", jupyter.proxied(backend.port), {"Referer": "http://other.example/x"})
    assert backend.last.get("Referer") == "http://other.example/x"


def test_pages_are_asked_for_uncompressed(jupyter: JupyterServer, backend: Backend) -> None:
    for headers in ({"Accept": "text/html"}, {"Sec-Fetch-Dest": "iframe"}):
        jupyter.request("GET", jupyter.proxied(backend.port), {**headers, "Accept-Encoding": "gzip, br"})
        assert backend.last.get("Accept-Encoding") == "identity"


def test_jupyter_secrets_stay(server: JupyterServer, backend: Backend) -> None:
    """No byte of the token, of a cookie or of the XSRF value of Jupyter reaches the application."""
    assert any(name.startswith("username-") for name in server.cookies)
    assert "_xsrf" in server.cookies
    xsrf = server.cookies["_xsrf"]
    path = server.proxied(backend.port, f"/x?a=1&token={TOKEN}&_xsrf={xsrf}&b=2")
    headers = {
        "Authorization": f"Bearer {TOKEN}",
        "X-XSRFToken": xsrf,
        "X-CSRFToken": xsrf,
        "Cookie": "jupyterhub-session-id=s1; __Host-jupyterhub-user-me=s2; theme=dark; jupyter-hub-token=s3",
        "Referer": f"http://{server.host}{server.proxied(backend.port)}?token={TOKEN}",
    }
    for method in ("GET", "POST"):
        assert server.request(method, path, headers, b"x" if method == "POST" else None).status == 200
        got = backend.last
        assert got.line == f"{method} /x?a=1&b=2 HTTP/1.1".encode()
        assert got.get("Cookie") == "theme=dark"
        for name in ("Authorization", "X-XSRFToken", "X-CSRFToken"):
            assert got.get(name) is None
        for secret in (TOKEN, xsrf, *server.cookies.values(), "s1", "s2", "s3"):
            assert secret.strip('"').encode() not in got.head


def test_the_applications_own_credentials_pass(server: JupyterServer, backend: Backend) -> None:
    path = server.proxied(backend.port, "/x?token=the-applications&_xsrf=in-its-page")
    headers = {
        "Authorization": "token the-applications",
        "X-CSRFToken": "django",
        "Cookie": "csrftoken=django",
    }
    assert server.request("GET", path, headers).status == 200
    got = backend.last
    assert got.line == b"GET /x?token=the-applications&_xsrf=in-its-page HTTP/1.1"
    assert got.get("Authorization") == "token the-applications"
    assert got.get("X-CSRFToken") == "django"
    assert got.get("Cookie") == "csrftoken=django"
    basic = {"Authorization": "Basic dXNlcjpwYXNz"}
    server.request("GET", server.proxied(backend.port), basic)
    assert backend.last.get("Authorization") == "Basic dXNlcjpwYXNz"


def test_colliding_cookies_live_side_by_side(server: JupyterServer, backends: Backends) -> None:
    """A Jupyter server in the container sets cookies of the names that the outer one uses."""
    login = next(name for name in server.cookies if name.startswith("username-"))
    backend = backends.record(
        reply(
            b"",
            "Set-Cookie: _xsrf=2|abc|def|169; expires=Thu, 24 Dec 2026 03:30:20 GMT; Path=/",
            f'Set-Cookie: {login}="2|1:0|inner"; HttpOnly; Path=/lab; Domain=localhost',
            "Set-Cookie: theme=dark; Path=/; Domain=.example; SameSite=Lax",
            "Set-Cookie: plain=1",
        ),
        reply(b"again"),
    )
    prefix = server.proxied(backend.port, "")
    answer = server.request("GET", server.proxied(backend.port))
    assert answer.all("Set-Cookie") == [
        f"_xsrf=2|abc|def|169{MARK}; expires=Thu, 24 Dec 2026 03:30:20 GMT; Path={prefix}/",
        f'{login}="2|1:0|inner{MARK}"; HttpOnly; Path={prefix}/lab',
        f"theme=dark; Path={prefix}/; SameSite=Lax",
        "plain=1",
    ]
    # The browser sends both, the longer path first; and the inner value in a header and in the query.
    headers = {
        "Cookie": f'{login}="2|1:0|inner{MARK}"; _xsrf=2|abc|def|169{MARK}; theme=dark',
        "X-XSRFToken": f"2|abc|def|169{MARK}",
    }
    path = server.proxied(backend.port, f"/api?_xsrf=2%7Cabc%7Cdef%7C169{MARK}")
    assert server.request("POST", path, headers, b"x").status == 200
    got = backend.last
    assert got.get("Cookie") == f'{login}="2|1:0|inner"; _xsrf=2|abc|def|169; theme=dark'
    assert got.get("X-XSRFToken") == "2|abc|def|169"
    assert got.line == b"POST /api?_xsrf=2%7Cabc%7Cdef%7C169 HTTP/1.1"


OWN_XSRF = "2|0a0b0c0d|aabbccdd|169"


def test_the_xsrf_value_of_jupyter_stands_for_the_applications(
    server: JupyterServer, backend: Backend
) -> None:
    """A script that takes the wrong one of two cookies of a name is understood; Jupyter's value stays secret."""
    xsrf = server.cookies["_xsrf"]
    mask, masked = (bytes.fromhex(part) for part in xsrf.split("|")[1:3])
    raw = bytes(byte ^ mask[index % 4] for index, byte in enumerate(masked))
    remasked = f"2|00000000|{raw.hex()}|1"  # as Jupyter's pages hold it: another mask each time
    cookie = {"Cookie": f"_xsrf={OWN_XSRF}{MARK}", "Sec-Fetch-Site": "same-origin"}
    form = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
    quoted = {text: text.replace("|", "%7C") for text in (xsrf, remasked, OWN_XSRF)}
    for sent in (xsrf, remasked):
        headers = {**cookie, **form, "X-XSRFToken": sent, "X-My-Token": sent, "X-Other": "kept"}
        path = server.proxied(backend.port, f"/x?a=1&_xsrf={quoted[sent]}&b={sent}")
        body = f"text=%C3%A9+&_csrf={quoted[sent]}&last".encode()
        assert server.request("POST", path, headers, body).status == 200
        got = backend.last
        own = quoted[OWN_XSRF]
        assert got.line == f"POST /x?a=1&_xsrf={own}&b={own} HTTP/1.1".encode()
        assert got.body == f"text=%C3%A9+&_csrf={own}&last".encode()
        assert [got.get(name) for name in ("Cookie", "X-XSRFToken", "X-My-Token", "X-Other")] == [
            f"_xsrf={OWN_XSRF}",
            OWN_XSRF,
            OWN_XSRF,
            "kept",
        ]
        for secret in (xsrf, quoted[xsrf], remasked, raw.hex()):
            assert secret.encode() not in got.head + got.body
    # An application without such a cookie gets nothing in its place, and a stranger's value is not exchanged.
    alone = {**form, "X-XSRFToken": xsrf, "Sec-Fetch-Site": "same-origin"}
    server.request("POST", server.proxied(backend.port, "/x"), alone, f"_xsrf={quoted[xsrf]}".encode())
    assert (backend.last.body, backend.last.get("X-XSRFToken")) == (b"", None)
    server.request("POST", server.proxied(backend.port), {**cookie, "X-XSRFToken": "guess"}, b"x")
    assert backend.last.get("X-XSRFToken") == "guess"


def test_the_xsrf_value_behind_two_proxies(jupyter: JupyterServer, backend: Backend) -> None:
    """PyDock in a container: the inner proxy gets its own value, not that of the application behind it."""
    xsrf = jupyter.cookies["_xsrf"]
    headers = {"Cookie": f"_xsrf=deep{MARK}{MARK}; _xsrf=inner{MARK}", "X-XSRFToken": xsrf}
    jupyter.request("POST", jupyter.proxied(backend.port), headers, b"x")
    assert backend.last.get("Cookie") == f"_xsrf=deep{MARK}; _xsrf=inner"
    assert backend.last.get("X-XSRFToken") == "inner"


def test_big_forms_are_not_held(jupyter: JupyterServer, backend: Backend) -> None:
    body = b"a=" + b"x" * 200_000
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert jupyter.request("POST", jupyter.proxied(backend.port), form, body).status == 200
    assert backend.last.body == body


def test_a_tossed_cookie_does_not_log_out(jupyter: JupyterServer, backend: Backend) -> None:
    """Whatever order the browser sends cookies in, the application's never takes the place of Jupyter's."""
    login = next(name for name in jupyter.cookies if name.startswith("username-"))
    cookie = f"{jupyter.cookie}; {login}=tossed{MARK}; _xsrf=tossed{MARK}"
    answer = jupyter.request("GET", jupyter.proxied(backend.port), {"Cookie": cookie}, auth="none")
    assert answer.status == 200
    assert backend.last.get("Cookie") == f"{login}=tossed; _xsrf=tossed"


# -- what the browser gets back


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("/lab?x=1", "{prefix}/lab?x=1"),
        ("/", "{prefix}/"),
        ("tree", "tree"),
        ("?x", "?x"),
        ("//other.example/x", "//other.example/x"),
        ("http://localhost:{port}/a?b#c", "{prefix}/a?b#c"),
        ("http://127.0.0.1:{port}", "{prefix}/"),
        ("https://localhost:{port}/a", "{prefix}/a"),
        ("http://localhost:1/a", "http://localhost:1/a"),
        ("https://other.example/a", "https://other.example/a"),
        ("http://{host}/login", "{prefix}/login"),
        ("http://{host}{prefix}/login", "{prefix}/login"),
        ("{prefix}/already", "{prefix}/already"),
        ("{prefix}9/not", "{prefix}{prefix}9/not"),
        ("http://[broken", "http://[broken"),
    ],
)
def test_location(server: JupyterServer, backends: Backends, location: str, expected: str) -> None:
    backend = backends.record(reply())
    names = {"port": backend.port, "host": server.host, "prefix": server.proxied(backend.port, "")}
    backend.answers[0] = reply(b"", f"Location: {location.format(**names)}", status="302 Found")
    answer = server.request("GET", server.proxied(backend.port))
    assert answer.status == 302
    assert answer.all("Location") == [expected.format(**names)]


def test_response_headers(jupyter: JupyterServer, backends: Backends) -> None:
    dropped = (
        "Service-Worker-Allowed: /",
        'Clear-Site-Data: "cookies"',
        "Strict-Transport-Security: max-age=9",
        'Alt-Svc: h3=":1"',
        "Report-To: {}",
        "NEL: {}",
        "Keep-Alive: timeout=5",
        "X-Hop: 1",
        "Proxy-Authenticate: Basic",
        "Connection: keep-alive, X-Hop",
    )
    kept = ("X-Twice: 1", "X-Twice: 2", "Server: app", "ETag: W/x", "WWW-Authenticate: Bearer realm=x")
    backend = backends.record(
        reply(b"x", *dropped, *kept, "Refresh: 3; url=/next", status="418 Short and stout")
    )
    answer = jupyter.request("GET", jupyter.proxied(backend.port))
    assert answer.status == 418
    names = {name.lower() for name, _ in answer.headers}
    assert not names & {line.split(":")[0].lower() for line in dropped}
    assert answer.all("X-Twice") == ["1", "2"]
    assert (answer.get("Server"), answer.get("ETag")) == ("app", "W/x")
    assert answer.get("Refresh") == f"3; url={jupyter.proxied(backend.port, '/next')}"
    assert answer.get("Content-Security-Policy") == "frame-ancestors 'self'"
    # Nothing that Jupyter puts on its own pages.
    assert not names & {"x-content-type-options", "access-control-allow-origin", "date"}


@pytest.mark.parametrize(
    ("method", "answer", "status", "length"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", 200, "1000"),
        ("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 200, None),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", 204, None),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nETag: x\r\nContent-Length: 7\r\n\r\n", 304, "7"),
        ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, "0"),
        ("GET", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + reply(), 200, "0"),
        ("POST", b"HTTP/1.1 100 Continue\r\n\r\n" + reply(), 200, "0"),
    ],
    ids=str,
)
def test_responses_without_a_body(
    jupyter: JupyterServer, backends: Backends, method: str, answer: bytes, status: int, length: str | None
) -> None:
    backend = backends.record(answer)
    path = jupyter.proxied(backend.port)
    for _ in range(2):  # the second over the same connection, which must be in step
        got = jupyter.request(method, path, body=b"x" if method == "POST" else None)
        assert (got.status, got.body, got.get("Content-Length")) == (status, b"", length)


def test_framings_of_a_response(jupyter: JupyterServer, backends: Backends) -> None:
    chunked = reply(b"4\r\nWiki\r\n5\r\npedia\r\n0\r\n\r\n", "Transfer-Encoding: chunked", length=False)
    until_close = reply(b"until close", "Connection: close", length=False)
    old = b"HTTP/1.0 200 OK\r\nConnection: close\r\n\r\nold"
    backend = backends.record(chunked, until_close, old)
    path = jupyter.proxied(backend.port)
    assert [jupyter.request("GET", path).body for _ in range(3)] == [b"Wikipedia", b"until close", b"old"]


def test_old_clients(jupyter: JupyterServer, backends: Backends) -> None:
    """HTTP/1.0 knows no chunks: a body of unknown length ends with the connection, kept alive or not."""
    chunked = reply(b"4\r\nWiki\r\n0\r\n\r\n", "Transfer-Encoding: chunked", length=False)
    backend = backends.record(chunked)
    head = (
        f"GET {jupyter.proxied(backend.port)} HTTP/1.0\r\nHost: {jupyter.host}\r\nConnection: keep-alive\r\n"
    )
    with jupyter.connect() as client:
        client.sendall(f"{head}Authorization: token {TOKEN}\r\n\r\n".encode())
        data = read_all(client)
    assert data.endswith(b"\r\n\r\nWiki")


def test_a_policy_of_the_users_choosing(tmp_path: Path, backend: Backend) -> None:
    option = "--PyDockProxy.content_security_policy=sandbox allow-scripts"
    with run_jupyter(tmp_path / "home", "/", option) as server:
        answer = server.request("GET", server.proxied(backend.port))
        assert answer.all("Content-Security-Policy") == ["frame-ancestors 'self'", "sandbox allow-scripts"]


def test_idle_connections_are_used_again(jupyter: JupyterServer, backend: Backend) -> None:
    path = jupyter.proxied(backend.port)
    for _ in range(5):
        assert jupyter.request("GET", path).status == 200
    assert backend.connections == 1
    jupyter.request("POST", path, body=b"x")  # not repeatable, so never over a connection that may be gone
    assert backend.connections == 2


def test_an_idle_connection_that_was_closed_is_replaced(jupyter: JupyterServer, backends: Backends) -> None:
    """The application closes right when the next request arrives, as a server whose keep-alive time is up."""
    seen: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append((await reader.readuntil(b"\r\n\r\n")).split(b" ")[1])
        writer.write(reply(b"ok"))
        await writer.drain()
        if await reader.read(1):
            seen.append(b"closed")

    path = jupyter.proxied(backends.serve(handle))
    for number in range(3):
        assert jupyter.request("GET", f"{path}{number}").body == b"ok"
    assert seen == [b"/0", b"closed", b"/1", b"closed", b"/2"] or seen == [b"/0", b"closed", b"/1", b"/2"]


# -- attacks on the protocol


def raw(server: JupyterServer, port: int, lines: list[bytes], body: bytes = b"") -> bytes:
    path = server.proxied(port).encode()
    head = [b"POST %b HTTP/1.1" % path, b"Host: %b" % server.host.encode(), *lines]
    head.append(b"Authorization: token %b" % TOKEN.encode())
    with server.connect() as client:
        client.sendall(b"\r\n".join(head) + b"\r\n\r\n" + body)
        return client.makefile("rb").readline()


def read_all(client: socket.socket) -> bytes:
    data = b""
    while piece := client.recv(65536):
        data += piece
    return data


SMUGGLED = b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    "lines",
    [
        [b"Content-Length: %d" % len(SMUGGLED), b"Transfer-Encoding: chunked"],
        [b"Content-Length: 5", b"Content-Length: 6"],
        [b"Content-Length: 5, 6"],
        [b"Content-Length: +5"],
        [b"Content-Length: 0x5"],
        [b"Transfer-Encoding: gzip, chunked"],
        [b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"],
        [b"Transfer-Encoding: xchunked"],
        [b"Content-Length : 5"],
        [b"X-Bad: a\x00b"],
        [b"X-Folded: a", b" b"],
        [b"Bad Header: x"],
    ],
    ids=str,
)
def test_disputable_requests_reach_nobody(
    jupyter: JupyterServer, backend: Backend, lines: list[bytes]
) -> None:
    answer = raw(jupyter, backend.port, lines, SMUGGLED)
    assert answer.startswith(b"HTTP/1.1 400") or answer == b""
    assert backend.requests == []


def test_connection_header_cannot_take_the_framing_away(jupyter: JupyterServer, backend: Backend) -> None:
    answer = raw(jupyter, backend.port, [b"Connection: Content-Length, Host", b"Content-Length: 5"], b"12345")
    assert answer.startswith(b"HTTP/1.1 200")
    assert backend.last.get("Content-Length") == "5"
    assert backend.last.get("Host") == f"localhost:{backend.port}"
    assert backend.last.body == b"12345"


def test_equal_lengths_are_one(jupyter: JupyterServer, backend: Backend) -> None:
    answer = raw(jupyter, backend.port, [b"Content-Length: 5", b"Content-Length: 5"], b"12345")
    assert answer.startswith(b"HTTP/1.1 200")
    assert backend.last.all("Content-Length") == ["5"]


def test_chunked_requests_with_any_method(jupyter: JupyterServer, backend: Backend) -> None:
    for method in UNSAFE:
        path = jupyter.proxied(backend.port)
        body = b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        assert jupyter.request(method, path, {"Transfer-Encoding": "chunked"}, body).status == 200
        assert backend.last.body == b"abcde"
        assert backend.last.get("Content-Length") is None


def test_huge_headers_are_refused(jupyter: JupyterServer, backend: Backend) -> None:
    try:
        status = jupyter.request("GET", jupyter.proxied(backend.port), {"X-Huge": "x" * 2_000_000}).status
    except OSError:
        status = 0  # Tornado closes the connection in the middle of the header
    assert status in (0, 400, 431)
    assert backend.requests == []
    assert jupyter.request("GET", jupyter.proxied(backend.port)).status == 200


@pytest.mark.parametrize(
    "answer",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-" + b"x" * 400_000,
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        b"",
    ],
    ids=lambda answer: repr(answer[:30]),
)
def test_broken_applications_are_a_bad_gateway(
    jupyter: JupyterServer, backends: Backends, answer: bytes
) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()

    port = backends.serve(handle)
    for method in ("GET", "POST"):
        got = jupyter.request(method, jupyter.proxied(port), body=b"x" if method == "POST" else None)
        assert got.status == 502
        assert "without a response" in json.loads(got.body)["message"]


@pytest.mark.parametrize(
    "begin",
    [
        reply(b"5\r\nhello\r\n", "Transfer-Encoding: chunked", length=False),
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
    ],
    ids=["chunked", "fixed"],
)
def test_a_response_that_breaks_off_is_seen_to(
    jupyter: JupyterServer, backends: Backends, begin: bytes
) -> None:
    """A truncated body must not look whole: the browser's connection ends in its middle, too."""
    arrived = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(begin)
        await writer.drain()
        await arrived.wait()

    head = f"GET {jupyter.proxied(backends.serve(handle))} HTTP/1.1\r\nHost: {jupyter.host}\r\n"
    with jupyter.connect() as client:
        client.sendall(f"{head}Authorization: token {TOKEN}\r\n\r\n".encode())
        data = b""
        while b"hello" not in data:
            data += client.recv(65536)
        backends.loop.call_soon_threadsafe(arrived.set)
        data += read_all(client)
    assert data.startswith(b"HTTP/1.1 200")
    assert not data.endswith(b"0\r\n\r\n")


# -- what is not there


def test_errors_in_json(jupyter: JupyterServer) -> None:
    port = free_port()
    answer = jupyter.request("GET", jupyter.proxied(port))
    assert answer.status == 503
    assert answer.get("Retry-After") == "2"
    document = json.loads(answer.body)
    assert document["message"] == f"container web does not answer on port {port}"
    assert "dock logs web" in document["hint"]
    assert f"port {port}" not in document["hint"]
    assert jupyter.request("POST", jupyter.proxied(port), body=b"x").status == 503
    stopped = jupyter.request("GET", jupyter.proxied(port, "/", "idle"))
    assert stopped.status == 409
    assert "not running" in json.loads(stopped.body)["message"]


def test_errors_as_a_page(jupyter: JupyterServer) -> None:
    accept = {"Accept": "text/html,application/xhtml+xml"}
    port = free_port()
    answer = jupyter.request("GET", jupyter.proxied(port), accept)
    assert answer.status == 503
    assert (answer.get("Content-Type") or "").startswith("text/html")
    assert b"<noscript>" in answer.body
    assert b" data-retry-seconds=" in answer.body
    page = answer.body.decode()
    content = page[page.index("<body>") :]
    assert f"<h1>web does not answer on port {port} yet</h1>" in content
    assert content.count(str(port)) == 1  # said once
    assert "See its log: <code>dock logs web</code>. This page retries" in content
    gone = jupyter.request("GET", "/pydock/c/nothing/80/", accept)
    assert gone.status == 404
    assert b"No such container: nothing." in gone.body
    assert b"<noscript>" not in gone.body
    assert b" data-retry-seconds=" not in gone.body


def test_no_answer_is_not_logged_as_an_error(jupyter: JupyterServer) -> None:
    """Nobody's mistake, and asked for again and again: it is not worth a line, while a wrong name is."""
    port = free_port()
    log = jupyter.root.parent / "log"
    for method in ("GET", "POST"):
        answer = jupyter.request(method, jupyter.proxied(port), {"User-Agent": f"waiting-{port}"})
        assert answer.status == 503
    missing = f"/pydock/c/missing-{port}/80/"
    assert jupyter.request("GET", missing).status == 404
    deadline = time.monotonic() + 20
    while missing not in (logged := log.read_text()):  # the server logs after it has answered
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert f"waiting-{port}" not in logged
    assert jupyter.proxied(port) not in logged


def test_an_application_that_starts_is_reached(jupyter: JupyterServer, backends: Backends) -> None:
    port = free_port()
    assert jupyter.request("GET", jupyter.proxied(port)).status == 503
    backend = backends.record()
    assert jupyter.request("GET", jupyter.proxied(backend.port)).status == 200


def test_two_servers_on_the_same_applications(
    jupyter: JupyterServer, hub_like: JupyterServer, backend: Backend
) -> None:
    for server in (jupyter, hub_like, jupyter):
        assert server.request("GET", server.proxied(backend.port)).body == b"hello"
        assert backend.last.get("X-Forwarded-Prefix") == server.proxied(backend.port, "")
