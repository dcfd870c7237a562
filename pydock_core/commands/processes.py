"""The commands for the processes of containers: top and stats."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import Any

from pydock_core.commands.context import Context
from pydock_core.commands.format import write_columns, write_listing
from pydock_core.errors import NotFoundError
from pydock_core.spelling import binary_size, human_size

_TOP_WIDTH = 17
_SECONDS = 1.0
"""The time between two readings, which is the period of the rates."""
_COLUMNS = (
    ("CONTAINER ID", "ID"),
    ("NAME", "Name"),
    ("CPU %", "CPUPerc"),
    ("MEM USAGE / LIMIT", "MemUsage"),
    ("MEM %", "MemPerc"),
    ("NET I/O", "NetIO"),
    ("BLOCK I/O", "BlockIO"),
    ("PIDS", "PIDs"),
)
_HEADERS = {field: header for header, field in _COLUMNS} | {"Container": "CONTAINER"}
_HOME = "\x1b[H\x1b[2J"

Document = Mapping[str, Any]


def top(context: Context, words: Namespace) -> int:
    """List the processes of a container in the format of the host's ps."""
    document = context.engine.processes.top(words.CONTAINER, words.OPTION)
    write_columns(context, document["Titles"], document["Processes"], least_width=_TOP_WIDTH)
    return 0


def stats(context: Context, words: Namespace) -> int:
    """Show the resource usage of containers, once or every second."""
    names = list(dict.fromkeys(words.CONTAINER))
    before = _read(context, names, all=words.all)
    told: set[str] = set()
    while True:
        time.sleep(_SECONDS)
        now = _read(context, names, all=words.all)
        for name, document in now.items():
            if "warning" in document and name not in told:
                told.add(name)
                context.warn(document["warning"])
        if not words.no_stream and context.interactive and words.format in (None, "", "table"):
            context.stdout.write(_HOME)
        records = [
            build_record(name, before.get(name), document, whole=words.no_trunc)
            for name, document in now.items()
        ]
        write_listing(context, records, _COLUMNS, words.format, _HEADERS)
        context.stdout.flush()
        if words.no_stream:
            return 0
        before = now


def _read(context: Context, names: Sequence[str], *, all: bool) -> dict[str, Document]:
    """Read the named, the running or all containers."""
    if names:
        return {name: context.engine.processes.stats(name) for name in names}
    found: dict[str, Document] = {}
    for summary in context.engine.containers.list(all=all):
        try:
            found[summary["Id"]] = context.engine.processes.stats(summary["Id"])
        except NotFoundError:
            continue  # removed since it was listed
    return found


def build_record(name: str, before: Document | None, now: Document, *, whole: bool) -> dict[str, str]:
    """Return the row of a container, with Docker's fields.

    Args:
        name: the given name, or the id.
        before: the earlier reading, for the rate of processor time.
        whole: show the full id.
    """
    memory = now["memory_stats"]
    limit_bytes = memory.get("limit", 0)
    inactive_bytes = memory.get("stats", {}).get("inactive_file", 0)
    usage_bytes = memory.get("usage", 0)
    if inactive_bytes < usage_bytes:
        usage_bytes -= inactive_bytes
    networks = now["networks"].values()
    received, sent = (sum(network[key] for network in networks) for key in ("rx_bytes", "tx_bytes"))
    blocks = now["blkio_stats"]["io_service_bytes_recursive"] or ()
    read, written = (
        sum(entry["value"] for entry in blocks if entry["op"] == operation) for operation in ("read", "write")
    )
    return {
        "BlockIO": f"{human_size(read)} / {human_size(written)}",
        "CPUPerc": f"{_cpu_percent(before, now):.2f}%",
        "Container": name,
        "ID": now["id"] if whole else now["id"][:12],
        "MemPerc": f"{100 * usage_bytes / limit_bytes if limit_bytes else 0:.2f}%",
        "MemUsage": f"{binary_size(usage_bytes)} / {binary_size(limit_bytes)}",
        "Name": now["name"].removeprefix("/"),
        "NetIO": f"{human_size(received)} / {human_size(sent)}",
        "PIDs": str(now["pids_stats"].get("current", 0)),
    }


def _cpu_percent(before: Document | None, now: Document) -> float:
    """Return the processor time as a percentage of one processor (docker/cli, calculateCPUPercentUnix)."""
    if before is None:
        return 0.0
    first, second = before["cpu_stats"], now["cpu_stats"]
    used = second["cpu_usage"]["total_usage"] - first["cpu_usage"]["total_usage"]
    passed = second["system_cpu_usage"] - first["system_cpu_usage"]
    if used <= 0 or passed <= 0 or not first["system_cpu_usage"]:
        return 0.0
    return float(used / passed * second["online_cpus"] * 100)
