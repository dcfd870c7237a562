"""Valid archives of images, mutated: each is loaded, or refused with one of the documented errors, by both drivers."""

from __future__ import annotations

import bz2
import gzip
import importlib
import inspect
import io
import json
import lzma
import os
import random
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import zstandard

from pydock_core.errors import CorruptError, InvalidError, UnsupportedError
from pydock_core.store import compression
from pydock_core.store.tar_writer import TarWriter
from tests.support.image_store import (
    NEEDS_ROOT,
    ROOT,
    Store,
    build_docker_archive,
    build_tar,
    digest,
    entry,
    no_erofs,
    oci_members,
    open_store,
    tar_of,
)

DOCUMENTED = (CorruptError, InvalidError, UnsupportedError)
"""What :func:`pydock_core.images.archive.load_archive` says that it raises, but for a full disk."""
ROUNDS = int(os.environ.get("PYDOCK_FUZZ_ROUNDS", "1"))
"""1 in the suite; more for a longer search."""
SEED = int(os.environ.get("PYDOCK_FUZZ_SEED", "1"))
"""Fixed in the suite, so that a failure can be repeated; another one searches elsewhere."""
LOADS, STREAMS = 1500, 20_000
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"


def header(data: bytes, kind: bytes, name: bytes, rest: dict[int, bytes]) -> bytes:
    """A header in the old GNU format."""
    block = bytearray(512)
    block[: len(name)] = name
    block[100:124] = b"0000644\x000000000\x000000000\0"
    block[124:148] = b"%011o\x0000000000000\0" % len(data)
    block[156:157] = kind
    block[257:265] = b"ustar  \0"
    for place, field in rest.items():
        block[place : place + len(field)] = field
    fix_checksum(block, 0)
    return bytes(block)


def fix_checksum(data: bytearray, start: int) -> None:
    data[start + 148 : start + 156] = b" " * 8
    data[start + 148 : start + 156] = b"%06o\0 " % sum(data[start : start + 512])


def old_gnu_sparse() -> bytes:
    """A sparse file of the old GNU format, with an extended map, and a header with times in the prefix field."""
    numbers = [b"%011o\0" % number for number in (0, 512, 4096, 512, 8192, 512, 12288, 512)]
    extended = [b"%011o\0" % number for number in (16384, 512, 20480, 0)]
    data = b"d" * 2560
    rest = {386: b"".join(numbers), 482: b"\1", 483: b"%011o\0" % 20480}
    block = header(data, b"S", b"sparse", rest) + b"".join(extended).ljust(512, b"\0") + data
    times = header(b"", b"0", b"timed", {345: b"14000000000\x0014000000001\0"})
    return block + times + bytes(1024)


def new_gnu_sparse() -> bytes:
    """A sparse file as TarWriter writes it."""
    out = io.BytesIO()
    writer = TarWriter(out.write)
    with tempfile.TemporaryFile() as file:
        os.truncate(file.fileno(), 1 << 27)
        os.pwrite(file.fileno(), b"x" * 5000, 1 << 20)
        writer.put_file(b"d/sparse", file.fileno(), 1 << 27, mode=0o644)
    writer.finish()
    return out.getvalue()


def sparse_0(minor: int) -> bytes:
    """A sparse file of GNU's format 0.0 or 0.1: the map is in the extended header."""
    more = {"GNU.sparse.size": "8192", "GNU.sparse.numblocks": "2"}
    if minor:
        more |= {"GNU.sparse.map": "0,512,4096,512", "GNU.sparse.name": "s"}
    else:
        more |= {"GNU.sparse.offset": "4096", "GNU.sparse.numbytes": "1024"}
    return build_tar([entry("s", data=b"x" * 1024, pax_headers=more)])


PLAIN = build_tar([entry("d", "dir"), entry("d/f", data=b"x" * 700), entry("l", "link", linkname="d/f"),
                   entry("h", "hard", linkname="d/f"), entry("d/.wh.gone"), entry("d/.wh..wh..opq")])  # fmt: skip
LONG = build_tar(
    [entry("n/" * 80 + "f", data=b"1"), entry("y", "link", linkname="t" * 200)], tarfile.GNU_FORMAT
)
PAX = build_tar([entry("p" * 120, data=b"1", mtime=1.5, pax_headers={"SCHILY.xattr.user.a": "b"}),
                 entry("big", uid=1 << 22, data=b"2")], tarfile.PAX_FORMAT)  # fmt: skip


def linked(layer: bytes) -> bytes:
    """A docker-archive as podman writes it: a layer under its digest, and a link to it."""
    whole = build_docker_archive(layer)
    with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
        files = {m.name: archive.extractfile(m).read() for m in archive if m.isfile()}  # type: ignore[union-attr]  # files
    manifest = json.loads(files["manifest.json"])
    (name,) = manifest[0]["Layers"]
    members = [
        entry(f"{digest(layer)[7:]}.tar", data=files.pop(name)),
        entry(
            name,
            "link",
            linkname=f"../{digest(layer)[7:]}.tar" if "/" in name else f"{digest(layer)[7:]}.tar",
        ),
    ]
    return build_tar(members + [entry(key, data=value) for key, value in files.items()])


def oci(layer: bytes, pack: Callable[[bytes], bytes], suffix: str) -> bytes:
    return tar_of(oci_members([(pack(layer), OCI_LAYER + suffix, digest(layer))], "fuzzed:1"))


ARCHIVES: dict[str, bytes] = {
    "docker": build_docker_archive(PLAIN, LONG),
    "podman": linked(PLAIN),
    "oci gzip": oci(PLAIN, gzip.compress, "+gzip"),
    "oci zstd": oci(PAX, zstandard.compress, "+zstd"),
    "old GNU sparse": build_docker_archive(old_gnu_sparse()),
    "sparse 1.0": build_docker_archive(new_gnu_sparse()),
    "sparse 0.1": build_docker_archive(sparse_0(1)),
    "sparse 0.0": build_docker_archive(sparse_0(0)),
    "pax": build_docker_archive(PAX),
    "packed": gzip.compress(build_docker_archive(PAX)),
    "zstd": zstandard.compress(build_docker_archive(LONG)),
}

INTERESTING = [0, 1, 0x2F, 0x30, 0x37, 0x38, 0x4B, 0x4C, 0x53, 0x67, 0x78, 0x7F, 0x80, 0xFF]


def mutate(choose: random.Random, data: bytes) -> bytes:
    """Change an archive in a few places: bytes, numbers, whole blocks; headers keep a right checksum mostly."""
    changed = bytearray(data)
    for _ in range(choose.choice((1, 1, 1, 2, 4))):
        if not changed:
            break
        kind = choose.randrange(8)
        place = choose.randrange(len(changed))
        block = place & -512
        if kind < 3:
            changed[place] = choose.choice(INTERESTING) if choose.random() < 0.6 else choose.randrange(256)
        elif kind < 5:  # a field of a header
            field = choose.choice(
                (0, 100, 108, 116, 124, 124, 136, 156, 157, 257, 329, 345, 386, 482, 483, 508)
            )
            new = choose.choice(
                (b"\0", b"/", b"../", b"7" * 11, b"\x80" + b"\xff" * 11, b"0" * 11, choose.randbytes(4))
            )
            changed[block + field : block + field + len(new)] = new
        elif kind == 5:
            source = choose.randrange(len(changed)) & -512
            changed[block : block + 512] = changed[source : source + 512]
        elif kind == 6:
            del changed[block : block + 512 * choose.choice((1, 1, 2))]
        else:
            changed[place : place + choose.randrange(1, 20)] = choose.randbytes(choose.randrange(20))
        if choose.random() < 0.8 and block + 512 <= len(changed):
            fix_checksum(changed, block)
    if choose.random() < 0.05:
        del changed[choose.randrange(len(changed) + 1) :]
    return bytes(changed)


def inside(choose: random.Random, archive: bytes) -> bytes:
    """A mutated layer in an archive whose digests are right: what is refused is refused by what reads layers."""
    layers = (PLAIN, LONG, PAX, old_gnu_sparse(), new_gnu_sparse(), sparse_0(0), sparse_0(1))
    layer = mutate(choose, choose.choice(layers))
    return build_docker_archive(layer) if choose.random() < 0.5 else oci(layer, gzip.compress, "+gzip")


@pytest.fixture(params=["directory", "erofs"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if not ROOT:
        pytest.skip(NEEDS_ROOT)
    if request.param == "erofs" and (reason := no_erofs(tmp_path)):
        pytest.skip(reason)
    # In memory: nearly all the time would go into fsync.
    place = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else tmp_path
    with tempfile.TemporaryDirectory(dir=place) as base:
        opened = open_store(Path(base), request.param)
        yield opened
        opened.close()


@pytest.mark.slow
@pytest.mark.timeout(60 * ROUNDS)
def test_a_mutated_archive_is_loaded_or_refused(store: Store) -> None:
    choose = random.Random(SEED)
    names = list(ARCHIVES)
    refused = 0
    before = store.contents()
    for _ in range(LOADS * ROUNDS):
        name = choose.choice(names)
        data = inside(choose, ARCHIVES[name]) if choose.random() < 0.6 else mutate(choose, ARCHIVES[name])
        try:
            loaded = store.images.load(io.BytesIO(data))
        except DOCUMENTED as error:
            refused += 1
            assert "\n" not in error.message
            assert len(error.message) < 1000
        except Exception:
            place = (
                Path(tempfile.gettempdir()) / f"mutated-{os.getpid()}.tar"
            )  # what the traceback below is about
            place.write_bytes(data)
            raise
        else:
            for image in loaded:
                store.images.remove(image)
    store.empty_trash()
    assert store.contents() == before
    assert refused > LOADS * ROUNDS // 4


PACKERS: Sequence[tuple[str, Callable[[bytes], bytes]]] = (
    ("gzip", gzip.compress), ("bzip2", bz2.compress), ("xz", lzma.compress), ("zstd", zstandard.compress),
)  # fmt: skip


@pytest.mark.parametrize(("name", "pack"), PACKERS)
def test_a_mutated_stream_is_read_or_refused(name: str, pack: Callable[[bytes], bytes]) -> None:
    choose = random.Random(SEED + 1)
    whole = pack(b"some of the same, " * 200 + choose.randbytes(1500))
    refused = 0
    for _ in range(STREAMS * ROUNDS // len(PACKERS)):
        data = bytearray(whole)
        for _ in range(choose.choice((1, 1, 2, 5))):
            place = choose.randrange(40 if choose.random() < 0.5 else len(data))
            data[place] = choose.choice(INTERESTING) if choose.random() < 0.5 else choose.randrange(256)
        if choose.random() < 0.1:
            del data[choose.randrange(len(data)) :]
        try:
            stream = compression.open_plain(io.BytesIO(bytes(data)), name, "archive x")
            while stream.read(1000):
                pass
        except (CorruptError, UnsupportedError) as error:
            refused += 1
            assert error.message.startswith("archive x")
    assert refused > STREAMS * ROUNDS // len(PACKERS) // 5


def test_every_exception_of_a_decompressor_is_mapped() -> None:
    """The table of foreign exceptions is complete: whatever the modules define is in it."""
    for module in (
        "isal.igzip",
        "isal.igzip_lib",
        "isal.isal_zlib",
        "zstandard",
        "lzma",
        "bz2",
        "zlib",
        "gzip",
    ):
        for name, found in inspect.getmembers(importlib.import_module(module), inspect.isclass):
            if issubclass(found, Exception):
                assert issubclass(found, compression.damage_errors()), f"{module}.{name}"
