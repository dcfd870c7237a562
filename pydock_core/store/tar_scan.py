"""Scans the headers of a plain tar that lies on disk, without reading its data.

Headers in the plain ustar or GNU form, nearly all of most layers, are read here with a few slices each; whatever
else there is (extended headers, long names, sparse files, damage) goes to :class:`TarReader`, which has the rules.  So
an entry is the same, and a damaged archive gets the same error, whichever way it took.

An entry takes 2 us here, and 25 us (GNU long name) or 27 us (pax header) there, of which tarfile's parsing of the two or
three headers takes two thirds: its frombuf, with the checksum computed twice and 13 fields decoded one by one.  So a
load of 20,000 small files takes the EROFS driver 0.10 s if none has such a header, 0.58 s with long names and 0.69 s with
pax headers; the directory driver 0.63, 0.84 and 0.99 s, as making the files takes most (one core, CPython 3.11, store in
memory; ``python -m tests.bench --only images``, "load headers").
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple
from zlib import adler32

from pydock_core.store.tar_reader import Entry, TarReader

_BLOCK = 512
_WINDOW_BYTES = 8192
_USTAR, _GNU, _STAR_TRAILER = b"ustar\x0000", b"ustar  \0", b"tar\0"
_TERMINATORS = (0, 32)
_KINDS = {b"0": stat.S_IFREG, b"5": stat.S_IFDIR, b"2": stat.S_IFLNK, b"1": 0}
_OWNERS_LIMIT = 4096


class ScannedEntry(NamedTuple):
    """One entry; see :class:`pydock_core.store.tar_reader.Entry`, whose fields these are, names as bytes.

    ``segments`` is None for a file that lies in one piece from ``offset`` on.
    """

    name: bytes
    kind: int
    mode: int
    uid: int
    gid: int
    size_bytes: int
    mtime_ns: int
    link: bytes
    device: tuple[int, int]
    xattrs: tuple[tuple[str, bytes], ...]
    segments: tuple[tuple[int, int], ...] | None
    offset: int


def scan_tar(file: BinaryIO, subject: str) -> Iterator[ScannedEntry]:
    """Yield the entries of a tar.

    Args:
        file: a seekable file.
        subject: names the archive in errors.

    Raises:
        CorruptError, InvalidError, UnsupportedError: as :class:`TarReader`; an archive whose last data is cut off is
            corrupt.
    """
    fd = file.fileno()
    size = os.fstat(fd).st_size
    reader = TarReader(file, subject)
    owners: dict[bytes, tuple[int, int, int] | None] = {}
    position = base = 0
    window = b""
    make = tuple.__new__
    while True:
        start = position - base
        if start + _BLOCK > len(window):
            window, base, start = os.pread(fd, _WINDOW_BYTES, position), position, 0
        block = window[start : start + _BLOCK]
        kind = _KINDS.get(block[156:157])
        if kind is not None and len(block) == _BLOCK and not reader.has_defaults and _is_plain(block):
            owner_text = block[100:124] + block[329:345]
            if owner_text in owners:
                owner = owners[owner_text]
            else:
                if len(owners) >= _OWNERS_LIMIT:
                    owners.clear()
                owner = owners[owner_text] = _owner(owner_text)
            size_text, mtime_text = block[124:135], block[136:147]
            if (
                owner is not None
                and size_text.isdigit()
                and mtime_text.isdigit()
                and block[135] in _TERMINATORS
                and block[147] in _TERMINATORS
            ):
                try:
                    length, mtime = int(size_text, 8), int(mtime_text, 8)
                except ValueError:  # a digit 8 or 9
                    length = mtime = -1
                if length >= 0:
                    name = block[:100].partition(b"\0")[0]
                    if block[345]:
                        name = block[345:500].partition(b"\0")[0] + b"/" + name
                    if kind == stat.S_IFDIR:
                        name = name.rstrip(b"/")
                    link = block[157:257].partition(b"\0")[0] if kind != stat.S_IFREG else b""
                    offset = position + _BLOCK
                    position = offset
                    if kind == stat.S_IFREG:
                        position += (length + _BLOCK - 1) & -_BLOCK
                        if position > size:
                            raise reader.damaged(EOFError())
                    else:
                        length = 0
                    yield make(
                        ScannedEntry,
                        (
                            name,
                            kind,
                            *owner,
                            length,
                            mtime * 1_000_000_000,
                            link,
                            (0, 0),
                            (),
                            None,
                            offset,
                        ),
                    )
                    continue
        entry = reader.entry_at(position)
        if entry is None:
            return
        position = reader.offset
        if position > size:
            raise reader.damaged(EOFError())
        yield _scanned(entry)


def _is_plain(block: bytes) -> bool:
    """Whether a block is a header of the plain form whose checksum is right.

    adler32 sums bytes in C, modulo 65521: of 256 bytes the sum is exact.
    """
    magic = block[257:265]
    if (magic != _USTAR or block[508:512] == _STAR_TRAILER) and not (magic == _GNU and not block[345]):
        return False
    text = block[148:156]
    if not text[:6].isdigit() or text[6] not in _TERMINATORS:
        return False
    total = (adler32(block[:256]) & 0xFFFF) + (adler32(block[256:]) & 0xFFFF) - 2
    try:
        return int(text[:6], 8) == total - sum(text) + 8 * 32
    except ValueError:
        return False


def _owner(text: bytes) -> tuple[int, int, int] | None:
    """(mode, uid, gid) of a header's fields for these and for a device; None where one is not plain octal."""
    mode, uid, gid = _octal(text[:8]), _octal(text[8:16]), _octal(text[16:24])
    if mode is None or uid is None or gid is None:
        return None
    for field in (text[24:32], text[32:40]):
        if field.rstrip(b"\0 ") and _octal(field) is None:
            return None
    return mode & 0o7777, uid, gid


def _octal(field: bytes) -> int | None:
    """The number in a field of digits with a terminator; None where it is written otherwise."""
    digits = field.rstrip(b"\0 ")
    if not digits.isdigit() or len(digits) == len(field):
        return None
    try:
        return int(digits, 8)
    except ValueError:
        return None


def _scanned(entry: Entry) -> ScannedEntry:
    segments: tuple[tuple[int, int], ...] | None = entry.segments
    if segments in ((), ((0, entry.size_bytes),)) and (segments or not entry.size_bytes):
        segments = None
    return ScannedEntry(
        entry.name.encode("utf-8", "surrogateescape"),
        entry.kind,
        entry.mode,
        entry.uid,
        entry.gid,
        entry.size_bytes,
        entry.mtime_ns,
        entry.link.encode("utf-8", "surrogateescape"),
        entry.device,
        entry.xattrs,
        segments,
        entry.offset,
    )
