"""The common part of both cgroup versions: a container's group, its statistics and its removal."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pydock_core.errors import FailedError

_REMOVE_SECONDS = 5.0
_KILL_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class CgroupStats:
    """Statistics of a container's group; None for a value that this host does not measure.

    Attributes:
        memory_usage_bytes, memory_peak_bytes, memory_limit_bytes (None: unlimited), memory_cache_bytes.
        cpu_usage_ns: processor time used.
        throttled_periods: periods in which the quota throttled the group.
        cpu_kernel_ns: the processor time used in the kernel.
        pids: processes and threads.
        pids_limit: None: unlimited.
        block_bytes: (major, minor) of a block device to the bytes read from it and written to it.
        oom_kills: processes killed because memory ran out.
    """

    memory_usage_bytes: int | None = None
    memory_peak_bytes: int | None = None
    memory_limit_bytes: int | None = None
    memory_cache_bytes: int | None = None
    cpu_usage_ns: int | None = None
    throttled_periods: int | None = None
    pids: int | None = None
    oom_kills: int | None = None
    cpu_kernel_ns: int | None = None
    pids_limit: int | None = None
    block_bytes: Mapping[tuple[int, int], tuple[int, int]] | None = None


class ContainerCgroup(Protocol):
    """The control group of one container, in every hierarchy that it needs."""

    @property
    def directories(self) -> dict[str, str]:
        """Controller (or "" for version 2) to directory; :func:`find_cgroup` finds the group by it."""
        ...

    def create(self) -> None:
        """Make the directories and write the limits; FailedError names the file that failed."""
        ...

    def open_entrances(self) -> list[int]:
        """Open the files by which a process moves itself into the group (:func:`enter`); the caller closes them.

        The kernel checks the opener's permissions, not the writer's (cgroups(7) documents it for version 2; version 1
        does the same), so even an unprivileged process can use them.
        """
        ...

    def kill(self) -> None:
        """Kill every process of the group and of the groups below it, including frozen ones.

        Postcondition: none is left, except one that the kernel has not released after some seconds.
        """
        ...

    def is_frozen(self) -> bool:
        """Whether the group is frozen, so that a process that enters it stops; False for a group that is gone."""
        ...

    def thaw(self) -> None:
        """Thaw the group and the groups below it; ignore a group that is gone."""
        ...

    def delete(self) -> None:
        """Remove the group; ignore a group that is gone."""
        ...

    def read_stats(self) -> CgroupStats:
        """Read the group's statistics."""
        ...

    def list_pids(self) -> list[int]:
        """List the processes of the group and of the groups below it."""
        ...

    def update(self, resources: Mapping[str, Any]) -> Callable[[], None]:
        """Set limits of a group that has processes; return a function that restores the earlier values.

        Args:
            resources: OCI ``linux.resources`` without devices; missing limits are unchanged.

        Raises:
            UnsupportedError: the group has no controller for a limit.
            FailedError: the kernel refuses a value; every earlier value is restored.
        """
        ...


def write_file(path: Path | str, value: str) -> None:
    """Write a control file; FailedError names the file and the value."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, value.encode())
        finally:
            os.close(descriptor)
    except OSError as error:
        raise FailedError(f"cannot write {value} to {path}: {error.strerror}") from error


def write_all(settings: Iterable[tuple[str, str]]) -> Callable[[], None]:
    """Write control files, all or none; return a function that restores the earlier values.

    Args:
        settings: path and value, in an order that the kernel accepts.

    Raises:
        FailedError: the kernel refuses a value; every earlier value is restored.
    """
    before: list[tuple[str, str]] = []

    def restore() -> None:
        for path, value in reversed(before):
            with contextlib.suppress(FailedError):  # the group has gone
                write_file(path, value)

    for path, value in settings:
        try:
            with open(path, encoding="utf-8") as stream:
                earlier = stream.readline().strip()
            write_file(path, value)
        except FailedError:
            restore()
            raise
        except OSError as error:
            restore()
            raise FailedError(f"control group: cannot read {path}: {error.strerror}") from error
        before.append((path, earlier))
    return restore


def open_entrance(path: str) -> int:
    """Open a file of a group to which a pid is written."""
    try:
        return os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError as error:
        raise FailedError(f"control group: cannot open {path}: {error.strerror}") from error


def enter(entrances: Sequence[int]) -> None:
    """Move the calling, single-threaded process into the group of these descriptors.

    Moving another process would be slow: the kernel waits for an RCU grace period, longer than the rest of a container's
    start takes (cgroup_procs_write_start in kernel/cgroup/cgroup.c).
    """
    try:
        for descriptor in entrances:
            os.write(descriptor, b"0")
    except OSError as error:
        raise FailedError(f"cannot enter the control group: {error.strerror}") from error


def read_number(path: str) -> int | None:
    """Read a control file with one number; None if it is missing, "max" or -1."""
    try:
        with open(path, encoding="utf-8") as stream:
            text = stream.read().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def read_keyed(path: str) -> dict[str, int]:
    """Read a control file with ``key number`` lines; empty if it is missing."""
    try:
        with open(path, encoding="utf-8") as stream:
            pairs = [line.split() for line in stream]
    except OSError:
        return {}
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def read_lines(path: str) -> list[list[str]] | None:
    """Read the words of each line of a control file; None if it is missing."""
    try:
        with open(path, encoding="utf-8") as stream:
            return [line.split() for line in stream]
    except OSError:
        return None


def list_tree(directory: str) -> list[str]:
    """List a group's directory and those below it, the deepest first."""
    return [path for path, _, _ in os.walk(directory, topdown=False)]


def list_pids_of(directories: Iterable[str]) -> list[int]:
    """List the processes of groups; ignore groups that are gone."""
    pids: set[int] = set()
    for directory in directories:
        with contextlib.suppress(OSError), open(f"{directory}/cgroup.procs", encoding="utf-8") as stream:
            pids.update(int(line) for line in stream)
    pids.discard(0)  # a process of another PID namespace has no pid here
    return sorted(pids)


def kill_pids(pids: Iterable[int]) -> None:
    """Send SIGKILL to each process; ignore those that are gone."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def kill_until_empty(list_pids: Callable[[], list[int]], thaw: Callable[[], None]) -> None:
    """Kill the listed processes and thaw them, repeatedly, until none is left or some seconds have passed.

    The freezer of version 1 keeps a killed process from dying, and a dying process may freeze another one.
    """
    deadline = time.monotonic() + _KILL_SECONDS
    pause = 0.0005
    while pids := list_pids():
        kill_pids(pids)
        thaw()
        if time.monotonic() > deadline:
            return
        # The kernel does not report when a killed process has left its group.
        time.sleep(pause)
        pause = min(pause * 2, 0.02)


def remove_tree(directory: str) -> None:
    """Remove a group's directory and those below it, waiting a bounded time for its last processes to go.

    Raises:
        FailedError: the group is still busy after 5 seconds.
    """
    deadline = time.monotonic() + _REMOVE_SECONDS
    pause = 0.0005
    while True:
        try:
            os.rmdir(directory)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.ENOTEMPTY) or time.monotonic() > deadline:
                raise FailedError(f"cannot remove control group {directory}: {error.strerror}") from error
            for below in list_tree(directory)[:-1]:
                with contextlib.suppress(OSError):
                    os.rmdir(below)
            # The kernel does not report when a killed process has left its group.
            time.sleep(pause)
            pause = min(pause * 2, 0.05)
        else:
            return
