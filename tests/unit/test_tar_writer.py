"""The tar writer: what it writes is read back the same by tarfile, by GNU tar and by our own reader."""

from __future__ import annotations

import errno
import io
import os
import shutil
import stat
import subprocess
import tarfile
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydock_core.store.growing_file import FollowingDigest
from pydock_core.store.tar_reader import TarReader
from pydock_core.store.tar_source import StreamSource
from pydock_core.store.tar_writer import TarWriter, build_header, write_all
from tests.support.image_store import digest

_COMPONENT = st.binary(min_size=1, max_size=120).filter(
    lambda name: not set(name) & {0, 0x2F} and name not in (b".", b"..")
)
_NAMES = st.lists(_COMPONENT, min_size=1, max_size=6).map(b"/".join)
_KINDS = st.sampled_from(
    [stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, 0]
)
_IDS = st.integers(0, (1 << 32) - 2) | st.integers((1 << 21) - 2, (1 << 21) + 1)
_TIMES = st.integers(0, (1 << 63) - 1) | st.integers(0, ((1 << 63) - 1) // 10**9).map(
    lambda seconds: seconds * 10**9
)
# A pax header's keyword ends at the first "=" (POSIX.1-2001), so a name cannot have one.
_XATTRS = st.dictionaries(
    st.text("abc.é", min_size=1, max_size=20).map(lambda name: f"user.{name}".encode()),
    st.binary(max_size=600),
    max_size=3,
)


@dataclass(frozen=True)
class Written:
    """An entry, as it was given to the writer."""

    name: bytes
    kind: int
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    link: bytes
    device: tuple[int, int]
    xattrs: tuple[tuple[bytes, bytes], ...]
    data: bytes


@st.composite
def _entries(draw: st.DrawFn) -> Written:
    kind = draw(_KINDS)
    return Written(
        draw(_NAMES),
        kind,
        draw(st.integers(0, 0o7777)),
        draw(_IDS),
        draw(_IDS),
        draw(_TIMES),
        draw(_NAMES) if kind in (0, stat.S_IFLNK) else b"",
        (draw(st.integers(0, 4095)), draw(st.integers(0, (1 << 20) - 1)))
        if kind in (stat.S_IFCHR, stat.S_IFBLK)
        else (0, 0),
        tuple(draw(_XATTRS).items()),
        draw(st.binary(max_size=1500)) if kind == stat.S_IFREG else b"",
    )


def build(entries: list[Written]) -> bytes:
    buffer = io.BytesIO()
    writer = TarWriter(buffer.write)
    for entry in entries:
        header = build_header(
            entry.name,
            entry.kind,
            mode=entry.mode,
            uid=entry.uid,
            gid=entry.gid,
            size_bytes=len(entry.data),
            mtime_ns=entry.mtime_ns,
            link=entry.link,
            device=entry.device,
            xattrs=entry.xattrs,
        )
        writer.put(header + entry.data)
        writer.pad(len(entry.data))
    writer.finish()
    assert writer.size_bytes == len(buffer.getvalue())
    return buffer.getvalue()


@given(st.lists(_entries(), max_size=5))
def test_our_reader_gets_back_what_was_written(entries: list[Written]) -> None:
    reader = TarReader(StreamSource(io.BytesIO(build(entries))), "it")
    for expected, found in zip(entries, reader, strict=True):
        assert found.name.rstrip(b"/") == expected.name
        assert (found.kind, found.mode, found.uid, found.gid) == (
            expected.kind,
            expected.mode,
            expected.uid,
            expected.gid,
        )
        assert found.mtime_ns == expected.mtime_ns
        assert found.link == expected.link
        assert b"".join(reader.chunks(found)) == expected.data
        if expected.device != (0, 0):
            assert found.device == expected.device
        assert dict(found.xattrs) == dict(expected.xattrs)
    assert reader.ended


@given(st.lists(_entries(), max_size=5))
def test_tarfile_gets_back_what_was_written(entries: list[Written]) -> None:
    with tarfile.open(
        fileobj=io.BytesIO(build(entries)), encoding="utf-8", errors="surrogateescape"
    ) as archive:
        for expected, found in zip(entries, archive.getmembers(), strict=True):
            assert os.fsencode(found.name).rstrip(b"/") == expected.name
            assert (found.mode, found.uid, found.gid) == (expected.mode, expected.uid, expected.gid)
            assert os.fsencode(found.linkname) == expected.link
            assert found.size == len(expected.data)


@pytest.mark.skipif(shutil.which("tar") is None, reason="needs GNU tar")
def test_gnu_tar_unpacks_what_was_written(tmp_path: Path) -> None:
    names = [
        b"plain",
        "äöü".encode(),
        b"not utf-8 \xff\xfe",
        b"d" * 100,
        b"e" * 101,
        b"p" * 155 + b"/" + b"n" * 100,
        b"/".join([b"long"] * 80),
        b"u" * 99 + "ä".encode(),
        b"a=b\nc",
    ]
    entries = [
        Written(name, stat.S_IFREG, 0o640, 5, 6, 1_700_000_000_000_000_007, b"", (0, 0), (), name)
        for name in names
    ]
    link = Written(b"link", stat.S_IFLNK, 0o777, 0, 0, 0, b"t" * 300, (0, 0), (), b"")
    (tmp_path / "it.tar").write_bytes(build([*entries, link]))
    done = subprocess.run(
        ["tar", "-xf", tmp_path / "it.tar", "--no-same-owner", "-C", tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    for name in names:
        path = os.path.join(os.fsencode(tmp_path), name)
        assert Path(os.fsdecode(path)).read_bytes() == name
        assert os.stat(path).st_mtime_ns == 1_700_000_000_000_000_007
    assert os.readlink(tmp_path / "link") == "t" * 300


def test_what_ustar_can_say_needs_no_pax_header() -> None:
    header = build_header(b"p" * 155 + b"/" + b"n" * 100, stat.S_IFREG, mtime_ns=((1 << 33) - 1) * 10**9)
    assert len(header) == 512
    assert len(build_header(b"n", stat.S_IFREG, mtime_ns=1)) == 1536


@pytest.mark.parametrize(("size", "blocks"), [((1 << 33) - 1, 1), (1 << 33, 3), (1 << 62, 3)])
def test_large_sizes(size: int, blocks: int) -> None:
    header = build_header(b"huge", stat.S_IFREG, size_bytes=size)
    assert len(header) == blocks * 512
    with tarfile.open(fileobj=io.BytesIO(header + bytes(1024))) as archive:
        assert archive.next().size == size  # type: ignore[union-attr]  # there is one


def test_a_socket_has_no_header() -> None:
    with pytest.raises(KeyError):
        build_header(b"socket", stat.S_IFSOCK)


@pytest.mark.parametrize("size", [0, 1, 512, 100_000, 300_000, 20_000_000])
@pytest.mark.parametrize("flags", [0, os.O_APPEND])
def test_data_of_files(tmp_path: Path, size: int, flags: int) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    data = os.urandom(size)
    source.write_bytes(data)
    source_fd = os.open(source, os.O_RDONLY)
    fd = os.open(target, os.O_RDWR | os.O_CREAT | flags)
    reports: list[int] = []
    with FollowingDigest(fd) as following:

        def written(count: int) -> None:
            reports.append(count)
            following.advance(count)

        writer = TarWriter(lambda piece: write_all(fd, piece), fd, written)
        writer.put(build_header(b"it", stat.S_IFREG, size_bytes=size))
        assert writer.copy(source_fd, size)
        writer.finish()
        found = following.finish()
    os.close(source_fd)
    os.close(fd)
    archive = target.read_bytes()
    assert found == digest(archive)
    assert reports == sorted(reports)
    assert reports[-1] == len(archive) == writer.size_bytes
    reader = TarReader(StreamSource(io.BytesIO(archive)), "it")
    (entry,) = [entry for entry in reader if b"".join(reader.chunks(entry)) == data]
    assert entry.size_bytes == size


@pytest.mark.parametrize(("there", "said"), [(100, 1000), (300_000, 900_000)])
def test_a_file_that_became_shorter_is_filled_with_zeros(tmp_path: Path, there: int, said: int) -> None:
    (tmp_path / "source").write_bytes(b"x" * there)
    with open(tmp_path / "source", "rb") as source, open(tmp_path / "target", "wb", buffering=0) as target:
        writer = TarWriter(target.write, target.fileno())
        assert not writer.copy(source.fileno(), said)
        writer.flush()
    assert (tmp_path / "target").read_bytes() == b"x" * there + bytes(said - there + -said % 512)


def test_through_a_pipe(tmp_path: Path) -> None:
    data = os.urandom(1_000_000)
    (tmp_path / "source").write_bytes(data)
    read_fd, write_fd = os.pipe()
    found: list[bytes] = []

    def drain() -> None:
        with open(read_fd, "rb") as stream:
            found.append(stream.read())

    reader = threading.Thread(target=drain)
    reader.start()
    with open(tmp_path / "source", "rb") as source:
        writer = TarWriter(lambda piece: write_all(write_fd, piece), write_fd)
        writer.copy(source.fileno(), len(data))
        writer.flush()
    os.close(write_fd)
    reader.join()
    assert found[0][: len(data)] == data


def test_failures_of_writing_pass_through(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"x" * 1_000_000)
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    with open(tmp_path / "source", "rb") as source:
        writer = TarWriter(lambda piece: write_all(write_fd, piece), write_fd)
        with pytest.raises(OSError, match="Broken pipe") as raised:
            writer.copy(source.fileno(), 1_000_000)
    os.close(write_fd)
    assert raised.value.errno == errno.EPIPE


def test_a_digest_of_what_is_there_already(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(40_000_000))
    with open(path, "rb") as file, FollowingDigest(file.fileno(), path.stat().st_size) as following:
        assert following.finish() == digest(path.read_bytes())


@pytest.mark.timeout(10)
def test_a_digest_is_given_up_when_the_writer_fails(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(40_000_000))
    with (
        open(path, "rb") as file,
        pytest.raises(ZeroDivisionError),
        FollowingDigest(file.fileno(), path.stat().st_size),
    ):
        raise ZeroDivisionError


def test_a_digest_of_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT)
    with FollowingDigest(fd) as following:
        following.advance(10)
        with pytest.raises(OSError, match="Bad file descriptor"):
            following.finish()
    os.close(fd)
