"""Keeps a benchmark's traces off the host: namespaces of its own, and the control groups that others leave behind."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from pydock_core import syscalls
from pydock_core.supervision.network_namespace import set_loopback_up

_CGROUPS = Path("/sys/fs/cgroup")
HUGETLB = _CGROUPS / "hugetlb"
_LEFT_BEHIND = ("docker", "libpod_parent")
"""Groups that dockerd and podman make above those of their containers, and never remove."""


def isolate() -> None:
    """Move this process (of one thread) into mount and network namespaces of its own; needs root.

    Bridges, firewall rules and mounts of all that it starts go with the last of these processes.
    """
    syscalls.unshare(syscalls.CLONE_NEWNS | syscalls.CLONE_NEWNET)
    syscalls.mount("none", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
    set_loopback_up()
    # podman keeps locks, addresses and a cache there, wherever its store is.
    for directory in ("/dev/shm", "/run/containers", "/var/lib/containers"):
        if os.path.isdir(directory):
            syscalls.mount("tmpfs", directory, "tmpfs", 0, "mode=755")


def ensure_hugetlb() -> None:
    """Mount the controller that crun 1.8 misses: it refuses the hybrid mode while one is left on the v2 side."""
    if (_CGROUPS / "unified").is_dir() and not os.path.ismount(HUGETLB):
        HUGETLB.mkdir(exist_ok=True)
        syscalls.mount("hugetlb", str(HUGETLB), "cgroup", 0, "hugetlb")


def unmount_below(base: Path) -> None:
    """Unmount what is left mounted below a directory, the deepest first."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [line.split()[4] for line in lines if line.split()[4].startswith(f"{base}/")]
    for point in sorted(points, key=len, reverse=True):
        syscalls.umount(point)


@contextlib.contextmanager
def removing_groups() -> Iterator[None]:
    """Remove, at the end, the control groups that peers have made for good, unless they were there before."""
    before = set(_left_behind())
    try:
        yield
    finally:
        for top in _left_behind():
            if top not in before:
                for directory, _, _ in os.walk(top, topdown=False):
                    with contextlib.suppress(OSError):  # a container's that still ends
                        os.rmdir(directory)


def _left_behind() -> list[Path]:
    return [group for name in _LEFT_BEHIND for group in (*_CGROUPS.glob(name), *_CGROUPS.glob(f"*/{name}"))]
