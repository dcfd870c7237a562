"""The headers of a tar archive, parsed by :mod:`tarfile` under rules of this project.

What is added to tarfile: a damaged header in mid-archive is an error and not the archive's end, sizes are checked
before anything is read or skipped, the magic decides what the prefix field holds, and what headers take in memory is
bounded:

- Per entry, everything that describes it: extended headers, long names, the map of a sparse file (HEADER_LIMIT).
- Per archive, all global extended headers, which stay in force to its end (GLOBAL_LIMIT).
"""

from __future__ import annotations

import tarfile
from typing import Any, BinaryIO, Protocol, Self, cast

_SIZE_LIMIT = 1 << 60
HEADER_LIMIT = 1 << 20
"""Go's archive/tar has the same limit for each extended header, long name and sparse map."""
GLOBAL_LIMIT = 64 << 10
_OVERHEAD_BYTES = 16 << 10
"""For the 512-byte blocks of the headers themselves, beside what they hold."""
_IN_MEMORY = frozenset(
    {
        tarfile.XHDTYPE,
        tarfile.XGLTYPE,
        tarfile.SOLARIS_XHDTYPE,
        tarfile.GNUTYPE_LONGNAME,
        tarfile.GNUTYPE_LONGLINK,
    }
)
_USTAR_MAGIC, _GNU_MAGIC, _STAR_TRAILER = b"ustar\0", b"ustar  \0", b"tar\0"
_PREFIX, _STAR_PREFIX = slice(345, 500), slice(345, 476)
_GNU_TIMES = (slice(345, 357), slice(357, 369))
# Subclasses of the public HeaderError: how tarfile tells the archive's end from damage.
_END_MARKER: type[Exception] = vars(tarfile)["EOFHeaderError"]
_NO_HEADER: type[Exception] = vars(tarfile)["EmptyHeaderError"]
_PARTIAL_HEADER: type[Exception] = vars(tarfile)["TruncatedHeaderError"]
# Not in typeshed's stubs: the methods that parse a sparse map, a number and a string.
_parse_sparse_map: Any = vars(tarfile.TarInfo)["_proc_gnusparse_10"]
_number: Any = vars(tarfile)["nti"]
_string: Any = vars(tarfile)["nts"]
# The parameter of fromtarfile has the module's name, as in the base class.
_HeaderError = tarfile.HeaderError
_ReadError = tarfile.ReadError


class Source(Protocol):
    """What a reader reads: ``seek`` goes forward only, ``tell`` starts at 0."""

    def read(self, size: int = -1, /) -> bytes: ...

    def seek(self, offset: int, whence: int = 0, /) -> int: ...

    def tell(self) -> int: ...


class _BoundedSource:
    """Refuses to read more than an entry's headers may take."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.seek = source.seek
        self.tell = source.tell
        self.left = HEADER_LIMIT + _OVERHEAD_BYTES

    def read(self, size: int = -1, /) -> bytes:
        self.left -= size
        if self.left < 0:
            raise tarfile.ReadError(f"the headers of one entry take more than {HEADER_LIMIT >> 10} KiB")
        return self._source.read(size)


class StrictTarInfo(tarfile.TarInfo):
    """Raises on what tarfile would take for the archive's end, and on what takes too much memory."""

    map_start: int | None = None
    """Where the map of a sparse file of format 1.0 begins, followed by the data."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        info = super().frombuf(buf, encoding, errors)
        _check_size(info.size)
        if info.type in _IN_MEMORY and info.size > HEADER_LIMIT:
            raise tarfile.ReadError(f"an extended header claims a size of {info.size} bytes")
        if buf[345] and not (buf[257:263] == _USTAR_MAGIC and buf[508:512] != _STAR_TRAILER):
            _set_name(info, bytes(buf), encoding, errors)
        return info

    @classmethod
    def fromtarfile(cls, tarfile: tarfile.TarFile) -> Self:
        try:
            info = super().fromtarfile(tarfile)
        except _END_MARKER:
            if isinstance(tarfile, StrictTarFile):
                tarfile.ended = True
            raise
        except _NO_HEADER:
            raise
        except _PARTIAL_HEADER as error:
            raise EOFError("it ends in the middle of a header") from error
        except _HeaderError as error:
            raise _ReadError(str(error)) from error
        if info.map_start is not None:
            _set_sparse_sizes(info, tarfile)
        # An extended header may have replaced the size; tarfile would step backwards for a negative one.
        _check_size(info.size)
        return info

    def _proc_member(self, archive: StrictTarFile) -> Any:
        """Read what follows a header of this type: a further header, a map or nothing."""
        if self.type == tarfile.XGLTYPE:
            archive.global_bytes += self.size
            if archive.global_bytes > GLOBAL_LIMIT:
                raise _ReadError(f"its global extended headers take more than {GLOBAL_LIMIT >> 10} KiB")
        return _proc_member(self, archive)

    def _proc_gnusparse_10(self, following: Self, pax_headers: dict[str, str], archive: Any) -> None:
        following.map_start = following.offset_data
        _parse_sparse_map(self, following, pax_headers, archive)


_proc_member: Any = vars(tarfile.TarInfo)["_proc_member"]


class StrictTarFile(tarfile.TarFile):
    """An archive whose entries are read one by one with :meth:`next_entry`."""

    tarinfo = StrictTarInfo
    ended = False
    """Whether the end marker (a block of zeros) was seen."""
    global_bytes = 0
    """The size of all global extended headers so far."""
    members: list[tarfile.TarInfo]
    """tarfile remembers every entry here; not in its stubs."""

    @classmethod
    def over(cls, source: Source) -> Self:
        """Open the archive that ``source`` is at the start of; its first header is read.

        Raises:
            tarfile.TarError and others, as :data:`PARSE_ERRORS`; ReadError("empty file") where there is nothing.
        """
        return cls(
            fileobj=cast(BinaryIO, _BoundedSource(source)),
            mode="r",
            format=tarfile.PAX_FORMAT,
            encoding="utf-8",
            errors="surrogateescape",
        )

    def next_entry(self) -> tarfile.TarInfo | None:
        """Return the next entry, None at the end; an entry is forgotten once it is returned."""
        info = self.next()
        self.members.clear()
        cast(_BoundedSource, self.fileobj).left = HEADER_LIMIT + _OVERHEAD_BYTES
        return info


PARSE_ERRORS = (
    tarfile.TarError,
    ValueError,
    IndexError,
    KeyError,
    OverflowError,
    EOFError,
    RecursionError,
)
"""What tarfile, and its parsing of numbers and text, raise on hostile input."""


def _check_size(size: int) -> None:
    if not 0 <= size < _SIZE_LIMIT:
        raise tarfile.ReadError(f"an entry claims a size of {size} bytes")


def _set_name(info: tarfile.TarInfo, block: bytes, encoding: str, errors: str) -> None:
    """Set the name of a header that is not in POSIX's format, in which the prefix field is something else.

    star keeps times behind a shorter prefix (star(5)); old GNU headers have times there, and V7 headers nothing.  A
    defect of Go before 1.8 wrote a prefix into GNU headers; as Go's archive/tar does (reader.go), such a field is
    taken for one if it is text and no time.
    """
    prefix = b""
    if block[257:263] == _USTAR_MAGIC:
        prefix = block[_STAR_PREFIX]
    elif block[257:265] == _GNU_MAGIC and info.type != tarfile.GNUTYPE_SPARSE:
        field = block[_PREFIX].partition(b"\0")[0]
        if field.isascii() and not all(_is_number(block[place]) for place in _GNU_TIMES):
            prefix = field
    name = _string(block[:100], encoding, errors)
    before = _string(prefix, encoding, errors)
    info.name = f"{before}/{name}" if before and info.type not in tarfile.GNU_TYPES else name
    if info.isdir():
        info.name = info.name.rstrip("/")


def _is_number(field: bytes) -> bool:
    try:
        _number(field)
    except tarfile.HeaderError:
        return False
    return True


def _set_sparse_sizes(info: StrictTarInfo, archive: tarfile.TarFile) -> None:
    """Tell the size of a sparse file of format 1.0 from that of its map and data.

    tarfile mixes them up if the latter does not fit a header, and is a record of the extended header.
    """
    headers = info.pax_headers
    if "size" not in headers or info.map_start is None:
        return
    stored = int(headers["size"])
    _check_size(stored)
    info.size = int(headers.get("GNU.sparse.realsize", headers.get("GNU.sparse.size", stored)))
    archive.offset = info.map_start + stored + -stored % tarfile.BLOCKSIZE
