"""Freezes and thaws a container's control group: the freezer of version 1, cgroup.freeze of version 2."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydock_core.runtime.cgroups.group import write_file
from pydock_core.runtime.cgroups.layout import CgroupLayout, find_directories, read_layout


@dataclass(frozen=True, slots=True)
class GroupFreezer:
    """The freezer of one group; see :class:`pydock_core.supervision.pause.Freezer`.

    Attributes:
        directory: the group's, in the freezer's hierarchy.
        version: 1 or 2.
    """

    directory: str
    version: int

    def freeze(self) -> None:
        """Begin to stop the processes of the group and of the groups below; it takes a moment."""
        if self.version == 1:
            write_file(f"{self.directory}/freezer.state", "FROZEN")
        else:
            write_file(f"{self.directory}/cgroup.freeze", "1")

    def is_frozen(self) -> bool:
        """Whether all processes have stopped."""
        try:
            if self.version == 1:
                return Path(self.directory, "freezer.state").read_text() == "FROZEN\n"
            return "frozen 1\n" in Path(self.directory, "cgroup.events").read_text()
        except OSError:
            return True  # the group has gone, and its processes with it

    def thaw(self) -> None:
        """Continue the processes; ignore a group that is gone."""
        if not Path(self.directory).is_dir():
            return
        if self.version == 1:
            write_file(f"{self.directory}/freezer.state", "THAWED")
        else:
            write_file(f"{self.directory}/cgroup.freeze", "0")


def find_freezer(pid: int, container_id: str, layout: CgroupLayout | None = None) -> GroupFreezer | None:
    """Return the freezer of the container with this init; None if it has no group of its own.

    The group's path must contain the container's id: a privileged container can move its processes into any group, and
    foreign processes must not be stopped.

    Args:
        layout: of this host; read if None.
    """
    layout = layout or read_layout()
    version = 1 if "freezer" in layout.v1 else 2
    directory = find_directories(pid, container_id, layout).get("freezer" if version == 1 else "", "")
    file = "freezer.state" if version == 1 else "cgroup.freeze"
    return GroupFreezer(directory, version) if directory and Path(directory, file).exists() else None
