"""Writes a file that appears under its name only when it is complete; a killed writer leaves nothing behind."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_MODE = 0o666  # minus the umask, like any new file
# The errors of O_TMPFILE without support in the file system (EOPNOTSUPP) or the kernel (EISDIR): open(2).  A network or
# FUSE file system may return EINVAL.
_NO_UNNAMED_FILES = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT)


@contextlib.contextmanager
def replaced_file(target: Path) -> Iterator[BinaryIO]:
    """Yield a stream; at the end of the block, its content is synced to disk as the file ``target``.

    If the block raises, ``target`` is unchanged.  So it is after a kill: the file has no name until it is complete
    (O_TMPFILE of open(2)).  On file systems without such files, it has a hidden name beside the target, and the next
    writer of the same target removes it.

    Raises:
        OSError: the file cannot be made or written.
    """
    directory_fd = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    scratch = f".{target.name}.{secrets.token_hex(4)}"
    try:
        _sweep(directory_fd, target.name)
        is_named = False
        try:
            fd = os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, _MODE, dir_fd=directory_fd)
        except OSError as error:
            if error.errno not in _NO_UNNAMED_FILES:
                raise
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
            fd = os.open(scratch, flags, _MODE, dir_fd=directory_fd)
            is_named = True
        try:
            with open(fd, "wb") as stream:
                with contextlib.suppress(OSError):  # shows other processes' _sweep that this writer is alive
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
                if not is_named:
                    # linkat(2) never replaces a file; with a directory descriptor, os.link follows the first name.
                    os.link(f"/proc/self/fd/{stream.fileno()}", scratch, dst_dir_fd=directory_fd)
                    is_named = True
                os.rename(scratch, target.name, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)
        except BaseException:
            if is_named:
                with contextlib.suppress(OSError):
                    os.unlink(scratch, dir_fd=directory_fd)
            raise
    finally:
        os.close(directory_fd)


def _sweep(directory_fd: int, name: str) -> None:
    """Remove the hidden files of killed writers of a target."""
    hidden = re.compile(re.escape(f".{name}.") + "[0-9a-f]{8}")
    for found in filter(hidden.fullmatch, os.listdir(directory_fd)):
        with contextlib.suppress(OSError):
            fd = os.open(
                found, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory_fd
            )
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(found, dir_fd=directory_fd)
            finally:
                os.close(fd)
