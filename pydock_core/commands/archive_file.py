"""A file that appears under its name when it is whole, and leaves nothing behind when its writer is killed."""

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

_MODE = 0o666  # less the umask, as any new file
# What open(2) says of O_TMPFILE if the file system (EOPNOTSUPP), or the kernel (EISDIR), has no such files; a network
# or FUSE file system may answer otherwise (EINVAL).
_NO_UNNAMED_FILES = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT)


@contextlib.contextmanager
def replaced_file(target: Path) -> Iterator[BinaryIO]:
    """Yield a stream; its content is in the file ``target``, and on the disk, when the block has ended.

    A block that raises leaves ``target`` as it was.  So does a kill: the file has no name until it is whole (open(2),
    O_TMPFILE), on file systems that have such files.  On others it has a hidden name beside the target, which the next
    writer of the same target removes.

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
                with contextlib.suppress(OSError):  # tells _sweep of another process that this writer lives
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
                if not is_named:
                    # linkat(2) replaces nothing; the descriptor of the directory makes os.link follow the first name.
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
