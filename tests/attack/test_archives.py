"""Hostile archives: whatever is in one, the host's files stay as they were and the store keeps nothing of
it.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import stat
import struct
import subprocess
import tarfile
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from pydock_core.errors import (
    CorruptError,
    InvalidError,
    PyDockError,
    UnavailableError,
    UnsupportedError,
    from_json,
)
from pydock_core.images import spool
from pydock_core.oci.documents import OCI_MANIFEST
from pydock_core.store.layer_rules import clean_name
from pydock_core.store.tar_reader import TarReader
from pydock_core.store.tar_source import FileSource, StreamSource
from tests.support.image_store import (
    NEEDS_ROOT,
    ROOT,
    Store,
    build_config,
    build_docker_archive,
    build_tar,
    digest,
    entry,
    no_erofs,
    oci_members,
    open_store,
    tar_of,
)

needs_root = pytest.mark.skipif(not ROOT, reason=NEEDS_ROOT)
VICTIM = b"the host's own\n"


@pytest.fixture(params=["directory", "erofs"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "erofs" and (reason := no_erofs(tmp_path)):
        pytest.skip(reason)
    opened = open_store(tmp_path / "state", request.param)
    yield opened
    opened.close()


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Path]:
    """A file and a directory of the host beside the state root, compared afterwards."""
    host = tmp_path / "host"
    (host / "directory").mkdir(parents=True)
    file = host / "file"
    file.write_bytes(VICTIM)
    os.chmod(file, 0o600)
    os.utime(file, (1000, 1000))
    before = os.stat(file)
    yield file
    after = os.stat(file)
    assert file.read_bytes() == VICTIM
    assert (after.st_mode, after.st_uid, after.st_mtime_ns, after.st_nlink, after.st_ino) == (
        before.st_mode,
        before.st_uid,
        before.st_mtime_ns,
        before.st_nlink,
        before.st_ino,
    )
    assert os.listdir(host / "directory") == []
    assert sorted(os.listdir(host)) == ["directory", "file"]


def up(victim: Path) -> str:
    """A relative way from anywhere to the victim."""
    return "../" * 30 + str(victim)[1:]


ATTACKS: dict[str, Callable[[Path], list[tuple[tarfile.TarInfo, bytes]]]] = {
    "dot-dot": lambda victim: [entry(up(victim), data=b"owned")],
    "dot-dot after a directory": lambda victim: [
        entry("a", "dir"),
        entry(f"a/../{up(victim)}", data=b"owned"),
    ],
    "absolute": lambda victim: [entry(str(victim), data=b"owned")],
    "absolute link, then its file": lambda victim: [
        entry("x", "link", linkname=str(victim)),
        entry("x", data=b"owned"),
    ],
    "link to a directory, then through it": lambda victim: [
        entry("x", "link", linkname=str(victim.parent)),
        entry("x/file", data=b"owned"),
        entry("x/directory/new", data=b"owned"),
    ],
    "relative link out": lambda victim: [
        entry("x", "link", linkname=up(victim.parent)),
        entry("x/file", data=b"owned"),
    ],
    "chain of links": lambda victim: [
        entry("a", "link", linkname="b"),
        entry("b", "link", linkname="c/.."),
        entry("c", "link", linkname=str(victim.parent / "directory")),
        entry("a/file", data=b"owned"),
    ],
    "link that replaces a directory": lambda victim: [
        entry("x", "dir"),
        entry("x/a", data=b"1"),
        entry("x", "link", linkname=str(victim.parent)),
        entry("x/file", data=b"owned"),
    ],
    "mode and owner through a link": lambda victim: [
        entry("x", "link", linkname=str(victim)),
        entry("x", "dir", mode=0o777, uid=1000),
    ],
    "hard link out": lambda victim: [
        entry("x", "hard", linkname=str(victim)),
        entry("x", data=b"owned"),
    ],
    "hard link up": lambda victim: [entry("x", "hard", linkname=up(victim))],
    "hard link through a link": lambda victim: [
        entry("d", "link", linkname=str(victim.parent)),
        entry("x", "hard", linkname="d/file"),
        entry("x", data=b"owned"),
    ],
    "hard link to a link out, then a file": lambda victim: [
        entry("l", "link", linkname=str(victim)),
        entry("x", "hard", linkname="l"),
        entry("x", data=b"owned"),
    ],
    "whiteout up": lambda victim: [entry(f"{up(victim.parent)}/.wh.file")],
    "whiteout through a link": lambda victim: [
        entry("x", "link", linkname=str(victim.parent)),
        entry("x/.wh.file"),
    ],
    "whiteout of dot-dot": lambda victim: [entry("a/.wh..."), entry("a/.wh.."), entry(".wh.")],
    "opaque through a link": lambda victim: [
        entry("x", "link", linkname=str(victim.parent)),
        entry("x/.wh..wh..opq"),
    ],
    "fifo through a link": lambda victim: [
        entry("x", "link", linkname=str(victim.parent / "directory")),
        entry("x/pipe", "fifo"),
    ],
    "proc": lambda victim: [
        entry("p", "link", linkname="/proc/self/root"),
        entry(f"p{victim}", data=b"owned"),
    ],
    "link out and back in": lambda victim: [
        entry("in", "dir"),
        entry("x", "link", linkname=f"{up(victim.parent)}/../host/../in"),
        entry("y", "link", linkname="../../in/../../in"),
        entry("x/file", data=b"owned"),
        entry("y/file", data=b"inside"),
    ],
    "directory, link, directory": lambda victim: [
        entry("x/directory", "dir"),
        entry("x", "link", linkname=str(victim.parent)),
        entry("x/directory", "dir", mode=0o777),
        entry("x", "dir"),
        entry("x/file", data=b"inside"),
        entry("x", data=b"a file"),
        entry("x", "link", linkname=str(victim)),
        entry("x", data=b"owned", mode=0o4777),
    ],
    "attributes through a link": lambda victim: [
        entry("x", "link", linkname=str(victim)),
        entry("x", "hard", linkname="x", mode=0o777, pax_headers={"SCHILY.xattr.user.a": "owned"}),
    ],
    "set-user-id through a hard link": lambda victim: [
        entry("x", "link", linkname=str(victim)),
        entry("y", "hard", linkname="x"),
        entry("y", "hard", linkname="y", mode=0o6777),
        entry("y", "char", devmajor=1, devminor=3),
    ],
    "magic link": lambda victim: [
        entry("p", "link", linkname="/proc/self/cwd"),
        entry("p/new", data=b"owned"),
    ],
}


@needs_root
@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_no_layer_reaches_the_host(
    store: Store, victim: Path, name: str, compress: Callable[[bytes], bytes]
) -> None:
    layer = build_tar(ATTACKS[name](victim))
    before = store.contents()
    archive = build_docker_archive(layer)
    if compress is gzip.compress:
        blob = gzip.compress(layer)
        media_type = "application/vnd.oci.image.layer.v1.tar+gzip"
        archive = tar_of(oci_members([(blob, media_type, digest(layer))]))
    try:
        (reference,) = store.images.load(io.BytesIO(archive))
    except (InvalidError, CorruptError, UnsupportedError) as error:
        assert "\n" not in error.message
        assert error.hint
        assert store.contents() == before
    else:
        # What was accepted lies within the layer.
        store.images.remove(reference)
        assert store.contents() == before


@needs_root
@pytest.mark.parametrize(
    "name", ["../../evil", "/etc/../../evil", "blobs/sha256/../../../evil", "a/../../evil", "\x00evil"]
)
def test_names_of_the_outer_archive_are_no_paths(store: Store, tmp_path: Path, name: str) -> None:
    archive = build_tar([entry(name, data=b"x"), entry("l", "link", linkname="/etc/passwd")])
    before = store.contents()
    with pytest.raises((InvalidError, CorruptError)):
        store.images.load(io.BytesIO(archive))
    assert store.contents() == before
    assert not any("evil" in name for _, _, names in os.walk(tmp_path) for name in names)


@needs_root
def test_a_manifest_cannot_name_a_file_of_the_host(store: Store, victim: Path) -> None:
    config = build_config(digest(VICTIM))
    for name in (str(victim), up(victim), "link", "hard"):
        manifest = [{"Config": "c.json", "RepoTags": ["a:b"], "Layers": [name]}]
        archive = build_tar(
            [
                entry("c.json", data=config),
                entry("link", "link", linkname=str(victim)),
                entry("hard", "hard", linkname=str(victim)),
                entry("manifest.json", data=json.dumps(manifest).encode()),
            ]
        )
        with pytest.raises(CorruptError, match="lacks"):
            store.images.load(io.BytesIO(archive))


@needs_root
def test_overlay_attributes_are_not_taken(store: Store) -> None:
    layer = build_tar(
        [
            entry("d", "dir", pax_headers={"SCHILY.xattr.trusted.overlay.redirect": "/secret"}),
            entry(
                "f",
                pax_headers={"SCHILY.xattr.trusted.overlay.metacopy": "", "SCHILY.xattr.user.overlay.x": "y"},
            ),
        ]
    )
    store.images.load(io.BytesIO(build_docker_archive(layer)))
    tree = store.tree(digest(layer))
    assert os.listxattr(tree / "d") == []
    assert os.listxattr(tree / "f") == ["user.overlay.x"]  # a file's own here: overlayfs has "trusted."


@needs_root
def test_nobody_else_reaches_set_user_id_programs_and_devices(store: Store) -> None:
    layer = build_tar(
        [entry("su", data=b"#!", mode=0o4755), entry("disk", "block", mode=0o666, devmajor=8, devminor=0)]
    )
    store.images.load(io.BytesIO(build_docker_archive(layer)))
    tree = store.tree(digest(layer))
    assert stat.S_IMODE(os.stat(tree / "su").st_mode) == 0o4755
    assert stat.S_IMODE(os.stat(store.root.layers / store.snapshotter.name).st_mode) == 0o700


# -- sizes and headers -----------------------------------------------------------------------------------


def header(size: bytes, kind: bytes = b"0", name: bytes = b"x") -> bytes:
    """A raw tar header with a right checksum."""
    block = bytearray(512)
    block[: len(name)] = name
    block[100:108] = b"0000644\0"
    block[108:116] = b"0000000\0"
    block[116:124] = b"0000000\0"
    block[124:136] = size
    block[136:148] = b"00000000000\0"
    block[156:157] = kind
    block[257:265] = b"ustar\x0000"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def binary(value: int) -> bytes:
    """A size in GNU's base-256 form."""
    return b"\x80" + value.to_bytes(11, "big") if value >= 0 else (value + (1 << 96)).to_bytes(12, "big")


HEADERS = {
    "more than there is": header(b"00001000000\0") + bytes(512),
    "exabytes": header(binary(1 << 62)),
    "petabytes": header(binary(1 << 50)),
    "negative": header(binary(-512)) + bytes(1024),
    "exabytes of a link": header(binary(1 << 62), b"2"),
    "huge extended header": header(binary(1 << 40), b"x"),
    "huge global header": header(binary(1 << 40), b"g"),
    "huge long name": header(binary(1 << 40), b"L"),
    "unknown type of huge size": header(binary(1 << 50), b"Q"),
    "no number": header(b"zzzzzzzzzzz\0"),
    "long names without end": header(b"00000000001\0", b"L") * 1 + bytes(512),
    "a thousand headers for headers": (header(b"00000000002\0", b"L") + b"a\0" + bytes(510)) * 3000,
    "cut in a header": header(b"00000000000\0")[:300],
    "extended header that lies about its length": header(b"00000000020\0", b"x")
    + b"99 path=x\n".ljust(512, b"\0"),
    "extended header with a negative size": header(b"00000000013\0", b"x")
    + b"11 size=-9\n".ljust(512, b"\0")
    + header(b"00000000000\0"),
    "sparse parts that overlap": header(b"00000000046\0", b"x")
    + b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n".ljust(512, b"\0")[:512]
    + header(b"00000001000\0")
    + b"2\n5\n5\n3\n9\n".ljust(512, b"\0"),
    "sparse map without end": header(b"00000000054\0", b"x")
    + b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n".ljust(512, b"\0")
    + header(b"00000001000\0")
    + b"99999999999\n".ljust(512, b"1"),
    "garbage in the middle": header(b"00000000000\0") + b"\xff" * 512 + header(b"00000000000\0", name=b"y"),
}


def read_all(file: BinaryIO, out: Path, *, seekable: bool) -> None:
    """Read an archive with the contents of its files."""
    reader = TarReader(FileSource(file.fileno()) if seekable else StreamSource(file), "archive x")
    for item in reader:
        with open(out, "wb") as target:
            reader.copy(item, target.fileno())


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.parametrize("seekable", [True, False])
def test_headers_that_lie(name: str, seekable: bool, tmp_path: Path) -> None:
    (tmp_path / "archive").write_bytes(HEADERS[name])
    with open(tmp_path / "archive", "rb") as file, pytest.raises((CorruptError, UnsupportedError)) as raised:
        read_all(file, tmp_path / "out", seekable=seekable)
    assert raised.value.message.startswith("archive x")
    assert "\n" not in raised.value.message


@needs_root
@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", HEADERS)
def test_layers_whose_headers_lie(store: Store, name: str) -> None:
    before = store.contents()
    with pytest.raises((CorruptError, UnsupportedError)):
        store.images.load(io.BytesIO(build_docker_archive(HEADERS[name])))
    assert store.contents() == before


@given(st.binary(max_size=2000), st.integers(0, 3000))
@settings(max_examples=200, deadline=None)
def test_a_damaged_archive_is_refused_or_read_and_nothing_else(noise: bytes, place: int) -> None:
    whole = build_tar(
        [entry("a", data=b"x" * 700), entry("b" * 150, data=b"y"), entry("c", "link", linkname="a")]
    )
    damaged = whole[:place] + noise + whole[place + len(noise) :]
    reader = TarReader(StreamSource(io.BytesIO(damaged)), "archive x")
    try:
        for item in reader:
            for _ in reader.chunks(item):
                pass
    except PyDockError as error:
        assert error.message.startswith("archive x")


@given(st.text(st.sampled_from("ab./\\ \udcff"), max_size=20))
def test_a_cleaned_name_stays_inside(name: str) -> None:
    try:
        cleaned = clean_name(os.fsencode(name), "layer x")
    except InvalidError:
        assert ".." in name
        return
    parts = cleaned.split(b"/")
    assert not cleaned.startswith(b"/")
    assert b".." not in parts
    assert b"." not in parts
    assert cleaned == b"" or b"" not in parts


# -- truncated, bombs, wrong digests ---------------------------------------------------------------------

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstandard.compress,
}


@needs_root
@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_truncated_archives(store: Store, packer: str, part: float) -> None:
    layer = build_tar([entry("random", data=os.urandom(100_000))])
    whole = PACKERS[packer](build_docker_archive(layer, order="first"))
    before = store.contents()
    with pytest.raises(CorruptError, match="archive from standard input") as raised:
        store.images.load(io.BytesIO(whole[: int(len(whole) * part)]))
    assert "truncated" in raised.value.message or "not a valid tar" in raised.value.message
    assert store.contents() == before


@needs_root
@pytest.mark.parametrize("packer", PACKERS)
def test_damaged_archives(store: Store, packer: str) -> None:
    layer = build_tar([entry("random", data=os.urandom(100_000))])
    whole = bytearray(PACKERS[packer](build_docker_archive(layer)))
    middle = len(whole) // 2
    whole[middle] ^= 0xFF
    before = store.contents()
    with pytest.raises(CorruptError):
        store.images.load(io.BytesIO(bytes(whole)))
    assert store.contents() == before


@needs_root
def test_every_digest_of_an_oci_archive_is_compared(store: Store) -> None:
    layer = build_tar([entry("a", data=b"x")])
    members = oci_members([(layer, "application/vnd.oci.image.layer.v1.tar", digest(layer))])
    before = store.contents()
    for name in [name for name in members if name.startswith("blobs/")]:
        changed = {**members, name: members[name][:-1] + b"!"}
        with pytest.raises(CorruptError, match="has the digest"):
            store.images.load(io.BytesIO(tar_of(changed)))
        missing = {key: value for key, value in members.items() if key != name}
        with pytest.raises(CorruptError, match="lacks"):
            store.images.load(io.BytesIO(tar_of(missing)))
    index = json.loads(members["index.json"])
    index["manifests"][0]["size"] += 1
    with pytest.raises(CorruptError, match="bytes, not"):
        store.images.load(io.BytesIO(tar_of({**members, "index.json": json.dumps(index).encode()})))
    assert store.contents() == before


@needs_root
def test_every_digest_of_a_docker_archive_is_compared(store: Store) -> None:
    layer = build_tar([entry("a", data=b"x")])
    before = store.contents()
    with pytest.raises(CorruptError, match=r"layer 0/layer.tar has the digest"):
        store.images.load(io.BytesIO(build_docker_archive(layer, config=build_config(digest(b"other")))))
    config = build_config(digest(layer))
    manifest = [{"Config": "f" * 64 + ".json", "RepoTags": None, "Layers": ["0/layer.tar"]}]
    members = {
        "0/layer.tar": layer,
        "f" * 64 + ".json": config,
        "manifest.json": json.dumps(manifest).encode(),
    }
    with pytest.raises(CorruptError, match="config ffff"):
        store.images.load(io.BytesIO(tar_of(members)))
    assert store.contents() == before


@needs_root
def test_more_members_than_there_is_memory_for(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "_MEMBERS_LIMIT", 50)
    before = store.contents()
    bomb = build_tar([entry(f"{number}") for number in range(51)])
    with pytest.raises(InvalidError, match="more than 50 members"):
        store.images.load(io.BytesIO(bomb))
    assert store.contents() == before
    assert store.images.load(io.BytesIO(build_docker_archive(build_tar([entry("x")]))))


@pytest.mark.parametrize("name", ["manifest.json", "index.json"])
def test_more_images_than_anybody_saves(store: Store, name: str) -> None:
    described = {"mediaType": OCI_MANIFEST, "digest": digest(b""), "size": 0}
    documents = {
        "manifest.json": [{"Config": "c", "Layers": []}] * 10_001,
        "index.json": {"schemaVersion": 2, "manifests": [described] * 10_001},
    }
    with pytest.raises(CorruptError, match="names 10,001 images"):
        store.images.load(io.BytesIO(build_tar([entry(name, data=json.dumps(documents[name]).encode())])))
    assert store.images.list() == []


def test_a_name_that_is_none(store: Store) -> None:
    layer = build_tar([entry("a", data=b"x")])
    before = store.contents()
    with pytest.raises(InvalidError, match="Not A Name"):
        store.images.load(io.BytesIO(build_docker_archive(layer, tags=["Not A Name"])))
    assert store.contents() == before


@needs_root
def test_an_index_that_refers_to_itself_ends(store: Store) -> None:
    def descriptor(data: bytes) -> dict[str, object]:
        return {
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "digest": digest(data),
            "size": len(data),
        }

    inner = json.dumps({"schemaVersion": 2, "manifests": []}).encode()
    members = {}
    for _ in range(10):
        members["blobs/sha256/" + digest(inner)[7:]] = inner
        inner = json.dumps({"schemaVersion": 2, "manifests": [descriptor(inner)]}).encode()
    members["index.json"] = inner
    with pytest.raises(UnsupportedError):
        store.images.load(io.BytesIO(tar_of(members)))


# -- a full disk -----------------------------------------------------------------------------------------


@needs_root
@pytest.mark.parametrize("layer_mib", [1, 6, 30])
@pytest.mark.parametrize("source", ["docker", "import", "gzip layer"])
@pytest.mark.parametrize("driver", ["directory", "erofs"])
def test_a_full_disk_leaves_the_store_as_it_was(
    tmp_path: Path, layer_mib: int, source: str, driver: str
) -> None:
    """A disk of 10 MiB: it fills while the archive is read (30), while the layer is applied (6); 1 goes
    in.
    """
    if driver == "erofs" and (reason := no_erofs(tmp_path)):
        pytest.skip(reason)
    # An index over a plain blob takes next to nothing more.
    fits = layer_mib == 1 or (driver == "erofs" and layer_mib == 6 and source != "gzip layer")
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=10m", "tmpfs", disk], check=False, capture_output=True
    )
    if done.returncode:
        pytest.skip(f"tmpfs cannot be mounted: {done.stderr.decode()}")
    try:
        store = open_store(disk, driver)
        first = build_tar([entry("small", data=b"1")])
        store.images.load(io.BytesIO(build_docker_archive(first, tags=["small:1"])))
        before, listed = store.contents(), store.images.list()
        # gzip makes nothing of random data: the blob is as large as the layer.
        layer = build_tar([entry(f"random{n}", data=os.urandom(1 << 20)) for n in range(layer_mib)])
        archive = build_docker_archive(layer, tags=["large:1"])
        if source == "gzip layer":
            media_type = "application/vnd.oci.image.layer.v1.tar+gzip"
            archive = tar_of(oci_members([(gzip.compress(layer), media_type, digest(layer))], "large:1"))

        def add() -> object:
            if source == "import":
                return store.images.import_(io.BytesIO(layer), "large:1")
            return store.images.load(io.BytesIO(archive))

        if fits:
            add()
            assert store.images.resolve("large:1")
        else:
            with pytest.raises(UnavailableError, match="no space left") as raised:
                add()
            assert "rmi" in raised.value.hint
            assert store.contents() == before
            assert store.images.list() == listed
            store.images.remove("small:1")
        store.close()
    finally:
        subprocess.run(["umount", disk], check=True)


def test_the_tar_header_helper_is_right() -> None:
    """The attacks above are worth something only if their headers are read at all."""
    data = header(b"00000000003\0") + b"abc".ljust(512, b"\0") + bytes(1024)
    (item,) = TarReader(StreamSource(io.BytesIO(data)), "x")
    assert (item.name, item.size_bytes) == (b"x", 3)
    assert struct.calcsize("l") in (4, 8)


# -- memory ----------------------------------------------------------------------------------------------


def repeated(kind: bytes, body: bytes, count: int) -> bytes:
    """Many headers of one kind, each with a body."""
    block = header(b"%011o\0" % len(body), kind) + body + bytes(-len(body) % 512)
    return block * count


def records(size: int, prefix: str) -> bytes:
    """The records of an extended header of about so many bytes, each with a name of its own."""
    found = []
    for number in range(size // 16):
        rest = f" {prefix}{number:07}=1\n"
        found.append(f"{len(rest) + 2:02}{rest}")
    return "".join(found).encode()


def gnu_map(blocks: int) -> bytes:
    """A sparse file of the old GNU format whose map goes on for some blocks."""
    block = bytearray(header(b"00000000000\0", b"S"))
    block[257:265] = b"ustar  \0"
    block[482] = 1
    block[483:495] = b"77777777777\0"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    part = (b"%011o\0" % 512 + b"%011o\0" % 512) * 21
    return bytes(block) + (part.ljust(504, b"\0") + b"\1" + bytes(7)) * blocks


def tar_record(key: str, value: str) -> bytes:
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    return f"{rest + len(str(length))} {key}={value}\n".encode()


def map_1_0(size: int) -> bytes:
    """A sparse file of format 1.0 with a map of so many bytes."""
    described = b"".join(
        tar_record(f"GNU.sparse.{key}", value)
        for key, value in (("major", "1"), ("minor", "0"), ("realsize", "99999"))
    )
    body = b"99999999\n" + b"999999999\n" * (size // 10)
    return repeated(b"x", described, 1) + header(b"%011o\0" % len(body)) + body


ENTRY = header(b"00000000000\0")
FULL = {
    "global headers": lambda: b"".join(repeated(b"g", records(1 << 20, chr(97 + n)), 1) for n in range(26)),
    "global headers between entries": lambda: b"".join(
        repeated(b"g", records(40_000, chr(97 + n)), 1) + ENTRY for n in range(26)
    ),
    "extended headers": lambda: repeated(b"x", records(1 << 19, "a"), 50),
    "long names": lambda: repeated(b"L", b"n" * (1 << 20), 50),
    "long names and links": lambda: (
        (repeated(b"L", b"n" * 600_000, 1) + repeated(b"K", b"n" * 600_000, 1)) * 9
    ),
    "old GNU sparse map": lambda: gnu_map(40_000),
    "sparse map": lambda: map_1_0(4 << 20),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", FULL)
def test_what_headers_take_in_memory_is_bounded(name: str, tmp_path: Path) -> None:
    (tmp_path / "archive").write_bytes(FULL[name]() + ENTRY + bytes(1024))
    with open(tmp_path / "archive", "rb") as file:
        tracemalloc.start()
        try:
            for source in (FileSource(file.fileno()), StreamSource(file)):
                tracemalloc.reset_peak()
                with pytest.raises(CorruptError, match="take more than"):
                    for _ in TarReader(source, "archive x"):
                        pass
                assert tracemalloc.get_traced_memory()[1] < 40 << 20
        finally:
            tracemalloc.stop()
        assert file.tell() < 4 << 20


def test_more_names_than_there_is_memory_for(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "_NAMES_LIMIT_BYTES", 10_000)
    with pytest.raises(InvalidError, match="of names"):
        store.images.load(io.BytesIO(build_tar([entry(f"{n}" + "x" * 900) for n in range(12)])))


# -- sparse files, and the prefix field ------------------------------------------------------------------


def sparse_layers() -> dict[str, bytes]:
    """Sparse files that claim more data than is stored for them, followed by an entry."""
    claims = build_tar(
        [
            entry(
                "s",
                data=b"x" * 512,
                pax_headers={"GNU.sparse.size": "8192", "GNU.sparse.map": "0,512,4096,1024"},
            )
        ]
    )
    described = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "8192"}
    modern = build_tar(
        [entry("s", data=b"1\n0\n4096\n".ljust(512, b"\0") + b"x" * 512, pax_headers=described)]
    )
    old = bytearray(header(b"00000001000\0", b"S") + b"x" * 512)
    old[257:265] = b"ustar  \0"
    old[386:434] = b"".join(b"%011o\0" % number for number in (0, 512, 4096, 1024))
    old[483:495] = b"%011o\0" % 8192
    old[148:156] = b" " * 8
    old[148:156] = b"%06o\0 " % sum(old[:512])
    return {
        f"{name}, {where}": data.rstrip(b"\0").ljust(-(-len(data.rstrip(b"\0")) // 512) * 512, b"\0") + after
        for name, data in (("0.1", claims), ("1.0", modern), ("old", bytes(old)))
        for where, after in (
            ("at the end", bytes(1024)),
            ("before others", header(b"00000010000\0", name=b"secret") + b"S" * 4096 + bytes(1024)),
        )
    }


@needs_root
def test_a_sparse_file_has_no_more_data_than_is_stored(store: Store) -> None:
    before = store.contents()
    for name, layer in sparse_layers().items():
        with pytest.raises(CorruptError, match="claims more data than it has"):
            store.images.load(io.BytesIO(build_docker_archive(layer, tags=[f"s:{len(name)}"])))
    assert store.contents() == before


def test_a_sparse_file_of_more_data_than_a_header_can_say(tmp_path: Path) -> None:
    """The size of what is stored is in the extended header then, beside the size of the file."""
    large = 9 << 30
    with open(tmp_path / "archive", "w+b") as file:
        described = b"".join(
            tar_record(key, value)
            for key, value in (
                ("GNU.sparse.major", "1"),
                ("GNU.sparse.minor", "0"),
                ("GNU.sparse.name", "large"),
                ("GNU.sparse.realsize", str(2 * large)),
                ("size", str(large + 512)),
            )
        )
        file.write(
            repeated(b"x", described, 1)
            + header(b"00000000000\0")
            + f"1\n0\n{large}\n".encode().ljust(512, b"\0")
        )
        file.seek(large, os.SEEK_CUR)
        file.write(header(b"00000000000\0", name=b"after") + bytes(1024))
        file.seek(0)
        found = list(TarReader(FileSource(file.fileno()), "archive x"))
        assert [(item.name, item.size_bytes, item.segments) for item in found] == [
            (b"large", 2 * large, ((0, large),)),
            (b"after", 0, None),
        ]


PREFIXES = {
    # magic, the prefix field, trailer: what the name is
    "POSIX": (b"ustar\x0000", b"before", b"", "before/x"),
    "old GNU with times": (b"ustar  \0", b"14000000000\x0014000000001\0", b"", "x"),
    "old GNU with binary times": (b"ustar  \0", b"\x80" + bytes(7) + b"\1\2\3\4", b"", "x"),
    # A defect of Go before 1.8, which its later versions read too.
    "GNU with a prefix": (b"ustar  \0", b"before/some/directory", b"", "before/some/directory/x"),
    "V7": (bytes(8), b"14000000000", b"", "x"),
    "star": (b"ustar\x0000", b"before".ljust(131, b"\0") + b"14000000000 14000000001 ", b"tar\0", "before/x"),
    "star without a prefix": (b"ustar\x0000", bytes(131) + b"14000000000 14000000001 ", b"tar\0", "x"),
    "star with a full prefix": (
        b"ustar\x0000",
        b"p" * 131 + b"14000000000 14000000001 ",
        b"tar\0",
        "p" * 131 + "/x",
    ),
}


@pytest.mark.parametrize("name", PREFIXES)
def test_the_magic_decides_what_the_prefix_field_is(name: str, tmp_path: Path) -> None:
    magic, prefix, trailer, expected = PREFIXES[name]
    block = bytearray(header(b"00000000000\0"))
    block[257:265] = magic
    block[345 : 345 + len(prefix)] = prefix
    block[508 : 508 + len(trailer)] = trailer
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    (tmp_path / "archive").write_bytes(bytes(block) + bytes(1024))
    with open(tmp_path / "archive", "rb") as file:
        assert [item.text for item in TarReader(StreamSource(file), "x")] == [expected]


# -- names -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tag", ["sha256:" + "0" * 64, "sha256:latest", "docker.io/library/sha256:x", "0" * 64]
)
def test_a_name_that_reads_as_an_id(store: Store, tag: str) -> None:
    layer = build_tar([entry("a", data=b"x")])
    members = oci_members([(layer, "application/vnd.oci.image.layer.v1.tar", digest(layer))], tag)
    before = store.contents()
    archives = [build_docker_archive(layer, tags=[tag])]
    if ":" in tag:  # a layout may have a bare tag, which names no repository
        archives.append(tar_of(members))
    for archive in archives:
        with pytest.raises(InvalidError, match="invalid reference format"):
            store.images.load(io.BytesIO(archive))
    with pytest.raises(InvalidError):
        store.images.import_(io.BytesIO(layer), tag)
    assert store.contents() == before
    assert store.images.list() == []


@pytest.mark.parametrize(
    ("name", "content"),
    [("manifest.json", b"[]"), ("index.json", b'{"manifests": []}'), ("repositories", b"{}")],
)
def test_an_archive_of_no_images(store: Store, name: str, content: bytes) -> None:
    with pytest.raises(InvalidError, match=f"contains no images: its {name} is empty"):
        store.images.load(io.BytesIO(build_tar([entry(name, data=content)])))


LONG = "n" * 200_000
LONG_NAMES: dict[str, bytes] = {
    "member": build_tar([entry("../" + LONG, data=b"x")]),
    "tag": build_docker_archive(build_tar([entry("a")]), tags=[LONG]),
    "config": build_tar([entry("manifest.json", data=json.dumps([{"Config": LONG, "Layers": []}]).encode())]),
    "layer's entry": build_docker_archive(build_tar([entry("../" + LONG, data=b"x")])),
    "hard link's target": build_docker_archive(build_tar([entry("h", "hard", linkname="../" + LONG)])),
    "media type": build_tar(
        [
            entry(
                "index.json",
                data=json.dumps(
                    {"manifests": [{"mediaType": LONG, "digest": digest(b""), "size": 0}]}
                ).encode(),
            )
        ]
    ),
}


@pytest.mark.parametrize("name", LONG_NAMES)
def test_a_long_name_is_shortened_in_an_error(store: Store, name: str) -> None:
    with pytest.raises(PyDockError) as raised:
        store.images.load(io.BytesIO(LONG_NAMES[name]))
    assert 100 < len(raised.value.line) < 1100
    assert "nnn [...] nnn" in raised.value.line
    assert len(from_json(raised.value.to_json()).line) < 1100


HARD_LINKS: dict[str, tuple[list[tuple[tarfile.TarInfo, bytes]], str]] = {
    "whiteout": ([entry(".wh.gone"), entry("h", "hard", linkname="gone")], "which does not exist"),
    "whiteout through a link": (
        [
            entry("d", "dir"),
            entry("l", "link", linkname="d"),
            entry("l/.wh.gone"),
            entry("h", "hard", linkname="d/gone"),
        ],
        "which does not exist",
    ),
    "device that is one": (
        [entry("gone", "char", devmajor=0, devminor=0), entry("h", "hard", linkname="gone")],
        "which does not exist",
    ),
    "out": ([entry("h", "hard", linkname="../../x")], r"hard link 'h' leads to '../../x', out of the image"),
}


@needs_root
@pytest.mark.parametrize("name", HARD_LINKS)
def test_hard_links_to_what_is_not_there(store: Store, name: str) -> None:
    entries, message = HARD_LINKS[name]
    before = store.contents()
    with pytest.raises(InvalidError, match=message):
        store.images.load(io.BytesIO(build_docker_archive(build_tar(entries))))
    assert store.contents() == before
