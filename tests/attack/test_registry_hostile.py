"""Registries that lie, stall, break off and send elsewhere: a clear error in bounded time, and no credentials for others."""

from __future__ import annotations

import base64
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from pydock_core.errors import (
    CorruptError,
    DeniedError,
    NotFoundError,
    PyDockError,
    UnavailableError,
    UnsupportedError,
)
from pydock_core.images.registry import blob, listing, retry
from pydock_core.images.registry.client import RegistryClient
from pydock_core.images.registry.credentials import CredentialStore
from pydock_core.images.registry.settings import RegistrySettings
from pydock_core.oci.digest import digest_of
from pydock_core.oci.documents import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, encode
from tests.support.blob_sink import Sink, descriptor_of, random_blob
from tests.support.certificates import Authority
from tests.support.network_namespace import NetworkNamespace, network_namespace
from tests.support.scripted_server import Exchange, Scripted, scripted_server

MIB = 1 << 20
USERNAME, PASSWORD = "ann", "s3cr3t-of-ann"
BASIC = "Basic " + base64.b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()
MANIFEST = encode({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": {}, "layers": []})

Script = Callable[[Exchange], None]


@pytest.fixture(scope="module")
def inside() -> Iterator[NetworkNamespace]:
    with network_namespace() as made:
        yield made


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "_POLICY", retry._POLICY.new(backoff_factor=0.001, backoff_jitter=0))


@pytest.fixture
def serve(inside: NetworkNamespace) -> Iterator[Callable[..., Scripted]]:
    """Run servers until the end of the test; GET /v2/ is answered for them."""
    with ExitStack() as stack:

        def start(script: Script, **keywords: Any) -> Scripted:
            def answer(exchange: Exchange) -> None:
                if exchange.seen.path == "/v2/":
                    exchange.answer(200, {})
                else:
                    script(exchange)

            return stack.enter_context(scripted_server(inside, answer, **keywords))

        yield start


@pytest.fixture
def raw_serve(inside: NetworkNamespace) -> Iterator[Callable[..., Scripted]]:
    with ExitStack() as stack:
        yield lambda script, **keywords: stack.enter_context(scripted_server(inside, script, **keywords))


class Ask:
    """Makes clients, and calls their methods inside the namespace."""

    def __init__(self, inside: NetworkNamespace, directory: Path) -> None:
        self._inside = inside
        self.credentials = CredentialStore(environment={"DOCKER_CONFIG": str(directory)})
        self.settings = RegistrySettings()
        self.timeout_seconds = 0.5

    def __call__(self, host: str, verb: str, *arguments: Any) -> Any:
        def steps() -> Any:
            with RegistryClient(
                host,
                settings=self.settings,
                credentials=self.credentials,
                timeout_seconds=self.timeout_seconds,
            ) as client:
                result = getattr(client, verb)(*arguments)
                return list(result) if isinstance(result, Iterator) else result

        return self._inside(steps, timeout=20)

    def refused(self, kind: type[PyDockError], host: str, verb: str, *arguments: Any) -> PyDockError:
        """Return the error, which is one line and holds no secret."""
        with pytest.raises(kind) as caught:
            self(host, verb, *arguments)
        error = caught.value
        assert "\n" not in error.message
        assert error.message.isprintable()
        assert PASSWORD not in repr(error.to_json())
        return error


@pytest.fixture
def ask(inside: NetworkNamespace, tmp_path: Path) -> Ask:
    return Ask(inside, tmp_path / "docker")


def once_each(*scripts: Script) -> Script:
    """Answer the first request by the first script, and so on; the last one stays."""
    left = list(scripts)
    lock = threading.Lock()

    def script(exchange: Exchange) -> None:
        with lock:
            chosen = left.pop(0) if len(left) > 1 else left[0]
        chosen(exchange)

    return script


def answering(*words: Any, **keywords: Any) -> Script:
    return lambda exchange: exchange.answer(*words, **keywords)


# -- manifests -------------------------------------------------------------------------------------------


def test_a_manifest_with_another_digest(serve: Callable[..., Scripted], ask: Ask) -> None:
    server = serve(answering(200, MANIFEST, {"Content-Type": OCI_MANIFEST}))
    error = ask.refused(CorruptError, server.host, "manifest", "a", digest_of(b"wanted"))
    assert digest_of(b"wanted") in error.message
    lying = {"Content-Type": OCI_MANIFEST, "Docker-Content-Digest": digest_of(b"said")}
    server = serve(answering(200, MANIFEST, lying))
    assert digest_of(b"said") in ask.refused(CorruptError, server.host, "manifest", "a", "tag").message


@pytest.mark.parametrize(
    ("body", "content_type", "kind"),
    [
        (b"{", OCI_MANIFEST, CorruptError),
        (b"[]", OCI_MANIFEST, CorruptError),
        (b"[" * 100_000, OCI_MANIFEST, CorruptError),
        (b"\xff\xfe\x00", OCI_MANIFEST, CorruptError),
        (MANIFEST, OCI_INDEX, CorruptError),
        (MANIFEST, DOCKER_MANIFEST, CorruptError),
        (b'{"schemaVersion": 1, "fsLayers": []}', "application/json", UnsupportedError),
        (b"{}", "application/vnd.docker.distribution.manifest.v1+prettyjws", UnsupportedError),
        (b"<!DOCTYPE html><html>welcome</html>", "text/html; charset=utf-8", UnavailableError),
        (b"\n<html>", "application/octet-stream", UnavailableError),
    ],
)
def test_a_manifest_that_is_none(
    serve: Callable[..., Scripted], ask: Ask, body: bytes, content_type: str, kind: type[PyDockError]
) -> None:
    server = serve(answering(200, body, {"Content-Type": content_type}))
    error = ask.refused(kind, server.host, "manifest", "a", "tag")
    if kind is UnavailableError:
        assert "web page" in error.message


def test_a_manifest_without_end(serve: Callable[..., Scripted], ask: Ask) -> None:
    def script(exchange: Exchange) -> None:
        exchange.send_response(200)
        exchange.send_header("Transfer-Encoding", "chunked")
        exchange.end_headers()
        while True:
            exchange.wfile.write(b"10000\r\n" + b" " * 65536 + b"\r\n")

    assert "larger than 4 MiB" in ask.refused(CorruptError, serve(script).host, "manifest", "a", "b").message


# Heads and bodies that come byte by byte, each in time, and all of them would take for ever.
DRIPS: dict[str, tuple[bytes, bytes]] = {
    "a manifest": (b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", b" "),
    "an error": (b"HTTP/1.1 404 Not Found\r\nContent-Length: 1000000\r\n\r\n", b" "),
    "the rest of an error": (b"HTTP/1.1 500 Error\r\nContent-Length: 4000\r\n\r\n", b" "),
    "a redirect's body": (b"HTTP/1.1 307 Elsewhere\r\nLocation: ?\r\nContent-Length: 4000\r\n\r\n", b" "),
    "a status line": (b"HTTP/1.1 200 ", b"O"),
    "a header": (b"HTTP/1.1 200 OK\r\nX: ", b"x"),
    "interim answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "a chunk's length": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0"),
    "trailers": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X: x\r\n"),
}


def dripping(head: bytes, drop: bytes) -> Script:
    def script(exchange: Exchange) -> None:
        exchange.close_connection = True
        exchange.wfile.write(head)
        while not exchange.server.ended.wait(0.01):
            exchange.wfile.write(drop)

    return script


@pytest.mark.parametrize("head_and_drop", DRIPS.values(), ids=DRIPS)
def test_an_answer_that_drips(
    raw_serve: Callable[..., Scripted], ask: Ask, head_and_drop: tuple[bytes, bytes]
) -> None:
    """The first request (for /v2/), that for the manifest, and each attempt end in bounded time."""
    drip = dripping(*head_and_drop)
    ask.timeout_seconds = 0.1
    server = raw_serve(lambda exchange: exchange.answer() if exchange.seen.path == "/v2/" else drip(exchange))
    for host in (server.host, raw_serve(drip).host):
        begin = time.monotonic()
        ask.refused(PyDockError, host, "manifest", "a", "b")
        assert time.monotonic() - begin < 8


def test_an_error_that_drips_is_told_nevertheless(serve: Callable[..., Scripted], ask: Ask) -> None:
    body = b'{"errors": [{"code": "DENIED", "message": "not for you"}]}'
    script = dripping(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 9999\r\n\r\n" + body, b" ")
    ask.timeout_seconds = 0.1
    assert "not for you" in ask.refused(DeniedError, serve(script).host, "manifest", "a", "b").message


def test_an_answer_that_never_comes(serve: Callable[..., Scripted], ask: Ask) -> None:
    server = serve(lambda exchange: exchange.stall())
    ask.timeout_seconds = 0.1
    begin = time.monotonic()
    assert "stalls" in ask.refused(UnavailableError, server.host, "manifest", "a", "b").message
    assert time.monotonic() - begin < 10
    assert len(server.requests) == retry.ATTEMPTS


def test_500_and_then_success(serve: Callable[..., Scripted], ask: Ask) -> None:
    good = answering(200, MANIFEST, {"Content-Type": OCI_MANIFEST})
    server = serve(once_each(answering(500), answering(503), lambda exchange: exchange.break_off(), good))
    assert ask(server.host, "manifest", "a", "b").data == MANIFEST
    server = serve(answering(500, {"errors": [{"code": "UNKNOWN", "message": "disk\n\x1b[31mfull"}]}))
    error = ask.refused(UnavailableError, server.host, "manifest", "a", "b")
    assert "disk [31mfull" in error.message
    assert len(server.requests) == retry.ATTEMPTS


def test_put_answered_with_another_digest(serve: Callable[..., Scripted], ask: Ask) -> None:
    server = serve(answering(201, b"", {"Docker-Content-Digest": digest_of(b"other")}))
    ask.refused(CorruptError, server.host, "put_manifest", "a", "b", OCI_MANIFEST, MANIFEST)


# -- rate limits -----------------------------------------------------------------------------------------


def test_a_rate_limit_is_explained_and_not_waited_for(serve: Callable[..., Scripted], ask: Ask) -> None:
    limits = {"RateLimit-Limit": "100;w=21600", "RateLimit-Remaining": "0;w=21600", "Retry-After": "8040"}
    server = serve(answering(429, {"errors": [{"code": "TOOMANYREQUESTS", "message": "slow down"}]}, limits))
    error = ask.refused(UnavailableError, server.host, "manifest", "a", "b")
    assert error.message == (
        f"{server.host}: rate limit reached (100 pulls per 6 h); try again in 2 h 14 min"
    )
    assert "dock login" in error.hint
    assert len(server.requests) == 1
    del limits["Retry-After"]
    server = serve(answering(429, b"", limits))
    assert "try again within 6 h" in ask.refused(UnavailableError, server.host, "manifest", "a", "b").message
    assert len(server.requests) == 1


def test_a_short_wait_is_waited(serve: Callable[..., Scripted], ask: Ask) -> None:
    good = answering(200, MANIFEST, {"Content-Type": OCI_MANIFEST})
    server = serve(once_each(answering(429, b"", {"Retry-After": "1"}), good))
    begin = time.monotonic()
    assert ask(server.host, "manifest", "a", "b").data == MANIFEST
    assert time.monotonic() - begin >= 1


def test_maintenance_that_takes_long_is_told(serve: Callable[..., Scripted], ask: Ask) -> None:
    server = serve(answering(503, b"", {"Retry-After": "3600"}))
    assert "1 h" in ask.refused(UnavailableError, server.host, "manifest", "a", "b").hint
    assert len(server.requests) == 1


# -- blobs -----------------------------------------------------------------------------------------------


def range_of(exchange: Exchange) -> int:
    return range_of_seen(exchange.seen.headers)


def range_of_seen(headers: Mapping[str, str]) -> int:
    match = re.fullmatch(r"bytes=(\d+)-", headers.get("Range", "bytes=0-"))
    assert match is not None
    return int(match.group(1))


def partial(exchange: Exchange, data: bytes, begin: int, count: int | None = None) -> None:
    """Answer a range of the data, and break off after ``count`` bytes of it."""
    body = data[begin:] if count is None else data[begin : begin + count]
    headers = {"Content-Range": f"bytes {begin}-{len(data) - 1}/{len(data)}"} if begin else {}
    length = None if count is None else len(data) - begin
    exchange.answer(206 if begin else 200, body, headers, length=length)


def test_a_blob_that_breaks_off_is_resumed(serve: Callable[..., Scripted], ask: Ask) -> None:
    data, descriptor = random_blob(4 * MIB)
    server = serve(lambda exchange: partial(exchange, data, range_of(exchange), 300_000))
    sink = Sink()
    ask(server.host, "fetch_blob", "a", descriptor, sink)
    assert (sink.data, sink.restarts) == (data, 0)
    assert len(server.requests) > retry.ATTEMPTS  # progress counts as success


def test_a_blob_that_comes_in_crumbs_is_given_up(serve: Callable[..., Scripted], ask: Ask) -> None:
    data, descriptor = random_blob(MIB)
    server = serve(lambda exchange: partial(exchange, data, range_of(exchange), 1))
    sink = Sink()
    error = ask.refused(UnavailableError, server.host, "fetch_blob", "a", descriptor, sink)
    assert f"after {retry.ATTEMPTS}B of 1.05MB of blob {descriptor.digest[7:19]}" in error.message
    assert len(server.requests) == retry.ATTEMPTS
    assert sink.data == data[: retry.ATTEMPTS]  # what came is kept


def test_a_blob_that_stalls_is_resumed(serve: Callable[..., Scripted], ask: Ask) -> None:
    data, descriptor = random_blob(MIB)

    def stall(exchange: Exchange) -> None:
        exchange.send_response(200)
        exchange.send_header("Content-Length", str(len(data)))
        exchange.end_headers()
        exchange.wfile.write(data[: MIB // 2])
        exchange.stall()

    server = serve(once_each(stall, lambda exchange: partial(exchange, data, range_of(exchange))))
    ask.timeout_seconds = 0.2
    sink = Sink()
    ask(server.host, "fetch_blob", "a", descriptor, sink)
    assert (sink.data, sink.restarts) == (data, 0)


@pytest.mark.parametrize("is_chunked", [False, True], ids=["length", "chunked"])
def test_a_blob_that_drips_is_given_up(serve: Callable[..., Scripted], ask: Ask, is_chunked: bool) -> None:
    """The connection is never silent; what came is kept, and asked for only once."""
    data, descriptor = random_blob(MIB)

    def script(exchange: Exchange) -> None:
        begin = range_of(exchange)
        exchange.send_response(206 if begin else 200)
        if begin:
            exchange.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
        if is_chunked:
            exchange.send_header("Transfer-Encoding", "chunked")
        else:
            exchange.send_header("Content-Length", str(len(data) - begin))
        exchange.end_headers()
        while not exchange.server.ended.wait(0.005):
            byte = data[begin : begin + 1]
            # Bytes around the content do not make up for it.
            exchange.wfile.write(b"1;%s\r\n%s\r\n" % (b"x" * 1000, byte) if is_chunked else byte)
            begin += 1

    server = serve(script)
    ask.timeout_seconds = 0.2
    sink = Sink()
    begin = time.monotonic()
    error = ask.refused(UnavailableError, server.host, "fetch_blob", "a", descriptor, sink)
    assert time.monotonic() - begin < 10
    assert "stalls" in error.message
    assert len(server.requests) == retry.ATTEMPTS
    assert 0 < len(sink.data) < 1000
    assert sink.data == data[: len(sink.data)]
    positions = [range_of_seen(seen.headers) for seen in server.requests]
    assert positions[0] == 0
    assert positions == sorted(set(positions))


def test_a_blob_that_drips_and_then_flows(serve: Callable[..., Scripted], ask: Ask) -> None:
    data, descriptor = random_blob(MIB)

    def drip(exchange: Exchange) -> None:
        exchange.send_response(200)
        exchange.send_header("Content-Length", str(len(data)))
        exchange.end_headers()
        for byte in data:
            if exchange.server.ended.wait(0.005):
                return
            exchange.wfile.write(bytes([byte]))

    server = serve(once_each(drip, lambda exchange: partial(exchange, data, range_of(exchange))))
    ask.timeout_seconds = 0.2
    sink = Sink()
    ask(server.host, "fetch_blob", "a", descriptor, sink)
    assert (sink.data, sink.restarts) == (data, 0)
    assert len(server.requests) == 2


def test_a_blob_whose_end_is_full_of_trailers(serve: Callable[..., Scripted], ask: Ask) -> None:
    """They come without a pause, for ever, within one read."""
    data, descriptor = random_blob(1000)
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n%s\r\n0\r\n" % data
    ask.timeout_seconds = 0.1
    sink = Sink()
    begin = time.monotonic()
    ask(serve(dripping(head, b"X: x\r\n")).host, "fetch_blob", "a", descriptor, sink)
    assert sink.data == data
    assert time.monotonic() - begin < 8


def test_a_slow_reader_is_no_slow_registry(serve: Callable[..., Scripted], ask: Ask) -> None:
    """Only the time that is spent waiting for the registry counts."""
    data, descriptor = random_blob(400_000)
    server = serve(lambda exchange: partial(exchange, data, range_of(exchange)))
    ask.timeout_seconds = 0.01

    class Slow(Sink):
        def write(self, data: bytes) -> None:
            time.sleep(0.05)  # what is measured
            super().write(data)

    sink = Slow()
    ask(server.host, "fetch_blob", "a", descriptor, sink)
    assert sink.data == data
    assert len(server.requests) == 1


def test_a_registry_without_ranges_starts_again(serve: Callable[..., Scripted], ask: Ask) -> None:
    data, descriptor = random_blob(MIB)
    server = serve(answering(200, data))
    sink = Sink(data[: MIB // 2])
    ask(server.host, "fetch_blob", "a", descriptor, sink)
    assert (sink.data, sink.restarts) == (data, 1)


@pytest.mark.parametrize(
    "content_range", ["bytes 0-1048575/1048576", "bytes 7-99/1048576", "nonsense", "bytes 524288-3/1048576"]
)
def test_a_range_that_was_not_asked_for_is_not_used(
    serve: Callable[..., Scripted], ask: Ask, content_range: str
) -> None:
    data, descriptor = random_blob(MIB)

    def script(exchange: Exchange) -> None:
        if "Range" in exchange.seen.headers:
            exchange.answer(206, data, {"Content-Range": content_range})
        else:
            exchange.answer(200, data)

    sink = Sink(data[: MIB // 2])
    ask(serve(script).host, "fetch_blob", "a", descriptor, sink)
    assert (sink.data, sink.restarts) == (data, 1)


def test_a_blob_of_another_size(serve: Callable[..., Scripted], ask: Ask) -> None:
    data, descriptor = random_blob(MIB)
    for body in (data[:-1], data + b"!", b""):
        sink = Sink()
        error = ask.refused(
            CorruptError, serve(answering(200, body)).host, "fetch_blob", "a", descriptor, sink
        )
        assert str(len(body)) in error.message
        assert not sink.data


def chunked(exchange: Exchange, data: bytes, times: int) -> None:
    exchange.send_response(200)
    exchange.send_header("Transfer-Encoding", "chunked")
    exchange.end_headers()
    for _ in range(times):
        exchange.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
    exchange.wfile.write(b"0\r\n\r\n")


def test_a_blob_without_end_is_cut_at_its_size(serve: Callable[..., Scripted], ask: Ask) -> None:
    data, descriptor = random_blob(MIB)
    sink = Sink()
    server = serve(lambda exchange: chunked(exchange, data, 1 << 40))
    assert "larger" in ask.refused(CorruptError, server.host, "fetch_blob", "a", descriptor, sink).message
    assert len(sink.data) <= MIB


def test_a_blob_that_ends_early_without_having_said_so(serve: Callable[..., Scripted], ask: Ask) -> None:
    data, descriptor = random_blob(MIB)
    server = serve(lambda exchange: chunked(exchange, data[: MIB // 2], 1))
    ask.refused(CorruptError, server.host, "fetch_blob", "a", descriptor, Sink())


def test_a_blob_that_ends_by_closing(serve: Callable[..., Scripted], ask: Ask) -> None:
    data, descriptor = random_blob(MIB)
    sink = Sink()
    ask(serve(answering(200, data, length=-1)).host, "fetch_blob", "a", descriptor, sink)
    assert sink.data == data


def test_a_web_page_instead_of_a_blob(serve: Callable[..., Scripted], ask: Ask) -> None:
    server = serve(answering(200, b"<html>log in", {"Content-Type": "text/html"}))
    error = ask.refused(UnavailableError, server.host, "fetch_blob", "a", descriptor_of(b"data"), Sink())
    assert "web page" in error.message


def test_a_blob_that_comes_compressed_is_not_taken_apart(serve: Callable[..., Scripted], ask: Ask) -> None:
    """Content-Encoding was not asked for; a bomb in it is not set off."""
    data, descriptor = random_blob(MIB)
    sink = Sink()
    ask(serve(answering(200, data, {"Content-Encoding": "gzip"})).host, "fetch_blob", "a", descriptor, sink)
    assert sink.data == data


def test_a_foreign_layer_comes_from_its_address_without_credentials(
    serve: Callable[..., Scripted], ask: Ask
) -> None:
    data = b"foreign layer"
    elsewhere = serve(answering(200, data))
    server = serve(answering(404))
    ask.credentials.store(server.host, USERNAME, PASSWORD)
    ask.credentials.store(elsewhere.host, USERNAME, PASSWORD)
    sink = Sink()
    urls = ("file:///etc/shadow", f"{elsewhere.url}/layer.tar")
    ask(server.host, "fetch_blob", "a", descriptor_of(data, urls), sink)
    assert sink.data == data
    assert [(seen.path, "Authorization" in seen.headers) for seen in elsewhere.requests] == [
        ("/layer.tar", False)
    ]
    ask.refused(NotFoundError, server.host, "fetch_blob", "a", descriptor_of(data), Sink())
    only_files = descriptor_of(data, ("file:///etc/shadow", "ftp://a/b", "nonsense"))
    ask.refused(UnsupportedError, server.host, "fetch_blob", "a", only_files, Sink())


# -- where credentials go --------------------------------------------------------------------------------


def test_a_redirect_to_another_host_gets_no_credentials(raw_serve: Callable[..., Scripted], ask: Ask) -> None:
    data, descriptor = random_blob(1000)
    challenge = {"WWW-Authenticate": 'Basic realm="here, too"'}
    cdn = raw_serve(once_each(answering(200, data), answering(401, b"", challenge)))

    def script(exchange: Exchange) -> None:
        if exchange.seen.headers.get("Authorization") != BASIC:
            exchange.answer(401, b"", {"WWW-Authenticate": 'Basic realm="registry"'})
        elif exchange.seen.path == "/v2/":
            exchange.answer(200)
        else:
            exchange.answer(307, b"moved", {"Location": f"{cdn.url}/storage?signature=x"})

    server = raw_serve(script)
    ask.credentials.store(server.host, USERNAME, PASSWORD)
    ask.credentials.store(cdn.host, USERNAME, PASSWORD)
    sink = Sink()
    ask(server.host, "fetch_blob", "a", descriptor, sink)
    assert sink.data == data
    # The other host asks for credentials now: it gets none, and the error does not tell to log in.
    error = ask.refused(DeniedError, server.host, "fetch_blob", "a", descriptor, Sink())
    assert cdn.host in error.message
    assert "login" not in error.hint
    assert len(cdn.requests) == 2
    assert not any("authorization" in name.lower() for seen in cdn.requests for name in seen.headers)
    assert all(seen.headers["Authorization"] == BASIC for seen in server.requests)


def test_a_redirect_to_another_port_or_scheme_gets_no_token(
    raw_serve: Callable[..., Scripted], ask: Ask
) -> None:
    other = raw_serve(answering(200, MANIFEST, {"Content-Type": OCI_MANIFEST}))

    def script(exchange: Exchange) -> None:
        if exchange.seen.target == "/token":
            exchange.answer(200, {"token": "the-token"})
        elif exchange.seen.headers.get("Authorization") != "Bearer the-token":
            realm = f'Bearer realm="http://{exchange.seen.headers["Host"]}/token",service="s"'
            exchange.answer(401, b"", {"WWW-Authenticate": realm})
        else:
            exchange.answer(302, b"", {"Location": f"{other.url}{exchange.seen.path}"})

    server = raw_serve(script)
    assert ask(server.host, "manifest", "a", "b").data == MANIFEST
    assert [seen.headers.get("Authorization") for seen in other.requests] == [None]


def test_redirects_end(serve: Callable[..., Scripted], ask: Ask) -> None:
    server = serve(lambda exchange: exchange.answer(302, b"", {"Location": exchange.seen.path + "x"}))
    assert "redirects without end" in ask.refused(CorruptError, server.host, "manifest", "a", "b").message
    assert len(server.requests) == 10


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "ftp://127.0.0.1/", "http://[bad/", "http://host:99999999/", "//"]
)
def test_redirects_to_nowhere(serve: Callable[..., Scripted], ask: Ask, location: str) -> None:
    ask.refused(CorruptError, serve(answering(302, b"", {"Location": location})).host, "manifest", "a", "b")


def secure_registry(
    raw_serve: Callable[..., Scripted], ask: Ask, authority: Authority, directory: Path, script: Script
) -> Scripted:
    server = raw_serve(script, tls=authority.issue("hostile", "127.0.0.1"))
    place = directory / "certs.d" / server.host
    place.mkdir(parents=True)
    place.joinpath("ca.crt").write_bytes(authority.file.read_bytes())
    ask.settings = RegistrySettings(certificate_directories=(directory / "certs.d",))
    ask.credentials.store(server.host, USERNAME, PASSWORD)
    return server


def test_a_redirect_to_an_address_without_encryption_is_refused(
    raw_serve: Callable[..., Scripted], ask: Ask, authority: Authority, tmp_path: Path
) -> None:
    plain = raw_serve(answering(200, MANIFEST, {"Content-Type": OCI_MANIFEST}))
    redirect = answering(302, b"", {"Location": f"{plain.url}/v2/a/manifests/b"})
    server = secure_registry(
        raw_serve,
        ask,
        authority,
        tmp_path,
        lambda exchange: exchange.answer(200) if exchange.seen.path == "/v2/" else redirect(exchange),
    )
    error = ask.refused(CorruptError, server.host, "manifest", "a", "b")
    assert "without encryption" in error.message
    assert plain.requests == []


@pytest.mark.parametrize("realm", ["http://{plain}/token", "ftp://{plain}/", "", "https://ann:x@{plain}/t"])
def test_a_token_server_that_is_not_to_be_trusted(
    raw_serve: Callable[..., Scripted], ask: Ask, authority: Authority, tmp_path: Path, realm: str
) -> None:
    plain = raw_serve(answering(200, {"token": "x"}))
    challenge = {"WWW-Authenticate": f'Bearer realm="{realm.format(plain=plain.host)}",service="s"'}
    server = secure_registry(raw_serve, ask, authority, tmp_path, answering(401, b"", challenge))
    ask.refused(DeniedError, server.host, "manifest", "a", "b")
    assert plain.requests == []
    assert not any("Authorization" in seen.headers for seen in server.server.requests)


def test_a_token_server_that_redirects_keeps_nobody_elses_credentials(
    raw_serve: Callable[..., Scripted], ask: Ask
) -> None:
    other = raw_serve(answering(200, {"token": "x"}))
    tokens = raw_serve(answering(307, b"", {"Location": f"{other.url}/token"}))
    challenge = {"WWW-Authenticate": f'Bearer realm="{tokens.url}/token",service="s"'}
    server = raw_serve(answering(401, b"", challenge))
    ask.credentials.store(server.host, USERNAME, PASSWORD)
    ask.refused(PyDockError, server.host, "manifest", "a", "b")
    assert [seen.headers.get("Authorization") for seen in tokens.requests] == [BASIC]
    assert other.requests == []
    assert not any("Authorization" in seen.headers for seen in server.server.requests)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"[]",
        b"{}",
        b'{"token": 7}',
        b'{"token": "a\\r\\nInjected: header"}',
        b'{"token": ""}',
        b"<html>",
        b" " * (2 * MIB),
    ],
)
def test_a_token_server_that_talks_nonsense(
    raw_serve: Callable[..., Scripted], ask: Ask, answer: bytes
) -> None:
    tokens = raw_serve(answering(200, answer))
    challenge = {"WWW-Authenticate": f'Bearer realm="{tokens.url}/token"'}
    server = raw_serve(answering(401, b"", challenge))
    ask.refused(CorruptError, server.host, "manifest", "a", "b")
    assert not any("Injected" in seen.headers for seen in server.server.requests)


def test_a_registry_that_is_never_content(raw_serve: Callable[..., Scripted], ask: Ask) -> None:
    """Each 401 asks for a token, and none is good."""
    tokens = raw_serve(answering(200, {"token": "x", "expires_in": float("nan")}))
    server = raw_serve(answering(401, b"", {"WWW-Authenticate": f'Bearer realm="{tokens.url}/token"'}))
    error = ask.refused(DeniedError, server.host, "manifest", "a", "b")
    assert "dock login" in error.hint
    assert len(tokens.requests) <= 2
    assert len(server.requests) <= 2


@pytest.mark.parametrize("expires", [10**400, -5, "soon", None, True, 1e308])
def test_strange_lifetimes_of_tokens(raw_serve: Callable[..., Scripted], ask: Ask, expires: object) -> None:
    tokens = raw_serve(answering(200, {"token": "good", "expires_in": expires}))

    def script(exchange: Exchange) -> None:
        if exchange.seen.headers.get("Authorization") == "Bearer good":
            exchange.answer(200, MANIFEST, {"Content-Type": OCI_MANIFEST})
        else:
            exchange.answer(401, b"", {"WWW-Authenticate": f'Bearer realm="{tokens.url}/token"'})

    assert ask(raw_serve(script).host, "manifest", "a", "b").data == MANIFEST


# -- lists -----------------------------------------------------------------------------------------------


def test_a_list_without_end(
    serve: Callable[..., Scripted], ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "PAGE_LIMIT", 20)
    number = iter(range(10**9))
    other = serve(answering(200, {"tags": ["elsewhere"]}))
    scripts = {
        "same": lambda exchange: exchange.answer(
            200, {"tags": ["x"]}, {"Link": f'<{exchange.seen.path}>; rel="next"'}
        ),
        "ever new": lambda exchange: exchange.answer(
            200, {"tags": ["x"]}, {"Link": f'</v2/a/tags/list?last={next(number)}>; rel="next"'}
        ),
        "elsewhere": answering(200, {"tags": ["x"]}, {"Link": f'<{other.url}/v2/a/tags/list>; rel="next"'}),
    }
    for script in scripts.values():
        server = serve(script)
        ask.refused(CorruptError, server.host, "tags", "a")
        assert len(server.requests) <= 20
    assert other.requests == []


def test_lists_of_nonsense(serve: Callable[..., Scripted], ask: Ask) -> None:
    names = ["ok", 7, None, "\x1b[2J", "a\nb", "-x", "x" * 1000, "v1.0"]
    assert ask(serve(answering(200, {"tags": names})).host, "tags", "a") == ["ok", "v1.0"]
    assert ask(serve(answering(200, {"tags": None})).host, "tags", "a") == []
    for body in ({"tags": {}}, b"[", b"[]"):
        ask.refused(CorruptError, serve(answering(200, body)).host, "tags", "a")
    assert (
        ask(serve(answering(200, {"repositories": ["a/b", "x/c"]})).host, "search", "A/", 25)[0]["name"]
        == "a/b"
    )


# -- uploads ---------------------------------------------------------------------------------------------


class Session:
    """An upload session as the specification has it, which breaks off the first chunks after some bytes."""

    def __init__(self, keep: list[int]) -> None:
        self._keep = keep
        self.data = bytearray()
        self.digest = ""

    def __call__(self, exchange: Exchange) -> None:
        seen = exchange.seen
        place = {"Location": f"/upload/{len(self.data)}", "Range": f"0-{max(0, len(self.data) - 1)}"}
        if seen.method == "POST":
            exchange.answer(202, b"", {"Location": "/upload/0"})
        elif seen.method == "GET":
            exchange.answer(204, b"", place)
        else:
            begin = int(seen.headers.get("Content-Range", "0-").partition("-")[0])
            if seen.body and begin != len(self.data):
                exchange.answer(416, b"", place)
            elif self._keep:
                self.data += seen.body[: self._keep.pop(0)]
                exchange.break_off()
            else:
                self.data += seen.body
                if seen.method == "PUT":
                    self.digest = seen.query["digest"][0]
                    exchange.answer(201)
                else:
                    place["Location"] = f"/upload/{len(self.data)}"
                    exchange.answer(202, b"", {**place, "Range": f"0-{len(self.data) - 1}"})


def test_a_broken_upload_goes_on_where_the_registry_has_it(
    serve: Callable[..., Scripted], ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blob, "CHUNK_BYTES", 2 * MIB)
    monkeypatch.setattr(blob, "CHUNK_LIMIT_BYTES", 2 * MIB)
    data, descriptor = random_blob(7 * MIB + 5)
    file = tmp_path / "blob"
    file.write_bytes(data)
    session = Session([700_000, 0, 1_500_000])
    server = serve(session)
    positions: list[int] = []
    ask(server.host, "upload_blob", "a", file, None, lambda: descriptor.digest, positions.append)
    assert session.data == data
    assert session.digest == descriptor.digest
    assert [seen.method for seen in server.requests].count("POST") == 1
    assert min(after for before, after in pairwise(positions) if after < before) >= 700_000


@pytest.mark.parametrize(
    "answer", [(416, "0-99"), (404, ""), (400, ""), (500, ""), (202, "0-0"), (202, "0-7")]
)
def test_an_upload_that_never_gets_on_is_given_up(
    serve: Callable[..., Scripted], ask: Ask, tmp_path: Path, answer: tuple[int, str]
) -> None:
    status, told = answer
    file = tmp_path / "blob"
    data, descriptor = random_blob(65 * MIB) if status == 202 else random_blob(1000)
    file.write_bytes(data)

    def script(exchange: Exchange) -> None:
        if exchange.seen.method == "POST":
            exchange.answer(202, b"", {"Location": "/upload"})
        elif exchange.seen.method == "PUT" and status == 202:
            exchange.answer(416)
        else:
            exchange.answer(status, b"", {"Range": told, "Location": "/upload"})

    server = serve(script)
    ask.timeout_seconds = 5
    ask.refused(PyDockError, server.host, "upload_blob", "a", file, None, lambda: descriptor.digest)
    assert len(server.requests) < 50


def test_an_upload_elsewhere_gets_no_credentials(
    raw_serve: Callable[..., Scripted], ask: Ask, tmp_path: Path
) -> None:
    storage = raw_serve(answering(201))

    def script(exchange: Exchange) -> None:
        if exchange.seen.headers.get("Authorization") != BASIC:
            exchange.answer(401, b"", {"WWW-Authenticate": "Basic realm=x"})
        else:
            exchange.answer(202, b"", {"Location": f"{storage.url}/put?session=1"})

    server = raw_serve(script)
    ask.credentials.store(server.host, USERNAME, PASSWORD)
    file = tmp_path / "blob"
    file.write_bytes(b"content")
    ask(server.host, "upload_blob", "a", file, None, lambda: digest_of(b"content"))
    (put,) = storage.requests
    assert (put.method, put.body) == ("PUT", b"content")
    assert put.query == {"session": ["1"], "digest": [digest_of(b"content")]}
    assert "Authorization" not in put.headers


@pytest.mark.parametrize(
    "headers", [{}, {"Location": "ftp://x/"}, {"Location": "/u", "OCI-Chunk-Min-Length": "9" * 18}]
)
def test_an_upload_that_begins_badly(
    serve: Callable[..., Scripted], ask: Ask, tmp_path: Path, headers: dict[str, str]
) -> None:
    file = tmp_path / "blob"
    file.write_bytes(b"content")
    server = serve(answering(202, b"", headers))
    ask.refused(CorruptError, server.host, "upload_blob", "a", file, None, lambda: digest_of(b"content"))


def test_a_least_length_of_chunks_is_kept(
    serve: Callable[..., Scripted], ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blob, "CHUNK_BYTES", 1000)
    monkeypatch.setattr(blob, "CHUNK_LIMIT_BYTES", 2000)
    data, descriptor = random_blob(2 * MIB + 1)
    file = tmp_path / "blob"
    file.write_bytes(data)
    session = Session([])

    def script(exchange: Exchange) -> None:
        if exchange.seen.method == "POST":
            exchange.answer(202, b"", {"Location": "/upload/0", "OCI-Chunk-Min-Length": str(MIB)})
        else:
            session(exchange)

    server = serve(script)
    ask(server.host, "upload_blob", "a", file, None, lambda: descriptor.digest)
    sizes = [len(seen.body) for seen in server.requests if seen.method in ("PATCH", "PUT")]
    assert session.data == data
    assert all(size >= MIB for size in sizes[:-1])


# -- connections -----------------------------------------------------------------------------------------


def test_connections_are_kept(serve: Callable[..., Scripted], ask: Ask, inside: NetworkNamespace) -> None:
    server = serve(answering(200, MANIFEST, {"Content-Type": OCI_MANIFEST}))

    def steps() -> None:
        with RegistryClient(server.host, settings=RegistrySettings(), credentials=ask.credentials) as client:
            for _ in range(5):
                client.manifest("a", "b")
                client.has_blob("a", digest_of(b""))

    inside(steps)
    assert len({seen.peer for seen in server.requests}) == 1


@pytest.mark.parametrize(
    "greeting", [b"SSH-2.0-OpenSSH_9.2\r\n", b"\x15\x03\x01\x00\x02\x02\x28", b"", b"\x00" * 100]
)
def test_something_else_listens_there(inside: NetworkNamespace, ask: Ask, greeting: bytes) -> None:
    import socket

    listener = inside(socket.create_server, ("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connected, _ = listener.accept()
            except OSError:
                return
            with connected:
                connected.sendall(greeting)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        ask.refused(UnavailableError, f"127.0.0.1:{listener.getsockname()[1]}", "manifest", "a", "b")
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
