"""Fills an empty volume with the image's content at its mount point, as Docker does.  Runs in a worker."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from pydock_core import syscalls
from pydock_core.errors import FailedError
from pydock_core.store.private_root import open_private_root
from pydock_core.store.tree_copy import CopyRules, TreeCopy
from pydock_core.store.tree_tar import DIRECTORY_FLAGS

_RESOLVE = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS
_RULES = CopyRules(xattrs=("user.", "trusted.", "security.capability", "system.posix_acl_"), devices=True)
"""Extended attributes that are valid on another host; security.selinux, security.ima and similar ones are not."""


def fill_volume(
    *,
    root_mounts: Sequence[Mapping[str, Any]],
    mount_point: str,
    target: str,
    volume: str,
    fds: Sequence[int] = (),
    progress: Callable[[dict[str, Any]], None] | None = None,
) -> bool:
    """Copy ``target`` of an image into an empty volume: owners, modes, times, extended attributes and links are kept.

    Only for a worker process that ends afterwards, because it enters its own mount namespace.

    Args:
        root_mounts: the image's read-only mounts, as data (:class:`RootMount`).
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
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        try:
            source_fd = syscalls.openat2(root_fd, target, flags, resolve=_RESOLVE)
        except (FileNotFoundError, NotADirectoryError):
            return False
        target_fd = os.open(volume, DIRECTORY_FLAGS)
        TreeCopy(source_fd, target_fd, _RULES, f"volume for {target}").copy_content()
        copy_attributes(source_fd, target_fd)
        return True
    except OSError as error:
        raise FailedError(
            f"volume for {target}: {error.strerror}", "check the free space and the directory"
        ) from error


def settle_volume(
    *,
    fill: str,
    source: str,
    volume: str,
    fds: Sequence[int] = (),
    progress: Callable[[dict[str, Any]], None] | None = None,
) -> None:
    """Move the prepared files beside a volume into it; any number of processes may do so at once.

    Existing names in the volume are kept.  The next caller moves the remaining files, so a kill loses none.

    Args:
        fill: the directory beside the volume, removed at the end.
        source: name of the subdirectory with the files.
        volume: the volume's directory.
        fds, progress: unused; the signature is that of all worker functions.

    Raises:
        FailedError: a file cannot be moved.
    """
    from pydock_core.store.trees import remove_tree

    try:
        with suppress(FileNotFoundError):  # another process has finished
            source_fd = os.open(f"{fill}/{source}", DIRECTORY_FLAGS)
            volume_fd = os.open(volume, DIRECTORY_FLAGS)
            for name in sorted(os.listdir(source_fd)):
                with suppress(FileNotFoundError, FileExistsError):
                    syscalls.rename_noreplace(source_fd, name, volume_fd, name)
            copy_attributes(source_fd, volume_fd)
        remove_tree(fill)
    except OSError as error:
        raise FailedError(f"volume {volume}: {error.strerror}", "see dock doctor") from error


def copy_attributes(source_fd: int, target_fd: int) -> None:
    """Give a volume's own directory the owner and the mode of the image's."""
    status = os.fstat(source_fd)
    os.fchown(target_fd, status.st_uid, status.st_gid)
    os.fchmod(target_fd, stat.S_IMODE(status.st_mode))
