"""The registry client against Debian's docker-registry: plain, TLS, basic and token authentication, mirrors, proxies."""

from __future__ import annotations

import json
import os
import resource
import socket
import stat
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from pydock_core.errors import DeniedError, InvalidError, NotFoundError, PyDockError, UnavailableError
from pydock_core.images.registry import blob
from pydock_core.images.registry.client import RegistryClient
from pydock_core.images.registry.credentials import CredentialStore
from pydock_core.images.registry.settings import RegistrySettings
from pydock_core.oci.digest import digest_of
from pydock_core.oci.documents import OCI_CONFIG, OCI_MANIFEST, Descriptor, Manifest, encode
from pydock_core.store.growing_file import Arrival
from tests.support.blob_sink import Sink, descriptor_of, random_blob
from tests.support.certificates import Authority
from tests.support.network_namespace import NetworkNamespace, network_namespace
from tests.support.registry import (
    PASSWORD,
    USERNAME,
    Registry,
    TokenServer,
    basic_auth,
    registry,
    token_server,
)
from tests.support.scripted_server import Exchange, scripted_server

MIB = 1 << 20


@pytest.fixture(scope="module")
def inside() -> Iterator[NetworkNamespace]:
    with network_namespace() as made:
        yield made


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def plain(inside: NetworkNamespace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with registry(inside, tmp_path_factory.mktemp("plain"), 5000) as made:
        yield made


@pytest.fixture(scope="module")
def secure(
    inside: NetworkNamespace, tmp_path_factory: pytest.TempPathFactory, authority: Authority
) -> Iterator[Registry]:
    """TLS, a client certificate, basic authentication."""
    directory = tmp_path_factory.mktemp("secure")
    with registry(
        inside,
        directory,
        5001,
        tls=authority.issue("secure", "127.0.0.1"),
        client_authority=authority.file,
        auth=basic_auth(directory),
    ) as made:
        yield made


@pytest.fixture(scope="module")
def tokens(inside: NetworkNamespace, authority: Authority) -> Iterator[TokenServer]:
    with token_server(inside, authority, authority.issue("tokens", "127.0.0.1")) as made:
        yield made


@pytest.fixture(scope="module")
def guarded(
    inside: NetworkNamespace,
    tmp_path_factory: pytest.TempPathFactory,
    authority: Authority,
    tokens: TokenServer,
) -> Iterator[Registry]:
    """TLS, and the token server."""
    pair = authority.issue("guarded", "127.0.0.1")
    with registry(inside, tmp_path_factory.mktemp("guarded"), 5002, tls=pair, auth=tokens.auth) as made:
        yield made


@pytest.fixture
def store(tmp_path: Path) -> CredentialStore:
    return CredentialStore(environment={"DOCKER_CONFIG": str(tmp_path / "docker")})


@pytest.fixture
def connect(store: CredentialStore) -> Iterator[Callable[..., RegistryClient]]:
    """Make clients that are closed at the end."""
    with ExitStack() as stack:

        def make(domain: str, settings: RegistrySettings | None = None, **keywords: Any) -> RegistryClient:
            made = RegistryClient(
                domain, settings=settings or RegistrySettings(), credentials=store, **keywords
            )
            return stack.enter_context(made)

        yield make


def certificates(
    directory: Path, authority: Authority, *hosts: str, client: bool = False
) -> RegistrySettings:
    """Put the authority (and a client's certificate) into a certs.d for some hosts."""
    for host in hosts:
        place = directory / host
        place.mkdir(parents=True)
        place.joinpath("ca.crt").write_bytes(authority.file.read_bytes())
        if client:
            pair = authority.issue("client")
            place.joinpath("client.cert").write_bytes(pair.certificate.read_bytes())
            place.joinpath("client.key").write_bytes(pair.key.read_bytes())
    return RegistrySettings(certificate_directories=(directory,))


def push(client: RegistryClient, path: str, tag: str, file: Path, layer: bytes) -> str:
    """Push an image of one layer; return the manifest's digest."""
    config = encode({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}})
    for data in (config, layer):
        file.write_bytes(data)
        client.upload_blob(path, file, None, lambda data=data: digest_of(data))
    manifest = Manifest(Descriptor(OCI_CONFIG, digest_of(config), len(config)), (descriptor_of(layer),))
    return client.put_manifest(path, tag, OCI_MANIFEST, encode(manifest.to_json()))


def uploads(registry: Registry, path: str) -> list[Path]:
    """The files of the uploads that are open."""
    return list(registry.directory.glob(f"docker/registry/v2/repositories/{path}/_uploads/*/data"))


def test_an_image_goes_there_and_back(
    inside: NetworkNamespace, plain: Registry, connect: Callable[..., RegistryClient], tmp_path: Path
) -> None:
    def steps() -> None:
        client = connect(plain.host)
        layer, descriptor = random_blob(3 * MIB)
        assert not client.has_blob("a/first", descriptor.digest)
        digest = push(client, "a/first", "1.0", tmp_path / "blob", layer)
        assert client.has_blob("a/first", descriptor.digest)
        by_tag = client.manifest("a/first", "1.0")
        assert (by_tag.digest, by_tag.media_type) == (digest, OCI_MANIFEST)
        assert client.manifest("a/first", digest) == by_tag
        sink = Sink()
        client.fetch_blob("a/first", descriptor, sink)
        assert (sink.data, sink.restarts) == (layer, 0)
        with pytest.raises(NotFoundError):
            client.manifest("a/first", "2.0")
        with pytest.raises(NotFoundError):
            client.fetch_blob("a/first", descriptor_of(b"nothing"), Sink())

    inside(steps)


def test_a_download_goes_on_where_it_was(
    inside: NetworkNamespace, plain: Registry, connect: Callable[..., RegistryClient], tmp_path: Path
) -> None:
    def steps() -> None:
        client = connect(plain.host)
        layer, descriptor = random_blob(2 * MIB)
        push(client, "a/resumed", "1", tmp_path / "blob", layer)
        for have in (1, MIB + 7, 2 * MIB):
            sink = Sink(layer[:have])
            client.fetch_blob("a/resumed", descriptor, sink)
            assert (sink.data, sink.restarts) == (layer, 0)

    inside(steps)


def test_a_blob_is_mounted_from_another_repository(
    inside: NetworkNamespace, plain: Registry, connect: Callable[..., RegistryClient], tmp_path: Path
) -> None:
    def steps() -> None:
        client = connect(plain.host)
        layer, descriptor = random_blob(1000)
        push(client, "a/source", "1", tmp_path / "blob", layer)
        assert client.mount_blob("a/mounted", descriptor.digest, "a/source")
        assert client.has_blob("a/mounted", descriptor.digest)
        assert not client.mount_blob("a/mounted", digest_of(b"nowhere"), "a/source")
        # The session that the registry opened instead was given up.
        assert not uploads(plain, "a/mounted")

    inside(steps)


def test_a_file_is_uploaded_while_it_grows(
    inside: NetworkNamespace,
    plain: Registry,
    connect: Callable[..., RegistryClient],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(blob, "CHUNK_BYTES", MIB)
    data, descriptor = random_blob(5 * MIB + 3)
    file = tmp_path / "growing"
    file.write_bytes(b"")
    arrival = Arrival()
    sent_a_chunk = threading.Event()

    def grow() -> None:
        with open(file, "ab", buffering=0) as writer:
            for begin in range(0, len(data), MIB // 2):
                piece = data[begin : begin + MIB // 2]
                writer.write(piece)
                arrival.advance(len(piece))
                if begin >= 2 * MIB:
                    assert sent_a_chunk.wait(20)  # before the file is whole
        arrival.finish()

    def steps() -> None:
        client = connect(plain.host)
        positions: list[int] = []

        def report(position: int) -> None:
            positions.append(position)
            if position >= MIB:
                sent_a_chunk.set()

        client.upload_blob("a/grown", file, arrival, lambda: descriptor.digest, report)
        sink = Sink()
        client.fetch_blob("a/grown", descriptor, sink)
        assert sink.data == data
        assert positions == sorted(positions)
        assert positions[-1] == len(data)

    thread = threading.Thread(target=grow)
    thread.start()
    inside(steps)
    thread.join()


def test_an_upload_that_fails_where_it_comes_from_is_cancelled(
    inside: NetworkNamespace, plain: Registry, connect: Callable[..., RegistryClient], tmp_path: Path
) -> None:
    file = tmp_path / "half"
    file.write_bytes(b"half")
    arrival = Arrival(4)
    arrival.fail(UnavailableError("the disk is full"))

    def steps() -> None:
        with pytest.raises(UnavailableError, match="the disk is full"):
            connect(plain.host).upload_blob("a/half", file, arrival, lambda: digest_of(b"half"))
        assert not uploads(plain, "a/half")

    inside(steps)


def test_a_wrong_digest_is_refused_by_the_registry(
    inside: NetworkNamespace, plain: Registry, connect: Callable[..., RegistryClient], tmp_path: Path
) -> None:
    file = tmp_path / "blob"
    file.write_bytes(b"content")

    def steps() -> None:
        with pytest.raises(InvalidError, match="DIGEST_INVALID"):
            connect(plain.host).upload_blob("a/wrong", file, None, lambda: digest_of(b"other"))

    inside(steps)


class CuttingProxy:
    """Forwards TCP to a port, and cuts a connection after so many bytes towards it, a few times."""

    def __init__(self, target: int, cut_after: int, cuts: int) -> None:
        self._target = target
        self._cut_after = cut_after
        self.cuts = cuts
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._target))
            threading.Thread(target=self._forward, args=(server, client, False), daemon=True).start()
            threading.Thread(target=self._forward, args=(client, server, True), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket, counted: bool) -> None:
        passed = 0
        try:
            while data := source.recv(65536):
                sink.sendall(data)
                passed += len(data)
                if counted and self.cuts and passed > self._cut_after:
                    self.cuts -= 1
                    break
        except OSError:
            pass
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        if not counted:
            source.close()
            sink.close()

    def close(self) -> None:
        self._listener.close()


def test_a_broken_upload_is_begun_anew_where_the_registry_gives_it_up(
    inside: NetworkNamespace, plain: Registry, connect: Callable[..., RegistryClient], tmp_path: Path
) -> None:
    """docker-registry 2.8 does not go on in the middle of a chunk; the scripted one of the attack tests does."""
    data, descriptor = random_blob(80 * MIB)
    file = tmp_path / "blob"
    file.write_bytes(data)

    def steps() -> None:
        proxy = CuttingProxy(plain.port, 20 * MIB, cuts=2)
        try:
            client = connect(f"127.0.0.1:{proxy.port}")
            client.upload_blob("a/broken", file, None, lambda: descriptor.digest)
        finally:
            proxy.close()
        assert proxy.cuts == 0
        assert connect(plain.host).has_blob("a/broken", descriptor.digest)

    inside(steps)


def test_tags_and_the_catalogue_are_listed_and_searched(
    inside: NetworkNamespace, plain: Registry, connect: Callable[..., RegistryClient], tmp_path: Path
) -> None:
    def steps() -> None:
        client = connect(plain.host)
        for tag in ("1", "2", "latest"):
            push(client, "b/listed", tag, tmp_path / "blob", b"layer")
        assert sorted(client.tags("b/listed")) == ["1", "2", "latest"]
        assert "b/listed" in list(client.catalogue())
        assert client.search("LIST", 10) == [
            {
                "name": "b/listed",
                "description": "",
                "star_count": 0,
                "is_official": False,
                "is_automated": False,
            }
        ]
        with pytest.raises(NotFoundError, match="b/nothing"):
            list(client.tags("b/nothing"))

    inside(steps)


def test_tls_with_a_private_authority_and_a_client_certificate(
    inside: NetworkNamespace,
    secure: Registry,
    connect: Callable[..., RegistryClient],
    store: CredentialStore,
    authority: Authority,
    tmp_path: Path,
) -> None:
    def steps() -> None:
        trusted = certificates(tmp_path / "full", authority, secure.host, client=True)
        client = connect(secure.host, trusted)
        with pytest.raises(DeniedError) as refused:
            list(client.catalogue())
        assert f"dock login {secure.host}" in refused.value.hint
        with pytest.raises(DeniedError):
            client.check_login(USERNAME, "wrong")
        assert client.check_login(USERNAME, PASSWORD) == ""
        store.store(secure.host, USERNAME, "once right")
        with pytest.raises(DeniedError) as refused:
            list(connect(secure.host, trusted).catalogue())
        assert "stored credentials" in refused.value.hint
        store.store(secure.host, USERNAME, PASSWORD)
        push(connect(secure.host, trusted), "a/b", "1", tmp_path / "blob", b"layer")
        assert list(connect(secure.host, trusted).tags("a/b")) == ["1"]

        # Without the client's certificate; with another authority, which is never gone around.
        with pytest.raises(UnavailableError) as unknown:
            connect(secure.host, certificates(tmp_path / "only", authority, secure.host)).has_blob(
                "a", digest_of(b"")
            )
        assert "client.cert" in unknown.value.hint
        stranger = Authority(tmp_path / "stranger")
        with pytest.raises(UnavailableError, match="no secure connection") as untrusted:
            connect(secure.host, certificates(tmp_path / "other", stranger, secure.host)).has_blob(
                "a", digest_of(b"")
            )
        # It says whose certificate is expected there, and where one would go.
        assert str(tmp_path / "other" / secure.host / "ca.crt") in untrusted.value.hint

    inside(steps)


@pytest.fixture
def trusted(tmp_path: Path, authority: Authority, guarded: Registry, tokens: TokenServer) -> RegistrySettings:
    return certificates(tmp_path / "certs.d", authority, guarded.host, tokens.server.host)


def test_tokens_for_each_scope(
    inside: NetworkNamespace,
    guarded: Registry,
    tokens: TokenServer,
    connect: Callable[..., RegistryClient],
    store: CredentialStore,
    trusted: RegistrySettings,
    tmp_path: Path,
) -> None:
    def steps() -> None:
        with pytest.raises(DeniedError):
            push(connect(guarded.host, trusted), "public/a", "1", tmp_path / "blob", b"layer")
        store.store(guarded.host, USERNAME, PASSWORD)
        client = connect(guarded.host, trusted)
        push(client, "public/a", "1", tmp_path / "blob", b"layer")
        push(client, "private/a", "1", tmp_path / "blob", b"layer")
        before = len(tokens.server.requests)
        assert client.mount_blob("private/b", digest_of(b"layer"), "public/a")
        assert [seen.query["scope"] for seen in tokens.server.requests[before:]] == [
            ["repository:private/b:pull,push", "repository:public/a:pull"]
        ]
        # The token is kept: nothing more is asked for.
        assert client.mount_blob("private/b", digest_of(b"layer"), "public/a")
        assert len(tokens.server.requests) == before + 1
        assert {"public/a", "private/a"} <= set(client.catalogue())

        store.erase(guarded.host)
        # On loopback nothing need be trusted, and nothing is warned of.
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            loose = connect(guarded.host, RegistrySettings())
            assert loose.manifest("public/a", "1").media_type == OCI_MANIFEST
        anonymous = connect(guarded.host, trusted)
        assert anonymous.manifest("public/a", "1").media_type == OCI_MANIFEST
        with pytest.raises(DeniedError) as refused:
            anonymous.manifest("private/a", "1")
        assert "private/a:1" in refused.value.message
        assert "dock login" in refused.value.hint

    inside(steps)


def test_a_login_gives_an_identity_token_that_is_used_from_then_on(
    inside: NetworkNamespace,
    guarded: Registry,
    tokens: TokenServer,
    connect: Callable[..., RegistryClient],
    store: CredentialStore,
    trusted: RegistrySettings,
    tmp_path: Path,
) -> None:
    def steps() -> None:
        client = connect(guarded.host, trusted)
        with pytest.raises(DeniedError, match="incorrect username or password") as refused:
            client.check_login(USERNAME, "a wrong secret")
        assert "a wrong secret" not in str(refused.value)
        identity = client.check_login(USERNAME, PASSWORD)
        assert identity == tokens.refresh_tokens[-1]
        store.store(guarded.host, USERNAME, "", identity_token=identity)
        push(connect(guarded.host, trusted), "private/c", "1", tmp_path / "blob", b"layer")
        assert tokens.server.requests[-1].method == "POST"
        assert PASSWORD.encode() not in store.path.read_bytes()

    inside(steps)


def test_an_expired_token_is_renewed(
    inside: NetworkNamespace,
    guarded: Registry,
    tokens: TokenServer,
    connect: Callable[..., RegistryClient],
    store: CredentialStore,
    trusted: RegistrySettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The server says that its tokens hold, and they have already expired: 401, and another one."""

    def steps() -> None:
        store.store(guarded.host, USERNAME, PASSWORD)
        client = connect(guarded.host, trusted)
        assert list(client.catalogue()) is not None
        monkeypatch.setattr(tokens, "lifetime_seconds", -3600)
        with pytest.raises(DeniedError):
            client.has_blob("private/x", digest_of(b""))
        monkeypatch.setattr(tokens, "lifetime_seconds", 300)
        assert not client.has_blob("private/x", digest_of(b""))

    inside(steps)


def test_skopeo_reads_what_was_pushed_and_shares_the_login(
    inside: NetworkNamespace,
    guarded: Registry,
    connect: Callable[..., RegistryClient],
    store: CredentialStore,
    trusted: RegistrySettings,
    authority: Authority,
    tmp_path: Path,
) -> None:
    store.store(guarded.host, USERNAME, PASSWORD)
    digest = inside(push, connect(guarded.host, trusted), "private/d", "1", tmp_path / "blob", b"layer")
    seen = inside.run(
        *("skopeo", "inspect", "--raw", "--cert-dir", trusted.certificate_directories[0] / guarded.host),
        *("--authfile", store.path),
        f"docker://{guarded.host}/private/d:1",
    )
    assert digest_of(seen.stdout.encode()) == digest
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600


def test_threads_share_a_client(
    inside: NetworkNamespace, plain: Registry, connect: Callable[..., RegistryClient], tmp_path: Path
) -> None:
    def steps() -> None:
        client = connect(plain.host)
        blobs = [random_blob(MIB) for _ in range(8)]
        failures: list[BaseException] = []

        def there_and_back(number: int) -> None:
            data, descriptor = blobs[number]
            try:
                file = tmp_path / f"blob-{number}"
                file.write_bytes(data)
                client.upload_blob("a/many", file, None, lambda: descriptor.digest)
                sink = Sink()
                client.fetch_blob("a/many", descriptor, sink)
                assert sink.data == data
            except BaseException as error:  # noqa: BLE001  # it is shown by the assertion below
                failures.append(error)

        threads = [threading.Thread(target=there_and_back, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert failures == []

    inside(steps)


def test_memory_stays_flat(
    inside: NetworkNamespace, plain: Registry, connect: Callable[..., RegistryClient], tmp_path: Path
) -> None:
    class Count:
        position = 0

        def write(self, data: bytes) -> None:
            self.position += len(data)

        def restart(self) -> None:
            self.position = 0

    file = tmp_path / "zeros"
    with open(file, "wb") as sparse:
        sparse.truncate(300 * MIB)
    digest = inside.run("sha256sum", file).stdout.split()[0]

    def steps() -> None:
        client = connect(plain.host)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        client.upload_blob("a/large", file, None, lambda: f"sha256:{digest}")
        client.fetch_blob("a/large", Descriptor("layer", f"sha256:{digest}", 300 * MIB), Count())
        assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10 < 30

    inside(steps)


def test_a_registry_that_is_not_there(
    inside: NetworkNamespace, connect: Callable[..., RegistryClient]
) -> None:
    def steps() -> None:
        begin = time.monotonic()
        with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1: Connection refused"):
            connect("127.0.0.1:1").manifest("a", "b")
        assert time.monotonic() - begin < 5

    inside(steps)


# -- Docker Hub: mirrors, proxies, search ----------------------------------------------------------------


class ConnectProxy:
    """A proxy that leads every host to one port."""

    def __init__(self, target: int) -> None:
        self._target = target
        self.asked: list[tuple[str, str]] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += client.recv(4096)
        first, *others = head.decode().split("\r\n")
        authorization = next((line for line in others if line.lower().startswith("proxy-auth")), "")
        self.asked.append((first.rpartition(" ")[0], authorization.partition(": ")[2]))
        server = socket.create_connection(("127.0.0.1", self._target))
        client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        for source, sink in ((client, server), (server, client)):
            threading.Thread(target=self._forward, args=(source, sink), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket) -> None:
        with source:
            try:
                while data := source.recv(65536):
                    sink.sendall(data)
                sink.shutdown(socket.SHUT_WR)
            except OSError:
                pass

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def hub(
    inside: NetworkNamespace, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[list[str], RegistrySettings, ConnectProxy]]:
    """A Docker Hub behind a proxy that the environment names."""
    hosts = ("registry-1.docker.io", "index.docker.io")
    manifest = encode({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": {}, "layers": []})
    asked: list[str] = []

    def answer(exchange: Exchange) -> None:
        seen = exchange.seen
        asked.append(f"{seen.headers['Host']}{seen.path}")
        if seen.target == "/v1/search":
            page, size = int(seen.query["page"][0]), int(seen.query["n"][0])
            results = [
                {"name": f"image-{number}", "description": "two\nlines", "star_count": number}
                for number in range((page - 1) * size, min(page * size, 60))
            ]
            exchange.answer(200, {"num_pages": -(-60 // size), "results": results})
        elif "/manifests/" in seen.path:
            exchange.answer(200, manifest, {"Content-Type": OCI_MANIFEST})
        else:
            exchange.answer(200)

    with scripted_server(inside, answer, authority.issue("hub", *hosts)) as server:
        proxy = inside(ConnectProxy, server.port)
        for name in ("http_proxy", "HTTP_PROXY", "HTTPS_PROXY", "no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("https_proxy", f"http://me:se%20cret@127.0.0.1:{proxy.port}")
        yield asked, certificates(tmp_path / "hub", authority, *hosts), proxy
        proxy.close()


def test_docker_hub_through_a_proxy(
    inside: NetworkNamespace,
    hub: tuple[list[str], RegistrySettings, ConnectProxy],
    connect: Callable[..., RegistryClient],
) -> None:
    asked, settings, proxy = hub

    def steps() -> None:
        client = connect("docker.io", settings)
        assert client.manifest("library/busybox", "latest").media_type == OCI_MANIFEST
        assert asked == [
            "registry-1.docker.io/v2/",
            "registry-1.docker.io/v2/library/busybox/manifests/latest",
        ]
        assert proxy.asked == [("CONNECT registry-1.docker.io:443", "Basic bWU6c2UgY3JldA==")]

    inside(steps)


def test_a_search_at_docker_hub_is_paged(
    inside: NetworkNamespace,
    hub: tuple[list[str], RegistrySettings, ConnectProxy],
    connect: Callable[..., RegistryClient],
) -> None:
    asked, settings, _ = hub

    def steps() -> None:
        client = connect("docker.io", settings)
        assert [item["name"] for item in client.search("image", 25)] == [f"image-{n}" for n in range(25)]
        assert client.search("image", 25)[3] == {
            "name": "image-3",
            "description": "two lines",
            "star_count": 3,
            "is_official": False,
            "is_automated": False,
        }
        assert len(client.search("library/image", 100)) == 60
        assert asked[-1] == "index.docker.io/v1/search?q=image&n=100&page=1"

    inside(steps)


def test_a_mirror_is_asked_first_and_gone_around(
    inside: NetworkNamespace,
    plain: Registry,
    hub: tuple[list[str], RegistrySettings, ConnectProxy],
    connect: Callable[..., RegistryClient],
    tmp_path: Path,
) -> None:
    asked, settings, _ = hub
    mirrors = ("http://127.0.0.1:1", f"http://{plain.host}")

    def steps() -> None:
        digest = push(connect(plain.host), "library/mirrored", "1", tmp_path / "blob", b"mirrored layer")
        client = connect(
            "docker.io",
            RegistrySettings(mirrors=mirrors, certificate_directories=settings.certificate_directories),
        )
        assert client.manifest("library/mirrored", "1").digest == digest
        sink = Sink()
        client.fetch_blob("library/mirrored", descriptor_of(b"mirrored layer"), sink)
        assert sink.data == b"mirrored layer"
        assert list(client.tags("library/mirrored")) == ["1"]  # what pull -a begins with
        assert asked == []
        assert client.manifest("library/only-there", "1").digest != digest
        assert asked[-1] == "registry-1.docker.io/v2/library/only-there/manifests/1"

    inside(steps)


def test_where_the_mirror_fails_and_the_registry_too_the_error_tells_of_both(
    inside: NetworkNamespace, plain: Registry, connect: Callable[..., RegistryClient]
) -> None:
    mirrors = ("http://127.0.0.1:1", f"http://{plain.host}")

    def steps() -> None:
        client = connect("docker.io", RegistrySettings(mirrors=mirrors))
        for _ in range(2):  # the one that cannot be reached is not asked again, and still told of
            with pytest.raises(UnavailableError, match=r"docker\.io") as caught:
                client.manifest("library/nosuch", "1")
            unreachable, without = caught.value.__notes__
            assert unreachable.startswith("mirror 127.0.0.1:1")
            assert without.startswith(f"mirror {plain.host}: library/nosuch:1: not found")

    inside(steps)


def test_closing_a_client_ends_what_waits(
    inside: NetworkNamespace, connect: Callable[..., RegistryClient]
) -> None:
    stalls = threading.Event()

    def answer(exchange: Exchange) -> None:
        if "/manifests/" in exchange.seen.path:
            stalls.set()
            exchange.stall()
        else:
            exchange.answer(200)

    with scripted_server(inside, answer) as server:

        def steps() -> None:
            client = connect(server.host)
            errors: list[PyDockError] = []

            def ask() -> None:
                try:
                    client.manifest("a", "b")
                except PyDockError as error:
                    errors.append(error)

            thread = threading.Thread(target=ask)
            thread.start()
            assert stalls.wait(10)
            client.close()
            thread.join(5)
            assert [error.message for error in errors] == ["the transfer was interrupted"]

        inside(steps)


def test_the_library_for_http_is_loaded_only_for_registries() -> None:
    """`ps` and `run` do not pay for it."""
    import subprocess
    import sys

    code = "import pydock_core.engine, pydock_core.commands.program, sys; print('urllib3' in sys.modules)"
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=True)
    assert done.stdout == b"False\n"


def test_docker_reads_the_login_that_was_stored(tmp_path: Path, store: CredentialStore) -> None:
    """The file keeps what others have put there."""
    store.path.parent.mkdir()
    store.path.write_text(json.dumps({"psFormat": "table {{.ID}}", "auths": {"other": {"auth": "YTpi"}}}))
    store.store("docker.io", USERNAME, PASSWORD)
    document = json.loads(store.path.read_text())
    assert document["psFormat"] == "table {{.ID}}"
    assert set(document["auths"]) == {"other", "https://index.docker.io/v1/"}
