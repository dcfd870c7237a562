"""What is asked of everybody who is measured: a handful of actions of the same meaning."""

from __future__ import annotations

import os
import select
import signal
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from pydock_core.engine import SessionProtocol

LIMIT_SECONDS = 120


class Skipped(Exception):
    """A peer that cannot be measured here, with the reason."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(reason)
        self.name = name


@dataclass
class Peer:
    """One peer; what it does not have, or what cannot be measured here, is None.

    Attributes:
        run_true: ``run --rm --network none IMAGE true``.
        run_connected: ``run --rm IMAGE true``, on the default network.
        start_and_exec: starts a container and returns the action ``exec CONTAINER true``.
        ps: lists the running containers.
        commands: starts a container and returns its command line's actions: ps, images, exec, logs.
        keeper: starts a container, and returns the process of the peer's own that stays with it.
        standing_memory: bytes (PSS) of those that are there without any.
        closers: undo what was started, the last one first.
    """

    name: str
    run_true: Callable[[], object]
    run_connected: Callable[[], object] | None = None
    start_and_exec: Callable[[], Callable[[], object]] | None = None
    ps: Callable[[], object] | None = None
    keeper: Callable[[], int] | None = None
    standing_memory: Callable[[], int] | None = None
    commands: Callable[[], Mapping[str, Callable[[], object]]] | None = None
    closers: list[Callable[[], object]] = field(default_factory=list)

    def close(self) -> None:
        """Undo what was started."""
        for closer in reversed(self.closers):
            closer()


def quietly(*words: object, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command that must succeed."""
    return subprocess.run(
        [str(word) for word in words],
        check=True,
        timeout=LIMIT_SECONDS,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env={**os.environ, **environment},
    )


def last_line(error: subprocess.CalledProcessError) -> str:
    """What a program said last, for the table."""
    lines = error.stderr.decode(errors="replace").strip().splitlines()
    return lines[-1][:80] if lines else f"exit code {error.returncode}"


def pss(*pids: int) -> int:
    """Proportional set size of processes together, in bytes (proc_pid_smaps_rollup)."""
    return sum(_rollup(pid, "Pss:") for pid in pids)


def private(pid: int) -> int:
    """The memory that no other process shares, in bytes."""
    return _rollup(pid, "Private_Clean:") + _rollup(pid, "Private_Dirty:")


def _rollup(pid: int, name: str) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def parent_of(pid: int) -> int:
    """The parent of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("PPid:"))


def end(pid: int) -> None:
    """Ask a process to end, and wait for that."""
    with suppress(ProcessLookupError):
        pidfd = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(pidfd, signal.SIGTERM)
            select.select([pidfd], [], [], LIMIT_SECONDS)
        finally:
            os.close(pidfd)


def command_actions(call: Callable[..., object], name: str) -> dict[str, Callable[[], object]]:
    """Return the actions of a Docker-like command line on a running container."""
    return {
        "ps": lambda: call("ps"),
        "images": lambda: call("images"),
        "exec": lambda: call("exec", name, "true"),
        "logs": lambda: call("logs", name),
    }


def drain(session: SessionProtocol) -> None:
    """Read a session's outputs to their end."""
    for output in session.outputs:
        while output.read() != []:
            select.select([output], [], [])
