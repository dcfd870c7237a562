"""Removes and measures a directory tree of a container or an archive: any depth, any modes, no links followed.

Several processes may remove the same tree at once (all sweep the same trash), so missing files are ignored.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydock_core import syscalls
from pydock_core.errors import FailedError
from pydock_core.store.removal_lock import hold_removal_lock

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Descriptors held while descending.  A deeper directory is first moved to the top of the tree.
_DEPTH_LIMIT = 64
_ATTEMPTS = 10
# The longest path below one descriptor, before one further down takes over; PATH_MAX is 4096.
_PATH_LIMIT = 2048


def remove_tree(
    path: str, *, fds: Sequence[int] = (), progress: Callable[[dict[str, Any]], None] | None = None
) -> None:
    """Remove ``path`` and everything below it; ignore a missing one.  A worker function.

    Args:
        path: absolute; its parent is trusted.
        fds, progress: unused; the signature is that of all worker functions (:mod:`pydock_core.store.worker`).

    Raises:
        FailedError: a part could not be removed; the others are gone.
    """
    try:
        _remove(path)
    except OSError as error:
        raise FailedError(
            f"cannot remove {path}: {error.strerror}",
            "is something mounted or used below it? see: fuser -vm",
        ) from error


def give_to(
    paths: Sequence[str],
    owner: Sequence[int],
    *,
    fds: Sequence[int] = (),
    progress: Callable[[dict[str, Any]], None] | None = None,
) -> None:
    """Give files or directories, without what is below them, to another user and group.  A worker function.

    Args:
        paths: absolute; their parents are trusted.
        owner: the user and the group.
        fds, progress: unused; the signature is that of all worker functions.

    Raises:
        FailedError: a file is missing, or an id is not mapped.
    """
    for path in paths:
        try:
            os.chown(path, owner[0], owner[1], follow_symlinks=False)
        except OSError as error:
            raise FailedError(f"cannot give {path} to {owner[0]}:{owner[1]}: {error.strerror}") from error


def discard(path: Path, trash: Path, name: str, remove: Callable[[Path], None]) -> None:
    """Remove a tree atomically, by a rename to the trash first; ignore a missing one.

    Args:
        trash: a directory of the same file system, whose entries any process may remove at any time.
        name: the beginning of the entry's name there, for people.
        remove: removes a tree, possibly in a worker.
    """
    aside = trash / f"{name}-{secrets.token_hex(4)}"
    with hold_removal_lock(trash):
        try:
            os.rename(path, aside)
        except FileNotFoundError:
            return
        remove(aside)


def _remove(path: str) -> None:
    try:
        top_fd = os.open(path, _DIRECTORY)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        os.unlink(path)
        return
    except PermissionError:
        os.chmod(path, 0o700)
        top_fd = os.open(path, _DIRECTORY)
    try:
        for attempt in range(_ATTEMPTS):
            _empty(top_fd, top_fd, 0)
            try:
                os.rmdir(path)
            except FileNotFoundError:
                pass
            except OSError as error:
                # A sweeper that tests a workspace's lock may just have made the lock file in it.
                if error.errno != errno.ENOTEMPTY or attempt == _ATTEMPTS - 1:
                    raise
                continue
            return
    finally:
        os.close(top_fd)


def _empty(top_fd: int, directory_fd: int, depth: int) -> None:
    """Remove everything in a directory.  Deep directories are moved up to ``top_fd``, so the recursion is bounded."""
    while True:
        with os.scandir(directory_fd) as entries:
            names = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        if not names:
            return
        _make_writable(directory_fd)
        for name, is_directory in names:
            with contextlib.suppress(FileNotFoundError):
                if not is_directory:
                    os.unlink(name, dir_fd=directory_fd)
                elif depth >= _DEPTH_LIMIT:
                    # Move it to the top, where the outermost loop finds it in its next round.
                    os.rename(name, f".{secrets.token_hex(8)}", src_dir_fd=directory_fd, dst_dir_fd=top_fd)
                else:
                    _remove_child(top_fd, directory_fd, name, depth)
        if directory_fd != top_fd:
            return


def _remove_child(top_fd: int, directory_fd: int, name: str, depth: int) -> None:
    child_fd = _open_child(name, directory_fd)
    try:
        _empty(top_fd, child_fd, depth + 1)
    finally:
        os.close(child_fd)
    os.rmdir(name, dir_fd=directory_fd)


def _open_child(name: str, directory_fd: int) -> int:
    try:
        return os.open(name, _DIRECTORY, dir_fd=directory_fd)
    except PermissionError:
        os.chmod(name, 0o700, dir_fd=directory_fd)
        return os.open(name, _DIRECTORY, dir_fd=directory_fd)


def _make_writable(directory_fd: int) -> None:
    """Give the owner write permission, which root does not need (CAP_DAC_OVERRIDE)."""
    if os.geteuid() != 0 and os.fstat(directory_fd).st_mode & 0o300 != 0o300:
        os.fchmod(directory_fd, 0o700)


def tree_sizes(
    paths: Sequence[str],
    *,
    fds: Sequence[int] = (),
    progress: Callable[[dict[str, Any]], None] | None = None,
) -> list[int]:
    """Return the sizes of trees in bytes, without directories, and with hard-linked files counted once.  A worker function.

    This is Docker's measure (directory.Size of moby), so that sizes can be compared.  A tree may be changing: a file that
    is gone is not counted, and a directory that becomes a link is not entered.

    Args:
        paths: absolute, with trusted parents; a missing one has the size 0.
        fds, progress: unused; the signature is that of all worker functions.

    Raises:
        FailedError: a directory could not be read.
    """
    return [_tree_size(path) for path in paths]


def _tree_size(path: str) -> int:
    try:
        top_fd = os.open(path, _DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return 0
    size = 0
    linked: set[tuple[int, int]] = set()
    # (descriptor, path below it) of directories to read; the path None marks a descriptor to close.
    pending: list[tuple[int, str | None]] = [(top_fd, None), (top_fd, ".")]
    try:
        while pending:
            base_fd, below = pending.pop()
            if below is None:
                os.close(base_fd)
                continue
            try:
                directory_fd = syscalls.openat2(
                    base_fd, below, _DIRECTORY, resolve=syscalls.RESOLVE_NO_SYMLINKS
                )
            except (FileNotFoundError, NotADirectoryError):
                continue  # gone, or another thing by now
            except OSError as error:
                if error.errno == errno.ELOOP:
                    continue
                raise
            if len(below) > _PATH_LIMIT:
                base_fd, below = directory_fd, "."
                pending.append((directory_fd, None))
            try:
                with os.scandir(directory_fd) as entries:
                    for entry in entries:
                        if entry.is_dir(follow_symlinks=False):
                            pending.append((base_fd, f"{below}/{entry.name}"))
                            continue
                        with contextlib.suppress(FileNotFoundError):
                            size += _entry_size(entry.stat(follow_symlinks=False), linked)
            finally:
                if directory_fd != base_fd:
                    os.close(directory_fd)
    except OSError as error:
        raise FailedError(f"cannot measure {path}: {error.strerror}", "see dock doctor") from error
    finally:
        for descriptor, below in pending:
            if below is None:
                os.close(descriptor)
    return size


def _entry_size(status: os.stat_result, linked: set[tuple[int, int]]) -> int:
    """Return the size of an entry; 0 for another link to a counted file."""
    if status.st_nlink > 1:
        if (status.st_dev, status.st_ino) in linked:
            return 0
        linked.add((status.st_dev, status.st_ino))
    return status.st_size
