"""Runs every measurement and prints one table: what was done, by whom, and in what time.

A peer that is not on the machine, or cannot run on it, is named with the reason.  All of one row is measured in
one run, in turns, so that the machine's mood falls on everybody.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tabulate import tabulate

from tests.bench.peers import (
    Peer,
    Skipped,
    crun_peer,
    dock_program_peer,
    docker_peer,
    podman_peer,
    pydock_peer,
)
from tests.bench.samples import busybox_archive, busybox_bundle, large_archive

Row = tuple[str, str, str, str]


def measure(action: Callable[[], object], *, times: int) -> list[float]:
    """Run ``action``; return the seconds of each run."""
    durations = []
    for _ in range(times):
        begin = time.perf_counter()
        action()
        durations.append(time.perf_counter() - begin)
    return durations


def in_turns(
    actions: Sequence[tuple[str, Callable[[], object]]], *, times: int, warm: int = 2
) -> dict[str, float]:
    """Measure several actions in turns; return the median seconds of each."""
    durations: dict[str, list[float]] = {name: [] for name, _ in actions}
    for round_number in range(warm + times):
        for name, action in actions:
            taken = measure(action, times=1)
            if round_number >= warm:
                durations[name] += taken
    return {name: statistics.median(values) for name, values in durations.items()}


def shown(seconds: float) -> str:
    """A time for people."""
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"


def rows_of(work: str, medians: dict[str, float], skipped: dict[str, str], ours: str = "pydock") -> list[Row]:
    """Lay one measurement out, with the ratio to ours."""
    base = medians[ours]
    rows = [(work, name, shown(value), f"{value / base:.2f} x") for name, value in medians.items()]
    return rows + [(work, name, "-", reason) for name, reason in skipped.items()]


def collect(makers: Sequence[Callable[[], Peer]]) -> tuple[list[Peer], dict[str, str]]:
    """Make the peers that can be made; say why of the others."""
    peers: list[Peer] = []
    skipped: dict[str, str] = {}
    for maker in makers:
        try:
            peers.append(maker())
        except Skipped as reason:
            skipped[reason.name] = str(reason)
    return peers, skipped


def run(base: Path, *, times: int, quick: bool) -> list[Row]:
    """Measure everything below ``base``; return the table's rows."""
    archive = busybox_archive(base / "busybox.tar")
    bundle = busybox_bundle(base / "bundle")
    peers, skipped = collect(
        [
            lambda: pydock_peer(base / "pydock", archive),
            lambda: crun_peer(bundle),
            lambda: podman_peer(base / "podman", archive),
            lambda: docker_peer(archive),
        ]
    )
    rows: list[Row] = []
    try:
        with_run = [(peer.name, peer.run_true) for peer in peers]
        rows += rows_of("run --rm --network none IMAGE true", in_turns(with_run, times=times), skipped)
        program = dock_program_peer(base / "pydock")
        rows.append(
            (
                "the same, as a command",
                "dock",
                shown(statistics.median(measure(program.run_true, times=times))),
                "",
            )
        )
        executing = [(peer.name, peer.start_and_exec()) for peer in peers if peer.start_and_exec is not None]
        rows += rows_of("exec CONTAINER true", in_turns(executing, times=times), {})
        listing = [(peer.name, peer.ps) for peer in [*peers, program] if peer.ps is not None]
        rows += rows_of("ps", in_turns(listing, times=times), {})
        for peer in peers:
            if peer.memory is not None:
                rows.append(
                    ("memory beside a container's own (PSS)", peer.name, f"{peer.memory() / 1024:.0f} kB", "")
                )
        sample = large_archive(
            base / "large.tar", files=3000 if quick else 15000, total_bytes=(50 if quick else 250) << 20
        )
        loading = [(peer.name, peer.load(sample)) for peer in peers if peer.load is not None]
        label = f"load {sample.stat().st_size >> 20} MB"
        rows += rows_of(
            label, {name: statistics.median(measure(action, times=1)) for name, action in loading}, {}
        )
    finally:
        for peer in peers:
            peer.close()
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--times", type=int, default=15, help="runs of each measurement")
    parser.add_argument("--quick", action="store_true", help="a smaller archive")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        print("note: as an ordinary user; crun's and docker's rows need root")
    print(f"Linux {platform.release()}, Python {platform.python_version()}, {os.cpu_count()} processors")
    with tempfile.TemporaryDirectory(prefix="pydock-bench-") as directory:
        rows = run(Path(directory), times=arguments.times, quick=arguments.quick)
    print(tabulate(rows, ["work", "who", "median", "of pydock's"], tablefmt="github"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
