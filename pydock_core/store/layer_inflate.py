"""Writes a layer's plain tar to a file: one thread inflates, another hashes and writes, so that two cores are used.

Inflating, SHA-256 and write(2) all run without the interpreter's lock.  Written data is flushed early (sync_file_range),
so that the fsync at the end is short.
"""

from __future__ import annotations

import hashlib
import os
import queue
import threading
from collections.abc import Callable
from typing import BinaryIO

from pydock_core import syscalls

_PIECE_BYTES = 1 << 20
_PIECES = 8
_WRITEBACK_BYTES = 8 << 20


def write_plain(stream: BinaryIO, fd: int, progress: Callable[[int], None]) -> str:
    """Copy a stream into a file.

    Args:
        stream: the plain tar, inflated as it is read.
        fd: an empty file.
        progress: called with the number of bytes read so far, every few megabytes.

    Returns:
        the digest of the written bytes, "sha256:...".

    Raises:
        OSError: writing failed.  Errors of reading are raised as they are.
    """
    writer = _Writer(fd)
    writer.start()
    total = reported = 0
    try:
        while data := stream.read(_PIECE_BYTES):
            if not writer.put(data):
                break
            total += len(data)
            if total - reported >= _WRITEBACK_BYTES:
                reported = total
                progress(total)
    finally:
        writer.put(b"")
        writer.join()
    if writer.error is not None:
        raise writer.error
    return "sha256:" + writer.digest.hexdigest()


class _Writer(threading.Thread):
    def __init__(self, fd: int) -> None:
        super().__init__(name="layer-writer", daemon=True)
        self.digest = hashlib.sha256()
        self.error: OSError | None = None
        self._fd = fd
        self._pieces: queue.Queue[bytes] = queue.Queue(_PIECES)

    def put(self, data: bytes) -> bool:
        """Pass a piece to the writer, b"" for the end; return False if writing has failed."""
        self._pieces.put(data)
        return self.error is None

    def run(self) -> None:
        position = begun = 0
        while data := self._pieces.get():
            if self.error is not None:
                continue  # the other thread may be waiting for room in the queue
            try:
                self.digest.update(data)
                view = memoryview(data)
                while view:
                    view = view[os.write(self._fd, view) :]
                position += len(data)
                if position - begun >= _WRITEBACK_BYTES:
                    syscalls.sync_file_range(self._fd, begun, position - begun)
                    begun = position
            except OSError as error:
                self.error = error
