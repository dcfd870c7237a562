"""Any bytes as a tar: read or refused with an error of ours; and the fast scan says what the careful reader says."""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from hypothesis import given, settings
from hypothesis import strategies as st

from pydock_core.errors import PyDockError
from pydock_core.store.tar_reader import Entry, ForwardSource, TarReader
from pydock_core.store.tar_scan import scan_tar
from tests.support.image_store import build_tar, entry

bounded = settings(max_examples=150, deadline=None, derandomize=True)

NAMES = st.one_of(
    st.text("ab./é\udcff", min_size=1, max_size=12),
    st.sampled_from(["a" * 99, "a" * 100, "a" * 101, "d/" * 60 + "x", "x" * 300, ".wh.a", "é" * 60]),
)
KINDS = st.sampled_from(["file", "dir", "link", "hard", "char", "fifo"])
FORMATS = st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])


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
            more["pax_headers"] = {"SCHILY.xattr.user.a": "b"}
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


def outcome(entries: Callable[[], Iterator[Any]]) -> tuple[list[Any], type[PyDockError] | None, str]:
    """What was read until the end or an error, and the error."""
    found: list[Any] = []
    try:
        found.extend(entries())
    except PyDockError as error:
        assert error.message.startswith("archive x")
        assert "\n" not in error.message
        return found, type(error), error.message
    return found, None, ""


def seen(item: Entry) -> tuple[Any, ...]:
    """An entry as the scan gives it."""
    whole = item.segments in ((), ((0, item.size_bytes),))
    return (
        os.fsencode(item.name), item.kind, item.mode, item.uid, item.gid, item.size_bytes, item.mtime_ns,
        os.fsencode(item.link), item.device, item.xattrs, None if whole else item.segments, item.offset,
    )  # fmt: skip


def compared(file: BinaryIO) -> None:
    found: list[Any] = []

    def scan() -> Iterator[Any]:
        for item in scan_tar(file, "archive x"):
            found.append(item)
            yield item

    scanned, scan_kind, scan_message = outcome(scan)
    file.seek(0)
    read, read_kind, read_message = outcome(lambda: iter(TarReader(file, "archive x")))
    assert (scan_kind, scan_message) == (read_kind, read_message)
    as_scanned = [
        (*item[:10], None if item[10] in (None, (), ((0, item[5]),)) else item[10], item[11])
        for item in scanned
    ]
    expected = [seen(item) for item in read]
    # The scan need not hand on an entry first whose data turns out to be cut off.
    cut = bool(read_kind) and len(as_scanned) == len(expected) - 1
    assert as_scanned == (expected[:-1] if cut else expected)


@given(damaged())
@settings(bounded, max_examples=400)
def test_the_scan_says_what_the_reader_says(data: bytes) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        file.seek(0)
        compared(file)


@given(damaged() | st.binary(max_size=3000))
@bounded
def test_any_bytes_as_a_stream(data: bytes) -> None:
    def read() -> Iterator[int]:
        reader = TarReader(ForwardSource(io.BytesIO(data)), "archive x")
        for item in reader:
            yield sum(len(chunk) for chunk in reader.chunks(item))

    outcome(read)
