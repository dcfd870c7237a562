"""Mounts a container's filesystems: creates them detached, then attaches them by descriptor inside the container's root.

mount(2) never gets a path of the container: the target is an O_PATH descriptor from openat2(2), the mount is a
descriptor from open_tree(2) or fsmount(2), and move_mount(2) attaches it (Linux 5.12, for mount_setattr(2)).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from typing import TYPE_CHECKING

from pydock_core import syscalls
from pydock_core.errors import FailedError, InvalidError, NotFoundError, PyDockError, UnsupportedError
from pydock_core.runtime.inside import make_inside, open_inside, opened_inside
from pydock_core.runtime.mount_options import PROPAGATION, MountPlan

if TYPE_CHECKING:
    from pathlib import Path

_STRICT_TARGETS = frozenset({"proc", "sysfs"})
_CONFINED = {syscalls.PROC_SUPER_MAGIC: "/proc", syscalls.SYSFS_MAGIC: "/sys"}
_KERNEL_FILESYSTEMS = frozenset(
    {
        syscalls.PROC_SUPER_MAGIC,
        syscalls.SYSFS_MAGIC,
        syscalls.CGROUP_SUPER_MAGIC,
        syscalls.CGROUP2_SUPER_MAGIC,
    }
)
_MAXIMUM_VALUE_BYTES = 255  # fs/fsopen.c: strndup_user(_value, 256)


def open_bind_source(plan: MountPlan, bundle: Path) -> int:
    """Return a detached copy of the mount of a bind's source, with the plan's attributes.

    Call this in the mount and user namespaces of the caller of ``create``, where the source is reachable.

    Raises:
        NotFoundError, FailedError: the source is missing or cannot be bound.
    """
    source = os.path.join(bundle, plan.source)
    flags = syscalls.OPEN_TREE_CLONE | (syscalls.AT_RECURSIVE if plan.recursive_bind else 0)
    try:
        tree_fd = syscalls.open_tree(syscalls.AT_FDCWD, source, flags)
    except FileNotFoundError:
        raise NotFoundError(f"mount {plan.destination}: the source {source} does not exist") from None
    except OSError as error:
        raise FailedError(f"mount {plan.destination}: cannot bind {source}: {error.strerror}") from error
    try:
        _set_attributes(tree_fd, plan)
        # A copy of a shared mount is its peer, and mounts of the container must not propagate to the host.
        if not plan.propagation:
            syscalls.mount_setattr(tree_fd, propagation=syscalls.MS_PRIVATE, recursive=True)
    except OSError as error:
        os.close(tree_fd)
        raise FailedError(f"mount {plan.destination}: {error.strerror}") from error
    return tree_fd


def _set_attributes(mount_fd: int, plan: MountPlan) -> None:
    if plan.attributes_set or plan.attributes_clear:
        syscalls.mount_setattr(
            mount_fd, attributes_set=plan.attributes_set, attributes_clear=plan.attributes_clear
        )
    if plan.tree_set or plan.tree_clear:
        syscalls.mount_setattr(
            mount_fd, attributes_set=plan.tree_set, attributes_clear=plan.tree_clear, recursive=True
        )


def make_filesystem(plan: MountPlan, *, attributes: int | None = None) -> int:
    """Return a detached mount of a new filesystem (proc, sysfs, tmpfs, devpts, mqueue, ...).

    Args:
        plan: type, source, parameters and attributes.
        attributes: MOUNT_ATTR_* in place of the plan's own.

    Raises:
        OSError: the kernel refuses; its subject is the refused parameter.
    """
    context_fd = syscalls.fsopen(plan.kind)
    try:
        if plan.source:
            syscalls.fsconfig_set(context_fd, "source", plan.source)
        for key, value in plan.data:
            if value is not None and len(os.fsencode(value)) > _MAXIMUM_VALUE_BYTES:
                raise UnsupportedError(
                    f"mount {plan.destination}: the value of {key} is longer than {_MAXIMUM_VALUE_BYTES} bytes"
                )
            syscalls.fsconfig_set(context_fd, key, value)
        syscalls.fsconfig_create(context_fd)
        return syscalls.fsmount(context_fd, plan.attributes_set if attributes is None else attributes)
    finally:
        os.close(context_fd)


def make_tmpfs(attributes: int, **parameters: str) -> int:
    """Return a detached tmpfs with these mount attributes and parameters."""
    data = tuple(parameters.items())
    return make_filesystem(MountPlan("", "tmpfs", "tmpfs", False, attributes, 0, 0, 0, (), data))


def mount_plan(
    root_fd: int, plan: MountPlan, source_fd: int | None, *, attributes: int | None = None
) -> None:
    """Mount one entry below ``root_fd``; create a missing target inside the root.

    Args:
        root_fd: the container's root directory, a mount point of this mount namespace.
        plan: the entry; not of type "cgroup".
        source_fd: the detached mount of a bind, else None.
        attributes: MOUNT_ATTR_* in place of the plan's own (for a mount that becomes read-only later).

    Raises:
        PyDockError: the target cannot or must not be mounted on; the message names it.
    """
    try:
        mount_fd = (
            os.dup(source_fd) if source_fd is not None else make_filesystem(plan, attributes=attributes)
        )
    except OSError as error:
        subject = f" ({error.filename})" if error.filename and error.filename != plan.kind else ""
        raise FailedError(
            f"cannot mount {plan.kind} on {plan.destination}: {error.strerror}{subject}",
            f"see the options of {plan.kind}(5), for instance size=64m" if plan.kind == "tmpfs" else "",
        ) from error
    try:
        target_fd = open_target(root_fd, plan, mount_fd)
        try:
            syscalls.move_mount(mount_fd, target_fd)
        finally:
            os.close(target_fd)
        for kind, recursive in plan.propagation:
            syscalls.mount_setattr(mount_fd, propagation=kind, recursive=recursive)
    except OSError as error:
        raise FailedError(f"mount {plan.destination}: {error.strerror}") from error
    finally:
        os.close(mount_fd)


def open_target(root_fd: int, plan: MountPlan, mount_fd: int | None) -> int:
    """Open the target of a mount inside the root, creating it if it is missing, and check it.

    Raises:
        InvalidError: the target is the kernel's own /proc or /sys or lies in it, or is of the wrong type.
        OSError: as openat2(2).
    """
    is_directory = True
    if mount_fd is not None:
        is_directory = stat.S_ISDIR(os.fstat(mount_fd).st_mode)
    strict = plan.kind in _STRICT_TARGETS
    try:
        target_fd = make_inside(root_fd, plan.destination, directory=is_directory, follow=not strict)
    except OSError as error:
        if error.errno == errno.ELOOP and strict:
            raise InvalidError(
                f"mount {plan.destination}: the image has a symbolic link in its place"
            ) from None
        raise
    try:
        _check_target(root_fd, plan, mount_fd, target_fd, is_directory=is_directory)
    except BaseException:
        os.close(target_fd)
        raise
    return target_fd


def _check_target(
    root_fd: int, plan: MountPlan, mount_fd: int | None, target_fd: int, *, is_directory: bool
) -> None:
    status = os.fstat(target_fd)
    if stat.S_ISLNK(status.st_mode):
        raise InvalidError(f"mount {plan.destination}: the target is a symbolic link")
    if stat.S_ISDIR(status.st_mode) != is_directory:
        sort = ("a file", "a directory") if is_directory else ("a directory", "a file")
        raise InvalidError(f"mount {plan.destination}: the target is {sort[0]} and the source {sort[1]}")
    if os.path.samestat(status, os.fstat(root_fd)):
        raise InvalidError(f"mount {plan.destination}: the root itself cannot be a mount target")
    if not plan.is_bind and plan.kind != "tmpfs":
        return
    # A mount under /proc would let an image forge facts of the kernel that programs, and this one, rely on:
    # CVE-2019-16884, CVE-2019-19921.
    confined = _CONFINED.get(syscalls.filesystem_magic(target_fd))
    first = os.path.normpath(plan.destination).split("/")[1]
    if confined is None and first in ("proc", "sys") and plan.is_bind:
        confined = f"/{first}"
    if confined is None:
        return
    if mount_fd is not None and plan.is_bind and syscalls.filesystem_magic(mount_fd) in _KERNEL_FILESYSTEMS:
        return  # the host's own /proc, /sys or cgroups, as rootless containers have them
    if plan.kind == "tmpfs" and os.path.normpath(plan.destination).startswith("/sys/"):
        return
    raise InvalidError(
        f"mount {plan.destination}: {confined} of the container cannot be a mount target",
        "choose another target",
    )


def mask_paths(root_fd: int, paths: Iterable[str]) -> None:
    """Hide paths of the container: a directory under an empty read-only tmpfs, a file under /dev/null.

    Missing paths are ignored (config-linux.md, "Masked Paths").
    """
    empty_fd = null_fd = -1
    try:
        for path in paths:
            try:
                target_fd = open_inside(root_fd, path)
            except (FileNotFoundError, NotADirectoryError):
                continue
            try:
                if stat.S_ISDIR(os.fstat(target_fd).st_mode):
                    if empty_fd < 0:
                        attributes = syscalls.MOUNT_ATTR_RDONLY | syscalls.MOUNT_ATTR_NOSUID
                        empty_fd = make_tmpfs(
                            attributes | syscalls.MOUNT_ATTR_NODEV | syscalls.MOUNT_ATTR_NOEXEC,
                            size="0",
                            mode="755",
                        )
                        syscalls.move_mount(empty_fd, target_fd)
                        continue
                    copy_fd = syscalls.open_tree(
                        empty_fd, "", syscalls.OPEN_TREE_CLONE | syscalls.AT_EMPTY_PATH
                    )
                else:
                    if null_fd < 0:
                        null_fd = _open_null(root_fd)
                    copy_fd = syscalls.open_tree(
                        null_fd, "", syscalls.OPEN_TREE_CLONE | syscalls.AT_EMPTY_PATH
                    )
                try:
                    syscalls.move_mount(copy_fd, target_fd)
                finally:
                    os.close(copy_fd)
            finally:
                os.close(target_fd)
    except OSError as error:
        raise FailedError(f"masked path {path}: {error.strerror}", exit_code=125) from error
    finally:
        for descriptor in (empty_fd, null_fd):
            if descriptor >= 0:
                os.close(descriptor)


def _open_null(root_fd: int) -> int:
    """Open the container's /dev/null, and check that it is the null device.

    The container can write to the file that is bound over masked paths.  If that were a link or a file of the image, it
    would give the container access to the host (CVE-2025-31133).
    """
    null_fd = open_inside(root_fd, "/dev/null", follow=False)
    status = os.fstat(null_fd)
    if not stat.S_ISCHR(status.st_mode) or status.st_rdev != os.makedev(1, 3):
        os.close(null_fd)
        raise FailedError(
            "/dev/null of the container is not the null device, so nothing can be masked with it",
            "let the container have its own /dev: no volume or bind mount there",
            exit_code=125,
        )
    return null_fd


def make_read_only(root_fd: int, paths: Iterable[str]) -> None:
    """Make paths of the container read-only, by a bind mount on themselves; ignore missing ones."""
    for path in paths:
        try:
            with opened_inside(root_fd, path) as target_fd:
                flags = syscalls.OPEN_TREE_CLONE | syscalls.AT_EMPTY_PATH | syscalls.AT_RECURSIVE
                copy_fd = syscalls.open_tree(target_fd, "", flags)
                try:
                    syscalls.mount_setattr(copy_fd, attributes_set=syscalls.MOUNT_ATTR_RDONLY, recursive=True)
                    syscalls.move_mount(copy_fd, target_fd)
                finally:
                    os.close(copy_fd)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise FailedError(f"read-only path {path}: {error.strerror}") from error


def open_root(root: Path, propagation: str) -> int:
    """Return a detached copy of the tree mounted at ``root``, to become a container's root.

    Args:
        root: host path of the root filesystem.
        propagation: ``linux.rootfsPropagation``, or empty.
    """
    try:
        root_fd = syscalls.open_tree(
            syscalls.AT_FDCWD, os.fspath(root), syscalls.OPEN_TREE_CLONE | syscalls.AT_RECURSIVE
        )
    except FileNotFoundError:
        raise NotFoundError(f"the root filesystem {root} does not exist") from None
    except OSError as error:
        raise _explain_mount_api(f"the root filesystem {root}", error) from error
    try:
        if not stat.S_ISDIR(os.fstat(root_fd).st_mode):
            raise InvalidError(f"the root filesystem {root} is not a directory")
        # Private while it is being set up (pivot_root(2) requires it too); the requested propagation is set at the end.
        syscalls.mount_setattr(root_fd, propagation=syscalls.MS_PRIVATE, recursive=True)
        if propagation and propagation not in PROPAGATION:
            raise InvalidError(f"linux.rootfsPropagation: unknown propagation {propagation}")
    except BaseException:
        os.close(root_fd)
        raise
    return root_fd


def _explain_mount_api(subject: str, error: OSError) -> PyDockError:
    if error.errno == errno.ENOSYS:
        return UnsupportedError(
            "this kernel lacks open_tree(2) or mount_setattr(2)",
            "Linux 5.12 or newer is needed; or use --runtime crun",
        )
    return FailedError(f"cannot mount {subject}: {error.strerror}")


def enter_root(root_fd: int, *, read_only: bool, propagation: str) -> None:
    """Make ``root_fd``, a mount of this namespace, the root of the process, and detach the old root.

    Postcondition: nothing of the old root can be reached; the working directory is the new root.
    """
    os.fchdir(root_fd)
    # The old root is stacked on the new one: no directory is needed to put it (pivot_root(2), NOTES).
    syscalls.pivot_root(".", ".")
    syscalls.umount(".", syscalls.MNT_DETACH)
    os.chdir("/")
    if read_only:
        syscalls.mount_setattr(root_fd, attributes_set=syscalls.MOUNT_ATTR_RDONLY)
    if propagation:
        kind, recursive = PROPAGATION[propagation]
        syscalls.mount_setattr(root_fd, propagation=kind, recursive=recursive)
