"""Reads hostile tar archives safely: checks every entry and bounds time and memory.

:mod:`pydock_core.store.tar_header` parses single blocks.  This module combines the headers of an entry, checks the
result, and reads the entry's data.  The memory for headers is bounded:

- Per entry, everything that describes it: extended headers, long names, the map of a sparse file (HEADER_LIMIT).
- Per archive, all global extended headers, which apply to its end (GLOBAL_LIMIT).

Of several headers of one kind before an entry, the last one counts, and a GNU long name takes precedence over a pax path,
as in Go's archive/tar.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from pydock_core.errors import CorruptError, InvalidError, UnsupportedError
from pydock_core.store.compression import ANEW
from pydock_core.store.tar_header import (
    BLOCK_BYTES,
    CONTIGUOUS,
    DIRECTORY,
    GLOBAL_PAX,
    LONG_LINK,
    LONG_NAME,
    OLD_REGULAR,
    OLD_SPARSE,
    PAX,
    REGULAR,
    SOLARIS_PAX,
    Header,
    HeaderError,
    Parts,
    Records,
    check_sum,
    is_sparse,
    parse_count,
    parse_extension,
    parse_header,
    parse_more_old_sparse,
    parse_old_sparse,
    parse_records,
    parse_size,
    parse_sparse_map,
    parse_sparse_records,
    parse_sparse_size,
)
from pydock_core.store.tar_source import CHUNK_BYTES, Source

HEADER_LIMIT = 1 << 20
"""Go's archive/tar has the same limit for each extended header, long name and sparse map."""
GLOBAL_LIMIT = 64 << 10
_OVERHEAD_BYTES = 16 << 10
"""The memory charged for the header blocks themselves, besides their contents."""
_END = bytes(BLOCK_BYTES)
_REGULAR = frozenset((REGULAR, OLD_REGULAR, CONTIGUOUS))
_ORDINARY = _REGULAR | frozenset((DIRECTORY, *b"12"))
_DESCRIBING = frozenset((LONG_NAME, LONG_LINK, PAX, SOLARIS_PAX, GLOBAL_PAX))
_KINDS = {
    **dict.fromkeys((*_REGULAR, OLD_SPARSE), stat.S_IFREG),
    DIRECTORY: stat.S_IFDIR,
    ord("1"): 0,
    ord("2"): stat.S_IFLNK,
    ord("3"): stat.S_IFCHR,
    ord("4"): stat.S_IFBLK,
    ord("6"): stat.S_IFIFO,
}
_ID_LIMIT = (1 << 32) - 1
# Linux has 12 bits for the major number of a device and 20 for the minor.
_MAJOR_LIMIT, _MINOR_LIMIT = 0xFFF, 0xFFFFF


class Entry(NamedTuple):
    """A checked entry of an archive.

    Attributes:
        name: as in the archive, neither normalised nor trusted.
        kind: a stat.S_IF* constant; 0 for a hard link.
        mode: permission bits, 0o7777 at most.
        uid, gid: 0 to 2**32 - 2.
        size_bytes: of the contents, holes included; 0 for an entry without contents.
        mtime_ns: since the epoch.
        link: target of a symbolic or hard link.
        device: (major, minor).
        xattrs: (name, value) pairs.
        segments: (offset in the file, length) of its data, ascending, with holes between them; None for a file without
            holes.
        offset: of the first data byte in the plain archive; the segments' data follow each other there.
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
    xattrs: tuple[tuple[bytes, bytes], ...]
    segments: tuple[tuple[int, int], ...] | None
    offset: int

    @property
    def parts(self) -> tuple[tuple[int, int], ...]:
        """The segments; a file without holes has one."""
        if self.segments is None:
            return ((0, self.size_bytes),) if self.size_bytes else ()
        return self.segments

    @property
    def text(self) -> str:
        """The name for messages."""
        return os.fsdecode(self.name)


class TarReader:
    """Iterates over the entries of a plain (uncompressed) tar archive.

    Args:
        source: the archive.
        subject: names the archive in errors ("layer sha256:...").

    Attributes:
        ended: after iteration, whether the archive had its end marker (POSIX: two blocks of zeros).

    Iteration raises CorruptError if the archive is damaged or truncated, InvalidError for an invalid entry, and
    UnsupportedError for a kind of entry that images do not have.
    """

    def __init__(self, source: Source, subject: str) -> None:
        self.ended = False
        self._source = source
        self._subject = subject
        self._defaults: Records = []
        self._defaults_bytes = 0

    def __iter__(self) -> Iterator[Entry]:
        try:
            yield from self._entries()
        except (HeaderError, EOFError) as error:
            raise self._damaged(error) from error

    def _damaged(self, error: HeaderError | EOFError) -> CorruptError:
        cut_off = isinstance(error, EOFError)
        message = "is truncated" if cut_off else f"is not a valid tar archive: {error}"
        return CorruptError(f"{self._subject} {message}", ANEW)

    def _entries(self) -> Iterator[Entry]:
        window = self._source.window
        make = tuple.__new__
        description: _Description | None = None
        piece, base, position = b"", 0, 0
        while True:
            start = position - base
            block = piece[start : start + BLOCK_BYTES]
            if len(block) < BLOCK_BYTES:
                piece, base, start = window(position), position, 0
                block = piece[:BLOCK_BYTES]
            if block == _END or not block:
                if description is not None and not description.is_global:
                    raise HeaderError("an extended header stands before no entry") if block else EOFError
                self.ended = bool(block)
                return
            if len(block) < BLOCK_BYTES:
                raise EOFError
            check_sum(block)
            position += BLOCK_BYTES
            kind = block[156]
            if kind in _DESCRIBING:
                description = description or _Description()
                size_bytes = parse_size(block)
                if size_bytes > HEADER_LIMIT:
                    raise HeaderError(f"an extended header claims a size of {size_bytes} bytes")
                description.charge(BLOCK_BYTES + size_bytes)
                body = piece[start + BLOCK_BYTES : start + BLOCK_BYTES + size_bytes]
                if len(body) < size_bytes:
                    body = self._exactly(position, size_bytes)
                position += _padded(size_bytes)
                if kind == GLOBAL_PAX:
                    self._add_defaults(body)
                else:
                    description.add(kind, body)
                continue
            header = parse_header(block)
            kind, name, mode, uid, gid, size_bytes, mtime_ns, link, device = header
            if description is None and kind in _ORDINARY and uid < _ID_LIMIT > gid and uid >= 0 <= gid:
                offset = position
                if kind in _REGULAR:
                    position += _padded(size_bytes)
                else:
                    size_bytes = 0
                kind = _KINDS[kind]
                yield make(
                    Entry, (name, kind, mode, uid, gid, size_bytes, mtime_ns, link, device, (), None, offset)
                )
            else:
                entry, position = self._described(header, block, position, description or _Description())
                yield entry
                description = _Description() if self._defaults else None

    def _add_defaults(self, body: bytes) -> None:
        """Record a global extended header, without its records of sparse files, which cannot apply to every entry."""
        self._defaults_bytes += len(body)
        if self._defaults_bytes > GLOBAL_LIMIT:
            raise HeaderError(f"its global extended headers take more than {GLOBAL_LIMIT >> 10} KiB")
        records = dict(self._defaults)
        records.update(record for record in parse_records(body) if not is_sparse(record))
        self._defaults = list(records.items())

    def _exactly(self, position: int, size_bytes: int) -> bytes:
        data = b""
        while len(data) < size_bytes and (
            more := self._source.read(position + len(data), size_bytes - len(data))
        ):
            data += more
        if len(data) < size_bytes:
            raise EOFError
        return data

    def _described(
        self, header: Header, block: bytes, position: int, description: _Description
    ) -> tuple[Entry, int]:
        """Combine a header with its description; return the entry, and the end of its data.

        Args:
            header: parsed.
            block: the same header, unparsed.
            position: the end of the block.
            description: the extended headers before the header.
        """
        more = parse_extension(self._defaults + description.records)
        fields = dict(more.sparse)
        stored_bytes = header.size_bytes if more.size_bytes is None else more.size_bytes
        name = description.name or more.path or header.name
        kind = _KINDS.get(header.type)
        size_bytes, parts, offset, end = 0, None, position, position
        if kind == stat.S_IFREG:
            size_bytes = stored_bytes
            if header.type == OLD_SPARSE:
                parts, offset, size_bytes = self._old_map(block, position, description)
                end = offset
            elif fields:
                parts, offset = self._map(fields, more.sparse, position, description)
                size_bytes = parse_sparse_size(fields, stored_bytes)
                name = fields.get(b"name") or name
            end += _padded(stored_bytes)
        elif kind == stat.S_IFDIR:
            name = name.rstrip(b"/")
        segments = None if parts is None else tuple(part for part in parts if part[1])
        if segments == (((0, size_bytes),) if size_bytes else ()):
            segments = None
        entry = Entry(
            name,
            -1 if kind is None else kind,
            header.mode,
            header.uid if more.uid is None else more.uid,
            header.gid if more.gid is None else more.gid,
            size_bytes,
            header.mtime_ns if more.mtime_ns is None else more.mtime_ns,
            description.link or more.link or header.link,
            header.device,
            more.xattrs,
            segments,
            offset,
        )
        self._check(entry, header)
        if entry.segments is not None:
            self._check_segments(entry, end - offset)
        return entry, end

    def _old_map(self, block: bytes, position: int, description: _Description) -> tuple[Parts, int, int]:
        """Return the parts of a sparse file in the old GNU format, the start of its data, and its size."""
        parts, goes_on, size_bytes = parse_old_sparse(block)
        while goes_on:
            description.charge(BLOCK_BYTES)
            more, goes_on = parse_more_old_sparse(self._exactly(position, BLOCK_BYTES))
            parts += more
            position += BLOCK_BYTES
        return parts, position, size_bytes

    def _map(
        self,
        fields: Mapping[bytes, bytes],
        records: Sequence[tuple[bytes, bytes]],
        position: int,
        description: _Description,
    ) -> tuple[Parts | None, int]:
        """Return the parts of a sparse file in one of the pax formats, and the start of its data."""
        if fields.get(b"major", b"0") == b"0":
            is_sparse = b"map" in fields or b"size" in fields
            return parse_sparse_records(records) if is_sparse else None, position
        if (fields[b"major"], fields.get(b"minor")) != (b"1", b"0"):
            raise HeaderError("a sparse file is of an unknown format")
        lines: list[bytes] = []
        rest, needed = b"", 1
        while len(lines) < needed:
            description.charge(BLOCK_BYTES)
            *complete, rest = (rest + self._exactly(position, BLOCK_BYTES)).split(b"\n")
            position += BLOCK_BYTES
            lines += complete
            if needed == 1 and lines:
                needed += 2 * parse_count(lines[0])
        return parse_sparse_map(lines[1:needed]), position

    def _check(self, entry: Entry, header: Header) -> None:
        """Raise if an entry is invalid."""
        if entry.kind < 0:
            kind = bytes([header.type])
            raise UnsupportedError(f"{self._at(entry)} is of type {kind!r}, which images do not have", ANEW)
        if not (0 <= entry.uid < _ID_LIMIT and 0 <= entry.gid < _ID_LIMIT):
            raise InvalidError(f"{self._at(entry)} has owner {entry.uid}:{entry.gid}", ANEW)
        if b"\0" in entry.name or b"\0" in entry.link:
            raise InvalidError(f"{self._at(entry)} has a null byte in its name", ANEW)
        if entry.kind in (stat.S_IFCHR, stat.S_IFBLK):
            major, minor = entry.device
            if not (0 <= major <= _MAJOR_LIMIT and 0 <= minor <= _MINOR_LIMIT):
                raise InvalidError(
                    f"{self._at(entry)} has the impossible device number {major}:{minor}", ANEW
                )

    def _at(self, entry: Entry) -> str:
        return f"{self._subject}: entry {entry.text!r}"

    def _check_segments(self, entry: Entry, stored_bytes: int) -> None:
        """Raise if the parts of a sparse file are not in order, or exceed its stored data."""
        end = total = 0
        for offset, length in entry.parts:
            if offset < end or length < 0 or offset + length > entry.size_bytes:
                raise CorruptError(
                    f"{self._subject}: sparse entry {entry.text!r} has overlapping parts", ANEW
                )
            end = offset + length
            total += length
        if total > stored_bytes:
            raise CorruptError(
                f"{self._subject} is damaged: sparse entry {entry.text!r} claims more data than it has", ANEW
            )

    def chunks(self, entry: Entry) -> Iterator[bytes]:
        """Yield the data of the current entry, in pieces, without holes.

        Raises:
            CorruptError: the archive ends before the data does.
        """
        position = entry.offset
        end = position + sum(length for _, length in entry.parts)
        try:
            while position < end:
                data = self._source.read(position, min(end - position, CHUNK_BYTES))
                if not data:
                    raise EOFError
                position += len(data)
                yield data
        except EOFError as error:
            raise self._damaged(error) from error

    def copy(self, entry: Entry, fd: int) -> None:
        """Write the data of the current entry into the empty file ``fd``, keeping holes.

        Raises:
            CorruptError: the archive ends before the data does.
            OSError: writing failed.
        """
        position, end = entry.offset, 0
        try:
            for offset, length in entry.parts:
                self._source.copy(position, length, fd, offset)
                position, end = position + length, offset + length
        except EOFError as error:
            raise self._damaged(error) from error
        if end != entry.size_bytes:
            os.ftruncate(fd, entry.size_bytes)


class _Description:
    """The extended headers that precede an entry.

    Attributes:
        name, link: the GNU long names.
        records: of the pax header.
        is_global: there are only global headers.
    """

    __slots__ = ("_left_bytes", "is_global", "link", "name", "records")

    def __init__(self) -> None:
        self.name = self.link = b""
        self.records: Records = []
        self.is_global = True
        self._left_bytes = HEADER_LIMIT + _OVERHEAD_BYTES

    def charge(self, size_bytes: int) -> None:
        """Charge ``size_bytes`` to the entry's limit.

        Raises:
            HeaderError: the limit is exceeded.
        """
        self._left_bytes -= size_bytes
        if self._left_bytes < 0:
            raise HeaderError(f"the headers of one entry take more than {HEADER_LIMIT >> 10} KiB")

    def add(self, kind: int, body: bytes) -> None:
        """Add the contents of a header of a type."""
        self.is_global = False
        if kind == LONG_NAME:
            self.name = body.partition(b"\0")[0]
        elif kind == LONG_LINK:
            self.link = body.partition(b"\0")[0]
        else:
            self.records = parse_records(body)


def _padded(size_bytes: int) -> int:
    """Return a size in whole blocks."""
    return (size_bytes + BLOCK_BYTES - 1) & -BLOCK_BYTES
