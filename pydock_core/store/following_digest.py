"""Computes the digest of a file beside its writing, from the page cache, and has it written out early.

hashlib and pread(2) give up the interpreter's lock, so that both processors are used; and what is on its way to the
disk already makes the fsync at the end short.
"""

from __future__ import annotations

import hashlib
import os
import threading

from pydock_core import syscalls

_CHUNK_BYTES = 1 << 20
_WRITE_OUT_BYTES = 16 << 20


class FollowingDigest:
    """A thread that follows the growing file ``fd``; a context manager that waits for it.

    Args:
        fd: of the file, open for reading; position and contents are left alone.
        start_bytes: how much is there.
    """

    def __init__(self, fd: int, start_bytes: int = 0) -> None:
        self._fd = fd
        self._changed = threading.Condition()
        self._size_bytes = start_bytes
        self._ended = False
        self._error: OSError | None = None
        self._hash = hashlib.sha256()
        self._thread = threading.Thread(target=self._run, name="following-digest", daemon=True)

    def advance(self, size_bytes: int) -> None:
        """The file has ``size_bytes`` now."""
        with self._changed:
            self._size_bytes = size_bytes
            self._changed.notify()

    def finish(self) -> str:
        """Nothing more comes: wait, and return the digest.

        Raises:
            OSError: the file could not be read back.
        """
        self._end()
        if self._error is not None:
            raise self._error
        return "sha256:" + self._hash.hexdigest()

    def _end(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._follow(memoryview(bytearray(_CHUNK_BYTES)))
        except OSError as error:
            self._error = error

    def _follow(self, buffer: memoryview) -> None:
        position = written_out = 0
        while True:
            available, ended = self._wait(position + _CHUNK_BYTES)
            while position < available:
                count = os.preadv(self._fd, [buffer[: available - position]], position)
                if not count:
                    return  # the file is shorter than was said: the digest is of what there is
                self._hash.update(buffer[:count])
                position += count
                if position - written_out >= _WRITE_OUT_BYTES:
                    syscalls.sync_file_range(self._fd, written_out, position - written_out)
                    written_out = position
            if ended:
                return

    def _wait(self, wanted_bytes: int) -> tuple[int, bool]:
        """Wait for that much, or the end; a piece is large, as waking up for each small one costs the writer."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._size_bytes >= wanted_bytes)
            return self._size_bytes, self._ended

    def __enter__(self) -> FollowingDigest:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
