"""Lists a container's changes to its file system from its writable layer.  Runs in a worker.

The rules are Docker's (github.com/moby/go-archive, changes.go).  An entry is modified if its mode, owner, device or
capabilities differ, or, unless it is a directory, its size or time.  A directory with a change in it is modified.  Entries
that were removed with their directory are not listed.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import Any

from pydock_core import syscalls
from pydock_core.errors import FailedError
from pydock_core.progress import Progress
from pydock_core.store.private_root import open_private_root
from pydock_core.store.tree_tar import DIRECTORY_FLAGS
from pydock_core.store.upper_tar import is_opaque, is_whiteout

MODIFIED, ADDED, DELETED = range(3)
"""Engine API, ChangeType."""

_RESOLVE = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_SYMLINKS | syscalls.RESOLVE_NO_MAGICLINKS
_CAPABILITY = "security.capability"
# Errors of an entry that vanished, or changed its kind, after it was listed.
_VANISHED = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


def list_changes(
    root_mounts: Sequence[Mapping[str, Any]],
    mount_point: str,
    upper: str,
    user_xattrs: bool,
    *,
    fds: Sequence[int] = (),
    progress: Progress | None = None,
) -> list[list[Any]]:
    """Return [path, kind] of each change, by path.  A worker function.

    Args:
        root_mounts: the container's file system without its writable layer, read-only.
        mount_point: an empty directory.
        upper: the writable layer; a missing one has no changes.
        user_xattrs: see :class:`pydock_core.store.upper_tar.UpperTar`.
        fds, progress: unused; the signature is that of all worker functions.

    Raises:
        FailedError: a file cannot be read.
    """
    with ExitStack() as stack:
        try:
            upper_fd = os.open(upper, DIRECTORY_FLAGS)
        except FileNotFoundError:
            return []
        stack.callback(os.close, upper_fd)
        try:
            lower_fd = open_private_root(root_mounts, mount_point)
            stack.callback(os.close, lower_fd)
            changes = _Comparison(upper_fd, lower_fd, user_xattrs).run()
        except OSError as error:
            raise FailedError(f"cannot read the container's changes: {error}") from error
    return [[path, changes[path]] for path in sorted(changes, key=os.fsencode)]


class _Comparison:
    """The comparison of an upper directory with the layers below."""

    def __init__(self, upper_fd: int, lower_fd: int, user_xattrs: bool) -> None:
        self._upper_fd = upper_fd
        self._lower_fd = lower_fd
        self._user_xattrs = user_xattrs
        self._changes: dict[str, int] = {}
        # Directories to compare, and whether the layers below have them.
        self._pending: list[tuple[str, bool]] = [("", True)]

    def run(self) -> dict[str, int]:
        while self._pending:
            path, is_merged = self._pending.pop()
            with ExitStack() as stack, suppress(FileNotFoundError, NotADirectoryError):
                upper_fd = self._open(stack, self._upper_fd, path)
                lower_fd = self._open(stack, self._lower_fd, path) if is_merged else None
                self._compare(path, upper_fd, lower_fd)
        for path in list(self._changes):
            parent = path.rpartition("/")[0]
            while parent and parent not in self._changes:
                self._changes[parent] = MODIFIED
                parent = parent.rpartition("/")[0]
        return self._changes

    @staticmethod
    def _open(stack: ExitStack, root_fd: int, path: str) -> int:
        fd = syscalls.openat2(root_fd, path.lstrip("/") or ".", DIRECTORY_FLAGS, resolve=_RESOLVE)
        stack.callback(os.close, fd)
        return fd

    def _compare(self, path: str, upper_fd: int, lower_fd: int | None) -> None:
        names = os.listdir(upper_fd)
        if lower_fd is not None and is_opaque(
            upper_fd, os.listxattr(upper_fd), user_xattrs=self._user_xattrs
        ):
            hidden = set(os.listdir(lower_fd)).difference(names)
            self._changes.update({f"{path}/{name}": DELETED for name in hidden})
        for name in names:
            try:
                self._compare_entry(f"{path}/{name}", name, upper_fd, lower_fd)
            except OSError as error:
                if error.errno not in _VANISHED:
                    raise

    def _compare_entry(self, path: str, name: str, upper_fd: int, lower_fd: int | None) -> None:
        new = os.stat(name, dir_fd=upper_fd, follow_symlinks=False)
        old: os.stat_result | None = None
        if lower_fd is not None:
            with suppress(FileNotFoundError):
                old = os.stat(name, dir_fd=lower_fd, follow_symlinks=False)
        xattrs: list[str] = []
        if stat.S_ISREG(new.st_mode):
            xattrs = os.listxattr(f"/proc/self/fd/{upper_fd}/{name}", follow_symlinks=False)
        if is_whiteout(new, xattrs, user_xattrs=self._user_xattrs):
            if old is not None:
                self._changes[path] = DELETED
            return
        if old is None:
            self._changes[path] = ADDED
        elif _differs(old, new) or (
            stat.S_ISREG(new.st_mode)
            and lower_fd is not None
            and _capability(upper_fd, name) != _capability(lower_fd, name)
        ):
            self._changes[path] = MODIFIED
        if stat.S_ISDIR(new.st_mode):
            self._pending.append((path, old is not None and stat.S_ISDIR(old.st_mode)))


def _differs(old: os.stat_result, new: os.stat_result) -> bool:
    if (old.st_mode, old.st_uid, old.st_gid, old.st_rdev) != (
        new.st_mode,
        new.st_uid,
        new.st_gid,
        new.st_rdev,
    ):
        return True
    if stat.S_ISDIR(new.st_mode):
        return False
    return old.st_size != new.st_size or not _is_same_time(old.st_mtime_ns, new.st_mtime_ns)


def _is_same_time(one_ns: int, other_ns: int) -> bool:
    """Compare two times; one without a fraction may have lost it in an archive, and equals any fraction."""
    return one_ns == other_ns or (
        one_ns // 10**9 == other_ns // 10**9 and (one_ns % 10**9 == 0 or other_ns % 10**9 == 0)
    )


def _capability(directory_fd: int, name: str) -> bytes:
    try:
        return os.getxattr(f"/proc/self/fd/{directory_fd}/{name}", _CAPABILITY, follow_symlinks=False)
    except OSError:
        return b""
