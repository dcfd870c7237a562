"""Resolves paths inside a container's root filesystem; no path can lead out of it.

openat2(2) with RESOLVE_IN_ROOT resolves every path: absolute symbolic links and ``..`` of the image stay inside its root,
and magic links (/proc/PID/root) are refused.  The result is a descriptor, never a host path.
"""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pydock_core import syscalls
from pydock_core.errors import InvalidError

if TYPE_CHECKING:
    from collections.abc import Iterator

_RESOLVE = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS
_MAXIMUM_LINKS = 40
_MAXIMUM_RACES = 128


def open_inside(
    root_fd: int, path: str, flags: int = syscalls.O_PATH, *, follow: bool = True, same_mount: bool = False
) -> int:
    """Open ``path`` below ``root_fd``.

    Args:
        follow: False refuses every symbolic link on the way (ELOOP).
        same_mount: True refuses a path to another mount than the root's own (EXDEV), such as a volume.

    Raises:
        OSError: as in openat2(2).
    """
    resolve = _RESOLVE if follow else _RESOLVE | syscalls.RESOLVE_NO_SYMLINKS
    if same_mount:
        resolve |= syscalls.RESOLVE_NO_XDEV
    relative = path.lstrip("/") or "."
    for _ in range(_MAXIMUM_RACES):
        try:
            return syscalls.openat2(root_fd, relative, flags, resolve=resolve)
        except BlockingIOError:
            continue  # EAGAIN: a concurrent mount or rename made the result of ".." uncertain
    return syscalls.openat2(root_fd, relative, flags, resolve=resolve)


@contextmanager
def opened_inside(
    root_fd: int, path: str, flags: int = syscalls.O_PATH, *, same_mount: bool = False
) -> Iterator[int]:
    """:func:`open_inside` as a context that closes the descriptor."""
    descriptor = open_inside(root_fd, path, flags, same_mount=same_mount)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def make_inside(
    root_fd: int,
    path: str,
    *,
    directory: bool,
    mode: int = 0o755,
    follow: bool = True,
    same_mount: bool = False,
) -> int:
    """Open ``path`` below the root; create it, and the directories on the way, if they are missing.

    Args:
        root_fd: the root directory of the container.
        path: path in the container; ``..`` and absolute links stay inside the root.
        directory: create a directory; otherwise an empty file.
        mode: of the created file or directory.
        follow: False refuses symbolic links on the way.
        same_mount: True refuses a path to another mount (EXDEV).

    Returns:
        An O_PATH descriptor, owned by the caller.

    Raises:
        InvalidError: a part of the path is not a directory, or there are too many links.
        OSError: another errno of openat2(2), mkdirat(2) or open(2).
    """
    try:
        return open_inside(root_fd, path, follow=follow, same_mount=same_mount)
    except FileNotFoundError:
        pass
    except NotADirectoryError:
        raise InvalidError(f"{path}: a part of this path in the container is not a directory") from None
    resolved: list[str] = []
    pending = _components(path)
    links = 0
    while pending:
        name = pending.pop(0)
        if name == "..":
            del resolved[-1:]
            continue
        with opened_inside(root_fd, "/".join(resolved), same_mount=same_mount) as parent_fd:
            try:
                status = os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
            except FileNotFoundError:
                _make_one(
                    parent_fd, name, directory=directory or bool(pending), mode=0o755 if pending else mode
                )
                resolved.append(name)
                continue
            except NotADirectoryError:
                raise InvalidError(
                    f"{path}: a part of this path in the container is not a directory"
                ) from None
            if not stat.S_ISLNK(status.st_mode):
                resolved.append(name)
                continue
            links += 1
            if links > _MAXIMUM_LINKS or not follow:
                raise InvalidError(f"{path}: symbolic links are not followed here, or there are too many")
            target = os.readlink(name, dir_fd=parent_fd)
        if target.startswith("/"):
            resolved.clear()
        pending[:0] = _components(target)
    return open_inside(root_fd, "/".join(resolved), follow=follow, same_mount=same_mount)


def _components(path: str) -> list[str]:
    return [name for name in path.split("/") if name not in ("", ".")]


def _make_one(parent_fd: int, name: str, *, directory: bool, mode: int) -> None:
    # EEXIST: another process has just created it; the final open checks its type.
    try:
        if directory:
            os.mkdir(name, mode, dir_fd=parent_fd)
        else:
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
            os.close(os.open(name, flags, mode, dir_fd=parent_fd))
    except FileExistsError:
        pass


def find_executable(root_fd: int, command: str, search_path: str, directory: str) -> int:
    """Find out whether a command of a container can be executed, without executing it.

    Args:
        root_fd: the root directory of the container.
        command: argv[0]; looked up in ``search_path`` if it has no slash.
        search_path: the container's PATH.
        directory: the working directory of the process.

    Returns:
        0 if it can be executed, 127 if it was not found, 126 if it cannot be executed.
    """
    if "/" in command:
        candidates = [command if command.startswith("/") else f"{directory}/{command}"]
    else:
        candidates = [f"{entry or directory}/{command}" for entry in search_path.split(":")]
    verdict = 127
    for candidate in candidates:
        try:
            with opened_inside(root_fd, candidate) as file_fd:
                mode = os.fstat(file_fd).st_mode
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            verdict = 126
            continue
        if stat.S_ISREG(mode) and mode & 0o111:
            return 0
        verdict = 126
    return verdict
