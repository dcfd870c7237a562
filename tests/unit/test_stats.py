"""The figures of stats: from control groups, from processes, and as Docker's client shows them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pydock_core.commands.processes import build_record
from pydock_core.engine.processes import build_stats
from pydock_core.runtime.cgroups.v1 import V1Cgroup
from pydock_core.runtime.cgroups.v2 import V2Cgroup
from pydock_core.spelling import binary_size
from pydock_core.store.database.containers import ContainerRow
from pydock_core.supervision.container_status import Status
from pydock_core.supervision.process_tree import list_processes, read_usage

ROW = ContainerRow("ab" * 32, "web", "sha256:1", 1, '{"request": {}}')
BUSY = "import os; os.fork(); print('up', flush=True)\nwhile True: pass"


def reading(cpu_ns: int, system_ns: int, **parts: Any) -> dict[str, Any]:
    return {
        "id": ROW.id,
        "name": "/web",
        "cpu_stats": {
            "cpu_usage": {"total_usage": cpu_ns},
            "system_cpu_usage": system_ns,
            "online_cpus": 4,
        },
        "memory_stats": {"usage": 3 << 20, "stats": {"inactive_file": 1 << 20}, "limit": 1 << 30},
        "networks": {
            "eth0": {"rx_bytes": 1500, "tx_bytes": 0},
            "eth1": {"rx_bytes": 500, "tx_bytes": 12_345_678},
        },
        "blkio_stats": {
            "io_service_bytes_recursive": [
                {"major": 8, "minor": 0, "op": "read", "value": 4096},
                {"major": 8, "minor": 0, "op": "write", "value": 1_000_000},
            ]
        },
        "pids_stats": {"current": 7},
        **parts,
    }


def test_a_row_is_dockers() -> None:
    record = build_record("web", reading(10**9, 100 * 10**9), reading(2 * 10**9, 104 * 10**9), whole=False)
    assert record == {
        "BlockIO": "4.1kB / 1MB",
        "CPUPerc": "100.00%",
        "Container": "web",
        "ID": ROW.id[:12],
        "MemPerc": "0.20%",
        "MemUsage": "2MiB / 1GiB",
        "Name": "web",
        "NetIO": "2kB / 12.3MB",
        "PIDs": "7",
    }


def test_without_an_earlier_reading_and_after_a_restart_there_is_no_rate() -> None:
    assert build_record("web", None, reading(10**9, 10**11), whole=True)["CPUPerc"] == "0.00%"
    restarted = build_record("web", reading(10**9, 10**11), reading(1, 2 * 10**11), whole=True)
    assert restarted["CPUPerc"] == "0.00%"


def test_a_container_that_does_not_run_has_zeros() -> None:
    document = build_stats(ROW, Status("exited", exit_code=1, started_at_ns=1, finished_at_ns=2))
    assert "warning" not in document
    record = build_record("web", document, document, whole=False)
    assert (record["CPUPerc"], record["MemUsage"], record["PIDs"]) == ("0.00%", "0B / 0B", "0")


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0B"), (1023, "1023B"), (1024, "1KiB"), (968 << 10, "968KiB"), (25_277_000_000, "23.54GiB")],
)
def test_sizes_in_powers_of_1024(size_bytes: int, text: str) -> None:
    assert binary_size(size_bytes) == text


def test_block_devices_of_both_versions(tmp_path: Path) -> None:
    (tmp_path / "blkio.throttle.io_service_bytes_recursive").write_text(
        "8:0 Read 4096\n8:0 Write 8192\n8:0 Sync 1\n8:0 Total 12288\n8:16 Read 1\n8:16 Write 0\nTotal 12289\n"
    )
    (tmp_path / "pids.max").write_text("max\n")
    stats = V1Cgroup({"blkio": str(tmp_path), "pids": str(tmp_path)}).read_stats()
    assert stats.block_bytes == {(8, 0): (4096, 8192), (8, 16): (1, 0)}
    assert stats.pids_limit is None
    (tmp_path / "io.stat").write_text("8:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n8:16 \n")
    (tmp_path / "pids.max").write_text("9\n")
    stats = V2Cgroup(str(tmp_path)).read_stats()
    assert stats.block_bytes == {(8, 0): (4096, 8192), (8, 16): (0, 0)}
    assert stats.pids_limit == 9
    assert stats.memory_usage_bytes is None


@pytest.fixture
def busy() -> Iterator[int]:
    """A process of another program, the parent of two that are busy."""
    words = ["sh", "-c", "sh -c 'while true; do :; done' & echo up; while true; do :; done"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    process.stdout.readline()
    yield process.pid
    os.killpg(process.pid, 9)
    process.wait()
    process.stdout.close()


def test_processes_are_those_below_and_their_use_is_summed(busy: int) -> None:
    pids = {pid for pid, _ in list_processes(os.getpid())}
    assert busy in pids
    before = read_usage(os.getpid())
    assert before.threads >= 2
    assert before.memory_bytes > 0
    while read_usage(os.getpid()).cpu_ns <= before.cpu_ns:
        pass


def test_what_no_group_counts_is_summed_and_told(busy: int) -> None:
    document = build_stats(ROW, Status("running", pid=busy, supervisor_pid=os.getpid(), started_at_ns=1))
    counted = "memory, processor time, processes, block I/O"
    assert f"container web has no control group that counts {counted}: they are summed" in document["warning"]
    assert document["pids_stats"]["current"] >= 2
    assert document["memory_stats"]["usage"] > 0
    assert document["networks"] == {}  # its network is the host's
