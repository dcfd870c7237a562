"""Compressed streams: what a stream is compressed with, and its plain content.

gzip goes through ISA-L (isal), several times as fast as zlib; zstd through zstandard.
"""

from __future__ import annotations

import bz2
import io
import lzma
import zlib
from typing import BinaryIO, cast

from pydock_core.errors import CorruptError

BUFFER_BYTES = 1 << 20

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
    """Return ``stream`` with a buffer that can be looked into; it need not be seekable."""
    if isinstance(stream, io.BufferedReader):
        return stream
    return io.BufferedReader(_Raw(stream), BUFFER_BYTES)


def peek_compression(stream: io.BufferedReader) -> str:
    """Return what ``stream`` is compressed with, and leave it where it is."""
    return detect_compression(stream.peek(_LONGEST_MAGIC))


def open_plain(stream: BinaryIO, compression: str, subject: str) -> BinaryIO:
    """Return the plain content of ``stream``.

    Args:
        stream: positioned at its start.
        compression: as :func:`detect_compression` gives it.
        subject: names the stream in errors.

    Reading raises CorruptError where the compressed data is damaged or cut off.
    """
    if not compression:
        return stream
    return cast(
        BinaryIO, io.BufferedReader(_Plain(_decompressor(stream, compression), subject), BUFFER_BYTES)
    )


def _decompressor(stream: BinaryIO, compression: str) -> BinaryIO:
    if compression == "gzip":
        from isal import igzip

        return cast(BinaryIO, igzip.IGzipFile(fileobj=stream, mode="rb"))
    if compression == "zstd":
        import zstandard

        return cast(BinaryIO, zstandard.ZstdDecompressor().stream_reader(stream, read_across_frames=True))
    if compression == "xz":
        return cast(BinaryIO, lzma.LZMAFile(stream))
    return cast(BinaryIO, bz2.BZ2File(stream))


class _Raw(io.RawIOBase):
    """A readable object that has only ``read`` as a raw stream."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # typeshed's Buffer has no len()
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class _Plain(io.RawIOBase):
    """A decompressor whose failures are ours."""

    def __init__(self, stream: BinaryIO, subject: str) -> None:
        self._stream = stream
        self._subject = subject

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # typeshed's Buffer has no len()
        try:
            data = self._stream.read(len(buffer))
        except EOFError as error:
            raise CorruptError(
                f"{self._subject} is truncated: its compressed data ends early", ANEW
            ) from error
        except (OSError, zlib.error, lzma.LZMAError, ValueError, _zstd_error()) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise CorruptError(f"{self._subject} is damaged: {error}", ANEW) from error
        buffer[: len(data)] = data
        return len(data)


ANEW = "get it anew, and compare its checksum"


def _zstd_error() -> type[Exception]:
    import zstandard

    return cast("type[Exception]", zstandard.ZstdError)
