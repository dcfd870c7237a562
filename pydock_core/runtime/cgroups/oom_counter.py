"""Counts how often the kernel killed a process of a cgroup for memory."""

from __future__ import annotations

from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")


class OomCounter:
    """The counter of one memory cgroup, version 1 or 2.

    ``oom_kill`` is in memory.events (version 2) and in memory.oom_control (version 1, Linux 4.13 on).
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._first = self._read()

    @classmethod
    def of_process(cls, pid: int) -> OomCounter | None:
        """Return the counter of the cgroup that a process is in now; None where there is none to read."""
        try:
            path = find_counter(Path(f"/proc/{pid}/cgroup").read_text())
        except OSError:
            return None
        return cls(path) if path is not None and path.exists() else None

    def _read(self) -> int:
        try:
            return parse_oom_kills(self._path.read_text())
        except OSError:
            return 0

    def has_grown(self) -> bool:
        """Whether a process was killed since the counter was made."""
        return self._read() > self._first


def find_counter(text: str, root: Path = _ROOT) -> Path | None:
    """Return the file that counts, from the contents of /proc/PID/cgroup (cgroups(7))."""
    unified = None
    for line in text.splitlines():
        hierarchy, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return root / "memory" / path.lstrip("/") / "memory.oom_control"
        if hierarchy == "0" and not controllers:
            unified = root / path.lstrip("/") / "memory.events"
    return unified


def parse_oom_kills(text: str) -> int:
    """Return the value of ``oom_kill`` among lines of "key value"; 0 where it is missing."""
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if key == "oom_kill" and value.strip().isdigit():
            return int(value)
    return 0
