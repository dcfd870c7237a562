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
from functools import partial
from pathlib import Path

from tabulate import tabulate

from tests.bench import events, images, networks
from tests.bench.isolation import isolate, removing_groups, unmount_below
from tests.bench.ours import dock_program_peer, magic_peer, pydock_peer
from tests.bench.peer import Peer, Skipped, private, pss
from tests.bench.peers import crun_peer, docker_peer, podman_peer
from tests.bench.producers import debian_root
from tests.bench.samples import busybox_archive, default_bundle, spec_bundle

Row = tuple[str, str, str, str, str]
Timing = tuple[float, float]
"""Median and best, in seconds."""

CRUN_SPEC = "crun run (crun spec)"
EVENTS_SECONDS = 0.05
MAGIC = "%dock (IPython)"
_SETTLE_SECONDS = 0.5
_CALM_LOOKS = 25
"""For 0.1 s: a spare supervisor is made 50 ms after a start."""


def measure(action: Callable[[], object], *, times: int) -> list[float]:
    """Run ``action``; return the seconds of each run."""
    durations = []
    for _ in range(times):
        begin = time.perf_counter()
        action()
        durations.append(time.perf_counter() - begin)
    return durations


def settle() -> None:
    """Wait until nothing runs, or a bounded time: what one peer still tidies up must not fall on the next."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    calm = 0
    while calm < _CALM_LOOKS and time.monotonic() < deadline:
        time.sleep(0.004)
        with open("/proc/stat", encoding="ascii") as stream:
            running = next(int(line.split()[1]) for line in stream if line.startswith("procs_running"))
        calm = calm + 1 if running == 1 else 0


def in_turns(
    actions: Sequence[tuple[str, Callable[[], object]]], *, times: int, warm: int = 2
) -> dict[str, Timing]:
    """Measure several actions in turns; return what each took."""
    durations: dict[str, list[float]] = {name: [] for name, _ in actions}
    for round_number in range(warm + times):
        for name, action in actions:
            settle()
            taken = measure(action, times=1)
            if round_number >= warm:
                durations[name] += taken
    return {name: (statistics.median(values), min(values)) for name, values in durations.items()}


def shown(seconds: float) -> str:
    """A time for people."""
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"


def rows_of(
    work: str, timings: dict[str, Timing], skipped: dict[str, str], ours: str = "pydock"
) -> list[Row]:
    """Lay one measurement out, with the ratio of the medians to ours."""
    base = timings[ours][0]
    rows = [
        (work, name, shown(median), shown(best), f"{median / base:.2f} x")
        for name, (median, best) in timings.items()
    ]
    return rows + [(work, name, "-", "-", reason) for name, reason in skipped.items()]


def verdicts(timings: dict[str, Timing], *wanted: tuple[str, float, str]) -> list[Row]:
    """Judge medians: of each (who, limit, peer), whether the first takes at most so many times what the peer takes."""
    return [
        (
            f"  at most {limit:g} x {peer}",
            who,
            f"{timings[who][0] / timings[peer][0]:.2f} x",
            "",
            "met" if timings[who][0] <= limit * timings[peer][0] else "missed",
        )
        for who, limit, peer in wanted
        if who in timings and peer in timings
    ]


def memory_rows(work: str, figures: dict[str, Callable[[], int] | None]) -> list[Row]:
    """Lay out what each takes in memory."""
    sizes = {name: figure() for name, figure in figures.items() if figure is not None}
    return [
        (work, name, f"{size / 1024:.0f} kB", "", f"{size / sizes['pydock']:.2f} x")
        for name, size in sizes.items()
    ]


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


def run(base: Path, *, times: int) -> list[Row]:
    """Measure containers below ``base``; return the table's rows."""
    archive = busybox_archive(base / "busybox.tar")
    peers, skipped = collect(
        [
            lambda: pydock_peer(base / "pydock", archive),
            lambda: crun_peer("crun run", default_bundle(base / "default")),
            lambda: crun_peer(CRUN_SPEC, spec_bundle(base / "spec")),
            lambda: podman_peer(base / "podman", archive),
            lambda: docker_peer(base / "docker", archive),
        ]
    )
    program = dock_program_peer(base / "pydock")
    magic = magic_peer(base / "pydock")
    rows: list[Row] = []
    try:
        rows += memory_rows("memory with no container (PSS)", {p.name: p.standing_memory for p in peers})
        with_run = [(peer.name, peer.run_true) for peer in [*peers, magic, program]]
        timings = in_turns(with_run, times=times)
        rows += rows_of("run --rm --network none IMAGE true", timings, skipped)
        rows += verdicts(timings, ("pydock", 0.8, CRUN_SPEC), (MAGIC, 1.0, CRUN_SPEC))
        connected = [
            (peer.name, peer.run_connected) for peer in [*peers, magic] if peer.run_connected is not None
        ]
        if connected:
            crun = [(name, action) for name, action in with_run if name == CRUN_SPEC]
            timings = in_turns([*connected, *crun], times=max(1, times // 2))
            rows += rows_of("run --rm IMAGE true", timings, {})
            rows += verdicts(timings, (MAGIC, 2.5, CRUN_SPEC))
        executing = [(peer.name, peer.start_and_exec()) for peer in peers if peer.start_and_exec is not None]
        timings = in_turns(executing, times=times)
        rows += rows_of("exec CONTAINER true", timings, {})
        rows += verdicts(timings, ("pydock", 0.1, "docker"))
        listing = [(peer.name, peer.ps) for peer in peers if peer.ps is not None and peer.commands is None]
        rows += rows_of("ps, in process", in_turns(listing, times=times), {})
        made = {peer.name: peer.commands() for peer in [program, *peers] if peer.commands is not None}
        for command in made[program.name]:
            actions = [(name, commands[command]) for name, commands in made.items()]
            rows += rows_of(f"{command}, as a command", in_turns(actions, times=times), {}, program.name)
        keepers = {peer.name: peer.keeper() for peer in peers if peer.keeper is not None}
        many = events.fill(base / "events")
        for work, action in events.readings(many).items():
            timings = in_turns([("pydock", action)], times=times)
            rows += rows_of(work, timings, {})
            is_met = timings["pydock"][0] < EVENTS_SECONDS
            rows.append(("  under 50 ms", "pydock", "", "", "met" if is_met else "missed"))
        many.close()
        for kind, figure in (("PSS", pss), ("private", private)):
            rows += memory_rows(
                f"memory beside a container's own ({kind})",
                {name: partial(figure, pid) for name, pid in keepers.items()},
            )
    finally:
        for peer in [magic, program, *peers]:
            peer.close()
        unmount_below(base)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--times", type=int, default=11, help="runs of each measurement")
    parser.add_argument("--quick", action="store_true", help="smaller archives")
    parser.add_argument("--only", choices=["containers", "images", "networks"], help="one part of the table")
    arguments = parser.parse_args()
    print(f"Linux {platform.release()}, Python {platform.python_version()}, {os.cpu_count()} processors")
    with removing_groups(), tempfile.TemporaryDirectory(prefix="pydock-bench-") as directory:
        debian = None
        if arguments.only in (None, "images"):
            try:
                debian = debian_root(Path(directory) / "debian.tar", quick=arguments.quick)
            except Skipped as reason:
                print(f"note: no image of {reason.name}: {reason}")
        if os.geteuid() == 0:
            isolate()
        else:
            print("note: as an ordinary user; crun's and docker's rows need root")
        rows: list[Row] = []
        for name in ("containers", "images", "networks"):
            if arguments.only not in (None, name):
                continue
            base = Path(directory) / name
            base.mkdir()
            if name == "containers":
                rows += run(base, times=arguments.times)
            elif name == "images":
                rows += images.run(base, times=arguments.times, quick=arguments.quick, debian=debian)
            else:
                rows += networks.run(base, times=arguments.times, quick=arguments.quick)
    print(tabulate(rows, ["work", "who", "median", "best", "of pydock's"], tablefmt="github"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
