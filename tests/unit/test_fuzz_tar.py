"""Any bytes as a tar: read or refused with an error of ours; a file and a stream alike; valid ones as tarfile reads them."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import tempfile
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pydock_core.errors import PyDockError
from pydock_core.store.tar_reader import Entry, TarReader
from pydock_core.store.tar_source import FileSource, Source, StreamSource
from tests.support.image_store import build_tar, entry

bounded = settings(max_examples=150, deadline=None, derandomize=True)

NAMES = st.one_of(
    st.text("ab./é\udcff", min_size=1, max_size=12),
    st.sampled_from(["a" * 99, "a" * 100, "a" * 101, "d/" * 60 + "x", "x" * 300, ".wh.a", "é" * 60]),
)
KINDS = st.sampled_from(["file", "dir", "link", "hard", "char", "fifo"])
FORMATS = st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
ATTRIBUTES = {"SCHILY.xattr.user.a": "b", "SCHILY.xattr.user.=": "=\n", "comment": "\udcff"}


@st.composite
def archives(draw: st.DrawFn) -> bytes:
    """A tar of a few entries, in any of the formats."""
    entries = []
    for _ in range(draw(st.integers(0, 5))):
        kind = draw(KINDS)
        more: dict[str, Any] = {}
        if kind in ("link", "hard"):
            more["linkname"] = draw(NAMES)
        if draw(st.booleans()):
            more["mtime"] = draw(st.sampled_from([0, 1, 1.5, 2**33, 2**40, -1]))
            more["uid"] = draw(st.sampled_from([0, 1000, 0o7777777, 0o10000000, 2**31]))
        if draw(st.booleans()):
            more["pax_headers"] = draw(
                st.dictionaries(st.sampled_from(list(ATTRIBUTES)), st.text("b=\n\udcff", min_size=1))
            )
        data = draw(st.binary(max_size=1500)) if kind == "file" else b""
        entries.append(entry(draw(NAMES), kind, data, **more))
    try:
        return build_tar(entries, draw(FORMATS))
    except ValueError:  # what a format cannot say
        return build_tar(entries, tarfile.PAX_FORMAT)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A tar in which some bytes are others, of headers mostly, or which is cut off."""
    data = bytearray(draw(archives()))
    for _ in range(draw(st.integers(0, 4))):
        block = draw(st.integers(0, max(len(data) // 512 - 1, 0))) * 512
        place = block + draw(
            st.sampled_from([0, 99, 100, 108, 116, 124, 135, 136, 148, 156, 157, 257, 345, 500])
        )
        if place < len(data):
            data[place] = draw(st.integers(0, 255))
            if draw(st.booleans()):
                fix_checksum(data, block)
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.integers(0, 9)) == 0 else data)


def fix_checksum(data: bytearray, block: int) -> None:
    header = data[block : block + 512]
    header[148:156] = b" " * 8
    data[block + 148 : block + 156] = b"%06o\0 " % sum(header)


class Trickle:
    """A stream of which a read returns a few bytes only."""

    def __init__(self, data: bytes, step: int) -> None:
        self._stream = io.BytesIO(data)
        self._step = step

    def read(self, size: int = -1, /) -> bytes:
        return self._stream.read(self._step if size < 0 else min(size, self._step))


def outcome(source: Source) -> tuple[list[tuple[Entry, bytes]], type[PyDockError] | None, str]:
    """What is read until the end or an error, and the error."""
    found = []
    reader = TarReader(source, "archive x")
    try:
        for item in reader:
            found.append((item, b"".join(reader.chunks(item)) if item.size_bytes < 1 << 20 else b""))
    except PyDockError as error:
        assert error.message.startswith("archive x")
        assert "\n" not in error.message
        return found, type(error), error.message
    return found, None, "end" if reader.ended else ""


@given(damaged() | st.binary(max_size=3000), st.integers(1, 2000))
@settings(bounded, max_examples=400)
def test_a_file_and_a_stream_are_read_alike(data: bytes, step: int) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(b"before" + data)
        file.flush()
        expected = outcome(FileSource(file.fileno(), len(b"before")))
    assert outcome(StreamSource(io.BytesIO(data))) == expected
    assert outcome(StreamSource(Trickle(data, step))) == expected


@given(archives())
@bounded
def test_a_valid_archive_is_read_as_tarfile_reads_it(data: bytes) -> None:
    found, error, _ = outcome(StreamSource(io.BytesIO(data)))
    assert error is None
    with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape") as archive:
        assert [as_tarfile(*item) for item in found] == [of_tarfile(archive, info) for info in archive]


_LATE = 2**33 * 10
"""Tenths of a second; later times are cut to what 64 bits of nanoseconds hold."""


def as_tarfile(item: Entry, data: bytes) -> tuple[object, ...]:
    return (
        os.fsdecode(item.name).rstrip("/"), item.kind, item.mode, item.uid, item.gid, item.size_bytes,
        min(item.mtime_ns // 10**8, _LATE), os.fsdecode(item.link), item.device, dict(item.xattrs), data,
    )  # fmt: skip


def of_tarfile(archive: tarfile.TarFile, info: tarfile.TarInfo) -> tuple[object, ...]:
    kinds = {
        tarfile.REGTYPE: stat.S_IFREG, tarfile.AREGTYPE: stat.S_IFREG, tarfile.DIRTYPE: stat.S_IFDIR,
        tarfile.SYMTYPE: stat.S_IFLNK, tarfile.LNKTYPE: 0, tarfile.CHRTYPE: stat.S_IFCHR, tarfile.FIFOTYPE: stat.S_IFIFO,
    }  # fmt: skip
    content = archive.extractfile(info) if info.isreg() else None
    prefix = "SCHILY.xattr."
    xattrs = {
        os.fsencode(key.removeprefix(prefix)): os.fsencode(value)
        for key, value in info.pax_headers.items()
        if key.startswith(prefix)
    }
    return (
        info.name.rstrip("/"), kinds[info.type], info.mode & 0o7777, info.uid, info.gid,
        info.size if info.isreg() else 0, min(max(int(info.mtime * 10), 0), _LATE), info.linkname,
        (info.devmajor, info.devminor), xattrs, content.read() if content else b"",
    )  # fmt: skip
