"""The executor protocol: the seam between a supervisor and the OCI runtime.

Vocabulary (OCI runtime specification): a *bundle* is a directory with config.json and a root filesystem; a
container is *created* (its namespaces, mounts and limits exist, and its init waits), then *started* (init
executes the user's process), then *stopped* (init has ended), then *deleted* (all its resources are removed).

A use, from a supervisor that is a child subreaper::

    created = executor.create(bundle, container_id, stdio)     # init waits; created.pid is a child of the caller
    executor.start(container_id)                               # the user's process runs
    ... os.pidfd_open(created.pid), poll, os.waitid ...        # the supervisor reaps, never the executor
    executor.delete(container_id)                              # cgroups and the executor's state are gone

The embedded executor and the OCI-command executor (crun, runc) implement it, and run one contract suite
(tests/contract/).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Stdio:
    """Three open descriptors that become 0, 1 and 2 of a process without a terminal.

    The caller closes its own copies after the call.
    """

    stdin_fd: int
    stdout_fd: int
    stderr_fd: int


@dataclass(frozen=True, slots=True)
class CreatedProcess:
    """A process in a container.

    Attributes:
        pid: in the caller's PID namespace; a child of the caller (or reparented to it as subreaper).
        console_fd: the master side of the process's pseudo-terminal, which the caller closes; None if
            ``process.terminal`` is false.
    """

    pid: int
    console_fd: int | None


class Executor(Protocol):
    """Creates containers from OCI bundles.

    Every method raises only :class:`pydock_core.errors.PyDockError`; a failed ``create`` leaves nothing behind.  The
    exit_code of an error is 127 if the command was not found, and 126 if it cannot be executed.
    """

    name: str

    def create(self, bundle: Path, container_id: str, stdio: Stdio | None) -> CreatedProcess:
        """Create the container of ``bundle``; ``stdio`` is None if config.json requires a terminal."""
        ...

    def start(self, container_id: str) -> None:
        """Let the created container's init execute the user's process; return after its execve(2), or raise its error."""
        ...

    def execute(self, container_id: str, process: Mapping[str, Any], stdio: Stdio | None) -> CreatedProcess:
        """Run an additional process (an OCI ``process`` object) in a running container; return after its execve(2)."""
        ...

    def kill(self, container_id: str, signal_number: int, *, all_processes: bool = False) -> None:
        """Send a signal to init, or to every process of the container; ignore a stopped container."""
        ...

    def delete(self, container_id: str) -> None:
        """Remove a stopped or created container, and kill its remaining processes; idempotent."""
        ...
