"""Fills a new volume with the image's content at its mount point, as Docker does.  Runs in a worker."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydock_core import syscalls
from pydock_core.errors import FailedError
from pydock_core.store.extents import data_segments
from pydock_core.store.private_root import open_private_root

_RESOLVE = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS


def fill_volume(
    *,
    root_mounts: Sequence[Mapping[str, Any]],
    mount_point: str,
    target: str,
    volume: str,
    fds: Sequence[int] = (),
    progress: Callable[[dict[str, Any]], None] | None = None,
) -> bool:
    """Copy ``target`` of an image into an empty volume.

    The calling process enters a new mount namespace, so it must be a worker that ends afterwards.

    Args:
        root_mounts: the image's, read-only, as data (:class:`RootMount`).
        mount_point: an empty directory.
        target: absolute path in the image.
        volume: the volume's directory.
        fds, progress: unused; the signature is that of all worker functions.

    Returns:
        Whether the image has a directory there.

    Raises:
        FailedError: a file could not be copied.
    """
    try:
        root_fd = open_private_root(root_mounts, mount_point)
        try:
            source_fd = syscalls.openat2(
                root_fd, target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, resolve=_RESOLVE
            )
        except (FileNotFoundError, NotADirectoryError):
            return False
        source = f"/proc/self/fd/{source_fd}"
        for entry in os.scandir(source_fd):
            _copy(f"{source}/{entry.name}", f"{volume}/{entry.name}")
        _copy_attributes(os.fstat(source_fd), volume)
        return True
    except OSError as error:
        raise FailedError(
            f"volume for {target}: {error.strerror}", "check the free space and the directory"
        ) from error


def _copy(source: str, destination: str) -> None:
    """Copy one entry with everything below it; links are copied as links."""
    status = os.lstat(source)
    if stat.S_ISDIR(status.st_mode):
        os.mkdir(destination)
        for name in os.listdir(source):
            _copy(f"{source}/{name}", f"{destination}/{name}")
    elif stat.S_ISREG(status.st_mode):
        _copy_data(source, destination)
    elif stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(source), destination)
        os.lchown(destination, status.st_uid, status.st_gid)
        return
    else:
        os.mknod(destination, status.st_mode, status.st_rdev)
    shutil.copystat(source, destination, follow_symlinks=False)
    _copy_attributes(status, destination)


def _copy_data(source: str, destination: str) -> None:
    """Copy a file's content and keep its holes: an image can have a sparse file that is larger than the disk."""
    with open(source, "rb", opener=_open_unfollowed) as file, open(destination, "xb") as copy:
        size_bytes = os.fstat(file.fileno()).st_size
        for offset, length in data_segments(file.fileno(), size_bytes):
            copy.seek(offset)
            position, end = offset, offset + length
            while position < end:
                sent = os.sendfile(copy.fileno(), file.fileno(), position, end - position)
                if not sent:
                    break
                position += sent
        copy.truncate(size_bytes)


def _open_unfollowed(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC)


def _copy_attributes(status: os.stat_result, destination: str) -> None:
    os.chown(destination, status.st_uid, status.st_gid)
    os.chmod(destination, stat.S_IMODE(status.st_mode))  # after chown, which clears setuid bits
