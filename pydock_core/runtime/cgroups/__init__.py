"""Control groups of containers: versions 1 and 2 behind one seam, and a probe of this host's limits.

``plan_cgroup`` returns the group for a configuration, ``find_cgroup`` an existing one; both are :class:`ContainerCgroup`.
``probe_cgroups`` returns the limits that can be set on this host, for spec generation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydock_core.errors import UnavailableError
from pydock_core.runtime.cgroups.group import CgroupStats, ContainerCgroup
from pydock_core.runtime.cgroups.layout import (
    CgroupLayout,
    find_directories,
    find_v2_base,
    is_writable,
    read_layout,
)
from pydock_core.runtime.cgroups.v1 import V1Cgroup
from pydock_core.runtime.cgroups.v2 import V2Cgroup

__all__ = [
    "CgroupStats",
    "CgroupSupport",
    "ContainerCgroup",
    "build_support",
    "find_cgroup",
    "find_container_cgroup",
    "plan_cgroup",
    "probe_cgroups",
    "read_layout",
]


@dataclass(frozen=True, slots=True)
class CgroupSupport:
    """The limits that this process can set on containers.

    Attributes:
        version: 1, 2, or 0 if no hierarchy is mounted.
        available: groups can be made.
        memory, swap, cpu, cpuset, pids, io, devices: the controller can be used.
        reason: one line that explains what is missing; empty if everything is available.
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
    """Probe this process's use of control groups, without changing anything; cached."""
    return build_support(read_layout())


def build_support(layout: CgroupLayout) -> CgroupSupport:
    """Probe a given layout, by reading the hierarchies' directories; see :func:`probe_cgroups`."""
    if layout.version == 1:
        usable = {name for name, directory in layout.v1.items() if is_writable(directory)}
        if not usable & {"memory", "pids", "cpu"}:
            return CgroupSupport(1, False, reason="only root can use control groups of version 1")
        swap = "memory" in usable and (layout.v1["memory"] / "memory.memsw.limit_in_bytes").exists()
        controllers = usable
    elif layout.version == 2:
        base = find_v2_base(layout)
        if base is None:
            return CgroupSupport(2, False, reason="no control group is delegated to this user")
        controllers = set((base / "cgroup.controllers").read_text().split())
        # The root group has no memory.swap.max; without swap accounting in the kernel, no group has it.
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
        reason=f"unavailable controllers: {', '.join(missing)}" if missing else "",
    )


def plan_cgroup(path: str, resources: Mapping[str, Any], *, can_mount: bool = True) -> ContainerCgroup:
    """Return the group for ``linux.cgroupsPath`` and ``linux.resources``, without creating it.

    Args:
        path: absolute in each hierarchy, or relative to the group of this process.
        resources: the limits.
        can_mount: the container's processes may have CAP_SYS_ADMIN, and so can mount hierarchies.

    Raises:
        UnavailableError: this process cannot make groups.
        UnsupportedError, InvalidError: a limit cannot be set; the message names it.
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
    """Return an existing group by its :attr:`ContainerCgroup.directories`."""
    return V2Cgroup(directories[""]) if "" in directories else V1Cgroup(directories)


def find_container_cgroup(pid: int, container_id: str) -> ContainerCgroup | None:
    """Return a running container's own group, made by any executor; None if it has none.

    Args:
        pid: pid of a process of the container.
        container_id: the id in the name of the group's directory.
    """
    layout = read_layout()
    directories = find_directories(pid, container_id, layout)
    if layout.version == 1:
        directories = {name: path for name, path in directories.items() if name}
        return V1Cgroup(directories) if directories else None
    if "" not in directories:
        return None
    return V2Cgroup(directories[""], str(find_v2_base(layout) or ""))
