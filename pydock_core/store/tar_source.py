"""The source of an archive: a file, or a stream that is read once."""

from __future__ import annotations

import os
from typing import Protocol

from pydock_core.store.tar_header import BLOCK_BYTES

CHUNK_BYTES = 1 << 20
_WINDOW_BYTES = 8192
_PIECE_BYTES = 64 << 10


class Readable(Protocol):
    """A stream; only its ``read`` is used."""

    def read(self, size: int = -1, /) -> bytes: ...


class Source(Protocol):
    """The bytes of a plain archive by position; positions only grow.

    A method raises EOFError if the archive ends before ``position``.
    """

    def window(self, position: int) -> bytes:
        """Return the bytes from ``position`` on: at least a block, unless the archive ends within it."""
        ...

    def read(self, position: int, size: int) -> bytes:
        """Return some bytes from ``position`` on, ``size`` at most; b"" at the archive's end."""
        ...

    def copy(self, position: int, length: int, fd: int, offset: int) -> None:
        """Write bytes of the archive to a file at ``offset``; EOFError if the archive ends within them."""
        ...


class FileSource:
    """An archive that is a file: unneeded data is not read, and the kernel copies from file to file.

    Args:
        fd: of the file; its position is neither used nor changed.
        base: the archive's offset in the file.
    """

    def __init__(self, fd: int, base: int = 0) -> None:
        self.fd = fd
        self.base = base

    def window(self, position: int) -> bytes:
        """See the protocol."""
        data = os.pread(self.fd, _WINDOW_BYTES, self.base + position)
        if not data and position and not os.pread(self.fd, 1, self.base + position - 1):
            raise EOFError
        return data

    def read(self, position: int, size: int) -> bytes:
        """See the protocol."""
        return os.pread(self.fd, size, self.base + position)

    def copy(self, position: int, length: int, fd: int, offset: int) -> None:
        """See the protocol."""
        if offset:
            os.lseek(fd, offset, os.SEEK_SET)
        position += self.base
        end = position + length
        while position < end:
            sent = os.sendfile(fd, self.fd, position, end - position)
            if not sent:
                raise EOFError
            position += sent


class StreamSource:
    """An archive that is read once, from its start.

    Args:
        stream: at the archive's start.  It is read in large pieces, so it may be further than the reader.
    """

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._piece = b""
        self._start = 0

    def window(self, position: int) -> bytes:
        """See the protocol."""
        self._skip(position)
        piece = self._piece[position - self._start :]
        while len(piece) < BLOCK_BYTES and (more := self._stream.read(_PIECE_BYTES)):
            piece += more
        self._piece, self._start = piece, position
        return piece

    def read(self, position: int, size: int) -> bytes:
        """See the protocol."""
        self._skip(position)
        inside = position - self._start
        if inside < len(self._piece):
            return self._piece[inside : inside + size]
        self._piece, self._start = self._stream.read(size), position
        return self._piece

    def copy(self, position: int, length: int, fd: int, offset: int) -> None:
        """See the protocol."""
        while length:
            data = self.read(position, min(length, CHUNK_BYTES))
            if not data:
                raise EOFError
            position, length = position + len(data), length - len(data)
            view = memoryview(data)
            while view:
                written = os.pwrite(fd, view, offset)
                view, offset = view[written:], offset + written

    def _skip(self, position: int) -> None:
        """Read on until the piece contains ``position``, or ends at it."""
        while (end := self._start + len(self._piece)) < position:
            piece = self._stream.read(min(position - end, CHUNK_BYTES))
            if not piece:
                raise EOFError
            self._piece, self._start = piece, end
