"""The processes of a container as its supervisor's descendants, and their usage, for hosts without control groups."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class ProcessUsage:
    """The total usage of processes.

    Attributes:
        cpu_ns: processor time, including that of reaped children.
        memory_bytes: proportional set size; the resident set size if that cannot be read.
        threads: processes and threads.
        read_bytes, written_bytes: from and to block devices.
    """

    cpu_ns: int = 0
    memory_bytes: int = 0
    threads: int = 0
    read_bytes: int = 0
    written_bytes: int = 0


def list_processes(supervisor_pid: int) -> list[tuple[int, str]]:
    """Return the container's processes with their states (proc(5)).

    They are the descendants of the supervisor (a child subreaper), except copies of it such as the port forwarder, and except
    children of it that have ended: the maker is one for a moment.
    """
    try:
        own = _program(supervisor_pid)
    except OSError:
        own = None
    children: dict[int, list[tuple[int, str]]] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        with suppress(OSError):
            fields = _read_stat(int(name))
            children.setdefault(int(fields[1]), []).append((int(name), fields[0]))
    found: list[tuple[int, str]] = []
    pending = [supervisor_pid]
    while pending:
        parent_pid = pending.pop()
        for pid, state in children.get(parent_pid, ()):
            is_ended_child = parent_pid == supervisor_pid and state in "ZX"
            if not is_ended_child and not _is_program(pid, own):
                found.append((pid, state))
                pending.append(pid)
    return found


def read_usage(supervisor_pid: int) -> ProcessUsage:
    """Return the current usage of a container's processes; processes that ended unnoticed are not counted."""
    cpu_ticks = memory_bytes = threads = read_bytes = written_bytes = 0
    for pid, _ in list_processes(supervisor_pid):
        with suppress(OSError):
            fields = _read_stat(pid)
            # Fields 14 to 17 of proc(5), and 20; the first of these is field 3.
            cpu_ticks += sum(int(field) for field in fields[11:15])
            threads += int(fields[17])
            memory_bytes += _memory_bytes(pid)
        with suppress(OSError), open(f"/proc/{pid}/io", encoding="ascii") as stream:
            counts = dict(line.split(": ") for line in stream.read().splitlines())
            read_bytes += int(counts["read_bytes"])
            written_bytes += int(counts["write_bytes"])
    return ProcessUsage(cpu_ticks * _TICK_NS, memory_bytes, threads, read_bytes, written_bytes)


def _memory_bytes(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/smaps_rollup", encoding="utf-8", errors="replace") as stream:
            for line in stream:
                if line.startswith("Pss:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    with open(f"/proc/{pid}/statm", encoding="ascii") as stream:
        return int(stream.read().split()[1]) * _PAGE_BYTES


def _read_stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the third on: after the name in parentheses, which may contain any character."""
    with open(f"/proc/{pid}/stat", "rb") as stream:
        return stream.read().rpartition(b")")[2].decode("ascii").split()


def _program(pid: int) -> tuple[int, int]:
    status = os.stat(f"/proc/{pid}/exe")
    return status.st_dev, status.st_ino


def _is_program(pid: int, own: tuple[int, int] | None) -> bool:
    try:
        return _program(pid) == own
    except OSError:
        return False
