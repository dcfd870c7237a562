"""Detects a stream's compression and reads its plain content.

gzip is inflated by ISA-L (isal), several times as fast as zlib; zstd by zstandard.

Hostile content may inflate without end, or need gigabytes for its window.  Content of any size is accepted if its
compressed form has a size to match; see :class:`InflationLimit`.  Memory is limited to the needs of the compressors'
highest levels.
"""

from __future__ import annotations

import bz2
import functools
import importlib
import io
import lzma
import os
from dataclasses import dataclass
from typing import BinaryIO, Self, cast

from pydock_core.errors import CorruptError, UnsupportedError

BUFFER_BYTES = 1 << 20
_COMPRESSED_BYTES = 128 << 10
_ZSTD_WINDOW_LIMIT = 128 << 20
"""The largest window that zstd(1) accepts without --long; --ultra -22 uses it (RFC 8878 requires at least 8 MiB)."""
_ZSTD_HEADER_BYTES = 18
_XZ_MEMORY_LIMIT = 128 << 20
"""xz -9 needs 65 MiB to inflate (xz(1))."""

_MAGIC = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"BZh", "bzip2"),
)
_LONGEST_MAGIC = max(len(magic) for magic, _ in _MAGIC)


def detect_compression(head: bytes) -> str:
    """Return "gzip", "zstd", "xz", "bzip2", or "" by the first bytes of a stream."""
    return next((name for magic, name in _MAGIC if head.startswith(magic)), "")


def peekable(stream: BinaryIO) -> io.BufferedReader:
    """Return ``stream`` with a buffer that can be peeked into; it need not be seekable."""
    if isinstance(stream, io.BufferedReader):
        return stream
    return io.BufferedReader(_Raw(stream), BUFFER_BYTES)


def peek_compression(stream: io.BufferedReader) -> str:
    """Return the compression of ``stream`` without consuming any of it."""
    return detect_compression(stream.peek(_LONGEST_MAGIC))


@dataclass(frozen=True, slots=True)
class InflationLimit:
    """The limit beyond which content counts as a decompression bomb: it must exceed *both* bounds.

    The ratio alone is not enough: gzip compresses zeros 1,000 : 1, zstd much more, and a layer may well contain a disk
    image.  Docker has no limit, so a bomb fills the disk for all users.

    Attributes:
        plain_bytes: content up to this size is always accepted.
        ratio: content up to this multiple of its compressed size is always accepted.
    """

    plain_bytes: int
    ratio: int = 100

    @classmethod
    def for_file_system(cls, place: str | os.PathLike[str] | int) -> Self:
        """Return the limit for content that is written to a file system: half of its free space.

        Args:
            place: a path on it, or a descriptor.
        """
        status = os.statvfs(place)
        return cls(status.f_bavail * status.f_frsize // 2)


def open_plain(
    stream: BinaryIO, compression: str, subject: str, limit: InflationLimit | None = None
) -> BinaryIO:
    """Return the plain content of ``stream``.

    Args:
        stream: positioned at its start.
        compression: the result of :func:`detect_compression`.
        subject: names the stream in errors.
        limit: for content that is written to a disk; None for content that is only read.

    Reading raises CorruptError if the compressed data is damaged or truncated, or inflates beyond ``limit``;
    UnsupportedError if it needs more memory than the compressors' default settings require.
    """
    if not compression:
        return stream
    counted = _Counted(stream)
    decompressor = _decompressor(counted, compression, subject)
    return cast(BinaryIO, io.BufferedReader(_Plain(decompressor, counted, subject, limit), BUFFER_BYTES))


def _decompressor(stream: _Counted, compression: str, subject: str) -> BinaryIO:
    source = cast(BinaryIO, stream)
    if compression == "gzip":
        from isal import igzip

        return cast(BinaryIO, igzip.IGzipFile(fileobj=source, mode="rb"))
    if compression == "zstd":
        return _open_zstd(stream, subject)
    if compression == "xz":
        return cast(BinaryIO, _Xz(source))
    return cast(BinaryIO, bz2.BZ2File(source))


def _open_zstd(stream: _Counted, subject: str) -> BinaryIO:
    import zstandard

    try:
        window_bytes = zstandard.get_frame_parameters(stream.peek(_ZSTD_HEADER_BYTES)).window_size
    except zstandard.ZstdError:
        window_bytes = 0  # the reader gets the error
    if window_bytes > _ZSTD_WINDOW_LIMIT:
        raise UnsupportedError(
            f"{subject} needs a window of {window_bytes >> 20} MiB to be inflated",
            f"compress it with one of {_ZSTD_WINDOW_LIMIT >> 20} MiB at most (zstd without --long)",
        )
    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_LIMIT)
    return cast(BinaryIO, decompressor.stream_reader(cast(BinaryIO, stream), read_across_frames=True))


class _Counted:
    """Counts the bytes read from a stream, and can look ahead at its start."""

    def __init__(self, stream: BinaryIO) -> None:
        self.count = 0
        self._stream = stream
        self._ahead = b""

    def peek(self, size: int) -> bytes:
        """Return up to ``size`` bytes without consuming them; only before the first ``read``."""
        while len(self._ahead) < size and (data := self._stream.read(size - len(self._ahead))):
            self._ahead += data
        return self._ahead

    def read(self, size: int = -1, /) -> bytes:
        data, self._ahead = self._ahead, b""
        data = data or self._stream.read(size)
        self.count += len(data)
        return data

    def readinto(self, buffer: memoryview) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class _Xz:
    """Reads concatenated .xz streams with bounded memory: a dictionary may have 4 GiB, and LZMAFile has no limit."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._decompressor = self._begin()

    @staticmethod
    def _begin() -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_LIMIT)

    def read(self, size: int) -> bytes:
        """Read up to ``size`` bytes; b"" at the end only.

        Raises:
            EOFError: the stream is truncated; lzma.LZMAError: it is damaged, or needs too much memory.
        """
        while True:
            if self._decompressor.eof:
                rest = self._decompressor.unused_data or self._stream.read(_COMPRESSED_BYTES)
                # Between two streams, and after the last one, there may be zeros (xz file format 1.2.1, 2.2).
                while rest and not (rest := rest.lstrip(b"\0")):
                    rest = self._stream.read(_COMPRESSED_BYTES)
                if not rest:
                    return b""
                self._decompressor = self._begin()
            else:
                rest = self._stream.read(_COMPRESSED_BYTES) if self._decompressor.needs_input else b""
                if not rest and self._decompressor.needs_input:
                    raise EOFError("the compressed stream ends early")
            if data := self._decompressor.decompress(rest, size):
                return data


class _Raw(io.RawIOBase):
    """Turns an object that has only ``read`` into a raw stream."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # typeshed's Buffer has no len()
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class _Plain(io.RawIOBase):
    """A decompressor that maps failures to PyDockError."""

    def __init__(
        self, stream: BinaryIO, compressed: _Counted, subject: str, limit: InflationLimit | None
    ) -> None:
        self._stream = stream
        self._compressed = compressed
        self._subject = subject
        self._limit = limit
        self._total = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # typeshed's Buffer has no len()
        try:
            data = self._stream.read(len(buffer))
        except EOFError as error:
            raise CorruptError(
                f"{self._subject} is truncated, or has something behind its end: its compressed data ends early",
                ANEW,
            ) from error
        except damage_errors() as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # of the stream that is inflated
            raise CorruptError(f"{self._subject} is damaged: {error}", ANEW) from error
        buffer[: len(data)] = data
        self._total += len(data)
        limit = self._limit
        if (
            limit is not None
            and self._total > limit.plain_bytes
            and self._total > limit.ratio * self._compressed.count
        ):
            raise CorruptError(
                f"{self._subject} may be a decompression bomb: it inflates to more than {limit.ratio} times its size, "
                "and more than half of the free disk",
                "if you trust its maker, free some space and try again",
            )
        return len(data)


ANEW = "download it again and compare its checksum"


DAMAGE = {
    "isal.isal_zlib": ("IsalError",),
    "isal.igzip": ("BadGzipFile",),
    "zlib": ("error",),
    "zstandard": ("ZstdError",),
    "lzma": ("LZMAError",),
    # bz2 has no exceptions of its own; the others raise these too.
    "builtins": ("OSError", "ValueError"),
}
"""The exceptions, by module, by which the decompressors report damaged data; EOFError means truncated data."""


@functools.cache
def damage_errors() -> tuple[type[Exception], ...]:
    """Return the exceptions of :data:`DAMAGE`."""
    return tuple(
        getattr(importlib.import_module(module), name) for module, names in DAMAGE.items() for name in names
    )
