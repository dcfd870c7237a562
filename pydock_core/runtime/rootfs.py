"""Mounts a container's root filesystem from data: the ``root_mounts`` of a launch plan.

A layer that is an EROFS index over a tar is mounted first, detached, and passed to the overlay.

The options of an overlay with many layers exceed the one page that mount(2) takes.  Linux 6.5 and newer accept the
layers one by one (fsconfig(2), "lowerdir+"); for older kernels, paths relative to a working directory are shorter.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from pydock_core import syscalls
from pydock_core.errors import CorruptError, FailedError, NotFoundError, PyDockError, UnsupportedError
from pydock_core.oci.root_mount import RootMount
from pydock_core.runtime.mount_options import MountPlan, parse_mount

_PAGE_BYTES = 4096
_VALUE_BYTES = 255  # fs/fsopen.c
_STACK_LIMIT = 500  # OVL_MAX_STACK of fs/overlayfs/params.h
_ATTRIBUTE_WORDS = frozenset({"ro", "rw", "nosuid", "nodev", "noexec", "noatime", "relatime", "nodiratime"})


def mount_root(mounts: Sequence[RootMount], target: Path) -> None:
    """Mount ``mounts`` on ``target``, in order, in the caller's mount namespace.

    Args:
        mounts: overlay or bind mounts, of which the last one is visible, after the EROFS mounts that they need.
        target: an existing directory.

    Raises:
        NotFoundError: a directory or file of a layer is missing.
        CorruptError: an index is damaged.
        UnsupportedError: this host cannot mount an overlay or EROFS here, or a kind is unknown.
        FailedError: the kernel refuses.

    Postcondition: on an error, nothing stays mounted.
    """
    layers = LayerMounts()
    done = 0
    try:
        for mount in mounts:
            _mount(mount, target, layers)
            done += mount.kind != "erofs"
    except BaseException as error:
        for place in [str(target)] * done + layers.attached:
            try:
                syscalls.umount(place, syscalls.MNT_DETACH)
            except OSError as failure:
                error.add_note(f"and {place} is still mounted: {failure.strerror}")
        raise
    finally:
        layers.close()


class LayerMounts:
    """Detached EROFS mounts of layers, which belong to no mount namespace yet.

    Linux 6.15 and newer accept detached mounts for an overlay: no mount point is needed, and none is left when the
    overlay is unmounted.  For older kernels, each is attached to the directory that the plan names.

    Attributes:
        attached: the mount points of the attached ones.
    """

    def __init__(self) -> None:
        self._fds: dict[str, int] = {}
        self.attached: list[str] = []

    def add(self, mount: RootMount) -> None:
        """Mount a layer."""
        self._fds[mount.target] = mount_erofs(mount.source, mount.devices)

    def place(self, directory: str) -> str:
        """Return a path of the mount for ``directory`` of a plan."""
        fd = self._fds.get(directory)
        return directory if fd is None else f"/proc/self/fd/{fd}"

    def take(self, directory: str) -> int | None:
        """Return the mount for ``directory``, which the caller closes; None if there is none."""
        return self._fds.pop(directory, None)

    def attach(self) -> bool:
        """Attach all mounts; return False if there are none."""
        found = bool(self._fds)
        for directory in list(self._fds):
            _attach(self._fds.pop(directory), Path(directory))
            self.attached.append(directory)
        return found

    def close(self) -> None:
        """Close the mounts that were not taken; an overlay holds its own references."""
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()


def mount_erofs(index: str, devices: Sequence[str]) -> int:
    """Mount an EROFS index over its tars, all files (Linux 6.12, CONFIG_EROFS_FS_BACKED_BY_FILE).

    Returns:
        A detached mount, read-only.  It sets no other flags: the overlay above has its own.
    """
    context_fd = syscalls.fsopen("erofs")
    opened: list[int] = []
    try:
        for key, path in (("source", index), *(("device", device) for device in devices)):
            value = path
            if len(os.fsencode(path)) > _VALUE_BYTES:
                opened.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
                value = f"/proc/self/fd/{opened[-1]}"
            syscalls.fsconfig_set(context_fd, key, value)
        syscalls.fsconfig_create(context_fd)
        flags = syscalls.MOUNT_ATTR_RDONLY | syscalls.MOUNT_ATTR_NODEV | syscalls.MOUNT_ATTR_NOSUID
        return syscalls.fsmount(context_fd, flags)
    finally:
        os.close(context_fd)
        for fd in opened:
            os.close(fd)


def _mount(mount: RootMount, target: Path, layers: LayerMounts) -> None:
    try:
        if mount.kind == "erofs":
            layers.add(mount)
            return
        words = [option for option in mount.options if option in _ATTRIBUTE_WORDS]
        plan = parse_mount({"destination": "/", "type": "bind", "options": ["rbind", *words]})
        if mount.kind == "bind":
            _mount_bind(mount, plan, target, layers)
        elif mount.kind == "overlay":
            _mount_overlay(mount, plan, target, layers)
        else:
            raise UnsupportedError(f"root filesystem: unknown kind of mount {mount.kind}")
    except OSError as error:
        raise _explain(mount, error) from error


def _explain(mount: RootMount, error: OSError) -> PyDockError:
    if mount.kind == "erofs":
        return _explain_erofs(mount, error)
    for directory in (mount.source, *mount.lower, mount.upper, mount.work):
        if directory and not os.path.isdir(directory):
            return NotFoundError(
                f"root filesystem: the directory {directory} is missing", "`dock doctor` may know more"
            )
    if mount.kind == "overlay" and error.errno in (errno.EPERM, errno.ENODEV, errno.EINVAL):
        return UnsupportedError(
            f"root filesystem: cannot mount an overlay here: {error.strerror}",
            "overlay in a user namespace needs Linux 5.11, and the state on a filesystem other than overlay",
        )
    return FailedError(f"root filesystem: cannot mount {mount.kind}: {error.strerror}")


def _explain_erofs(mount: RootMount, error: OSError) -> PyDockError:
    for file in (mount.source, *mount.devices):
        if not os.path.isfile(file):
            return NotFoundError(
                f"root filesystem: the file {file} is missing", "load or pull the image again"
            )
    if error.errno == errno.EUCLEAN:
        return CorruptError(
            f"root filesystem: the index {mount.source} is damaged",
            "remove the image (dock rmi), and pull or load it again",
        )
    if error.errno in (errno.EPERM, errno.ENODEV, errno.EINVAL, errno.ENOTBLK, errno.EOPNOTSUPP):
        return UnsupportedError(
            f"root filesystem: cannot mount EROFS here: {error.strerror}",
            "it needs root and Linux 6.12; PYDOCK_SNAPSHOTTER=directory does without",
        )
    return FailedError(f"root filesystem: cannot mount {mount.source}: {error.strerror}")


def _attach(mount_fd: int, target: Path) -> None:
    target_fd = os.open(target, syscalls.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        syscalls.move_mount(mount_fd, target_fd)
    finally:
        os.close(target_fd)
        os.close(mount_fd)


def _mount_bind(mount: RootMount, plan: MountPlan, target: Path, layers: LayerMounts) -> None:
    layer_fd = layers.take(mount.source)
    if layer_fd is not None:
        _attach(layer_fd, target)  # read-only, as all layers are
        return
    flags = syscalls.OPEN_TREE_CLONE | syscalls.AT_RECURSIVE
    tree_fd = syscalls.open_tree(syscalls.AT_FDCWD, mount.source, flags)
    try:
        if plan.attributes_set or plan.attributes_clear:
            syscalls.mount_setattr(
                tree_fd,
                attributes_set=plan.attributes_set,
                attributes_clear=plan.attributes_clear,
                recursive=True,
            )
    except OSError:
        os.close(tree_fd)
        raise
    _attach(tree_fd, target)


def _mount_overlay(mount: RootMount, plan: MountPlan, target: Path, layers: LayerMounts) -> None:
    try:
        mount_fd = _open_overlay(mount, plan.attributes_set, layers)
    except OSError as error:
        # EINVAL: a kernel before 6.15, which takes no detached mounts; one before 6.5, which knows no "lowerdir+"; or a
        # mount that the old way refuses as well.
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENAMETOOLONG):
            raise
        if layers.attach():
            _mount_overlay(mount, plan, target, layers)
        else:
            _mount_overlay_by_name(mount, target)
        return
    _attach(mount_fd, target)


def _open_overlay(mount: RootMount, attributes: int, layers: LayerMounts) -> int:
    context_fd = syscalls.fsopen("overlay")
    try:
        for directory in mount.lower:
            _set_path(context_fd, "lowerdir+", layers.place(directory))
        if mount.upper:
            _set_path(context_fd, "upperdir", mount.upper)
            _set_path(context_fd, "workdir", mount.work)
        for option in mount.options:
            if option in _ATTRIBUTE_WORDS:
                continue
            key, separator, value = option.partition("=")
            syscalls.fsconfig_set(context_fd, key, value if separator else None)
        syscalls.fsconfig_create(context_fd)
        return syscalls.fsmount(context_fd, attributes)
    finally:
        os.close(context_fd)


def _set_path(context_fd: int, key: str, directory: str) -> None:
    if len(os.fsencode(directory)) <= _VALUE_BYTES:
        syscalls.fsconfig_set(context_fd, key, directory)
        return
    # Too long for one value: through a descriptor, which the kernel resolves at once.
    directory_fd = os.open(directory, syscalls.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        syscalls.fsconfig_set(context_fd, key, f"/proc/self/fd/{directory_fd}")
    finally:
        os.close(directory_fd)


def _mount_overlay_by_name(mount: RootMount, target: Path) -> None:
    """Mount an overlay with mount(2), naming the layers relative to their common directory."""
    if len(mount.lower) > _STACK_LIMIT:
        raise UnsupportedError(
            f"root filesystem: {len(mount.lower)} layers, with the runtime's own, are more than the {_STACK_LIMIT} "
            "that overlayfs stacks",
            "build the image with fewer layers (Docker makes 125 at most); the EROFS driver merges them (dock info)",
        )
    common = os.path.commonpath(mount.lower) if len(mount.lower) > 1 else os.path.dirname(mount.lower[0])

    def shorten(path: str) -> str:
        inside = path.startswith(common.rstrip("/") + "/")
        return os.path.relpath(path, common) if inside else path

    data = build_overlay_options(mount, shorten)
    if len(data) >= _PAGE_BYTES:
        raise UnsupportedError(
            f"root filesystem: cannot mount an overlay of {len(mount.lower)} layers here",
            "before Linux 6.5 there is room for few layers; on a newer kernel, see dock doctor about the state directory",
        )
    flags = _old_flags(mount.options)
    absolute = os.path.abspath(target)
    before_fd = os.open(".", syscalls.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.chdir(common)
        syscalls.mount("overlay", absolute, "overlay", flags, data)
    finally:
        os.fchdir(before_fd)
        os.close(before_fd)


def build_overlay_options(mount: RootMount, shorten: Callable[[str], str] = str) -> str:
    """Return the option text of an overlay for mount(2); ":", "\\\\" and "," in paths are escaped."""
    parts = ["lowerdir=" + ":".join(_escape(shorten(directory), ":") for directory in mount.lower)]
    if mount.upper:
        parts += [f"upperdir={_escape(shorten(mount.upper))}", f"workdir={_escape(shorten(mount.work))}"]
    parts += [option for option in mount.options if option not in _ATTRIBUTE_WORDS]
    return ",".join(parts)


def _escape(path: str, also: str = "") -> str:
    for character in "\\" + "," + also:
        path = path.replace(character, "\\" + character)
    return path


def _old_flags(options: Sequence[str]) -> int:
    flags = {
        "ro": syscalls.MS_RDONLY,
        "nosuid": syscalls.MS_NOSUID,
        "nodev": syscalls.MS_NODEV,
        "noexec": syscalls.MS_NOEXEC,
    }
    return sum(flags.get(option, 0) for option in options)
