"""A little space that is held back, so that a full disk can be freed.

To remove an image the database needs a few pages first, and to be opened at all a file of 32 KiB beside it
(sqlite.org, "Write-Ahead Logging"); on a disk without a free byte the commands that free space would fail like all
others.  So a file is kept that is given up then, and made again once there is room.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

RESERVE_BYTES = 1 << 20
_AMPLE = 4
"""It is made where so many times its size are free."""


class Reserve:
    """The file.

    Args:
        path: where it is, or will be; on the disk that it is for.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def keep(self) -> None:
        """Make it where it is missing and there is ample room.  What fails is no error: then there is none."""
        if os.path.exists(self._path):
            return
        with contextlib.suppress(OSError):
            if free_bytes(self._path.parent) < _AMPLE * RESERVE_BYTES:
                return
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(fd, 0, RESERVE_BYTES)
            except OSError:
                os.unlink(self._path)
            finally:
                os.close(fd)

    def release(self) -> bool:
        """Give it up; return whether it was there."""
        try:
            os.unlink(self._path)
        except OSError:
            return False
        return True


def free_bytes(directory: Path) -> int:
    """What is free on a directory's disk for this user."""
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize
