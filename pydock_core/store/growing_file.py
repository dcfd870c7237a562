"""A file that one thread writes while others read it.

The writer reports its progress; readers wait for more data, and for the end::

    arrival = Arrival()                                    # the writer's thread
    arrival.advance(len(chunk)); ...; arrival.finish()     # or arrival.fail(error)
    with GrowingReader(path, arrival) as stream: ...       # another thread
"""

from __future__ import annotations

import hashlib
import io
import os
import threading
from pathlib import Path

from pydock_core import syscalls

_CHUNK_BYTES = 1 << 20
_WRITE_OUT_BYTES = 16 << 20


class Arrival:
    """The length of a growing file, shared by the threads of one process.

    Args:
        size_bytes: the part that exists from the beginning (a resumed download).
    """

    def __init__(self, size_bytes: int = 0) -> None:
        self._changed = threading.Condition()
        self._size_bytes = size_bytes
        self._ended = False
        self._error: BaseException | None = None

    def advance(self, count: int) -> None:
        """Report ``count`` more bytes in the file."""
        with self._changed:
            self._size_bytes += count
            self._changed.notify_all()

    def finish(self) -> None:
        """Report that the file is complete and its content is verified."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def fail(self, error: BaseException) -> None:
        """Report that the file will not be completed; readers raise ``error``."""
        with self._changed:
            if not self._ended:
                self._error = error
                self._ended = True
                self._changed.notify_all()

    def wait(self, position: int) -> int:
        """Wait until the file is longer than ``position``, or complete; return its length.

        At the end it returns only after :meth:`finish`, so a reader that has received everything can trust the content.

        Raises:
            the error passed to :meth:`fail`.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._size_bytes > position)
            if self._error is not None:
                raise self._error
            return self._size_bytes


class GrowingReader(io.RawIOBase):
    """Reads a growing file from its start to its end."""

    def __init__(self, path: Path, arrival: Arrival) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._arrival = arrival
        self._position = 0

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # typeshed's Buffer has no len()
        available = self._arrival.wait(self._position) - self._position
        if available <= 0:
            return 0
        count = os.preadv(self._fd, [buffer[:available]], self._position)
        self._position += count
        return count

    def close(self) -> None:
        if not self.closed:
            os.close(self._fd)
        super().close()


class FollowingDigest:
    """Computes a file's digest in a thread while the file is written, and starts its write-out early.

    A context manager, which waits for the thread.  hashlib and pread(2) release the interpreter's lock, so two processors
    are used; the early write-out makes the fsync at the end short.

    Args:
        fd: of the file, open for reading; its position does not change.
        start_bytes: the part that exists already.
    """

    def __init__(self, fd: int, start_bytes: int = 0) -> None:
        self._fd = fd
        self._size_bytes = start_bytes
        self._arrival = Arrival(start_bytes)
        self._error: OSError | None = None
        self._stopped = False
        self._hash = hashlib.sha256()
        self._thread = threading.Thread(target=self._run, name="following-digest", daemon=True)

    def advance(self, size_bytes: int) -> None:
        """Report that the file has ``size_bytes`` now."""
        self._arrival.advance(size_bytes - self._size_bytes)
        self._size_bytes = size_bytes

    def finish(self) -> str:
        """Return the digest of the whole file.

        Raises:
            OSError: the file could not be read back.
        """
        self._end()
        if self._error is not None:
            raise self._error
        return "sha256:" + self._hash.hexdigest()

    def _end(self) -> None:
        self._arrival.finish()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._follow(memoryview(bytearray(_CHUNK_BYTES)))
        except OSError as error:
            self._error = error

    def _follow(self, buffer: memoryview) -> None:
        position = written_out = 0
        ended = False
        while not ended and not self._stopped:
            # A whole piece, because waking up for each small one would slow the writer.
            available = self._arrival.wait(position + _CHUNK_BYTES - 1)
            ended = available < position + _CHUNK_BYTES
            while position < available and not self._stopped:
                count = os.preadv(self._fd, [buffer[: available - position]], position)
                if not count:
                    return  # the file is shorter than was said: the digest is that of the file
                self._hash.update(buffer[:count])
                position += count
                if position - written_out >= _WRITE_OUT_BYTES:
                    syscalls.sync_file_range(self._fd, written_out, position - written_out)
                    written_out = position

    def __enter__(self) -> FollowingDigest:
        self._thread.start()
        return self

    def __exit__(self, kind: object, value: object, traceback: object) -> None:
        self._stopped = kind is not None
        self._end()
