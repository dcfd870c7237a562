"""The container's view of its control group: mounts of type "cgroup" (config-linux.md, "Cgroups")."""

from __future__ import annotations

import os
from collections.abc import Mapping

from pydock_core import syscalls
from pydock_core.errors import FailedError
from pydock_core.runtime.cgroups.layout import CgroupLayout, read_layout
from pydock_core.runtime.cgroups.v1 import list_visible
from pydock_core.runtime.mount_options import MountPlan
from pydock_core.runtime.mounts import make_filesystem, make_tmpfs, open_target


def mount_cgroup(root_fd: int, plan: MountPlan, directories: Mapping[str, str]) -> None:
    """Mount the hierarchies of the container's group.

    On version 2 this is the one hierarchy; on version 1 it is a tmpfs with a directory for each hierarchy in which the
    container has a group.  The container's group is the root of its cgroup namespace.

    Args:
        root_fd: the container's root.
        plan: the entry; only the attributes among its options apply (ro, nosuid, ...).
        directories: see :attr:`ContainerCgroup.directories`; may be empty.
    """
    layout = read_layout()
    try:
        mount_fd = _make_v1(plan) if layout.version == 1 else _make_v2(plan, layout)
    except OSError as error:
        raise FailedError(f"cannot mount cgroup on {plan.destination}: {error.strerror}") from error
    try:
        target_fd = open_target(root_fd, plan, mount_fd)
        try:
            syscalls.move_mount(mount_fd, target_fd)
        finally:
            os.close(target_fd)
        if layout.version == 1:
            _fill_v1(mount_fd, plan, directories, layout)
    except OSError as error:
        raise FailedError(f"mount {plan.destination}: {error.strerror}") from error
    finally:
        os.close(mount_fd)


def _make_v2(plan: MountPlan, layout: CgroupLayout) -> int:
    single = MountPlan(plan.destination, "cgroup2", "cgroup", False, plan.attributes_set, 0, 0, 0, (), ())
    try:
        return make_filesystem(single)
    except PermissionError:
        # In a user namespace without its own cgroup namespace, the hierarchy cannot be mounted: bind the host's.
        flags = syscalls.OPEN_TREE_CLONE | syscalls.AT_RECURSIVE
        copy_fd = syscalls.open_tree(syscalls.AT_FDCWD, str(layout.unified), flags)
        syscalls.mount_setattr(copy_fd, attributes_set=plan.attributes_set, recursive=True)
        return copy_fd


def _make_v1(plan: MountPlan) -> int:
    return make_tmpfs(plan.attributes_set & ~syscalls.MOUNT_ATTR_RDONLY, mode="755", size="64k")


def _fill_v1(base_fd: int, plan: MountPlan, directories: Mapping[str, str], layout: CgroupLayout) -> None:
    for name, directory, controllers in list_visible(directories, layout):
        os.mkdir(name, 0o755, dir_fd=base_fd)
        # Bind the group's own directory: cheaper than a mount of the hierarchy, whose root in this cgroup
        # namespace would be the same directory.
        mount_fd = syscalls.open_tree(syscalls.AT_FDCWD, directory, syscalls.OPEN_TREE_CLONE)
        try:
            syscalls.mount_setattr(mount_fd, attributes_set=plan.attributes_set)
            target_fd = os.open(name, syscalls.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=base_fd)
            try:
                syscalls.move_mount(mount_fd, target_fd)
            finally:
                os.close(target_fd)
        finally:
            os.close(mount_fd)
        for controller in controllers:
            if controller != name:
                os.symlink(name, controller, dir_fd=base_fd)
    if plan.attributes_set & syscalls.MOUNT_ATTR_RDONLY:
        syscalls.mount_setattr(base_fd, attributes_set=syscalls.MOUNT_ATTR_RDONLY)
