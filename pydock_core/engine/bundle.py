"""Turns a definition into the request for an OCI configuration: the last look at the host before the pure part."""

from __future__ import annotations

import functools
import json
import os
import stat
from collections.abc import Mapping
from typing import Any

from pydock_core.engine.config import ContainerConfig, Device, Mount
from pydock_core.engine.definition import merge_environment
from pydock_core.engine.mount_points import OWN_FILES
from pydock_core.engine.shapes import command_line, host_name
from pydock_core.engine.volumes import volume_directory
from pydock_core.errors import DeniedError, InvalidError, NotFoundError
from pydock_core.paths import ContainerPaths, StateRoot
from pydock_core.runtime.cgroups import probe_cgroups
from pydock_core.spec.builder import SpecDevice, SpecLimits, SpecMount, SpecRequest
from pydock_core.spec.seccomp_profile import parse_kernel_release
from pydock_core.spec.users import ResolvedUser


def build_request(
    root: StateRoot,
    paths: ContainerPaths,
    container_id: str,
    config: ContainerConfig,
    user: ResolvedUser,
    size: tuple[int, int],
    *,
    rootless: bool,
    single_mapping: bool,
) -> SpecRequest:
    """Return the request of one container.

    Args:
        size: rows and columns of the terminal, zeros where unknown.
        rootless: it runs in the user's own user namespace.
        single_mapping: only one id is mapped there.

    Raises:
        NotFoundError, DeniedError: a bind's source or a device cannot be had; exit code 125.
    """
    mode = str(config.network).partition(":")[0]
    support = probe_cgroups()
    machine, kernel = _host()
    return SpecRequest(
        args=command_line(config),
        rootfs=str(paths.rootfs),
        machine=machine,
        kernel=kernel,
        env=_environment(container_id, config, user),
        cwd=config.working_directory or "/",
        uid=user.uid,
        gid=user.gid,
        additional_gids=user.additional_gids,
        terminal=config.terminal,
        console_size=size,
        hostname=host_name(container_id, config) if mode != "host" else os.uname().nodename,
        network_namespace="host" if mode == "host" else str(paths.network_namespace),
        read_only_root=config.read_only,
        mounts=[*_own_files(paths, config), *(_mount(root, mount) for mount in config.mounts)],
        shm_size_bytes=config.shm_size_bytes,
        cap_add=config.cap_add,
        cap_drop=config.cap_drop,
        privileged=config.privileged,
        no_new_privileges=config.no_new_privileges,
        seccomp=_seccomp(config.seccomp),
        devices=[_device(device) for device in (*config.devices, *_all_devices(config))],
        limits=SpecLimits(
            memory_bytes=config.memory_bytes,
            memory_swap_bytes=config.memory_swap_bytes,
            cpus=config.cpus,
            cpu_shares=config.cpu_shares,
            cpuset_cpus=config.cpuset_cpus,
            pids_limit=config.pids_limit,
            swap_limit_available=support.swap,
        ),
        cgroups_path=f"/pydock/{container_id}" if support.available else "",
        device_filter=support.devices,
        cgroup_mount=support.available,
        sysctls=config.sysctls,
        rlimits=config.ulimits,
        oom_score_adj=config.oom_score_adj or None,
        rootless=rootless,
        can_mount_sysfs=not (rootless and mode == "host"),
        map_tty_group=not single_mapping,
        labels=config.labels,
    )


@functools.cache
def _host() -> tuple[str, tuple[int, int]]:
    """The machine, and the kernel's major and minor version."""
    uname = os.uname()
    return uname.machine, parse_kernel_release(uname.release)


def _environment(container_id: str, config: ContainerConfig, user: ResolvedUser) -> tuple[str, ...]:
    """Docker's HOSTNAME, TERM and HOME, below what the image and the user say."""
    own = [f"HOSTNAME={host_name(container_id, config)}", f"HOME={user.home}"]
    return merge_environment([*own, *(["TERM=xterm"] if config.terminal else [])], config.env)


def _own_files(paths: ContainerPaths, config: ContainerConfig) -> list[SpecMount]:
    taken = {mount.target for mount in config.mounts}
    return [
        SpecMount("bind", target, str(paths.data / name), read_only=config.read_only, recursive=False)
        for target, name in OWN_FILES.items()
        if target not in taken and "/etc" not in taken
    ]


def _mount(root: StateRoot, mount: Mount) -> SpecMount:
    if mount.kind == "tmpfs":
        return SpecMount("tmpfs", mount.target, read_only=mount.read_only, options=mount.options)
    if mount.kind == "volume":
        return SpecMount(
            "bind", mount.target, str(volume_directory(root, mount.source)), read_only=mount.read_only
        )
    if mount.create_source and not os.path.lexists(mount.source):
        try:
            os.makedirs(mount.source, exist_ok=True)
        except OSError as error:
            raise DeniedError(
                f"bind source {mount.source} cannot be made: {error.strerror}", "make it first", exit_code=125
            ) from error
    if not os.path.exists(mount.source):
        raise NotFoundError(f"bind source {mount.source} does not exist", "make it first", exit_code=125)
    return SpecMount(
        "bind", mount.target, mount.source, read_only=mount.read_only, propagation=mount.propagation
    )


def _device(device: Device) -> SpecDevice:
    try:
        status = os.stat(device.source)
    except OSError as error:
        raise NotFoundError(
            f"device {device.source}: {error.strerror}", "name a device of this host", exit_code=125
        ) from error
    kind = "c" if stat.S_ISCHR(status.st_mode) else "b" if stat.S_ISBLK(status.st_mode) else ""
    if not kind:
        raise InvalidError(
            f"device {device.source} is no device", "for a file or directory use -v", exit_code=125
        )
    return SpecDevice(
        device.source,
        device.target,
        kind,
        os.major(status.st_rdev),
        os.minor(status.st_rdev),
        stat.S_IMODE(status.st_mode),
        status.st_uid if os.geteuid() == 0 else 0,
        status.st_gid if os.geteuid() == 0 else 0,
        device.permissions,
    )


def _all_devices(config: ContainerConfig) -> list[Device]:
    """The host's devices, for --privileged; terminals, and what every container has of its own, are left out."""
    if not config.privileged:
        return []
    own = {"null", "zero", "full", "random", "urandom", "tty", "console", "ptmx", "pts", "shm", "mqueue"}
    found = []
    for directory, names, files in os.walk("/dev"):
        names[:] = [name for name in names if name not in ("pts", "shm", "mqueue", "hugepages")]
        for name in files:
            path = f"{directory}/{name}"
            if (directory == "/dev" and name in own) or os.path.islink(path):
                continue
            mode = os.stat(path).st_mode
            if (stat.S_ISCHR(mode) or stat.S_ISBLK(mode)) and os.access(path, os.R_OK):
                found.append(Device(path, path))
    return found


def _seccomp(text: str) -> str | Mapping[str, Any]:
    if text in ("default", "unconfined"):
        return text
    try:
        profile = json.loads(text)
    except ValueError as error:
        raise InvalidError(
            f"--security-opt seccomp: the file is not JSON: {error}",
            "name a profile in Docker's form",
            exit_code=125,
        ) from error
    if not isinstance(profile, dict):
        raise InvalidError(
            "--security-opt seccomp: the file holds no profile",
            "name a profile in Docker's form",
            exit_code=125,
        )
    return profile
