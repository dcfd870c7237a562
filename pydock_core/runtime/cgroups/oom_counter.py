"""Reads the number of processes of a container's cgroup that the kernel killed because memory ran out.

``oom_kill`` is in memory.events (version 2) and in memory.oom_control (version 1, Linux 4.13 on).
"""

from __future__ import annotations

import os

from pydock_core.runtime.record_file import read_file

_ROOT = "/sys/fs/cgroup"


def find_counter(pid: int) -> str:
    """Return the file with the counter of a process's current cgroup; empty if there is none."""
    try:
        path = find_counter_of(read_file(f"/proc/{pid}/cgroup").decode())
    except OSError:
        return ""
    return path if path and os.path.exists(path) else ""


def read_oom_kills(path: str) -> int:
    """Read a counter; 0 if the file is gone."""
    try:
        return parse_oom_kills(read_file(path).decode())
    except OSError:
        return 0


def find_counter_of(text: str, root: str = _ROOT) -> str:
    """Return the file with the counter, from the contents of /proc/PID/cgroup (cgroups(7)); empty if there is none."""
    unified = ""
    for line in text.splitlines():
        hierarchy, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return f"{root}/memory{path}/memory.oom_control"
        if hierarchy == "0" and not controllers:
            unified = f"{root}{path}/memory.events"
    return unified


def parse_oom_kills(text: str) -> int:
    """Return the value of ``oom_kill`` among lines of "key value"; 0 if it is missing."""
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if key == "oom_kill" and value.strip().isdigit():
            return int(value)
    return 0
