"""docker, podman, skopeo and umoci at one real registry: they read what we pushed, and write what we pull."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pydock_core.images.registry.client import RegistryClient
from pydock_core.images.registry.settings import RegistrySettings
from pydock_core.oci.digest import digest_of
from pydock_core.oci.documents import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, Descriptor, Index, Manifest, encode
from pydock_core.paths import StateRoot
from pydock_core.store.snapshots.layers import VARIABLE
from tests.bench.isolation import unmount_below
from tests.bench.samples import BUSYBOX, busybox_tree, docker_archive, tar_of
from tests.integration.conftest import Dock, end_servers, wait_until
from tests.support.docker_daemon import DockerDaemon, docker_daemon, missing
from tests.support.image_store import NEEDS_ROOT, ROOT, build_config, build_tar, entry, no_erofs
from tests.support.killed import check_whole, opened
from tests.support.network_namespace import NetworkNamespace, network_namespace
from tests.support.registry import Asked, Registry, registry
from tests.support.registry_gate import registry_gate
from tests.support.scripted_server import Exchange, scripted_server

MIB = 1 << 20
LAYER = "application/vnd.oci.image.layer.v1.tar"
SKOPEO_CACHE = Path("/var/lib/containers/cache")
FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
LOOK = (
    "cat /etc/new; stat -c '%a %u %g' /etc/new; test ! -e /etc/group && test -e /etc/passwd && echo removed;"
    " busybox sha256sum /bin/busybox"
)

pytestmark = [
    pytest.mark.skipif(not ROOT, reason=NEEDS_ROOT),
    pytest.mark.skipif(not BUSYBOX.exists(), reason="needs /bin/busybox (Debian: busybox-static)"),
]


def needs(*tools: str) -> None:
    if lacking := [tool for tool in tools if shutil.which(tool) is None]:
        pytest.skip(f"needs {', '.join(lacking)}")


@dataclass(frozen=True)
class DockInside(Dock):
    """The program in the registry's network namespace, with one snapshot driver."""

    inside: NetworkNamespace
    driver: str

    def environment(self) -> dict[str, str]:
        return {**super().environment(), VARIABLE: self.driver}

    def words(self, *words: object) -> list[str]:
        return self.inside.words(*super().words(*words))

    def image_id(self, name: str) -> str:
        return self.out("image", "inspect", "--format", "{{.Id}}", name)

    def look(self, name: str) -> str:
        """What a container of the sample image sees."""
        return self.out("run", "--rm", "--network", "none", name, "sh", "-c", LOOK)


# -- who takes part --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def inside() -> Iterator[NetworkNamespace]:
    with network_namespace() as made:
        yield made


@pytest.fixture(scope="module")
def plain(inside: NetworkNamespace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    directory = tmp_path_factory.mktemp("registry")
    with registry(inside, directory, 5000, foreign="^http://127[.]0[.]0[.]1:") as made:
        yield made


@pytest.fixture(scope="module", params=["directory", "erofs"])
def dock(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, inside: NetworkNamespace
) -> Iterator[DockInside]:
    if request.param == "erofs" and (reason := no_erofs(tmp_path_factory.mktemp("probe"))):
        pytest.skip(reason)
    base = tmp_path_factory.mktemp("state")
    program = DockInside(base, inside, request.param)
    program("images")
    yield program
    end_servers(StateRoot(base / "data", base / "run"))
    shutil.rmtree(base)


@pytest.fixture(scope="module")
def docker(inside: NetworkNamespace) -> Iterator[DockerDaemon]:
    if reason := missing():
        pytest.skip(reason)
    with docker_daemon(inside) as made:
        yield made


@pytest.fixture(scope="module")
def podman(inside: NetworkNamespace) -> Iterator[Callable[..., str]]:
    """podman on a store of its own; its run root wants a short path."""
    needs("podman")
    base = Path(tempfile.mkdtemp(prefix="podman-"))
    options = ("--root", base / "root", "--runroot", base / "run", "--tmpdir", base / "tmp")
    try:
        yield lambda *words: inside.run("podman", *options, "--storage-driver", "vfs", *words).stdout.strip()
    finally:
        unmount_below(base)
        shutil.rmtree(base)


@pytest.fixture
def skopeo(inside: NetworkNamespace) -> Callable[..., str]:
    """skopeo without its memory, for which it would take over layers that the registry has in another form."""
    needs("skopeo")
    SKOPEO_CACHE.mkdir(parents=True, exist_ok=True)
    forget = ("unshare", "--mount", "sh", "-c", f'mount -t tmpfs none {SKOPEO_CACHE} && exec "$@"', "sh")

    def run(verb: str, *words: object) -> str:
        sides = ("src-", "dest-") if verb == "copy" else ("",)
        tls = [f"--{side}tls-verify=false" for side in sides]
        return inside.run(*forget, "skopeo", verb, *tls, *words).stdout

    return run


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the sample image has below its root."""
    made = busybox_tree(tmp_path_factory.mktemp("tree") / "root")
    shutil.copytree(made, made.with_name("lower"), symlinks=True)
    (made / "etc/group").unlink()
    (made / "etc/new").write_text("new\n")
    (made / "etc/new").chmod(0o640)
    os.chown(made / "etc/new", 12, 34)
    return made


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory, tree: Path) -> Path:
    """A docker-archive of two layers, called sample:1: a busybox, and a change that removes a file."""
    upper = build_tar(
        [
            entry("etc", "dir"),
            entry("etc/.wh.group"),
            entry("etc/new", data=b"new\n", mode=0o640, uid=12, gid=34),
        ]
    )
    layers = [tar_of(tree.with_name("lower")), upper]
    return docker_archive(tmp_path_factory.mktemp("archive") / "sample.tar", layers, "sample:1", ["sh"])


def seen_of(root: Path) -> str:
    """What :data:`LOOK` says of a tree."""
    status = os.stat(root / "etc/new")
    busybox = hashlib.sha256((root / "bin/busybox").read_bytes()).hexdigest()
    mode = f"{stat.S_IMODE(status.st_mode):o} {status.st_uid} {status.st_gid}"
    return f"new\n{mode}\nremoved\n{busybox}  /bin/busybox"


def files_of(root: Path) -> dict[str, tuple[int, int, int, bytes]]:
    """Mode, owner and content of all there is below a directory."""
    found = {}
    for path in root.rglob("*"):
        status = path.lstat()
        content = os.readlink(path).encode() if path.is_symlink() else b""
        if stat.S_ISREG(status.st_mode):
            content = path.read_bytes()
        found[str(path.relative_to(root))] = (status.st_mode, status.st_uid, status.st_gid, content)
    return found


# -- what we push, they read -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pushed(dock: DockInside, plain: Registry, sample: Path) -> str:
    """The name under which the sample was pushed from a store of this driver."""
    name = f"{plain.host}/ours/{dock.driver}:1"
    dock("load", "-q", "-i", sample)
    dock("tag", "sample:1", name)
    dock("push", "-q", name)
    return name


def test_docker_runs_what_we_pushed(dock: DockInside, pushed: str, docker: DockerDaemon, tree: Path) -> None:
    docker("pull", "-q", pushed)
    assert docker("image", "inspect", "--format", "{{.Id}}", pushed) == dock.image_id(pushed)
    assert docker("run", "--rm", "--network", "none", pushed, "sh", "-c", LOOK) == seen_of(tree)
    docker("rmi", "-f", pushed)


def test_podman_mounts_what_we_pushed(
    dock: DockInside, pushed: str, podman: Callable[..., str], tree: Path
) -> None:
    podman("pull", "-q", "--tls-verify=false", pushed)
    assert f"sha256:{podman('image', 'inspect', '--format', '{{.Id}}', pushed)}" == dock.image_id(pushed)
    mounted = Path(podman("image", "mount", pushed))
    try:
        assert files_of(mounted) == files_of(tree)
    finally:
        podman("image", "unmount", pushed)
    podman("rmi", "-f", pushed)


def test_skopeo_copies_and_umoci_unpacks_what_we_pushed(
    dock: DockInside, pushed: str, skopeo: Callable[..., str], tree: Path, tmp_path: Path
) -> None:
    needs("umoci")
    raw = skopeo("inspect", "--raw", f"docker://{pushed}")
    assert json.loads(raw)["config"]["digest"] == dock.image_id(pushed)
    skopeo("copy", "-q", "--preserve-digests", f"docker://{pushed}", f"dir:{tmp_path / 'dir'}")
    assert (tmp_path / "dir/manifest.json").read_text() == raw
    skopeo("copy", "-q", f"docker://{pushed}", f"oci:{tmp_path / 'layout'}:1")
    subprocess.run(
        ["umoci", "unpack", "--image", f"{tmp_path / 'layout'}:1", tmp_path / "bundle"],
        check=True,
        timeout=60,
    )
    assert files_of(tmp_path / "bundle/rootfs") == files_of(tree)


# -- what they push, we pull -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Peers:
    """All that push."""

    request: pytest.FixtureRequest
    sample: Path
    base: Path

    def by_docker(self, name: str) -> None:
        docker: DockerDaemon = self.request.getfixturevalue("docker")
        docker("load", "-i", self.sample)
        docker("tag", "sample:1", name)
        docker("push", "-q", name)
        docker("rmi", "-f", name, "sample:1")

    def by_podman(self, name: str, kind: str) -> None:
        podman: Callable[..., str] = self.request.getfixturevalue("podman")
        podman("load", "-q", "-i", self.sample)
        podman("push", "-q", "--tls-verify=false", "--format", kind, "localhost/sample:1", f"docker://{name}")

    def by_skopeo(self, name: str, *words: str) -> None:
        self._copy(f"docker-archive:{self.sample}:sample:1", name, *words)

    def by_umoci(self, name: str) -> None:
        """An image that is umoci's own, in layers that it made."""
        needs("umoci")
        layout, bundle = self.base / "layout", self.base / "bundle"
        self._copy(f"docker-archive:{self.sample}:sample:1", f"{layout}:1", kind="oci:")
        subprocess.run(["umoci", "unpack", "--image", f"{layout}:1", bundle], check=True, timeout=60)
        (bundle / "rootfs/etc/umoci").write_text("was here")
        subprocess.run(["umoci", "repack", "--image", f"{layout}:2", bundle], check=True, timeout=60)
        self._copy(f"oci:{layout}:2", name)

    def by_us(self, name: str) -> None:
        """Uncompressed layers, which no stranger pushes."""
        layout = self.base / "plain"
        self._copy(f"docker-archive:{self.sample}:sample:1", str(layout), "--dest-decompress", kind="dir:")
        described = json.loads((layout / "manifest.json").read_text())
        blobs = {
            digest_of(path.read_bytes()): path
            for path in layout.iterdir()
            if path.name not in ("manifest.json", "version")
        }
        config = blobs[described["config"]["digest"]]
        diff_ids = json.loads(config.read_text())["rootfs"]["diff_ids"]
        manifest = Manifest(
            Descriptor(OCI_CONFIG, digest_of(config.read_bytes()), config.stat().st_size),
            tuple(Descriptor(LAYER, digest, blobs[digest].stat().st_size) for digest in diff_ids),
        )
        put(self.request.getfixturevalue("inside"), name, blobs, encode(manifest.to_json()))

    def _copy(self, source: str, target: str, *words: str, kind: str = "docker://") -> None:
        skopeo: Callable[..., str] = self.request.getfixturevalue("skopeo")
        skopeo("copy", "-q", *words, source, f"{kind}{target}")


def put(
    inside: NetworkNamespace,
    name: str,
    blobs: Mapping[str, Path],
    manifest: bytes,
    media_type: str = OCI_MANIFEST,
) -> str:
    """Put blobs and a manifest into the registry by our client; an empty tag stands for the digest."""
    host, _, rest = name.partition("/")
    path, _, tag = rest.partition(":")

    def steps() -> str:
        with RegistryClient(host, settings=RegistrySettings()) as client:
            for digest, file in blobs.items():
                client.upload_blob(path, file, None, lambda digest=digest: digest)
            return client.put_manifest(path, tag or digest_of(manifest), media_type, manifest)

    return inside(steps)


PUSHES: dict[str, tuple[Callable[[Peers, str], None], str]] = {
    "docker": (Peers.by_docker, "docker.image.rootfs.diff.tar.gzip"),
    "podman v2s2": (lambda peers, name: peers.by_podman(name, "v2s2"), "docker.image.rootfs.diff.tar.gzip"),
    "podman oci": (lambda peers, name: peers.by_podman(name, "oci"), "oci.image.layer.v1.tar+gzip"),
    "skopeo v2s2": (
        lambda peers, name: peers.by_skopeo(name, "--format", "v2s2"),
        "docker.image.rootfs.diff.tar.gzip",
    ),
    "skopeo oci": (
        lambda peers, name: peers.by_skopeo(name, "--format", "oci"),
        "oci.image.layer.v1.tar+gzip",
    ),
    "skopeo zstd": (
        lambda peers, name: peers.by_skopeo(name, "--format", "oci", "--dest-compress-format", "zstd"),
        "oci.image.layer.v1.tar+zstd",
    ),
    "umoci": (Peers.by_umoci, "oci.image.layer.v1.tar+gzip"),
    "ourselves, plain": (Peers.by_us, "oci.image.layer.v1.tar"),
}


@pytest.mark.parametrize("how", PUSHES)
def test_we_run_what_strangers_pushed(
    dock: DockInside,
    plain: Registry,
    sample: Path,
    tree: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    skopeo: Callable[..., str],
    how: str,
) -> None:
    push, media_type = PUSHES[how]
    name = f"{plain.host}/theirs/{how.replace(' ', '-').replace(',', '')}-{dock.driver}:1"
    push(Peers(request, sample, tmp_path), name)
    manifest = json.loads(skopeo("inspect", "--raw", f"docker://{name}"))
    assert {layer["mediaType"] for layer in manifest["layers"]} == {f"application/vnd.{media_type}"}
    if dock.out("images", "-q"):
        dock("rmi", "-f", *dict.fromkeys(dock.out("images", "-q").split()))  # so that all layers are new
    assert dock.out("pull", "-q", name) == name
    assert dock.image_id(name) == manifest["config"]["digest"]
    assert dock.look(name) == seen_of(tree)
    if how == "umoci":
        assert dock.out("run", "--rm", "--network", "none", name, "cat", "/etc/umoci") == "was here"


# -- indexes ---------------------------------------------------------------------------------------------


def image_of(directory: Path, architecture: str, *layers: bytes) -> tuple[dict[str, Path], bytes]:
    """Blobs and manifest of an image of plain layers."""
    config = json.dumps(json.loads(build_config(*map(digest_of, layers))) | {"architecture": architecture})
    blobs = {}
    for data in (config.encode(), *layers):
        blobs[digest_of(data)] = directory / digest_of(data)[7:]
        blobs[digest_of(data)].write_bytes(data)
    manifest = Manifest(
        Descriptor(OCI_CONFIG, digest_of(config.encode()), len(config)),
        tuple(Descriptor(LAYER, digest_of(layer), len(layer)) for layer in layers),
    )
    return blobs, encode(manifest.to_json())


def test_an_index_and_what_skopeo_makes_of_it(
    dock: DockInside,
    inside: NetworkNamespace,
    plain: Registry,
    docker: DockerDaemon,
    skopeo: Callable[..., str],
    tmp_path: Path,
) -> None:
    name, copied = f"{plain.host}/multi/{dock.driver}:1", f"{plain.host}/multi/copied-{dock.driver}:1"
    entries, ids = [], {}
    for architecture in ("amd64", "arm64"):
        blobs, manifest = image_of(
            tmp_path, architecture, build_tar([entry("arch", data=architecture.encode())])
        )
        put(inside, name.removesuffix(":1"), blobs, manifest)
        platform = {"os": "linux", "architecture": architecture}
        entries.append(Descriptor(OCI_MANIFEST, digest_of(manifest), len(manifest), platform=platform))
        ids[architecture] = json.loads(manifest)["config"]["digest"]
    put(inside, name, {}, encode(Index(tuple(entries)).to_json()), OCI_INDEX)
    skopeo("copy", "-q", "--all", f"docker://{name}", f"docker://{copied}")
    for reference in (name, copied):
        for architecture in ("arm64", "amd64"):
            platform = f"linux/{architecture}"
            dock("pull", "-q", "--platform", platform, reference)
            docker("pull", "-q", "--platform", platform, reference)
            assert dock.image_id(reference) == ids[architecture]
            assert docker("image", "inspect", "--format", "{{.Id}}", reference) == ids[architecture]
        docker("rmi", "-f", reference)
    error = dock("pull", "-q", "--platform", "linux/s390x", name, code=1).stderr
    assert "linux/amd64, linux/arm64" in error


# -- no byte twice ---------------------------------------------------------------------------------------


@pytest.fixture
def base(dock: DockInside, tmp_path: Path) -> DockInside:
    """The program on an empty state root."""
    return DockInside(tmp_path / "state", dock.inside, dock.driver)


def blob_gets(asked: list[Asked], digest: str) -> list[Asked]:
    return [each for each in asked if each.method == "GET" and each.path.endswith(f"/blobs/{digest}")]


def test_a_killed_pull_is_continued(
    base: DockInside, plain: Registry, inside: NetworkNamespace, tmp_path: Path
) -> None:
    repository = f"killed/{base.driver}"
    layer = build_tar([entry("random", data=os.urandom(4 * MIB))])
    blobs, manifest = image_of(tmp_path, "amd64", layer)
    put(inside, f"{plain.host}/{repository}:1", blobs, manifest)
    digest = digest_of(layer)
    part = base.base / "data/images/partial" / digest[7:]

    def stop_at_half(exchange: Exchange, passed: int) -> None:
        if digest in exchange.path and passed >= 2 * MIB:
            exchange.stall()

    with registry_gate(inside, plain, stop_at_half) as gate:
        pulling = base.start("pull", "-q", f"{gate.host}/{repository}:1")
        try:
            wait_until(lambda: part.exists() and part.stat().st_size >= MIB, "half of the layer is there")
        finally:
            pulling.send_signal(signal.SIGKILL)
            pulling.wait()
    have = part.stat().st_size
    before = len(plain.asked(repository))
    base("pull", "-q", f"{plain.host}/{repository}:1")
    (get,) = blob_gets(plain.wait_for(repository, "GET", digest)[before:], digest)
    assert (get.status, get.sent_bytes) == (206, len(layer) - have)
    assert not part.exists()
    with opened(base.base) as engine:
        check_whole(engine)


def test_two_pulls_at_once_share_the_layers(
    base: DockInside, plain: Registry, inside: NetworkNamespace, tmp_path: Path
) -> None:
    repository = f"shared/{base.driver}"
    layers = [build_tar([entry(f"random{number}", data=os.urandom(MIB))]) for number in range(4)]
    blobs, manifest = image_of(tmp_path, "amd64", *layers)
    put(inside, f"{plain.host}/{repository}:1", blobs, manifest)
    base("images")
    both, lock, named = threading.Event(), threading.Lock(), 0

    def together(exchange: Exchange, passed: int) -> None:
        """No layer comes before both have asked for the manifest."""
        nonlocal named
        if "/manifests/" in exchange.path and passed == 0:
            with lock:
                named += 1
                if named == 2:
                    both.set()
        if any(digest_of(layer) in exchange.path for layer in layers):
            assert both.wait(20)

    with registry_gate(inside, plain, together) as gate:
        name = f"{gate.host}/{repository}:1"
        pulls = [base.start("pull", "-q", name) for _ in range(2)]
        assert [pull.wait(30) for pull in pulls] == [0, 0]
        asked = [seen.path.rpartition("/")[2] for seen in gate.requests]
    assert [asked.count(digest_of(layer)) for layer in layers] == [1, 1, 1, 1]
    assert base.image_id(name) == json.loads(manifest)["config"]["digest"]
    with opened(base.base) as engine:
        check_whole(engine)


def sent(asked: list[Asked]) -> list[str]:
    """The blobs and manifests that were put: kind and reference."""
    return [each.path for each in asked if each.method in ("PUT", "PATCH")]


def test_layers_are_mounted_and_never_sent_again(dock: DockInside, plain: Registry, sample: Path) -> None:
    first, second = f"again/{dock.driver}", f"mounted/{dock.driver}"
    dock("load", "-q", "-i", sample)
    for repository in (first, second):
        dock("tag", "sample:1", f"{plain.host}/{repository}:1")
    dock("push", "-q", f"{plain.host}/{first}:1")
    before = len(plain.wait_for(first, "PUT", "/manifests/"))
    # Another tag, so that its manifest tells when all is logged.
    dock("tag", "sample:1", f"{plain.host}/{first}:2")
    said = dock("push", "--progress", "plain", f"{plain.host}/{first}:2").stdout
    assert said.count("Layer already exists") == 2
    again = plain.wait_for(first, "PUT", "/manifests/2")[before:]
    assert sent(again) == [f"/v2/{first}/manifests/2"]
    said = dock("push", "--progress", "plain", f"{plain.host}/{second}:1").stdout
    assert len(re.findall(rf"Mounted from (?:again|ours)/{dock.driver}\b", said)) == 2
    asked = plain.wait_for(second, "PUT", "/manifests/1")
    mounts = [each for each in asked if each.method == "POST" and "mount=" in each.path]
    assert [each.status for each in mounts] == [201, 201]
    # Only the config is sent.
    uploads = {path.partition("?")[0] for path in sent(asked) if "/blobs/" in path}
    assert len(uploads) == 1


# -- foreign layers --------------------------------------------------------------------------------------


def test_foreign_layers_come_from_their_addresses_and_are_not_pushed(
    dock: DockInside, plain: Registry, inside: NetworkNamespace, tmp_path: Path
) -> None:
    theirs, ours = f"foreign/{dock.driver}", f"own/{dock.driver}"
    own, licensed = (build_tar([entry(name, data=name.encode())]) for name in ("own", dock.driver))
    packed = gzip.compress(licensed, mtime=0)
    with scripted_server(inside, lambda exchange: exchange.answer(200, packed)) as elsewhere:
        blobs, data = image_of(tmp_path, "amd64", own, licensed)
        del blobs[digest_of(licensed)]
        document: dict[str, Any] = json.loads(data)
        document["layers"][1] = {
            "mediaType": FOREIGN,
            "digest": digest_of(packed),
            "size": len(packed),
            "urls": [f"{elsewhere.url}/licensed.tar.gz"],
        }
        put(inside, f"{plain.host}/{theirs}:1", blobs, encode(document))
        dock("pull", "-q", f"{plain.host}/{theirs}:1")
        assert [seen.path for seen in elsewhere.requests] == ["/licensed.tar.gz"]
        dock("tag", f"{plain.host}/{theirs}:1", f"{plain.host}/{ours}:1")
        said = dock("push", "--progress", "plain", f"{plain.host}/{ours}:1").stdout
        assert "Skipped foreign layer" in said
        asked = plain.wait_for(ours, "PUT", "/manifests/1")
        assert not any(digest_of(packed) in each.path for each in asked)
        dock("rmi", "-f", f"{plain.host}/{theirs}:1", f"{plain.host}/{ours}:1")
        dock("pull", "-q", f"{plain.host}/{ours}:1")
        assert len(elsewhere.requests) == 2
    assert dock.image_id(f"{plain.host}/{ours}:1") == document["config"]["digest"]
    with opened(dock.base) as engine:
        check_whole(engine)
