"""The processes of running containers, and their resource usage."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pydock_core.engine.shapes import ZERO_TIME
from pydock_core.errors import ConflictError, InvalidError, UnavailableError
from pydock_core.runtime.cgroups import CgroupStats, find_container_cgroup
from pydock_core.store.database import containers as table
from pydock_core.store.database.containers import ContainerRow
from pydock_core.supervision.container_status import Status, derive_status
from pydock_core.supervision.logs import format_time
from pydock_core.supervision.process_tree import ProcessUsage, list_processes, read_usage

if TYPE_CHECKING:
    from pydock_core.engine.state import State

_PS_SECONDS = 30
_RENAMED_PID = re.compile(r"\S*=\s*pid\b|\bpid=\S+", re.IGNORECASE)
_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_NETWORK_FIELDS = (
    ("rx_bytes", 0),
    ("rx_packets", 1),
    ("rx_errors", 2),
    ("rx_dropped", 3),
    ("tx_bytes", 8),
    ("tx_packets", 9),
    ("tx_errors", 10),
    ("tx_dropped", 11),
)
"""Columns of /proc/net/dev by the names of the Engine API."""


class Processes:
    """The processes of the containers of one state root; a container is named as in
    :class:`pydock_core.engine.containers.Containers`.
    """

    def __init__(self, state: State) -> None:
        self._state = state

    def top(self, reference: str, options: Sequence[str] = ()) -> dict[str, Any]:
        """List the processes of a running container as ContainerTopResponse of the Engine API: Titles and Processes.

        Args:
            options: options of the host's ps(1); ``-ef`` by default.  The output must have a PID column.

        Raises:
            ConflictError: it is not running.
            InvalidError: ps refuses the options, or shows no PID.
            UnavailableError: the host has no ps.
        """
        row = table.find(self._state.database, reference)
        status = derive_status(self._state.root.container(row.id))
        if not status.is_running:
            raise ConflictError(f"container {reference} is not running", "dock ps lists those that run")
        titles, lines = _run_ps(list(options) or ["-ef"])
        pids = {str(pid) for pid, _ in list_processes(status.supervisor_pid)}
        column = titles.index("PID")
        rows = [fields for fields in lines if len(fields) > column and fields[column] in pids]
        self._state.recorder.container(row, "top")
        return {"Titles": titles, "Processes": rows}

    def stats(self, reference: str) -> dict[str, Any]:
        """Read a container's current usage, as ContainerStatsResponse of the Engine API.

        Rates need two readings, so ``precpu_stats`` is left empty for the caller.  Figures without a control group
        are sums over the container's processes; "warning", an addition to the Engine API, says so.
        A container that is not running has zeros.
        """
        row = table.find(self._state.database, reference)
        status = derive_status(self._state.root.container(row.id))
        return build_stats(row, status)


def build_stats(row: ContainerRow, status: Status) -> dict[str, Any]:
    """Read the counters of a container; see :meth:`Processes.stats`."""
    document: dict[str, Any] = {
        "name": f"/{row.name}",
        "id": row.id,
        "os_type": "linux",
        "read": format_time(time.time_ns()),
        "preread": ZERO_TIME,
        "num_procs": 0,
        "storage_stats": {},
    }
    counted = CgroupStats()
    summed = ProcessUsage()
    missing: list[str] = []
    networks: dict[str, Any] = {}
    if status.is_running:
        group = find_container_cgroup(status.pid, row.id)
        if group is not None:
            counted = group.read_stats()
        missing = [
            name
            for name, figure in (
                ("memory", counted.memory_usage_bytes),
                ("processor time", counted.cpu_usage_ns),
                ("processes", counted.pids),
                ("block I/O", counted.block_bytes),
            )
            if figure is None
        ]
        if missing:
            summed = read_usage(status.supervisor_pid)
        networks = _read_networks(status.pid)
    blocks = counted.block_bytes
    if blocks is None:
        blocks = {(0, 0): (summed.read_bytes, summed.written_bytes)} if missing else {}
    document |= {
        "pids_stats": _without_none(
            current=_first(counted.pids, summed.threads), limit=counted.pids_limit or 0
        ),
        "blkio_stats": _build_blocks(blocks),
        "cpu_stats": {
            "cpu_usage": {
                "total_usage": _first(counted.cpu_usage_ns, summed.cpu_ns),
                "usage_in_kernelmode": counted.cpu_kernel_ns or 0,
                "usage_in_usermode": max((counted.cpu_usage_ns or 0) - (counted.cpu_kernel_ns or 0), 0),
            },
            "system_cpu_usage": _read_system_cpu_ns() if status.is_running else 0,
            "online_cpus": os.cpu_count() or 1,
            "throttling_data": {
                "periods": 0,
                "throttled_periods": counted.throttled_periods or 0,
                "throttled_time": 0,
            },
        },
        "precpu_stats": {},
        "memory_stats": _build_memory(counted, summed) if status.is_running else {},
        "networks": networks,
    }
    if missing:
        document["warning"] = (
            f"container {row.name} has no control group that counts {', '.join(missing)}: "
            "they are summed over its processes (dock doctor)"
        )
    return document


def _first(counted: int | None, summed: int) -> int:
    return summed if counted is None else counted


def _without_none(**values: int) -> dict[str, int]:
    return {name: value for name, value in values.items() if value or name == "current"}


def _build_memory(counted: CgroupStats, summed: ProcessUsage) -> dict[str, Any]:
    host_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = counted.memory_limit_bytes
    return {
        "usage": _first(counted.memory_usage_bytes, summed.memory_bytes),
        # Docker's client subtracts it from the usage: the kernel reclaims it first.
        "stats": {"inactive_file": counted.memory_cache_bytes or 0},
        "limit": host_bytes if limit is None else min(limit, host_bytes),
    }


def _build_blocks(blocks: Any) -> dict[str, Any]:
    entries = [
        {"major": major, "minor": minor, "op": operation, "value": value}
        for (major, minor), pair in sorted(blocks.items())
        for operation, value in zip(("read", "write"), pair, strict=True)
    ]
    others = ("io_serviced", "io_queue", "io_service_time", "io_wait_time", "io_merged", "io_time")
    return {
        "io_service_bytes_recursive": entries or None,
        **dict.fromkeys((f"{name}_recursive" for name in others), None),
        "sectors_recursive": None,
    }


def _read_networks(pid: int) -> dict[str, Any]:
    """Return the counters of each interface in a process's network namespace, unless that is the host's."""
    found: dict[str, Any] = {}
    with suppress(OSError):
        if os.readlink(f"/proc/{pid}/ns/net") == os.readlink("/proc/self/ns/net"):
            return {}
        with open(f"/proc/{pid}/net/dev", encoding="ascii") as stream:
            for line in stream.read().splitlines()[2:]:
                name, _, counts = line.partition(":")
                fields = counts.split()
                if name.strip() != "lo":
                    found[name.strip()] = {key: int(fields[index]) for key, index in _NETWORK_FIELDS}
    return found


def _read_system_cpu_ns() -> int:
    """Return the processor time of the whole host, idle time too (proc(5), /proc/stat)."""
    with open("/proc/stat", encoding="ascii") as stream:
        fields = stream.readline().split()[1:8]
    return sum(int(field) for field in fields) * _TICK_NS


def _run_ps(options: list[str]) -> tuple[list[str], list[list[str]]]:
    """Run the host's ps; return its titles, and the fields of each line."""
    if _RENAMED_PID.search(" ".join(options)):
        raise InvalidError("the PID column of ps cannot be renamed", "leave out pid=NAME")
    program = shutil.which("ps")
    if program is None:
        raise UnavailableError("the host has no ps", "install it (Debian: procps)")
    try:
        result = subprocess.run(
            [program, *options],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PS_SECONDS,
            check=False,
            text=True,
            errors="replace",
            # Keeps ps from cutting columns at the width of a terminal.
            env={**os.environ, "LC_ALL": "C", "COLUMNS": "100000"},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError(f"cannot run {program}: {error}") from error
    if result.returncode != 0:
        said = " ".join(result.stderr.split("\n")[0].split()) or f"exit code {result.returncode}"
        raise InvalidError(f"ps {' '.join(options)}: {said}", "see ps(1) for its options")
    lines = result.stdout.splitlines()
    titles = lines[0].split() if lines else []
    if "PID" not in titles:
        raise InvalidError(f"ps {' '.join(options)} shows no PID", "have it show pid: -o pid,args")
    rows = [line.split(maxsplit=len(titles) - 1) for line in lines[1:]]
    return titles, [[field.rstrip() for field in fields] for fields in rows]
