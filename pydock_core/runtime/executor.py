"""The seam between a supervisor and whatever makes containers: the executor protocol.

Vocabulary (OCI runtime specification): a *bundle* is a directory with config.json and a root filesystem; a
container is *created* (its namespaces, mounts and limits are there, its init waits), then *started* (init
executes the user's process), then *stopped* (init is gone), then *deleted* (nothing of it is left).

A use, from a supervisor that is a child subreaper::

    created = executor.create(bundle, container_id, stdio)     # init waits; created.pid is ours to wait for
    executor.start(container_id)                               # the user's process runs
    ... os.pidfd_open(created.pid), poll, os.waitid ...        # the supervisor reaps, never the executor
    executor.delete(container_id)                              # cgroups and the executor's state are gone

The embedded executor and the OCI-command executor (crun, runc) implement it; one contract suite
(tests/contract/) runs over all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Stdio:
    """Three open descriptors that become 0, 1 and 2 of a process without a terminal.

    The caller keeps them, and closes its copies when the call has returned.
    """

    stdin_fd: int
    stdout_fd: int
    stderr_fd: int


@dataclass(frozen=True, slots=True)
class CreatedProcess:
    """A process in a container.

    Attributes:
        pid: in the caller's PID namespace; a child of the caller (or reparented to it as subreaper).
        console_fd: the master side of the process's pseudo-terminal where ``process.terminal`` is true, else
            None.  The caller owns it.
    """

    pid: int
    console_fd: int | None


class Executor(Protocol):
    """Makes containers out of OCI bundles, and takes nothing else.

    Every method raises only :class:`pydock_core.errors.PyDockError`; a failed ``create`` has removed what it
    had made.  The exit_code of an error is 127 where the command is not there and 126 if it cannot be
    executed.
    """

    name: str

    def create(self, bundle: Path, container_id: str, stdio: Stdio | None) -> CreatedProcess:
        """Make the container of ``bundle``; ``stdio`` is None if config.json asks for a terminal."""
        ...

    def start(self, container_id: str) -> None:
        """Let the created container's init execute the user's process; returns when execve succeeded or failed."""
        ...

    def execute(self, container_id: str, process: Mapping[str, Any], stdio: Stdio | None) -> CreatedProcess:
        """Run a further process (an OCI ``process`` object) in a running container; returns after its execve."""
        ...

    def kill(self, container_id: str, signal_number: int, *, all_processes: bool = False) -> None:
        """Send a signal to init, or to every process of the container; a stopped one is not an error."""
        ...

    def delete(self, container_id: str) -> None:
        """Remove what is left of a stopped or created container (kills what still runs); idempotent."""
        ...
