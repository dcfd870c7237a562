"""A small reserve of disk space, so that a full disk can be freed.

To remove an image, the database needs a few pages; to be opened, it needs two more files, one of 32 KiB (sqlite.org,
"Write-Ahead Logging").  On a disk without a free byte or a free inode, the commands that free space would fail like all
others.  So some files are kept in reserve, released on a full disk, and made again when there is room.  Reading takes no
space (:meth:`pydock_core.store.database.connection.Database.query`), so `dock ps`, `stop` and `kill` leave the reserve to
`rm`, `rmi` and `prune`.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

RESERVE_BYTES = 1 << 20
RESERVE_FILES = 8
_AMPLE = 4
"""The reserve is made if this multiple of its size is free."""


class Reserve:
    """The reserve's files; the first one holds the bytes.

    Args:
        path: their directory, on the disk that the reserve is for.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def keep(self) -> None:
        """Make missing files if there is ample room; ignore a failure."""
        if os.path.isdir(self._path):
            return
        with contextlib.suppress(OSError):
            if is_short(self._path.parent, _AMPLE * RESERVE_BYTES, _AMPLE * RESERVE_FILES):
                return
            os.mkdir(self._path, 0o700)
            try:
                for number in range(RESERVE_FILES):
                    self._make(number, RESERVE_BYTES if number == 0 else 0)
            except OSError:
                self.release()

    def _make(self, number: int, size_bytes: int) -> None:
        fd = os.open(self._path / str(number), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            if size_bytes:
                os.posix_fallocate(fd, 0, size_bytes)
        finally:
            os.close(fd)

    def release(self) -> bool:
        """Remove the files; return whether there were any."""
        released = False
        with contextlib.suppress(OSError):
            for name in os.listdir(self._path):
                with contextlib.suppress(FileNotFoundError):  # another process is removing them, too
                    os.unlink(self._path / name)
                released = True
            os.rmdir(self._path)
        return released


def is_short(directory: Path, least_bytes: int, least_files: int = RESERVE_FILES) -> bool:
    """Whether a directory's disk has fewer free bytes, or fewer free inodes, for this user."""
    status = os.statvfs(directory)
    has_limit = status.f_files > 0  # of files; Btrfs has none
    return status.f_bavail * status.f_frsize < least_bytes or (has_limit and status.f_favail < least_files)
