"""Device nodes and links in a container's /dev.

config-linux.md, "Default Devices" and "Dev symbolic links".  In a user namespace mknod(2) is not allowed: the
host's nodes are bound in their place.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydock_core import syscalls
from pydock_core.errors import FailedError, InvalidError
from pydock_core.runtime.inside import make_inside, opened_inside

_TYPES = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}


@dataclass(frozen=True, slots=True)
class Device:
    """A device node: absolute path in the container, type and permission bits, numbers, owner."""

    path: str
    mode: int
    major: int
    minor: int
    uid: int = 0
    gid: int = 0


DEFAULTS = (
    Device("/dev/null", stat.S_IFCHR | 0o666, 1, 3),
    Device("/dev/zero", stat.S_IFCHR | 0o666, 1, 5),
    Device("/dev/full", stat.S_IFCHR | 0o666, 1, 7),
    Device("/dev/random", stat.S_IFCHR | 0o666, 1, 8),
    Device("/dev/urandom", stat.S_IFCHR | 0o666, 1, 9),
    Device("/dev/tty", stat.S_IFCHR | 0o666, 5, 0),
)
_LINKS = (
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/ptmx", "pts/ptmx"),
)


def parse_devices(entries: Iterable[Mapping[str, Any]]) -> list[Device]:
    """Return the default devices and those of ``linux.devices``; InvalidError for an unknown type."""
    devices = {device.path: device for device in DEFAULTS}
    for entry in entries:
        path, kind = str(entry["path"]), str(entry["type"])
        if kind not in _TYPES:
            raise InvalidError(f"device {path}: unknown device type {kind}")
        devices[path] = Device(
            path=path,
            mode=_TYPES[kind] | int(entry.get("fileMode", 0o666)) & 0o7777,
            major=int(entry.get("major") or 0),
            minor=int(entry.get("minor") or 0),
            uid=int(entry.get("uid") or 0),
            gid=int(entry.get("gid") or 0),
        )
    return list(devices.values())


def open_host_devices(devices: Iterable[Device]) -> dict[str, int]:
    """Return detached mounts of the host's nodes, for a user namespace: path in the container to descriptor.

    The node at the same path of the host is used; FailedError if it is missing.
    """
    opened: dict[str, int] = {}
    for device in devices:
        if stat.S_ISFIFO(device.mode):
            continue
        try:
            node_fd = syscalls.open_tree(syscalls.AT_FDCWD, device.path, syscalls.OPEN_TREE_CLONE)
        except OSError as error:
            raise FailedError(f"device {device.path}: {error.strerror}") from error
        opened[device.path] = node_fd
        if os.fstat(node_fd).st_rdev != os.makedev(device.major, device.minor):
            raise FailedError(
                f"device {device.path}: the host has another device there, and a user namespace cannot make devices",
                "bind the device as a mount instead",
            )
    return opened


def make_devices(root_fd: int, devices: Iterable[Device], bound: Mapping[str, int]) -> None:
    """Make the nodes below the root: those in ``bound`` by mounting, the others by mknod(2).

    Raises:
        FailedError: a node cannot be made; the message names it.
    """
    old_mask = os.umask(0)
    try:
        for device in devices:
            try:
                if device.path in bound:
                    with _made(root_fd, device.path) as target_fd:
                        syscalls.move_mount(bound[device.path], target_fd)
                else:
                    _make_node(root_fd, device)
            except OSError as error:
                raise FailedError(f"device {device.path}: {error.strerror}") from error
    finally:
        os.umask(old_mask)


class _made:
    """A context with a file to mount on, created empty if it is missing."""

    def __init__(self, root_fd: int, path: str) -> None:
        self._fd = make_inside(root_fd, path, directory=False, mode=0o666)

    def __enter__(self) -> int:
        return self._fd

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def _make_node(root_fd: int, device: Device) -> None:
    directory, name = os.path.split(os.path.normpath(device.path))
    parent_fd = make_inside(root_fd, directory, directory=True)
    try:
        number = os.makedev(device.major, device.minor)
        try:
            os.mknod(name, device.mode, number, dir_fd=parent_fd)
        except FileExistsError:
            # As in runc: an existing file must be this very device.
            found = os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
            same = stat.S_IFMT(found.st_mode) == stat.S_IFMT(device.mode) and found.st_rdev == number
            if not same:
                raise FailedError(f"device {device.path}: the path exists and is not this device") from None
        if device.uid or device.gid:
            os.chown(name, device.uid, device.gid, dir_fd=parent_fd, follow_symlinks=False)
    finally:
        os.close(parent_fd)


def make_links(root_fd: int) -> None:
    """Make the links that the specification requires in /dev; keep existing files."""
    with opened_inside(root_fd, "/dev") as dev_fd:
        for path, target in _LINKS:
            try:
                os.symlink(target, path.removeprefix("/dev/"), dir_fd=dev_fd)
            except FileExistsError:
                continue
        try:
            # config-linux.md: the kernel's own file where it is shown.
            os.stat("/proc/kcore")
            os.symlink("/proc/kcore", "core", dir_fd=dev_fd)
        except (FileNotFoundError, FileExistsError, PermissionError):
            pass
