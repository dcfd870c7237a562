"""The rewriting of pages: pure, and the same however the page is cut into pieces."""

from __future__ import annotations

import gzip
import json
import re
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydock_jupyter.server.html import CONFIG_LIMIT_BYTES, TAG_LIMIT_BYTES, PageRewriter, choose_rewriter
from tests.support.jupyter_servers import Backends, JupyterServer, reply

PREFIX = "/user/me/pydock/c/web/8888"


def rewrite(page: str | bytes, piece_bytes: int = 1 << 20) -> str:
    data = page.encode() if isinstance(page, str) else page
    rewriter = PageRewriter(PREFIX)
    out = [b"".join(rewriter.feed(data[at : at + piece_bytes])) for at in range(0, len(data), piece_bytes)]
    return (b"".join(out) + b"".join(rewriter.close())).decode()


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ('<a href="/x">', '<a href="P/x">'),
        ("<a href='/x?y=1#z'>", "<a href='P/x?y=1#z'>"),
        ("<a href=/x>", "<a href=P/x>"),
        ('<a href="/">', '<a href="P/">'),
        ('<IMG SRC = "/x" alt="/y">', '<IMG SRC = "P/x" alt="/y">'),
        ('<form method=post action="/x">', '<form method=post action="P/x">'),
        ('<button formaction="/x">', '<button formaction="P/x">'),
        ('<base href="/">', '<base href="P/">'),
        ('<body data-base-url="/">', '<body data-base-url="P/">'),
        ('<link rel=icon href=" /x ">', '<link rel=icon href="P/x ">'),
        ('<a title=">" href="/x">', '<a title=">" href="P/x">'),
        ('<a\nhref\t=\n"/x"\n>', '<a\nhref\t=\n"P/x"\n>'),
        ('<script src="/x"></script>', '<script src="P/x"></script>'),
        # what stays
        ('<a href="x">', None),
        ('<a href="//host/x">', None),
        (r'<a href="/\host/x">', None),
        ('<a href="http://host/x">', None),
        ('<a href="P/x">', None),
        ('<a href="P">', None),
        ('<a data-href="/x" xhref="/y">', None),
        ("""<a title=' href="/x" '>""", None),
        ('<!-- <a href="/x"> -->', None),
        ('<script>let a = "<a href=/x>" + \'<img src="/y">\'</script>', None),
        ('<style>a::after { content: "<a href=/x>" }</style>', None),
        ('<textarea><a href="/x"></textarea>', None),
        ('<title><a href="/x"></TITLE>', None),
        ("1 < 2 <- 3 <", None),
        ('<a href="/x', None),
        ("</a href='/x'>", None),
        ("<!DOCTYPE html>", None),
        ("<!--", None),
    ],
)
def test_attributes(page: str, expected: str | None) -> None:
    page = page.replace("P/", PREFIX + "/").replace('"P"', f'"{PREFIX}"')
    wanted = page if expected is None else expected.replace("P/", PREFIX + "/")
    for tail in ("", '<p><a href="/after">'):
        if tail and (page.endswith('href="/x') or page == "<!--"):
            continue  # what is open swallows what follows
        for piece_bytes in (1 << 20, 1, 3):
            assert rewrite(page + tail, piece_bytes) == wanted + tail.replace("/after", PREFIX + "/after")


CONFIG = {
    "baseUrl": "/",
    "fullStaticUrl": "/static/lab",
    "fullSettingsUrl": "/lab/api/settings",
    "fullOtherUrl": f"{PREFIX}/already",
    "wsUrl": "",
    "appUrl": "/lab",
    "settingsUrl": "/lab/api/settings",
    "serverRoot": "/root",
    "preferredPath": "/",
    "note": "</script><b>",
    "federated_extensions": [{"load": "static/x.js"}],
}
PAGE = (
    '<html><head><script id="jupyter-config-data" type="application/json">'
    + json.dumps(CONFIG).replace("<", "\\u003c")
    + '</script><link href="/favicon.ico"></head>'
)


@pytest.mark.parametrize("piece_bytes", [1 << 20, 1, 7])
def test_jupyter_configuration(piece_bytes: int) -> None:
    page = rewrite(PAGE, piece_bytes)
    match = re.search(r'id="jupyter-config-data" type="application/json">(.*?)</script>(.*)', page)
    assert match is not None
    assert json.loads(match[1]) == CONFIG | {
        "baseUrl": f"{PREFIX}/",
        "fullStaticUrl": f"{PREFIX}/static/lab",
        "fullSettingsUrl": f"{PREFIX}/lab/api/settings",
    }
    assert match[2] == f'<link href="{PREFIX}/favicon.ico"></head>'
    assert rewrite(page, piece_bytes) == page  # not twice


SCRIPT = "<script src=/s></script>"


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        (
            "<!doctype html><html lang=en><head id=x><title>t</title>",
            "<!doctype html><html lang=en><head id=x>S<title>t</title>",
        ),
        ("<HTML><HEAD></HEAD><body>", "<HTML><HEAD>S</HEAD><body>"),
        (
            "<!doctype html><title>t</title><script>x</script>",
            "<!doctype html>S<title>t</title><script>x</script>",
        ),
        ("<!-- <head> --><body><p>", "<!-- <head> -->S<body><p>"),
        ("text only", "text only"),
        ("", ""),
    ],
)
def test_the_first_script(page: str, expected: str) -> None:
    for piece_bytes in (1 << 20, 1, 3):
        rewriter = PageRewriter(PREFIX, (), SCRIPT)
        data = page.encode()
        out = [
            b"".join(rewriter.feed(data[at : at + piece_bytes])) for at in range(0, len(data), piece_bytes)
        ]
        whole = (b"".join(out) + b"".join(rewriter.close())).decode()
        assert whole == expected.replace("S<", f"{SCRIPT}<")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://hub.example:8000/x?y", "P/x?y"),
        ("HTTPS://HUB.example:8000", "P/"),
        ("http://localhost:7860/x", "P/x"),
        ("http://hub.example:8000P/x", "P/x"),
        ("http://hub.example/x", None),
        ("http://hub.example:8000.evil.example/x", None),
        ("http://user@hub.example:8000/x", None),
        ("ftp://localhost:7860/x", None),
    ],
)
def test_urls_that_name_the_applications_own_host(url: str, expected: str | None) -> None:
    rewriter = PageRewriter(PREFIX, ("Hub.example:8000", "localhost:7860"))
    page = f'<a href="{url}">'.replace("P/", f"{PREFIX}/")
    got = b"".join([*rewriter.feed(page.encode()), *rewriter.close()]).decode()
    assert got == (page if expected is None else f'<a href="{expected}">'.replace("P/", f"{PREFIX}/"))


@pytest.mark.parametrize("content", ["", "not json", "[1]", '{"baseUrl": 3}', '{"baseUrl": "//host/"}'])
def test_other_configuration_stays(content: str) -> None:
    page = f"<script id=jupyter-config-data >{content}</script>"
    assert rewrite(page) == page
    assert rewrite(page, 1) == page


def test_memory_is_bounded() -> None:
    rewriter = PageRewriter(PREFIX)
    for start, limit in (
        (b'<a href="', TAG_LIMIT_BYTES),
        (b'<script id="jupyter-config-data">', CONFIG_LIMIT_BYTES),
    ):
        out = len(b"".join(rewriter.feed(start)))
        total = len(start)
        for _ in range(40):
            total += 65536
            out += len(b"".join(rewriter.feed(b"x" * 65536)))
            assert total - out <= limit + 65536
        assert out > 1 << 20
        rewriter = PageRewriter(PREFIX)


@given(st.text("<>!-/ \"'=abhrefsct\n", max_size=60), st.integers(1, 9))
def test_pieces_do_not_matter(page: str, piece_bytes: int) -> None:
    whole = rewrite(page)
    assert rewrite(page, piece_bytes) == whole
    assert whole.replace(PREFIX, "") == page.replace(PREFIX, "") or " /" in page


@pytest.mark.parametrize(
    ("path", "content_type", "encoding", "is_rewritten"),
    [
        ("/", "text/html", "", True),
        ("/", "Text/HTML; charset=UTF-8", "identity", True),
        ("/", "text/html", "gzip", True),
        ("/", "text/html", "br", False),
        ("/", "text/html; charset=utf-16", "", False),
        ("/", "text/javascript", "", False),
        ("/", "", "", False),
        ("/api/kernelspecs", "application/json", "", True),
        ("/api/contents", "application/json", "", False),
    ],
)
def test_what_is_rewritten(path: str, content_type: str, encoding: str, is_rewritten: bool) -> None:
    assert (choose_rewriter(path, content_type, encoding, PREFIX) is not None) == is_rewritten


# -- through the proxy


@pytest.mark.parametrize("encoding", ["", "gzip", "deflate"])
def test_a_page_through_the_proxy(hub_like: JupyterServer, backends: Backends, encoding: str) -> None:
    body = {"": bytes, "gzip": gzip.compress, "deflate": zlib.compress}[encoding](PAGE.encode())
    headers = ["Content-Type: text/html; charset=utf-8", "Accept-Ranges: bytes"]
    backend = backends.record(reply(body, *headers, *([f"Content-Encoding: {encoding}"] if encoding else [])))
    prefix = hub_like.proxied(backend.port, "")
    answer = hub_like.request("GET", prefix + "/lab", {"Accept": "text/html"})
    assert answer.status == 200
    assert f'<link href="{prefix}/favicon.ico">'.encode() in answer.body
    assert f'"baseUrl": "{prefix}/"'.encode() in answer.body
    assert answer.get("Content-Encoding") is None
    assert answer.get("Accept-Ranges") is None
    shim = re.search(
        rb'<head><script src="([^"]+)" data-prefix="([^"]+)" data-authority="([^"]+)">', answer.body
    )
    assert shim is not None
    assert shim[2].decode() == prefix
    assert shim[3].decode() == f"localhost:{backend.port}"
    script = hub_like.request("GET", shim[1].decode(), auth="none")  # a page in a sandbox has no cookie
    assert (script.status, script.get("Content-Type")) == (200, "text/javascript; charset=utf-8")
    # A part of a page, which a script asks for, is no document.
    part = hub_like.request("GET", prefix + "/lab", {"Accept": "text/html", "Sec-Fetch-Dest": "empty"})
    assert b"shim.js" not in part.body
    assert prefix.encode() in part.body
    head = hub_like.request("HEAD", prefix + "/lab")
    assert head.status == 200
    assert head.get("Content-Length") is None  # it is not known


def test_a_partial_or_foreign_page_stays(jupyter: JupyterServer, backends: Backends) -> None:
    page = b'<a href="/x">'
    html = "Content-Type: text/html"
    backend = backends.record(
        reply(page, html, "Content-Range: bytes 0-12/99", status="206 Partial Content"),
        reply(page, html, "Content-Encoding: br"),
        reply(page, "Content-Type: text/plain"),
    )
    for _ in range(3):
        answer = jupyter.request("GET", jupyter.proxied(backend.port))
        assert answer.body == page
        assert answer.get("Content-Length") == str(len(page))


def test_a_compression_bomb_stays_a_stream(jupyter: JupyterServer, backends: Backends) -> None:
    bomb = gzip.compress(b"x" * (128 << 20), 1)
    backend = backends.record(reply(bomb, "Content-Type: text/html", "Content-Encoding: gzip"))
    jupyter.reset_peak()
    before = jupyter.peak_bytes()
    answer = jupyter.request("GET", jupyter.proxied(backend.port))
    assert len(answer.body) == 128 << 20
    assert jupyter.peak_bytes() - before < 48 << 20


def test_a_broken_compression_breaks_off(jupyter: JupyterServer, backends: Backends) -> None:
    backend = backends.record(reply(b"no gzip", "Content-Type: text/html", "Content-Encoding: gzip"))
    assert jupyter.request("GET", jupyter.proxied(backend.port)).status == 502


def test_kernel_logos(jupyter: JupyterServer, backends: Backends) -> None:
    body = b'{"resources": {"logo-svg": "/kernelspecs/python3/logo-svg.svg"}}'
    backend = backends.record(reply(body, "Content-Type: application/json"))
    prefix = jupyter.proxied(backend.port, "")
    answer = jupyter.request("GET", prefix + "/api/kernelspecs?1")
    assert json.loads(answer.body) == {
        "resources": {"logo-svg": f"{prefix}/kernelspecs/python3/logo-svg.svg"}
    }
    assert backend.last.get("Accept-Encoding") == "identity"
