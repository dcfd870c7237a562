"""Temporary directories with a lock, which are swept when no process holds it.

A workspace is a directory under ``StateRoot.temporary`` (or ``trash``) with a file ``lock`` that its maker holds with
flock(2).  The kernel releases the lock when its last descriptor is closed, even if the process was killed.  So no process
id is recorded, and none can be mistaken for another.  A worker that has the descriptor keeps the lock after its maker's
death.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydock_core.errors import UnavailableError

_LOCK_NAME = "lock"
_ASIDE = "swept"
_ATTEMPTS = 100
# FS_IOC_GETFLAGS, FS_IOC_SETFLAGS and FS_TOPDIR_FL of linux/fs.h
_GET_FLAGS, _SET_FLAGS = 0x80086601, 0x40086602
_TOP_DIRECTORY = 0x00020000


@dataclass(frozen=True, slots=True)
class Workspace:
    """The directory of one operation.

    Attributes:
        path: the directory, with mode 0700.
        lock_fd: the lock's descriptor; pass it to a worker that writes below ``path``.
    """

    path: Path
    lock_fd: int


@contextlib.contextmanager
def open_workspace(parent: Path, kind: str, remove: Callable[[Path], None]) -> Iterator[Workspace]:
    """Make a workspace below ``parent``, and remove it with its remaining contents at the end.

    Args:
        parent: an existing directory.
        kind: the first part of the name, for people ("load", "layer").
        remove: removes a tree, possibly in a worker, because files may belong to subordinate ids.
    """
    workspace = _make(parent, kind)
    try:
        yield workspace
    finally:
        try:
            remove(workspace.path)
        finally:
            os.close(workspace.lock_fd)


def _make(parent: Path, kind: str) -> Workspace:
    for _ in range(_ATTEMPTS):
        path = parent / f"{kind}-{secrets.token_hex(8)}"
        path.mkdir(mode=0o700)
        fd = _lock(path)
        if fd is not None:
            return Workspace(path, fd)
        # A sweeper took it between mkdir and flock and is removing it: try another name.
    raise UnavailableError(f"cannot make a temporary directory in {parent}", "try again")


def _lock(path: Path) -> int | None:
    """Take the lock of a workspace; return None if another process holds it, or the directory is gone."""
    lock = path / _LOCK_NAME
    try:
        fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        held, named = os.fstat(fd), os.stat(lock, follow_symlinks=False)
    except (BlockingIOError, FileNotFoundError):
        os.close(fd)
        return None
    if (held.st_dev, held.st_ino) != (named.st_dev, named.st_ino):
        os.close(fd)
        return None
    return fd


def is_abandoned(path: Path) -> bool:
    """Whether a directory is an abandoned workspace; changes nothing."""
    try:
        fd = os.open(path / _LOCK_NAME, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return path.is_dir()  # its maker was killed, or is about to make the lock
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


def spread_directories(parent: Path) -> None:
    """Have ext4 put each new directory of ``parent`` into a block group of its own choice, not beside its
    neighbours.

    ext4 skips inodes that were deleted in the last minutes one by one (recently_deleted in fs/ext4/ialloc.c), so making a
    layer near one that was just removed takes several times as long.  The flag is chattr(1)'s "T"; a file system without
    it stays unchanged.
    """
    if struct.calcsize("l") != 8:
        return  # the request numbers below are those of 64-bit systems
    try:
        fd = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        flags = struct.unpack("l", fcntl.ioctl(fd, _GET_FLAGS, bytes(8)))[0]
        if not flags & _TOP_DIRECTORY:
            fcntl.ioctl(fd, _SET_FLAGS, struct.pack("l", flags | _TOP_DIRECTORY))
    except OSError:
        pass
    finally:
        os.close(fd)


def sweep(parent: Path, remove: Callable[[Path], None]) -> int:
    """Remove every workspace below ``parent`` whose maker is gone; return their number.

    Any number of processes may sweep at once.  Other files than directories are not PyDock's, and stay.
    """
    removed = 0
    for entry in list(os.scandir(parent)):
        if not entry.is_dir(follow_symlinks=False):
            continue
        path = Path(entry.path)
        fd = _lock(path)
        if fd is None:
            continue
        try:
            # Out of its maker's reach first: a maker that is between mkdir and flock would make a new lock in what is
            # being removed, and go on in it.
            aside = parent / f"{_ASIDE}-{secrets.token_hex(8)}"
            os.rename(path, aside)
            remove(aside)
            removed += 1
        except FileNotFoundError:
            continue  # its maker has removed it just now
        finally:
            os.close(fd)
    return removed
