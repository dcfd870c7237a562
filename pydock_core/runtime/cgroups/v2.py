"""The control group of a container on version 2: one directory, its controllers enabled on the way down."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydock_core import syscalls
from pydock_core.errors import FailedError, UnavailableError
from pydock_core.runtime.cgroups.conversion import build_v2_settings, list_controllers
from pydock_core.runtime.cgroups.device_filter import build_v2_program, parse_rules
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
from pydock_core.runtime.cgroups.layout import CgroupLayout, find_v2_base

_WISHED = ("memory", "pids", "cpu", "io")


class V2Cgroup:
    """See :class:`pydock_core.runtime.cgroups.group.ContainerCgroup`."""

    def __init__(self, directory: str, base: str = "", resources: Mapping[str, Any] | None = None) -> None:
        self._directory = directory
        self._base = base
        self._resources = resources or {}

    @classmethod
    def plan(cls, layout: CgroupLayout, path: str, resources: Mapping[str, Any]) -> V2Cgroup:
        """Choose the directory: OCI ``linux.cgroupsPath`` below the root, or below the group delegated to the user.

        Raises:
            UnavailableError: no group is delegated.
        """
        base = find_v2_base(layout)
        if base is None:
            raise UnavailableError(
                "control groups: none is delegated to this user, so no limit can be set",
                "run under a systemd user session with Delegate=yes, or leave the limits out",
            )
        build_v2_settings(resources)
        return cls(str(base / path.lstrip("/")), str(base), resources)

    @property
    def directories(self) -> dict[str, str]:
        return {"": self._directory}

    def create(self) -> None:
        settings = build_v2_settings(self._resources)
        needed = [name for name in list_controllers(settings) if name != "cgroup"]
        self._enable(needed)
        for _, file, value in settings:
            write_file(_weight_file(Path(self._directory, file)), value)
        rules = parse_rules(self._resources.get("devices") or ())
        if rules:
            self._filter_devices(build_v2_program(rules))

    def _enable(self, needed: list[str]) -> None:
        """Make the directories down to the group, and enable in each the controllers for the next one."""
        current = self._base
        for name in os.path.relpath(self._directory, self._base).split("/"):
            with open(f"{current}/cgroup.controllers", encoding="utf-8") as stream:
                available = stream.read().split()
            with open(f"{current}/cgroup.subtree_control", encoding="utf-8") as stream:
                enabled = stream.read().split()
            for controller in dict.fromkeys((*needed, *_WISHED)):
                if controller in enabled or (controller not in available and controller not in needed):
                    continue
                try:
                    write_file(f"{current}/cgroup.subtree_control", f"+{controller}")
                except FailedError:
                    if controller in needed:
                        raise
            current = f"{current}/{name}"
            try:
                os.mkdir(current, 0o755)
            except FileExistsError:
                pass
            except OSError as error:
                raise FailedError(f"cannot make control group {current}: {error.strerror}") from error

    def _filter_devices(self, program: bytes) -> None:
        directory_fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            program_fd = syscalls.bpf_load_device_program(program)
            try:
                syscalls.bpf_attach_device_program(directory_fd, program_fd)
            finally:
                os.close(program_fd)
        except OSError as error:
            raise FailedError(
                f"control group {self._directory}: no device filter: {error.strerror}"
            ) from error
        finally:
            os.close(directory_fd)

    def open_entrances(self) -> list[int]:
        return [open_entrance(f"{self._directory}/cgroup.procs")]

    def list_pids(self) -> list[int]:
        return list_pids_of(list_tree(self._directory))

    def kill(self) -> None:
        if not os.path.isdir(self._directory):
            return
        with contextlib.suppress(
            FailedError
        ):  # new in Linux 5.14; unlike kill(2) it misses no process that forks
            write_file(f"{self._directory}/cgroup.kill", "1")
        kill_until_empty(self.list_pids, self.thaw)

    def is_frozen(self) -> bool:
        return read_keyed(f"{self._directory}/cgroup.events").get("frozen") == 1

    def thaw(self) -> None:
        for directory in reversed(list_tree(self._directory)):
            with contextlib.suppress(FailedError):
                write_file(f"{directory}/cgroup.freeze", "0")

    def delete(self) -> None:
        remove_tree(self._directory)

    def update(self, resources: Mapping[str, Any]) -> Callable[[], None]:
        settings = build_v2_settings(resources)
        self._enable([name for name in list_controllers(settings) if name != "cgroup"])
        return write_all((_weight_file(Path(self._directory, file)), value) for _, file, value in settings)

    def read_stats(self) -> CgroupStats:
        def at(file: str) -> str:
            return f"{self._directory}/{file}"

        cpu = read_keyed(at("cpu.stat"))
        usage_us = cpu.get("usage_usec")
        return CgroupStats(
            memory_usage_bytes=read_number(at("memory.current")),
            memory_peak_bytes=read_number(at("memory.peak")),
            memory_limit_bytes=read_number(at("memory.max")),
            memory_cache_bytes=read_keyed(at("memory.stat")).get("inactive_file"),
            cpu_usage_ns=None if usage_us is None else usage_us * 1000,
            throttled_periods=cpu.get("nr_throttled"),
            pids=read_number(at("pids.current")),
            oom_kills=read_keyed(at("memory.events")).get("oom_kill"),
            cpu_kernel_ns=None if "system_usec" not in cpu else cpu["system_usec"] * 1000,
            pids_limit=read_number(at("pids.max")),
            block_bytes=_read_block_bytes(at("io.stat")),
        )


def _weight_file(path: Path) -> str:
    """Return the file of a setting; the scheduler BFQ has its own weight."""
    if path.name == "io.weight" and not path.exists():
        path = path.with_name("io.bfq.weight")
    return str(path)


def _read_block_bytes(path: str) -> dict[tuple[int, int], tuple[int, int]] | None:
    """Read "8:0 rbytes=1459200 wbytes=314773504 rios=192 ..." (cgroup-v2.rst, "IO Interface Files")."""
    lines = read_lines(path)
    if lines is None:
        return None
    counts = {}
    for words in lines:
        values = dict(word.partition("=")[::2] for word in words[1:])
        major, _, minor = words[0].partition(":")
        if major.isdigit() and minor.isdigit():
            counts[int(major), int(minor)] = (int(values.get("rbytes", 0)), int(values.get("wbytes", 0)))
    return counts
