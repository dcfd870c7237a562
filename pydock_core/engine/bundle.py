"""Collects the facts of the host that a container's config.json depends on."""

from __future__ import annotations

import functools
import os
import stat
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pydock_core.engine.mount_points import OWN_FILES
from pydock_core.errors import DeniedError, InvalidError, NotFoundError
from pydock_core.paths import ContainerPaths, StateRoot
from pydock_core.runtime.cgroups import probe_cgroups
from pydock_core.spec.builder import DeviceNode, HostFacts
from pydock_core.spec.definition import Definition, DeviceMapping
from pydock_core.spec.host_option import block_devices
from pydock_core.spec.mount import Mount
from pydock_core.spec.seccomp_profile import parse_kernel_release
from pydock_core.spec.users import ResolvedUser

if TYPE_CHECKING:
    from pydock_core.cdi.edit import ContainerEdits, DeviceNodeEdit
    from pydock_core.spec.keep_id import KeptIds

_OWN_DEVICES = frozenset("null zero full random urandom tty console ptmx pts shm mqueue".split())
"""Every container has these already."""


def collect_facts(
    root: StateRoot,
    container_id: str,
    definition: Definition,
    mounts: list[Mount],
    volumes: Mapping[str, str],
    user: ResolvedUser,
    size: tuple[int, int],
    *,
    rootless: bool,
    single_mapping: bool,
    edits: ContainerEdits | None = None,
    root_edit_hook: Mapping[str, Any] | None = None,
    kept: KeptIds | None = None,
    kept_files: Mapping[str, str] | None = None,
    shared: Collection[str] = (),
) -> HostFacts:
    """Return the facts of one start.

    Args:
        mounts: the definition's mounts.
        volumes: host paths of its volumes and images, by mount target.
        size: rows and columns of the terminal, zeros if unknown.
        rootless: whether the container runs in the user's own user namespace.
        single_mapping: whether only one id is mapped there.
        edits, root_edit_hook: results of the definition's DeviceRequests.
        shared: the kinds of other containers' namespaces.
        kept, kept_files: with ``--userns keep-id``: the id maps, and further files of the container, by target.

    Raises:
        NotFoundError, DeniedError, InvalidError: the source of a bind or a device is unusable; exit code 125.

    Postcondition: the source of every bind exists.
    """
    paths = root.container(container_id)
    for mount in mounts:
        if mount.kind == "bind":
            _ensure_source(mount)
    support = probe_cgroups()
    machine, kernel = _host()
    is_host = definition.host["NetworkMode"] == "host"
    mappings = [*definition.host["Devices"], *(_all_devices() if definition.host["Privileged"] else ())]
    devices = [_device(mapping) for mapping in mappings]
    if edits is not None:
        own = [_edited_device(node, user) for node in edits.device_nodes]
        replaced = {device.path for device in own}
        devices = [device for device in devices if device.path not in replaced] + own
    return HostFacts(
        rootfs=str(paths.rootfs),
        machine=machine,
        kernel=kernel,
        hostname=find_host_name(definition, container_id),
        user=user,
        network_namespace="host" if is_host else str(paths.network_namespace),
        files={**_own_files(paths), **(kept_files or {})},
        volumes=volumes,
        file_binds={
            mount.target for mount in mounts if mount.kind == "bind" and not os.path.isdir(mount.source)
        },
        devices=devices,
        edits=edits,
        root_edit_hook=root_edit_hook,
        console_size=size,
        cgroups_path=f"{definition.host['CgroupParent'] or '/pydock'}/{container_id}"
        if support.available
        else "",
        block_devices={path: read_numbers(path) for path in block_devices(definition.host)},
        swap_limit=support.swap,
        device_filter=support.devices,
        cgroup_mount=support.available,
        rootless=rootless,
        map_tty_group=not single_mapping,
        user_namespace=str(paths.user_namespace) if kept is not None else "",
        kept=kept,
        shared={kind: str(paths.shared_namespace(kind)) for kind in shared},
        shared_mounts={kind: str(paths.shared_mount(kind)) for kind in shared},
        owns_network=kept is None or not definition.host["NetworkMode"].startswith("container:"),
    )


def find_host_name(definition: Definition, container_id: str) -> str:
    """Return a container's host name: the host's with ``--uts host``, and with ``--network host``."""
    if "host" in (definition.host["NetworkMode"], definition.host["UTSMode"]):
        return os.uname().nodename
    return definition.host_name(container_id)


@functools.cache
def _host() -> tuple[str, tuple[int, int]]:
    """The machine, and the kernel's major and minor version."""
    uname = os.uname()
    return uname.machine, parse_kernel_release(uname.release)


def _own_files(paths: ContainerPaths) -> dict[str, str]:
    return {target: str(paths.data / name) for target, name in OWN_FILES.items()}


def _ensure_source(mount: Mount) -> None:
    if mount.create_source and not os.path.lexists(mount.source):
        try:
            os.makedirs(mount.source, exist_ok=True)
        except OSError as error:
            raise DeniedError(
                f"cannot make bind source {mount.source}: {error.strerror}", "make it first", exit_code=125
            ) from error
    if not os.path.exists(mount.source):
        raise NotFoundError(f"bind source {mount.source} does not exist", "make it first", exit_code=125)


def _device(device: DeviceMapping) -> DeviceNode:
    path = device["PathOnHost"]
    try:
        status = os.stat(path)
    except OSError as error:
        raise NotFoundError(
            f"device {path}: {error.strerror}", "name a device of this host", exit_code=125
        ) from error
    kind = "c" if stat.S_ISCHR(status.st_mode) else "b" if stat.S_ISBLK(status.st_mode) else ""
    if not kind:
        raise InvalidError(f"device {path} is not a device", "for a file or directory use -v", exit_code=125)
    return DeviceNode(
        path,
        device["PathInContainer"],
        kind,
        os.major(status.st_rdev),
        os.minor(status.st_rdev),
        stat.S_IMODE(status.st_mode),
        status.st_uid if os.geteuid() == 0 else 0,
        status.st_gid if os.geteuid() == 0 else 0,
        device["CgroupPermissions"],
    )


def _edited_device(node: DeviceNodeEdit, user: ResolvedUser) -> DeviceNode:
    """Return a CDI device's node; the container's user owns it unless the edit names another owner."""
    return DeviceNode(
        node.host_path,
        node.path,
        node.kind,
        node.major,
        node.minor,
        0o666 if node.mode is None else node.mode,
        user.uid if node.uid is None else node.uid,
        user.gid if node.gid is None else node.gid,
        node.access,
    )


def read_numbers(path: str) -> tuple[int, int]:
    """Return the major and minor number of a block device.

    Raises:
        NotFoundError, InvalidError: it does not exist, or is not a block device; exit code 125.
    """
    try:
        status = os.stat(path)
    except OSError as error:
        raise NotFoundError(
            f"device {path}: {error.strerror}", "name a disk of this host: lsblk", exit_code=125
        ) from error
    if not stat.S_ISBLK(status.st_mode):
        raise InvalidError(f"device {path} is not a block device", "name a disk: lsblk", exit_code=125)
    return os.major(status.st_rdev), os.minor(status.st_rdev)


def _all_devices() -> Iterator[DeviceMapping]:
    """The host's devices without its terminals and the devices that every container has."""
    for directory, names, files in os.walk("/dev"):
        names[:] = [name for name in names if name not in ("pts", "shm", "mqueue", "hugepages")]
        for name in files:
            path = f"{directory}/{name}"
            if (directory == "/dev" and name in _OWN_DEVICES) or os.path.islink(path):
                continue
            mode = os.stat(path).st_mode
            if (stat.S_ISCHR(mode) or stat.S_ISBLK(mode)) and os.access(path, os.R_OK):
                yield {"PathOnHost": path, "PathInContainer": path, "CgroupPermissions": "rwm"}
