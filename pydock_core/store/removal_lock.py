"""The removal lock: held, shared, from the deletion of a row to that of the last file.

It is an flock(2) on the trash, which every state root has.  The kernel releases it when its holder is killed.  So files
without a row are either being removed by a holder, or were left by a killed process.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def take_removal_lock(trash: Path) -> int:
    """Take the lock; return its descriptor, which the caller closes after the last file is gone."""
    fd = os.open(trash, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fcntl.flock(fd, fcntl.LOCK_SH)
    return fd


@contextmanager
def hold_removal_lock(trash: Path) -> Iterator[None]:
    """Hold the lock during a block.  Any number of processes and threads may hold it."""
    fd = take_removal_lock(trash)
    try:
        yield
    finally:
        os.close(fd)


def is_removing(trash: Path) -> bool:
    """Whether a process holds the lock."""
    fd = os.open(trash, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
