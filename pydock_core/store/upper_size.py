"""Sizes of the regular files in a container's writable layer, read while the container may change it."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path

from pydock_core.syscalls import RESOLVE_IN_ROOT, RESOLVE_NO_SYMLINKS, openat2

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


def file_sizes(upper: Path, paths: Sequence[str]) -> dict[str, int]:
    """Return the sizes in bytes of regular files, by path.

    Files that have gone, or that this user may not see, are left out.  A running container may replace a directory
    by a symbolic link at any time: no link is followed.

    Args:
        upper: the writable layer's directory.
        paths: absolute, as the container has them.
    """
    sizes: dict[str, int] = {}
    with ExitStack() as stack:
        try:
            top_fd = os.open(upper, _DIRECTORY)
        except OSError:
            return sizes  # never started, or just removed
        stack.callback(os.close, top_fd)
        for parent, members in groupby(sorted(paths, key=os.path.split), key=os.path.dirname):
            try:
                parent_fd = _open_directory(top_fd, parent.lstrip("/") or ".")
            except OSError:
                continue
            try:
                for path in members:
                    size = _file_size(parent_fd, os.path.basename(path))
                    if size is not None:
                        sizes[path] = size
            finally:
                os.close(parent_fd)
    return sizes


def _open_directory(top_fd: int, path: str) -> int:
    return openat2(top_fd, path, _DIRECTORY, resolve=RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS)


def _file_size(parent_fd: int, name: str) -> int | None:
    try:
        status = os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
    except OSError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None
