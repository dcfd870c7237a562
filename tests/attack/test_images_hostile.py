"""Hostile images: decompression bombs, and documents that lie.  A clear error each, and the store as it was."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import resource
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest
import zstandard

from pydock_core import syscalls
from pydock_core.engine import Engine
from pydock_core.engine.registries import Registries
from pydock_core.errors import CorruptError, InvalidError, PyDockError, UnsupportedError
from pydock_core.images.registry.client import RegistryClient
from pydock_core.oci.documents import (
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    encode,
    layer_media_type,
)
from pydock_core.oci.platform import host_architecture
from pydock_core.store.compression import InflationLimit, open_plain
from pydock_core.store.erofs.layer_tree import LayerTree
from pydock_core.store.erofs.layout import TAR_ADDRESS
from pydock_core.store.erofs.writer import write_image
from pydock_core.store.snapshots.layers import VARIABLE
from pydock_core.store.tar_reader import TarReader
from pydock_core.store.tar_source import FileSource
from tests.attack.test_archives import ATTACKS, victim
from tests.support.create_request import create_request
from tests.support.fake_registry import FakeRegistry
from tests.support.image_store import (
    NEEDS_ROOT,
    ROOT,
    build_config,
    build_tar,
    digest,
    entry,
    oci_members,
    tar_of,
)
from tests.support.killed import check_whole, contents, in_child, opened

__all__ = ["victim"]  # a fixture

needs_root = pytest.mark.skipif(not ROOT, reason=NEEDS_ROOT)

NAME = "registry.test/box:1"
LAYER = build_tar([entry("a", data=b"x" * 100)])
MIB = 1 << 20


@pytest.fixture(params=["", "directory"], ids=["default driver", "directory driver"])
def base(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state root that new layers of one driver are made in."""
    monkeypatch.setenv(VARIABLE, request.param)
    return tmp_path


def pull(engine: Engine, registry: FakeRegistry) -> object:
    return Registries(engine.state.image_store, lambda domain: cast(RegistryClient, registry)).pull(NAME)


# -- decompression bombs -----------------------------------------------------------------------------------


def zeros(compress: Callable[[bytes], bytes], times: int) -> bytes:
    """The head of a tar, and so many compressed pieces of 8 MiB of zeros of its one file."""
    head = build_tar([entry("bomb", data=bytes(512))])[:1024]
    info, _ = entry("bomb")
    info.size = times * 8 * MIB + 512
    head = info.tobuf() + head[512:1024]
    return compress(head) + compress(bytes(8 * MIB)) * times


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zstd": zstandard.compress,
    "xz": lzma.compress,
    "bzip2": bz2.compress,
}
UNPACKED_TOO = ("gzip", "zstd")  # what layers may be


def read_out(stream: BinaryIO) -> int:
    total = 0
    while data := stream.read(MIB):
        total += len(data)
    return total


@pytest.mark.parametrize("packer", PACKERS)
def test_a_bomb_ends_at_the_limit(packer: str) -> None:
    bomb = zeros(PACKERS[packer], 40)
    limit = InflationLimit(20 * MIB)
    with pytest.raises(CorruptError, match="layer x may be a decompression bomb") as raised:
        read_out(open_plain(io.BytesIO(bomb), packer, "layer x", limit))
    assert "\n" not in raised.value.message
    assert raised.value.hint
    # It is content that is both large and out of proportion.
    whole = 40 * 8 * MIB + 1024
    assert read_out(open_plain(io.BytesIO(bomb), packer, "layer x", InflationLimit(whole))) == whole
    assert read_out(open_plain(io.BytesIO(bomb), packer, "layer x", InflationLimit(0, 10**6))) == whole


@pytest.mark.parametrize("packer", PACKERS)
def test_honest_content_is_never_a_bomb(packer: str) -> None:
    content = os.urandom(MIB) + bytes(20 * MIB)
    packed = PACKERS[packer](content)
    assert read_out(open_plain(io.BytesIO(packed), packer, "layer x", InflationLimit(0))) == len(content)


@pytest.mark.parametrize("packer", PACKERS)
def test_memory_stays_flat(packer: str) -> None:
    bomb = zeros(PACKERS[packer], 30)

    def inflate() -> None:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        read_out(open_plain(io.BytesIO(bomb), packer, "layer x"))
        grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown_kib < 40 << 10, grown_kib

    in_child(inflate)


def many(kind: str, number: int) -> tarfile.TarInfo:
    made = tarfile.TarInfo(f"d/package{number // 500}/file_{number}")
    if kind == "deep directories":
        made.name = f"d/{number}/" + "y" * 80 + "/" + "z" * 80
    if "directories" in kind:
        made.type = tarfile.DIRTYPE
    if kind == "long names":
        made.name = made.name.ljust(240, "x")
    if kind == "symbolic links":
        made.type, made.linkname = tarfile.SYMTYPE, "q" * 1000
    if kind == "attributes":
        made.pax_headers = {"SCHILY.xattr.user.a": f"{number}" * 8}
    if kind == "whiteouts":
        made.name = f"d/package{number // 500}/.wh.file_{number}"
    return made


@pytest.mark.parametrize(
    "kind",
    [
        "files",
        "directories",
        "deep directories",
        "long names",
        "symbolic links",
        "attributes",
        "whiteouts",
    ],
)
def test_an_index_takes_the_memory_that_it_is_charged(tmp_path: Path, kind: str) -> None:
    with tarfile.open(tmp_path / "tar", "w", format=tarfile.PAX_FORMAT) as archive:
        for number in range(20_000):
            archive.addfile(many(kind, number))

    def build() -> None:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        tree = LayerTree("layer x")
        with (tmp_path / "tar").open("rb") as tar, (tmp_path / "index").open("w+b") as index:
            tree.apply(TarReader(FileSource(tar.fileno()), "layer x"))
            write_image(tree, index.fileno(), tar.fileno(), [("a" * 64, 1, TAR_ADDRESS)], "layer x")
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
        assert grown < tree.charged_bytes * 5 // 4 + 4 * MIB, (grown, tree.charged_bytes)

    in_child(build)


def zstd_frame(window_log: int, data: bytes = b"data" * 100) -> bytes:
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=window_log, enable_ldm=True)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return compressor.compress(data) + compressor.flush()


def test_a_zstd_window_has_a_limit() -> None:
    assert open_plain(io.BytesIO(zstd_frame(27)), "zstd", "layer x").read() == b"data" * 100
    with pytest.raises(UnsupportedError, match="a window of 2048 MiB") as raised:
        open_plain(io.BytesIO(zstd_frame(31)), "zstd", "layer x")
    assert "128 MiB" in raised.value.hint
    with pytest.raises(CorruptError):
        read_out(open_plain(io.BytesIO(zstd_frame(20) + zstd_frame(31)), "zstd", "layer x"))


def test_an_xz_dictionary_has_a_limit() -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 512 * MIB}]
    packed = lzma.compress(b"data", lzma.FORMAT_XZ, filters=filters)
    with pytest.raises(CorruptError, match="layer x"):
        read_out(open_plain(io.BytesIO(packed), "xz", "layer x"))
    best = lzma.compress(b"data", preset=9 | lzma.PRESET_EXTREME)
    assert open_plain(io.BytesIO(best), "xz", "layer x").read() == b"data"


def pull_bomb(engine: Engine, bomb: bytes, media_type: str) -> None:
    registry = FakeRegistry()
    config = registry.add_blob("box", build_config(digest(b"never")), OCI_CONFIG)
    layer = registry.add_blob("box", bomb, media_type)
    add_manifest(registry, config.to_json(), [layer.to_json()])
    pull(engine, registry)


def load_bomb(engine: Engine, bomb: bytes, media_type: str) -> None:
    engine.images.load(io.BytesIO(tar_of(oci_members([(bomb, media_type, digest(b"never"))]))))


WAYS: dict[str, Callable[[Engine, bytes, str], object]] = {
    "pull": pull_bomb,
    "load": load_bomb,
    "load of a compressed archive": lambda engine, bomb, _: engine.images.load(io.BytesIO(bomb)),
    "import": lambda engine, bomb, _: engine.images.import_(io.BytesIO(bomb), "imported:1"),
}


@needs_root
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("packer", UNPACKED_TOO)
def test_a_bomb_leaves_the_disk_as_it_was(base: Path, way: str, packer: str) -> None:
    """Hundreds of gigabytes in a few megabytes; on a small disk, of which half is never filled."""
    bomb = zeros(PACKERS[packer], 2_000 if packer == "gzip" else 20_000)[: 6 * MIB]
    # What is read ahead counts as read: with gzip's ratio, on a disk this small, it would be half of it.
    disk_bytes = (320 if packer == "gzip" else 48) * MIB

    def attempt() -> None:
        syscalls.unshare(0x00020000)  # CLONE_NEWNS
        syscalls.mount("none", "/", "", 0x4000 | 0x40000)  # MS_REC | MS_PRIVATE
        syscalls.mount("disk", str(base), "tmpfs", 0, f"size={disk_bytes}")
        with opened(base / "state") as engine:
            engine.state.image_store.snapshotter  # noqa: B018  # makes the skeleton
            before, free = contents(engine), os.statvfs(base).f_bavail
            with pytest.raises(CorruptError, match="decompression bomb"):
                WAYS[way](engine, bomb, layer_media_type(packer))
            engine.usage.prune_images()  # what a pull has, it keeps for the next attempt
            assert contents(engine) == before
            assert os.statvfs(base).f_bavail > free - 512

    in_child(attempt)


# -- archives ----------------------------------------------------------------------------------------------


@needs_root
@pytest.mark.parametrize("way", ["pull", "pull of a compressed layer", "import"])
@pytest.mark.parametrize("attack", ATTACKS)
def test_no_layer_reaches_the_host_by_another_way(base: Path, victim: Path, attack: str, way: str) -> None:
    """What :mod:`tests.attack.test_archives` loads, pulled and imported."""
    layer = build_tar(ATTACKS[attack](victim))
    registry = FakeRegistry()
    registry.add_image("box", "1", layer, compression="gzip" if "compressed" in way else "")
    with opened(base / "state") as engine:
        engine.state.image_store.snapshotter  # noqa: B018  # makes the skeleton
        before = contents(engine)
        try:
            if way == "import":
                engine.images.import_(io.BytesIO(layer), NAME)
            else:
                pull(engine, registry)
        except (InvalidError, CorruptError, UnsupportedError) as error:
            assert "\n" not in error.message
            assert error.hint
        engine.usage.prune_images(all=True)
        assert contents(engine) == before


@needs_root
def test_a_layer_of_more_entries_than_memory_has_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pydock_core.store.erofs.tree.MEMORY_LIMIT_BYTES", 20 * 200)
    layer = build_tar(entry(f"f{number}", data=b"x") for number in range(30))
    registry = FakeRegistry()
    registry.add_image("box", "1", layer, LAYER)
    with opened(tmp_path) as engine:
        pull(engine, registry)
        check_whole(engine)
        assert engine.state.snapshotter.size_bytes(digest(layer)) == 30
        assert engine.state.snapshotter.read_file([digest(layer)], "/f29") == b"x"
        assert (engine.root.layers / "directory" / digest(layer)[7:]).is_dir()


# -- documents that lie ------------------------------------------------------------------------------------


def add_manifest(registry: FakeRegistry, config: Any, layers: Any, **more: Any) -> None:
    document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers, **more}
    registry.add_manifest("box", "1", OCI_MANIFEST, encode(document))


def parts(registry: FakeRegistry, config: bytes | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """A right config and a right layer, as descriptors."""
    config = build_config(digest(LAYER)) if config is None else config
    return (
        registry.add_blob("box", config, OCI_CONFIG).to_json(),
        registry.add_blob("box", LAYER, OCI_LAYER).to_json(),
    )


def changed_layer(**fields: Any) -> Callable[[FakeRegistry], None]:
    def add(registry: FakeRegistry) -> None:
        config, layer = parts(registry)
        add_manifest(registry, config, [{**layer, **fields}])

    return add


def changed_config(data: bytes) -> Callable[[FakeRegistry], None]:
    def add(registry: FakeRegistry) -> None:
        config, layer = parts(registry, data)
        add_manifest(registry, config, [layer])

    return add


def changed_manifest(**fields: Any) -> Callable[[FakeRegistry], None]:
    def add(registry: FakeRegistry) -> None:
        config, layer = parts(registry)
        add_manifest(registry, **{"config": config, "layers": [layer], **fields})

    return add


def raw_manifest(data: bytes, media_type: str = OCI_MANIFEST) -> Callable[[FakeRegistry], None]:
    return lambda registry: registry.add_manifest("box", "1", media_type, data)


def layers_of_two_diff_ids(registry: FakeRegistry) -> None:
    config, layer = parts(registry, build_config(digest(LAYER), digest(b"another")))
    add_manifest(registry, config, [layer, layer])


def nested_indexes(registry: FakeRegistry) -> None:
    config, layer = parts(registry)
    add_manifest(registry, config, [layer])
    media_type, data = registry.manifests["box", "1"]
    platform = {"os": "linux", "architecture": host_architecture()[0]}
    for _ in range(100):
        inner = {"mediaType": media_type, "digest": digest(data), "size": len(data), "platform": platform}
        media_type, data = OCI_INDEX, encode({"schemaVersion": 2, "manifests": [inner]})
        registry.add_manifest("box", "1", media_type, data)


def index_in_itself(registry: FakeRegistry) -> None:
    """No index can name its own digest; a registry that does not care can answer so all the same."""
    named = digest(b"itself")
    platform = {"os": "linux", "architecture": host_architecture()[0]}
    entries = [{"mediaType": OCI_INDEX, "digest": named, "size": 0, "platform": platform}]
    data = encode({"schemaVersion": 2, "manifests": entries})
    for size in (len(data), len(data) + 2):
        entries[0]["size"] = size
    data = encode({"schemaVersion": 2, "manifests": entries})
    entries[0]["size"] = len(data)
    data = encode({"schemaVersion": 2, "manifests": entries})
    registry.add_manifest("box", "1", OCI_INDEX, data)
    registry.manifests["box", named] = (OCI_INDEX, data)


SHA512 = "sha512:" + "0" * 128
DEEP = b'{"a":' * 100_000

LIES: dict[str, Callable[[FakeRegistry], None]] = {
    "a size that is too large": changed_layer(size=len(LAYER) + 512),
    "a size that is too small": changed_layer(size=len(LAYER) - 512),
    "a negative size": changed_layer(size=-1),
    "a fractional size": changed_layer(size=10.5),
    "a size as text": changed_layer(size="10"),
    "a true size": changed_layer(size=True),
    "no size": changed_layer(size=None),
    "an endless size": changed_layer(size=1e999),
    "a size of 400 digits": changed_layer(size=10**400),
    "another algorithm": changed_layer(digest=SHA512),
    "a digest in capitals": changed_layer(digest="sha256:" + "A" * 64),
    "a digest that is a path": changed_layer(digest="sha256:../../../../etc/passwd"),
    "a digest that is a number": changed_layer(digest=5),
    "an unknown type of layer": changed_layer(mediaType="application/x-executable"),
    "a layer of no type": changed_layer(mediaType=""),
    "an encrypted layer": changed_layer(mediaType=OCI_LAYER + "+gzip+encrypted"),
    "an address that is none": changed_layer(urls=[5]),
    "addresses that are no list": changed_layer(urls="file:///etc/passwd"),
    "a config that is a list": changed_config(b"[]"),
    "a config that is text": changed_config(b'"text"'),
    "a config that is null": changed_config(b"null"),
    "a config that is not JSON": changed_config(b"{"),
    "a config in no encoding": changed_config(b"\xff\xfe\xfd"),
    "an empty config": changed_config(b""),
    "a config without end": changed_config(DEEP),
    "a config of many layers": changed_config(build_config(*[digest(LAYER)] * 50_000)),
    "a config of no layers": changed_config(build_config()),
    "a config without rootfs": changed_config(b'{"os":"linux","architecture":"amd64"}'),
    "diff ids that are none": changed_config(build_config("sha256:../../x")),
    "diff ids of another algorithm": changed_config(build_config(SHA512)),
    "diff ids that are an object": changed_config(b'{"rootfs":{"diff_ids":{}}}'),
    "a layer of another diff id": changed_config(build_config(digest(b"other"))),
    "more layers than any image has": changed_manifest(
        layers=[{"mediaType": OCI_LAYER, "digest": digest(b""), "size": 0}] * 2000
    ),
    "no layers": changed_manifest(layers=[]),
    "layers that are an object": changed_manifest(layers={}),
    "layers that are text": changed_manifest(layers=["x"]),
    "no config": changed_manifest(config=None),
    "a config of another type": changed_manifest(
        config={"mediaType": "application/vnd.cncf.helm.config.v1+json", "digest": digest(b"{}"), "size": 2}
    ),
    "a config of gigabytes": changed_manifest(
        config={"mediaType": OCI_CONFIG, "digest": digest(b"{}"), "size": 1 << 40}
    ),
    "schema version 1": changed_manifest(schemaVersion=1),
    "schema version text": changed_manifest(schemaVersion="2"),
    "annotations that are a list": changed_manifest(annotations=["x"]),
    "annotations of numbers": changed_manifest(annotations={"a": 1}),
    "a manifest that is an index too": changed_manifest(manifests=[]),
    "an index that is a manifest too": raw_manifest(
        encode({"schemaVersion": 2, "manifests": [], "layers": [], "config": {}}), OCI_INDEX
    ),
    "an index sent as a manifest": raw_manifest(encode({"schemaVersion": 2, "manifests": []})),
    "an index that calls itself a manifest": raw_manifest(
        encode({"schemaVersion": 2, "mediaType": DOCKER_MANIFEST, "manifests": []}), OCI_INDEX
    ),
    "a manifest that calls itself an index": changed_manifest(mediaType=OCI_INDEX),
    "a type that is a list": changed_manifest(mediaType=[OCI_MANIFEST]),
    "a manifest without end": raw_manifest(DEEP),
    "a manifest that is not JSON": raw_manifest(b"<html>"),
    "a manifest that is a number": raw_manifest(b"5"),
    "one layer, two diff ids": layers_of_two_diff_ids,
    "indexes in indexes": nested_indexes,
    "an index that contains itself": index_in_itself,
    "an index of numbers": raw_manifest(encode({"schemaVersion": 2, "manifests": [5]}), OCI_INDEX),
    "an index that is an object": raw_manifest(encode({"schemaVersion": 2, "manifests": {}}), OCI_INDEX),
    "an index whose platform is text": raw_manifest(
        encode(
            {"manifests": [{"mediaType": OCI_MANIFEST, "digest": digest(b""), "size": 0, "platform": "x"}]}
        ),
        OCI_INDEX,
    ),
    "an empty index": raw_manifest(encode({"schemaVersion": 2, "manifests": []}), OCI_INDEX),
}


@pytest.fixture(scope="module")
def whole_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state root with an image that no lie may harm."""
    base = tmp_path_factory.mktemp("state")
    with opened(base) as engine:
        engine.images.import_(io.BytesIO(build_tar([entry("kept", data=b"kept")])), "kept:1")
    return base


@needs_root
@pytest.mark.parametrize("name", LIES)
def test_documents_that_lie(whole_store: Path, name: str) -> None:
    registry = FakeRegistry()
    LIES[name](registry)
    with opened(whole_store) as engine:
        before, listed = contents(engine), engine.images.list()
        with pytest.raises((CorruptError, UnsupportedError)) as raised:
            pull(engine, registry)
        error = raised.value
        assert "registry.test/box" in error.message or "layer" in error.message
        assert "\n" not in error.message
        assert len(error.message) < 400
        assert error.hint
        assert engine.images.list() == listed
        check_whole(engine)
        engine.usage.prune_images()
        assert contents(engine) == before


@needs_root
def test_a_layer_that_an_image_has_twice(base: Path) -> None:
    registry = FakeRegistry()
    config, layer = parts(registry, build_config(digest(LAYER), digest(LAYER)))
    add_manifest(registry, config, [layer, layer])
    with opened(base) as engine:
        pull(engine, registry)
        check_whole(engine)
        assert engine.images.layers(engine.images.resolve(NAME).id) == [digest(LAYER)] * 2
        engine.images.remove(NAME)
        assert engine.state.snapshotter.diff_ids() == []


@needs_root
@pytest.mark.parametrize("tag", ["../../x", "a/b", "-x", "a b", "x" * 200])
def test_tags_that_are_none(base: Path, tag: str) -> None:
    registry = FakeRegistry()
    registry.add_image("box", "1", LAYER)
    registry.add_image("box", tag, LAYER)
    with opened(base) as engine:
        registries = Registries(engine.state.image_store, lambda domain: cast(RegistryClient, registry))
        with pytest.raises(InvalidError):
            registries.pull("registry.test/box", all_tags=True)
        assert engine.images.list() == []


CONFIGS: dict[str, dict[str, Any]] = {
    "command as text": {"config": {"Cmd": "text"}},
    "command of numbers": {"config": {"Cmd": [1]}},
    "environment as an object": {"config": {"Env": {"a": 1}}},
    "environment of nothing": {"config": {"Env": [None, "noequals", "=x"]}},
    "null characters": {"config": {"Cmd": ["a\0b"], "Env": ["A=\0"], "WorkingDir": "\0"}},
    "user as a number": {"config": {"User": 5, "Cmd": ["x"]}},
    "ports as a list": {"config": {"ExposedPorts": [1], "Cmd": ["x"]}},
    "ports out of range": {"config": {"ExposedPorts": {"99999999/tcp": {}}, "Cmd": ["x"]}},
    "volumes outside": {"config": {"Volumes": {"../..": {}, "/..": {}}, "Cmd": ["x"]}},
    "labels as a list": {"config": {"Labels": ["a"], "Cmd": ["x"]}},
    "labels of numbers": {"config": {"Labels": {"a": 1}, "Cmd": ["x"]}},
    "health check as text": {"config": {"Healthcheck": "x", "Cmd": ["x"]}},
    "signal as a number": {"config": {"StopSignal": 5, "Cmd": ["x"]}},
    "a directory as a list": {"config": {"WorkingDir": ["x"], "Cmd": ["x"]}},
    "the year 1": {"created": "0001-01-01T00:00:00Z", "config": {"Cmd": ["x"]}},
    "the year 9999": {"created": "9999-12-31T23:59:59Z", "config": {"Cmd": ["x"]}},
    "no day": {"created": "2024-99-99T00:00:00+99:99", "config": {"Cmd": ["x"]}},
    "history of numbers": {"history": [{"created": 5, "created_by": [1], "empty_layer": "x"}]},
    "too much history": {"history": [{"empty_layer": False}] * 5000},
    "surrogates": {"author": "\ud800", "comment": "\x1b[2J", "config": {"Cmd": ["x"]}},
}


@needs_root
@pytest.mark.parametrize("name", CONFIGS)
def test_odd_configs_are_refused_or_shown(base: Path, name: str) -> None:
    """Whatever an image says of itself, it can be listed and removed, and nothing fails but with an error of ours."""
    registry = FakeRegistry()
    document = {**json.loads(build_config(digest(LAYER))), **CONFIGS[name]}
    config, layer = parts(registry, json.dumps(document).encode())
    add_manifest(registry, config, [layer])
    with opened(base) as engine:
        try:
            pull(engine, registry)
        except PyDockError as error:
            assert NAME.partition(":")[0] in error.message
            return
        assert len(engine.images.list(filters={"label": ["a=1"]})) <= 1
        engine.images.inspect(NAME)
        assert engine.images.history(NAME)
        engine.images.save([NAME], io.BytesIO())
        engine.usage.df()
        try:
            container_id, _ = engine.containers.create(create_request(NAME))
        except PyDockError as error:
            assert NAME in error.message
        else:
            engine.containers.inspect(container_id)
            engine.containers.list(all=True)
            engine.containers.remove(container_id)
        (summary,) = engine.images.list()
        assert summary["RepoTags"] == [NAME]
        engine.images.remove(NAME)
        assert engine.images.list() == []
