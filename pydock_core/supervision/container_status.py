"""The container's lock, its small records, and the status that follows from them.

:func:`derive_status` follows the table in ARCHITECTURE.md, "Recorded and derived state".  Nothing here changes
a container; :mod:`pydock_core.supervision.reaper` does, after a supervisor was killed.
"""

from __future__ import annotations

import fcntl
import os
import struct
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pydock_core.paths import ContainerPaths
from pydock_core.runtime.process_identity import ProcessIdentity
from pydock_core.runtime.record_file import read_json, write_json
from pydock_core.supervision.plan import PublishedPort

KILLED_EXIT_CODE = 137
"""128 + SIGKILL: the exit code of a container whose supervisor was killed."""

_FLOCK = "hhqqi0q"  # struct flock on 64-bit Linux: type, whence, start, length, pid


@dataclass(frozen=True, slots=True)
class StateRecord:
    """state.json: a container that is running or starting.

    It exists from before the first resource is made until after the last one is removed.  So a state.json without a held
    lock means that the container has to be reaped.

    Attributes:
        init: the container's first process; None while it is being started.
        supervisor: the process that holds the lock.
        started_at_ns: Unix time in nanoseconds.
        ports: published ports with the chosen host ports.
        executor: executor of the launch plan, so that remains can be removed without the plan.
        restart_count: number of restarts by its restart policy.
        is_restarting: its last run is over, and its restart policy starts it again.
        is_paused: a client has paused it.
    """

    init: ProcessIdentity | None
    supervisor: ProcessIdentity
    started_at_ns: int
    ports: tuple[PublishedPort, ...]
    executor: str
    restart_count: int = 0
    is_restarting: bool = False
    is_paused: bool = False

    def write(self, path: Path) -> None:
        """Write the record in one step."""
        document = {
            "init": self.init.to_json() if self.init is not None else None,
            "supervisor": self.supervisor.to_json(),
            "started_at_ns": self.started_at_ns,
            "ports": [port.to_json() for port in self.ports],
            "executor": self.executor,
        }
        if self.restart_count or self.is_restarting:
            document |= {"restart_count": self.restart_count, "is_restarting": self.is_restarting}
        if self.is_paused:
            document["is_paused"] = True
        write_json(path, document)

    @classmethod
    def read(cls, path: Path) -> StateRecord | None:
        """Read the record; None if there is none."""
        document = read_json(path)
        if document is None:
            return None
        return cls(
            ProcessIdentity(**document["init"]) if document["init"] else None,
            ProcessIdentity(**document["supervisor"]),
            document["started_at_ns"],
            tuple(PublishedPort(**port) for port in document["ports"]),
            document["executor"],
            document.get("restart_count", 0),
            document.get("is_restarting", False),
            document.get("is_paused", False),
        )


@dataclass(frozen=True, slots=True)
class ExitRecord:
    """exit.json: the end of the last run, or the error of a failed start (``started_at_ns`` 0, ``error`` set).

    Attributes:
        exit_code: 0 to 255; 128+n for signal n; 125, 126 or 127 if the container did not start.
        oom_killed: a process of the container was killed because memory ran out.
        error: one line; empty if the container ended by itself.
        started_at_ns, finished_at_ns: Unix time in nanoseconds.
        restart_count: number of restarts by its restart policy.
        stopped_by_hand: a client requested the end; a reboot does not start such a container ("unless-stopped").
    """

    exit_code: int
    oom_killed: bool
    error: str
    started_at_ns: int
    finished_at_ns: int
    restart_count: int = 0
    stopped_by_hand: bool = False

    @classmethod
    def of_killed(cls, state: StateRecord, finished_at_ns: int) -> ExitRecord:
        """Return the end of a run whose supervisor was killed; ``finished_at_ns`` is 0 while it is not recorded."""
        error = "" if state.init else "the container's supervisor was killed while it started the container"
        return cls(KILLED_EXIT_CODE, False, error, state.started_at_ns, finished_at_ns, state.restart_count)

    def write(self, path: Path) -> None:
        """Write the record in one step."""
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> ExitRecord | None:
        """Read the record; None if there is none."""
        document = read_json(path)
        return None if document is None else cls(**document)


@dataclass(frozen=True, slots=True)
class Status:
    """The current state of a container, derived.

    Attributes:
        status: "created", "starting", "running", "restarting" (between two runs, or at the start of the next one) or
            "exited".
        pid: pid of init in this PID namespace; 0 if it is not running.
        supervisor_pid: 0 if there is none.
        exit_code: exit code of the last run or of the failed start ("created" with ``error``); 0 before the first run.
        oom_killed, error: as in :class:`ExitRecord`.
        started_at_ns, finished_at_ns: Unix time in nanoseconds; 0 if it has not happened.
        ports: published ports of a running container, with the chosen host ports.
        restart_count: number of restarts by its restart policy.
        is_paused: it is running, but its processes are frozen.
    """

    status: str
    pid: int = 0
    supervisor_pid: int = 0
    exit_code: int = 0
    oom_killed: bool = False
    error: str = ""
    started_at_ns: int = 0
    finished_at_ns: int = 0
    ports: tuple[PublishedPort, ...] = ()
    restart_count: int = 0
    is_paused: bool = False

    @property
    def is_running(self) -> bool:
        return self.status == "running"

    @property
    def is_active(self) -> bool:
        """Whether it runs or will restart by itself, and so has to be stopped before its removal."""
        return self.status in ("starting", "running", "restarting")


def derive_status(paths: ContainerPaths) -> Status:
    """Return the current status of a container, without waiting or changing anything.

    A container whose supervisor was killed has exited with 137; its remains may exist until a command that acts on it
    reaps them (:func:`pydock_core.supervision.reaper.reap_killed`).

    Raises:
        CorruptError: a record is not valid.
    """
    while True:
        locked = is_locked(paths.lock_file)
        state = StateRecord.read(paths.state_file)
        if state is not None and locked:
            return _status_of_state(state, paths)
        ended = ExitRecord.read(paths.exit_file)
        if ended is not None:
            # Even if there is a state record: it is the end of this run, or of the last one if this one never began.
            return _status_of_exit(ended)
        # Check again: a supervisor that has started or ended in between has changed one of the records.
        if locked != is_locked(paths.lock_file) or paths.exit_file.exists():
            continue
        if state is None:
            return Status("starting" if locked else "created")
        if paths.state_file.exists():
            return _status_of_exit(ExitRecord.of_killed(state, 0))


def _status_of_state(state: StateRecord, paths: ContainerPaths) -> Status:
    if state.is_restarting and not state.init:
        ended = ExitRecord.read(paths.exit_file) or ExitRecord(0, False, "", state.started_at_ns, 0)
        return replace(
            _status_of_exit(ended),
            status="restarting",
            supervisor_pid=state.supervisor.pid,
            restart_count=state.restart_count,
        )
    return Status(
        "running" if state.init else "starting",
        pid=state.init.pid if state.init else 0,
        supervisor_pid=state.supervisor.pid,
        started_at_ns=state.started_at_ns,
        ports=state.ports,
        restart_count=state.restart_count,
        is_paused=state.is_paused,
    )


def _status_of_exit(record: ExitRecord) -> Status:
    return Status(
        "exited" if record.started_at_ns else "created",
        exit_code=record.exit_code,
        oom_killed=record.oom_killed,
        error=record.error,
        started_at_ns=record.started_at_ns,
        finished_at_ns=record.finished_at_ns,
        restart_count=record.restart_count,
    )


# The lock is an open file description lock (fcntl(2)), not flock(2): F_OFD_GETLK tests it without taking it, so a
# reader never makes a starting supervisor believe that the container is running.


def take_lock(path: Path, *, create: bool = True) -> int | None:
    """Take the container's lock; return the descriptor that holds it, or None if another process holds it.

    Args:
        create: make a missing file.  A process that waits for the lock while the container may be removed must not:
            the directory of a container that has run would stay.

    Raises:
        FileNotFoundError: there is no such directory or, without ``create``, no such file.
    """
    lock_fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0), 0o600)
    try:
        fcntl.fcntl(lock_fd, fcntl.F_OFD_SETLK, struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    except BlockingIOError:
        os.close(lock_fd)
        return None
    except BaseException:
        os.close(lock_fd)
        raise
    return lock_fd


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock; tests it without taking it."""
    try:
        lock_fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        query = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        answer = fcntl.fcntl(lock_fd, fcntl.F_OFD_GETLK, query)
        return int(struct.unpack(_FLOCK, answer)[0]) != fcntl.F_UNLCK
    finally:
        os.close(lock_fd)
