"""Reads small files of an image without mounting it: from the writable layer down, as overlayfs would show them.

A layer's content is hostile: every path is resolved with openat2(2) RESOLVE_IN_ROOT inside its layer's directory.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from pydock_core import syscalls

_LIMIT_BYTES = 4 << 20
_RESOLVE = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS


class RootFiles:
    """The files of one container's root file system.

    Args:
        directories: the layers' directories, the top first; the writable layer is the first of them.
    """

    def __init__(self, directories: Sequence[Path]) -> None:
        self._directories = directories

    def read(self, path: str) -> bytes | None:
        """Return the contents of a regular file, None where there is none (or more than 4 MiB of it)."""
        for directory in self._directories:
            try:
                root_fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                fd = syscalls.openat2(root_fd, path, os.O_PATH | os.O_CLOEXEC, resolve=_RESOLVE)
            except FileNotFoundError:
                continue
            except OSError:
                return None
            finally:
                os.close(root_fd)
            try:
                return self._contents(fd)
            finally:
                os.close(fd)
        return None

    @staticmethod
    def _contents(fd: int) -> bytes | None:
        """Read through an O_PATH descriptor, once it is known to be a regular file (a whiteout is a device)."""
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _LIMIT_BYTES:
            return None
        try:
            with open(f"/proc/self/fd/{fd}", "rb") as file:
                return file.read(_LIMIT_BYTES)
        except PermissionError:
            return None
