"""The state of the whole machine that a test run must leave as it found it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

State = Mapping[str, frozenset[str]]

_NAMES = (b"pydock", b"dockerd", b"docker-registry", b"chromium")
"""Parts of the command lines of processes that tests start."""


def read_state() -> State:
    """Return what is there, by kind: mounts, network links, nftables tables, users, control groups, processes."""
    return {
        "mount": frozenset(line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()),
        "network link": frozenset(os.listdir("/sys/class/net")),
        "nftables table": frozenset(_output("nft", "list", "tables")),
        "user": frozenset(line.partition(":")[0] for line in Path("/etc/passwd").read_text().splitlines()),
        "subordinate ids": frozenset(_lines("/etc/subuid") + _lines("/etc/subgid")),
        "control group": frozenset(_control_groups()),
        "process": frozenset(_processes()),
        "ip_forward": frozenset(_lines("/proc/sys/net/ipv4/ip_forward")),
    }


def _control_groups() -> list[str]:
    """The groups of containers; unlike glob, os.walk() does not mind one that goes meanwhile."""
    return [
        f"{directory}/{name}"
        for directory, names, _ in os.walk("/sys/fs/cgroup")
        if os.path.basename(directory).startswith("pydock")
        for name in names
    ]


def describe_changes(before: State, after: State) -> list[str]:
    """Return one line for each thing that has come or gone."""
    lines = []
    for kind, then in before.items():
        lines += [f"{kind} left behind: {name}" for name in sorted(after[kind] - then)]
        if kind not in ("process", "control group"):
            lines += [f"{kind} gone: {name}" for name in sorted(then - after[kind])]
    return lines


def _output(*words: str) -> list[str]:
    if shutil.which(words[0]) is None or os.geteuid() != 0:
        return []
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.splitlines()


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def _processes() -> list[str]:
    """Return "pid start-time command" of each process that tests may have started, this one and its kin excepted."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes()
            stat = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # ended just now
        if stat[0] != "Z" and any(name in command for name in _NAMES) and b"pytest" not in command:
            found.append(
                f"{entry.name} {stat[19]} {command.replace(bytes(1), b' ').decode(errors='replace')[:200]}"
            )
    return found
