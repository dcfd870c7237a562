"""The layout of the host's control groups: version 1, version 2, or both (hybrid); cgroups(7)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

V1_CONTROLLERS = frozenset(
    {
        "memory",
        "cpu",
        "cpuacct",
        "cpuset",
        "pids",
        "devices",
        "freezer",
        "blkio",
        "hugetlb",
        "net_cls",
        "perf_event",
    }
)


@dataclass(frozen=True, slots=True)
class CgroupLayout:
    """The mounted hierarchies.

    Attributes:
        v1: controller (or ``name=NAME``) to the mount point of its hierarchy.
        unified: the mount point of version 2, or None.
        own: hierarchy (a controller, ``name=NAME``, or "" for version 2) to this process's path in it.
    """

    v1: Mapping[str, Path]
    unified: Path | None
    own: Mapping[str, str]

    @property
    def version(self) -> int:
        """The version of the controllers in use: 1 if any controller is on version 1; 0 without controllers."""
        if any(name in V1_CONTROLLERS for name in self.v1):
            return 1
        return 2 if self.unified is not None else 0


def parse_layout(mountinfo: str, own_groups: str) -> CgroupLayout:
    """Build the layout from the text of /proc/self/mountinfo and /proc/self/cgroup."""
    v1: dict[str, Path] = {}
    unified: Path | None = None
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fields, kind = left.split(), right.split()
        if len(fields) < 5 or len(kind) < 3:
            continue
        directory = Path(fields[4].replace("\\040", " "))
        if kind[0] == "cgroup2":
            # Of several mounts on one path, the last is visible; of several paths, the first is the usual one.
            unified = unified or directory
        elif kind[0] == "cgroup":
            for option in kind[2].split(","):
                if option in V1_CONTROLLERS or option.startswith("name="):
                    v1.setdefault(option, directory)
    own: dict[str, str] = {}
    for line in own_groups.splitlines():
        _, names, path = line.split(":", 2)
        for name in names.split(","):
            own[name] = path
    return CgroupLayout(v1, unified, own)


@cache
def read_layout() -> CgroupLayout:
    """Read the layout in this process's namespaces; cached, because hierarchies do not change while a host runs."""
    try:
        mountinfo = Path("/proc/self/mountinfo").read_text()
        own_groups = Path("/proc/self/cgroup").read_text()
    except OSError:
        return CgroupLayout({}, None, {})
    return parse_layout(mountinfo, own_groups)


def find_directories(pid: int, container_id: str, layout: CgroupLayout) -> dict[str, str]:
    """Return the groups of a container's process: controller (or "" for version 2) to directory.

    A group's name must contain the container's id: a privileged container can move its processes into any group, and another
    container's group must not pass for its own.
    """
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        return {}
    found: dict[str, str] = {}
    for line in lines:
        _, names, path = line.split(":", 2)
        parts = path.strip("/").split("/")
        if container_id not in parts:
            continue
        for name in names.split(","):
            mounted = layout.v1.get(name) if name else layout.unified
            if mounted is not None:
                found[name] = str(mounted.joinpath(*parts[: parts.index(container_id) + 1]))
    return found


def is_writable(directory: Path) -> bool:
    """Whether groups can be made in a directory of a hierarchy, and processes be moved into them."""
    return os.access(directory, os.W_OK) and os.access(directory / "cgroup.procs", os.W_OK)


def find_v2_base(layout: CgroupLayout) -> Path | None:
    """Return the directory of version 2 for this user's groups; None if there is none.

    It is the hierarchy's root if that is writable, else the topmost group above this process's own that is delegated to
    the user (cgroups(7), "Delegation"), so that processes can be moved within it.
    """
    if layout.unified is None:
        return None
    if is_writable(layout.unified):
        return layout.unified
    base: Path | None = None
    current = layout.unified / layout.own.get("", "/").lstrip("/")
    while current != layout.unified and is_writable(current):
        base, current = current, current.parent
    return base
