"""Writes a member of an archive to a file: one thread writes, another hashes and starts the write-out."""

from __future__ import annotations

import hashlib
import os
from contextlib import ExitStack
from pathlib import Path

from pydock_core.errors import CorruptError
from pydock_core.store.compression import ANEW
from pydock_core.store.durable import mapped
from pydock_core.store.growing_file import FollowingDigest
from pydock_core.store.tar_writer import write_all

# For a smaller file, a second thread costs more than it saves.
_LARGE_BYTES = 2 << 20
_SENT_BYTES = 8 << 20


class MemberFile:
    """Writes one new file, and computes its digest; a context manager.

    Args:
        path: of the new file.
        subject: names it in errors.
        expected_bytes: its size according to the archive.
    """

    def __init__(self, path: Path, subject: str, expected_bytes: int) -> None:
        self.path = path
        self.size_bytes = 0
        self._subject = subject
        self._closing = ExitStack()
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        with mapped(subject):
            self._fd = os.open(path, flags, 0o600)
        self._closing.callback(os.close, self._fd)
        self._hash = hashlib.sha256()
        self._following: FollowingDigest | None = None
        if expected_bytes >= _LARGE_BYTES:
            self._following = self._closing.enter_context(FollowingDigest(self._fd))

    def write(self, data: bytes) -> None:
        """Append ``data``.

        Raises:
            UnavailableError: the disk is full.
        """
        with mapped(self._subject):
            write_all(self._fd, data)
        if self._following is None:
            self._hash.update(data)
        self._grow(len(data))

    def send(self, source_fd: int, offset: int, count: int) -> int:
        """Have the kernel append up to ``count`` bytes of another file; return their number.

        Raises:
            CorruptError: the file ends before them.
            UnavailableError: the disk is full.
        """
        with mapped(self._subject):
            if self._following is None:
                data = os.pread(source_fd, count, offset)
                self.write(data)
                sent = len(data)
            else:
                sent = os.sendfile(self._fd, source_fd, offset, min(count, _SENT_BYTES))
                self._grow(sent)
        if not sent:
            raise CorruptError(f"{self._subject} is truncated", ANEW)
        return sent

    def _grow(self, count: int) -> None:
        self.size_bytes += count
        if self._following is not None:
            self._following.advance(self.size_bytes)

    def digest(self) -> str:
        """Wait for the digest of the written bytes; write nothing afterwards."""
        if self._following is None:
            return "sha256:" + self._hash.hexdigest()
        with mapped(self._subject):
            return self._following.finish()

    def __enter__(self) -> MemberFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()
