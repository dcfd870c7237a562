"""The control group of a container on version 1: one directory in each hierarchy that it needs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydock_core.errors import FailedError, UnsupportedError
from pydock_core.runtime.cgroups.conversion import build_v1_settings, list_controllers
from pydock_core.runtime.cgroups.device_filter import build_v1_lines, parse_rules
from pydock_core.runtime.cgroups.group import (
    CgroupStats,
    kill_until_empty,
    list_pids_of,
    list_tree,
    open_entrance,
    read_keyed,
    read_lines,
    read_number,
    remove_tree,
    write_all,
    write_file,
)
from pydock_core.runtime.cgroups.layout import V1_CONTROLLERS, CgroupLayout, is_writable

_ALWAYS = ("memory", "cpu", "cpuacct", "pids", "freezer")
_UNIFIED = "unified"
"""The key of the version 2 hierarchy beside version 1 (hybrid mode); none of its controllers is used."""
_UNLIMITED_BYTES = 1 << 62


class V1Cgroup:
    """See :class:`pydock_core.runtime.cgroups.group.ContainerCgroup`.

    A container has a group in every hierarchy, not only in those that are needed for limits.  In a hierarchy without a
    group, the root of its cgroup namespace would be the host's root group, and a process with CAP_SYS_ADMIN could mount
    the hierarchy and write release_agent, which the kernel executes as root of the host (CVE-2022-0492).
    """

    def __init__(self, directories: Mapping[str, str], resources: Mapping[str, Any] | None = None) -> None:
        self._directories = dict(directories)
        self._resources = resources or {}

    @classmethod
    def plan(
        cls, layout: CgroupLayout, path: str, resources: Mapping[str, Any], *, can_mount: bool
    ) -> V1Cgroup:
        """Choose the directories.

        Args:
            path: OCI ``linux.cgroupsPath``: absolute in each hierarchy, or relative to this process's group.
            can_mount: the container can mount hierarchies, so it gets a group in version 2's too (hybrid mode).
                Entering that group takes 2 ms on average and up to 10, because the kernel blocks all forks.

        Raises:
            UnsupportedError: a limit needs a controller that is not mounted.
        """
        needed = list_controllers(build_v1_settings(resources))
        if resources.get("devices"):
            needed.append("devices")
        directories: dict[str, str] = {}
        others = [name for name, mounted in layout.v1.items() if is_writable(mounted)]
        for controller in dict.fromkeys((*_ALWAYS, *needed, *others)):
            mounted = layout.v1.get(controller)
            if mounted is None:
                if controller in needed:
                    raise UnsupportedError(f"control groups: no {controller} controller is mounted")
                continue
            directories[controller] = _place(mounted, layout.own.get(controller, "/"), path)
        if can_mount and layout.unified is not None and is_writable(layout.unified):
            directories[_UNIFIED] = _place(layout.unified, layout.own.get("", "/"), path)
        return cls(directories, resources)

    @property
    def directories(self) -> dict[str, str]:
        return dict(self._directories)

    def _unique(self) -> list[str]:
        # Controllers that are mounted together share one directory.
        return list(dict.fromkeys(self._directories.values()))

    def create(self) -> None:
        settings = build_v1_settings(self._resources)
        for controller, directory in self._directories.items():
            _make_directory(directory, is_cpuset=controller == "cpuset")
        for controller, file, value in settings:
            write_file(_weight_file(Path(self._directories[controller], file)), value)
        directory = self._directories.get("devices", "")
        for file, line in build_v1_lines(parse_rules(self._resources.get("devices") or ())):
            write_file(f"{directory}/{file}", line)

    def open_entrances(self) -> list[int]:
        # "tasks", not "cgroup.procs": a thread that moves only itself does not wait for a grace period.
        unified = self._directories.get(_UNIFIED)
        return [
            open_entrance(f"{directory}/{'cgroup.procs' if directory == unified else 'tasks'}")
            for directory in self._unique()
        ]

    def list_pids(self) -> list[int]:
        directory = next(
            (self._directories[name] for name in ("freezer", *_ALWAYS) if name in self._directories), ""
        )
        return list_pids_of(list_tree(directory)) if directory else []

    @property
    def _freezer(self) -> str:
        """The group's directory in the freezer's hierarchy; empty if it has none."""
        return self._directories.get("freezer", "")

    def kill(self) -> None:
        # Frozen processes cannot fork between the listing and the signal.
        if self._freezer and self.list_pids():
            with contextlib.suppress(FailedError):  # it has gone
                write_file(f"{self._freezer}/freezer.state", "FROZEN")
        kill_until_empty(self.list_pids, self.thaw)

    def is_frozen(self) -> bool:
        if not self._freezer:
            return False
        try:
            with open(f"{self._freezer}/freezer.state", encoding="utf-8") as stream:
                return stream.read() != "THAWED\n"
        except OSError:
            return False

    def thaw(self) -> None:
        # Each group has a state of its own, and is frozen, too, while a group above it is.
        for directory in reversed(list_tree(self._freezer)) if self._freezer else ():
            with contextlib.suppress(FailedError):
                write_file(f"{directory}/freezer.state", "THAWED")

    def delete(self) -> None:
        for directory in self._unique():
            remove_tree(directory)

    def update(self, resources: Mapping[str, Any]) -> Callable[[], None]:
        settings = []
        for controller, file, value in build_v1_settings(resources):
            directory = self._directories.get(controller)
            if directory is None:
                raise UnsupportedError(
                    f"control groups: the container has no group of the {controller} controller"
                )
            settings.append((_weight_file(Path(directory, file)), value))
        return write_all(_in_order(settings))

    def read_stats(self) -> CgroupStats:
        memory = self._directories.get("memory", "")
        limit = read_number(f"{memory}/memory.limit_in_bytes")
        return CgroupStats(
            memory_usage_bytes=read_number(f"{memory}/memory.usage_in_bytes"),
            memory_peak_bytes=read_number(f"{memory}/memory.max_usage_in_bytes"),
            memory_limit_bytes=None if limit is None or limit > _UNLIMITED_BYTES else limit,
            memory_cache_bytes=read_keyed(f"{memory}/memory.stat").get("total_inactive_file"),
            cpu_usage_ns=read_number(f"{self._directories.get('cpuacct', '')}/cpuacct.usage"),
            throttled_periods=read_keyed(f"{self._directories.get('cpu', '')}/cpu.stat").get("nr_throttled"),
            pids=read_number(f"{self._directories.get('pids', '')}/pids.current"),
            oom_kills=read_keyed(f"{memory}/memory.oom_control").get("oom_kill"),
            cpu_kernel_ns=read_number(f"{self._directories.get('cpuacct', '')}/cpuacct.usage_sys"),
            pids_limit=read_number(f"{self._directories.get('pids', '')}/pids.max"),
            block_bytes=_read_block_bytes(self._directories.get("blkio", "")),
        )


def _read_block_bytes(directory: str) -> dict[tuple[int, int], tuple[int, int]] | None:
    """Read the bytes that a group and its descendants have read and written (blkio-controller.rst)."""
    lines = read_lines(f"{directory}/blkio.throttle.io_service_bytes_recursive")
    if lines is None:
        return None
    counts: dict[tuple[int, int], list[int]] = {}
    for words in lines:
        if len(words) == 3 and words[1] in ("Read", "Write"):
            major, _, minor = words[0].partition(":")
            pair = counts.setdefault((int(major), int(minor)), [0, 0])
            pair[words[1] == "Write"] += int(words[2])
    return {device: (read, written) for device, (read, written) in counts.items()}


def _weight_file(path: Path) -> str:
    """Return the file of a setting; the scheduler BFQ's file replaces CFQ's (Linux 5.0)."""
    if path.name == "blkio.weight" and not path.exists():
        path = path.with_name("blkio.bfq.weight")
    return str(path)


def _in_order(settings: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Put a higher limit of memory plus swap before the limit of memory, which must never exceed it."""
    swap = next((pair for pair in settings if pair[0].endswith("/memory.memsw.limit_in_bytes")), None)
    if swap is None:
        return list(settings)
    current = read_number(swap[0])
    is_higher = int(swap[1]) < 0 or (current is not None and int(swap[1]) > current)
    return [swap, *(pair for pair in settings if pair is not swap)] if is_higher else list(settings)


def _place(mounted: Path, own: str, path: str) -> str:
    return f"{mounted}{path}" if path.startswith("/") else f"{mounted}{own.rstrip('/')}/{path}"


def _make_directory(directory: str, *, is_cpuset: bool) -> None:
    missing: list[str] = []
    current = directory
    while not os.path.isdir(current):
        missing.append(current)
        current = os.path.dirname(current)
    for path in reversed(missing):
        try:
            os.mkdir(path, 0o755)
        except FileExistsError:
            pass
        except OSError as error:
            raise FailedError(f"cannot make control group {path}: {error.strerror}") from error
        if is_cpuset:
            _inherit_cpuset(path)


def _inherit_cpuset(directory: str) -> None:
    """Copy the parent's cpuset: a new one is empty, so no process could join it."""
    for file in ("cpuset.cpus", "cpuset.mems"):
        with open(f"{os.path.dirname(directory)}/{file}", encoding="utf-8") as stream:
            value = stream.read().strip()
        write_file(f"{directory}/{file}", value)


def list_visible(directories: Mapping[str, str], layout: CgroupLayout) -> list[tuple[str, str, list[str]]]:
    """Return, for each hierarchy with a group of the container, its usual name, the group and its controllers."""
    visible: dict[str, tuple[str, str, list[str]]] = {}
    for controller, directory in directories.items():
        mounted = layout.v1.get(controller)
        if mounted is not None and controller in V1_CONTROLLERS and directory not in visible:
            together = [
                name for name, place in layout.v1.items() if place == mounted and name in V1_CONTROLLERS
            ]
            visible[directory] = (mounted.name, directory, together)
    return list(visible.values())
