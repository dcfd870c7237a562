"""Control groups of containers: versions 1 and 2 behind one seam, and what this host can do.

``plan_cgroup`` gives the group that a configuration asks for, ``find_cgroup`` one that was made before;
both are :class:`ContainerCgroup`.  ``probe_cgroups`` says which limits can be set here, for spec generation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydock_core.errors import UnavailableError
from pydock_core.runtime.cgroups.group import CgroupStats, ContainerCgroup
from pydock_core.runtime.cgroups.layout import CgroupLayout, find_v2_base, is_writable, read_layout
from pydock_core.runtime.cgroups.v1 import V1Cgroup
from pydock_core.runtime.cgroups.v2 import V2Cgroup

__all__ = [
    "CgroupStats",
    "CgroupSupport",
    "ContainerCgroup",
    "build_support",
    "find_cgroup",
    "plan_cgroup",
    "probe_cgroups",
    "read_layout",
]


@dataclass(frozen=True, slots=True)
class CgroupSupport:
    """Which limits this process can set on containers.

    Attributes:
        version: 1, 2, or 0 if no hierarchy is mounted.
        available: groups can be made at all.
        memory, swap, cpu, cpuset, pids, io, devices: the controller can be used.
        reason: one line on why something is missing; empty if nothing is.
    """

    version: int
    available: bool
    memory: bool = False
    swap: bool = False
    cpu: bool = False
    cpuset: bool = False
    pids: bool = False
    io: bool = False
    devices: bool = False
    reason: str = ""


@cache
def probe_cgroups() -> CgroupSupport:
    """Say what this process can do with control groups; changes nothing.  Looked at once in a process."""
    return build_support(read_layout())


def build_support(layout: CgroupLayout) -> CgroupSupport:
    """:func:`probe_cgroups` for a given layout (reads the hierarchies' directories)."""
    if layout.version == 1:
        usable = {name for name, directory in layout.v1.items() if is_writable(directory)}
        if not usable & {"memory", "pids", "cpu"}:
            return CgroupSupport(1, False, reason="control groups of version 1 can be used by root only")
        swap = "memory" in usable and (layout.v1["memory"] / "memory.memsw.limit_in_bytes").exists()
        controllers = usable
    elif layout.version == 2:
        base = find_v2_base(layout)
        if base is None:
            return CgroupSupport(2, False, reason="no control group is delegated to this user")
        controllers = set((base / "cgroup.controllers").read_text().split())
        # The root group has no memory.swap.max; a kernel without swap accounting shows it in no group.
        swap = "memory" in controllers
        if base == layout.unified:
            controllers.add("devices")  # attaching an eBPF program takes root
    else:
        return CgroupSupport(0, False, reason="no control group hierarchy is mounted")
    missing = sorted({"memory", "cpu", "pids"} - controllers)
    return CgroupSupport(
        version=layout.version,
        available=True,
        memory="memory" in controllers,
        swap=swap,
        cpu="cpu" in controllers,
        cpuset="cpuset" in controllers,
        pids="pids" in controllers,
        io=bool({"io", "blkio"} & controllers),
        devices="devices" in controllers,
        reason=f"controllers that cannot be used: {', '.join(missing)}" if missing else "",
    )


def plan_cgroup(path: str, resources: Mapping[str, Any], *, can_mount: bool = True) -> ContainerCgroup:
    """Return the group for ``linux.cgroupsPath`` and ``linux.resources``; nothing is made yet.

    Args:
        path: absolute in each hierarchy, or relative to the group of this process.
        resources: the limits.
        can_mount: the container's processes may have CAP_SYS_ADMIN, and so mount hierarchies.

    Raises:
        UnavailableError: this process cannot make groups.
        UnsupportedError, InvalidError: a limit that cannot be set, by name.
    """
    layout = read_layout()
    if layout.version == 1:
        return V1Cgroup.plan(layout, path, resources, can_mount=can_mount)
    if layout.version == 2:
        return V2Cgroup.plan(layout, path, resources)
    raise UnavailableError(
        "control groups: no hierarchy is mounted, so no limit can be set", "leave the limits out"
    )


def find_cgroup(directories: Mapping[str, str]) -> ContainerCgroup:
    """Return the group that was made before, from its :attr:`ContainerCgroup.directories`."""
    return V2Cgroup(directories[""]) if "" in directories else V1Cgroup(directories)
