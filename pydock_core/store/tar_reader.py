"""Reads tar archives that may be hostile: every entry is checked before it is handed on, and nothing hangs.

The format is the business of :mod:`pydock_core.store.tar_headers`, which bounds what headers take.  Here an entry is
checked as a whole, and its data is read.
"""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from pydock_core.errors import CorruptError, InvalidError, UnsupportedError
from pydock_core.store.compression import ANEW
from pydock_core.store.tar_headers import PARSE_ERRORS, Source, StrictTarFile

CHUNK_BYTES = 1 << 20
_KINDS = {
    tarfile.REGTYPE: stat.S_IFREG,
    tarfile.AREGTYPE: stat.S_IFREG,
    tarfile.CONTTYPE: stat.S_IFREG,
    tarfile.GNUTYPE_SPARSE: stat.S_IFREG,
    tarfile.DIRTYPE: stat.S_IFDIR,
    tarfile.SYMTYPE: stat.S_IFLNK,
    tarfile.LNKTYPE: 0,
    tarfile.CHRTYPE: stat.S_IFCHR,
    tarfile.BLKTYPE: stat.S_IFBLK,
    tarfile.FIFOTYPE: stat.S_IFIFO,
}
_XATTR_PREFIX = "SCHILY.xattr."
_ID_LIMIT = (1 << 32) - 1
# Linux has 12 bits for the major number of a device and 20 for the minor.
_MAJOR_LIMIT, _MINOR_LIMIT = 0xFFF, 0xFFFFF
_LARGEST_NS = (1 << 63) - 1


class Readable(Protocol):
    """The one method of a stream that is used."""

    def read(self, size: int = -1, /) -> bytes: ...


class ForwardSource:
    """Makes a :class:`Source` of a stream that cannot seek, of which only ``read`` is used."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._position = 0

    def read(self, size: int = -1, /) -> bytes:
        data = self._stream.read(size)
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Read on to ``offset``, or to the end where that comes first."""
        if whence != 0 or offset < self._position:
            raise tarfile.StreamError("a stream is read forwards only")
        while self._position < offset and self.read(min(offset - self._position, CHUNK_BYTES)):
            pass
        return self._position

    def tell(self) -> int:
        return self._position


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of an archive, checked.

    Attributes:
        name: as in the archive, neither normalised nor trusted; undecodable bytes as surrogates.
        kind: a stat.S_IF* constant; 0 for a hard link.
        mode: permission bits, 0o7777 at most.
        uid, gid: 0 to 2**32 - 2.
        size_bytes: of the contents, holes included; 0 for what has none.
        mtime_ns: since the epoch.
        link: target of a symbolic or hard link.
        device: (major, minor).
        xattrs: (name, value) pairs.
        segments: (offset in the file, length) of its data, ascending; what they leave out is holes.
        offset: of the first data byte in the plain archive; the segments' data follow each other there.
    """

    name: str
    kind: int
    mode: int
    uid: int
    gid: int
    size_bytes: int
    mtime_ns: int
    link: str
    device: tuple[int, int]
    xattrs: tuple[tuple[str, bytes], ...]
    segments: tuple[tuple[int, int], ...]
    offset: int


class TarReader:
    """Iterates over the entries of a plain (uncompressed) tar archive.

    Args:
        source: positioned at the archive's start; see :class:`ForwardSource`.
        subject: names the archive in errors ("layer sha256:...").
        fd: the descriptor of the file that ``source`` reads, where it is one; data then goes from file to
        file
            within the kernel.

    Iteration raises CorruptError where the archive is damaged or truncated, InvalidError for an entry that
    cannot be meant, UnsupportedError for a kind of entry that images do not have.
    """

    def __init__(self, source: Source, subject: str, *, fd: int | None = None) -> None:
        self._source = source
        self._subject = subject
        self._fd = fd
        self._archive: StrictTarFile | None = None

    @property
    def ended(self) -> bool:
        """After iteration: whether the archive had its end marker (POSIX: two blocks of zeros)."""
        return self._archive is not None and self._archive.ended

    def __iter__(self) -> Iterator[Entry]:
        while (info := self._next()) is not None:
            yield self._checked(info)

    def entry_at(self, offset: int) -> Entry | None:
        """The entry whose first header is at ``offset``, None at the archive's end.  For a source that can go back.

        A global extended header that was met stays in force (:attr:`has_defaults`).
        """
        if self._archive is None:
            self._source.seek(offset)
        else:
            self._archive.offset = offset
        info = self._next()
        return None if info is None else self._checked(info)

    @property
    def has_defaults(self) -> bool:
        """Whether a global extended header says something of all entries that follow it."""
        return self._archive is not None and bool(self._archive.pax_headers)

    @property
    def offset(self) -> int:
        """Where the next entry's first header is, after an entry."""
        return 0 if self._archive is None else int(self._archive.offset)

    def _next(self) -> tarfile.TarInfo | None:
        try:
            if self._archive is None:
                self._archive = StrictTarFile.over(self._source)
            return self._archive.next_entry()
        except PARSE_ERRORS as error:
            if str(error) == "empty file":
                return None
            raise self.damaged(error) from error

    def damaged(self, error: BaseException) -> CorruptError:
        """What is said of an archive whose reading raised ``error``; EOFError for one that is cut off."""
        cut_off = isinstance(error, EOFError) or "unexpected end" in str(error)
        message = "is truncated" if cut_off else f"is no valid tar archive: {error}"
        return CorruptError(f"{self._subject} {message}", ANEW)

    def _checked(self, info: tarfile.TarInfo) -> Entry:
        kind = _KINDS.get(info.type)
        if kind is None:
            raise UnsupportedError(
                f"{self._subject}: entry {info.name!r} is of type {info.type!r}, which images do not have",
                ANEW,
            )
        if not (0 <= info.uid < _ID_LIMIT and 0 <= info.gid < _ID_LIMIT):
            raise InvalidError(f"{self._subject}: entry {info.name!r} has owner {info.uid}:{info.gid}", ANEW)
        if kind in (stat.S_IFCHR, stat.S_IFBLK) and not (
            0 <= info.devmajor <= _MAJOR_LIMIT and 0 <= info.devminor <= _MINOR_LIMIT
        ):
            raise InvalidError(
                f"{self._subject}: entry {info.name!r} is device {info.devmajor}:{info.devminor}, which cannot be",
                ANEW,
            )
        if "\0" in info.name or "\0" in info.linkname:
            raise InvalidError(f"{self._subject}: entry {info.name!r} has a null byte in its name", ANEW)
        regular = kind == stat.S_IFREG
        return Entry(
            name=info.name,
            kind=kind,
            mode=info.mode & 0o7777,
            uid=info.uid,
            gid=info.gid,
            size_bytes=info.size if regular else 0,
            mtime_ns=_mtime_ns(info),
            link=info.linkname,
            device=(info.devmajor, info.devminor),
            xattrs=_xattrs(info.pax_headers),
            segments=self._segments(info) if regular else (),
            offset=info.offset_data,
        )

    def _segments(self, info: tarfile.TarInfo) -> tuple[tuple[int, int], ...]:
        sparse: list[tuple[int, int]] | None = getattr(info, "sparse", None)
        if sparse is None:
            return ((0, info.size),) if info.size else ()
        # A header has room for more parts than there are; the unused ones, and an end marker, have no length.
        parts = [(offset, length) for offset, length in sparse if length]
        end = 0
        for offset, length in parts:
            if offset < end or length < 0 or offset + length > info.size:
                raise CorruptError(f"{self._subject}: sparse entry {info.name!r} has overlapping parts", ANEW)
            end = offset + length
        # Whole blocks, as the size of what is stored is not kept: what follows in the last block is padding.
        stored = self.offset - info.offset_data
        if sum(length for _, length in parts) > stored:
            raise CorruptError(
                f"{self._subject} is damaged: sparse entry {info.name!r} claims more data than it has", ANEW
            )
        return tuple(parts)

    def chunks(self, entry: Entry) -> Iterator[bytes]:
        """Yield the data of the entry that iteration is at, in pieces; holes are left out.

        Raises:
            CorruptError: the archive ends before the data does.
        """
        self._source.seek(entry.offset)
        left = sum(length for _, length in entry.segments)
        while left:
            data = self._source.read(min(left, CHUNK_BYTES))
            if not data:
                raise self.damaged(EOFError())
            left -= len(data)
            yield data

    def copy(self, entry: Entry, fd: int) -> None:
        """Write the data of the entry that iteration is at into the empty file ``fd``, holes as holes.

        Raises:
            CorruptError: the archive ends before the data does.
            OSError: writing failed.
        """
        if self._fd is None:
            self._copy_read(entry, fd)
        else:
            position = entry.offset
            for offset, length in entry.segments:
                if offset:
                    os.lseek(fd, offset, os.SEEK_SET)
                end = position + length
                while position < end:
                    sent = os.sendfile(fd, self._fd, position, end - position)
                    if sent == 0:
                        raise self.damaged(EOFError())
                    position += sent
        if not entry.segments or sum(entry.segments[-1]) != entry.size_bytes:
            os.ftruncate(fd, entry.size_bytes)

    def _copy_read(self, entry: Entry, fd: int) -> None:
        chunks = self.chunks(entry)
        left = memoryview(b"")
        for offset, length in entry.segments:
            position, end = offset, offset + length
            while position < end:
                if not left:
                    left = memoryview(next(chunks))
                written = os.pwrite(fd, left[: end - position], position)
                position += written
                left = left[written:]


def _mtime_ns(info: tarfile.TarInfo) -> int:
    """The time of modification; extended headers have it with a fraction, which a float would blur."""
    text = info.pax_headers.get("mtime")
    if text is None:
        return min(max(int(info.mtime), 0), _LARGEST_NS // 10**9) * 10**9
    whole, _, fraction = text.partition(".")
    negative = whole.startswith("-")
    if not whole.removeprefix("-").isdigit() or (fraction and not fraction.isdigit()) or len(whole) > 20:
        return 0
    nanoseconds = int(whole.removeprefix("-")) * 10**9 + int((fraction[:9]).ljust(9, "0"))
    return 0 if negative else min(nanoseconds, _LARGEST_NS)


def _xattrs(headers: Mapping[str, str]) -> tuple[tuple[str, bytes], ...]:
    if not headers:
        return ()
    return tuple(
        (name.removeprefix(_XATTR_PREFIX), value.encode("utf-8", "surrogateescape"))
        for name, value in headers.items()
        if name.startswith(_XATTR_PREFIX)
    )
