"""Says what lives: identity of processes, the container's lock, its small records, and the status derived from them.

ARCHITECTURE.md, "What is recorded, and what is derived", is the rule that :func:`derive_status` follows.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from pydock_core.errors import CorruptError, PyDockError
from pydock_core.paths import ContainerPaths
from pydock_core.runtime.process_identity import ProcessIdentity
from pydock_core.runtime.record_file import read_json, write_json
from pydock_core.supervision.plan import LaunchPlan, PublishedPort

KILLED_EXIT_CODE = 137
"""128 + SIGKILL: what a container gets whose supervisor was killed."""

_FLOCK = "hhqqi0q"  # struct flock on 64-bit Linux: type, whence, start, length, pid


@dataclass(frozen=True, slots=True)
class StateRecord:
    """state.json: a container that runs, or is being started.

    It is there before anything is made and goes when all is removed, so where it lies without a lock there is
    something to reap.

    Attributes:
        init: the container's first process; None while it is being started.
        supervisor: the process that holds the lock.
        started_at_ns: Unix time in nanoseconds.
        ports: what is published, with the host ports that were chosen.
        executor: of the launch plan, so that what is left can be removed without it.
    """

    init: ProcessIdentity | None
    supervisor: ProcessIdentity
    started_at_ns: int
    ports: tuple[PublishedPort, ...]
    executor: str

    def write(self, path: Path) -> None:
        """Write the record in one step."""
        document = {
            "init": self.init.to_json() if self.init is not None else None,
            "supervisor": self.supervisor.to_json(),
            "started_at_ns": self.started_at_ns,
            "ports": [asdict(port) for port in self.ports],
            "executor": self.executor,
        }
        write_json(path, document)

    @classmethod
    def read(cls, path: Path) -> StateRecord | None:
        """Read the record; None where there is none."""
        document = read_json(path)
        if document is None:
            return None
        return cls(
            ProcessIdentity(**document["init"]) if document["init"] else None,
            ProcessIdentity(**document["supervisor"]),
            document["started_at_ns"],
            tuple(PublishedPort(**port) for port in document["ports"]),
            document["executor"],
        )


@dataclass(frozen=True, slots=True)
class ExitRecord:
    """exit.json: how the last run ended, or why it never began (``started_at_ns`` 0, ``error`` set).

    Attributes:
        exit_code: 0 to 255; 128+n for signal n; 125, 126, 127 where the container could not be started.
        oom_killed: a process of the container was killed for memory.
        error: one line; empty where the container ended by itself.
        started_at_ns, finished_at_ns: Unix time in nanoseconds.
    """

    exit_code: int
    oom_killed: bool
    error: str
    started_at_ns: int
    finished_at_ns: int

    def write(self, path: Path) -> None:
        """Write the record in one step."""
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> ExitRecord | None:
        """Read the record; None where there is none."""
        document = read_json(path)
        return None if document is None else cls(**document)


@dataclass(frozen=True, slots=True)
class Status:
    """What a container does now, derived.

    Attributes:
        status: "created", "starting", "running" or "exited".
        pid: of init in this PID namespace; 0 where it does not run.
        supervisor_pid: 0 where there is none.
        exit_code: of the last run, or of the start that failed ("created" with ``error``); 0 while there is
            none.
        oom_killed, error: as in :class:`ExitRecord`.
        started_at_ns, finished_at_ns: Unix time in nanoseconds; 0 where it has not happened.
        ports: published ports of a running container, with the host ports that were chosen.
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

    @property
    def is_running(self) -> bool:
        return self.status == "running"


def derive_status(paths: ContainerPaths) -> Status:
    """Say what the container does now; where its supervisor was killed, record exit code 137 and reap what it left.

    Never waits for a running container.  Raises CorruptError where a record can not be read as one.
    """
    while True:
        locked = is_locked(paths.lock_file)
        state = StateRecord.read(paths.state_file)
        if state is None:
            ended = ExitRecord.read(paths.exit_file)
            if ended is not None:
                return _status_of_exit(ended)
            # Read again: one that came and went between the look at the lock and here left a record.
            if locked == is_locked(paths.lock_file) and not paths.exit_file.exists():
                return Status("starting" if locked else "created")
        elif locked:
            return _status_of_state(state)
        elif (lock_fd := take_lock(paths.lock_file)) is not None:
            try:
                record_killed(paths)
            finally:
                os.close(lock_fd)


def _status_of_state(state: StateRecord) -> Status:
    return Status(
        "running" if state.init else "starting",
        pid=state.init.pid if state.init else 0,
        supervisor_pid=state.supervisor.pid,
        started_at_ns=state.started_at_ns,
        ports=state.ports,
    )


def _status_of_exit(record: ExitRecord) -> Status:
    return Status(
        "exited" if record.started_at_ns else "created",
        exit_code=record.exit_code,
        oom_killed=record.oom_killed,
        error=record.error,
        started_at_ns=record.started_at_ns,
        finished_at_ns=record.finished_at_ns,
    )


def record_killed(paths: ContainerPaths) -> None:
    """With the lock held: reap what a killed supervisor left, and record the exit that it did not record.

    Postcondition: exit.json is there, state.json is not, init is dead.
    """
    state = StateRecord.read(paths.state_file)
    if state is None:
        return  # another process was first
    error = _reap(paths, state)
    # An exit record is this run's, or where the run never began, the last one's: true in both cases.
    if not paths.exit_file.exists():
        if state.init is None:
            error = error or "the container's supervisor was killed while it started the container"
        ExitRecord(KILLED_EXIT_CODE, False, error, state.started_at_ns, time.time_ns()).write(paths.exit_file)
    paths.control_socket.unlink(missing_ok=True)
    paths.state_file.unlink(missing_ok=True)


def _reap(paths: ContainerPaths, state: StateRecord) -> str:
    """Kill init and delete the container; return a line about what could not be removed."""
    from pydock_core.supervision.executor_choice import (
        make_executor,  # late: most readers of states need none
    )

    container_id = paths.run.name
    try:
        executor = make_executor(state.executor, paths)
        with suppress(PyDockError):  # it may not have been made yet
            # Through its control group: what is frozen there does not die by a signal alone.
            executor.kill(container_id, signal.SIGKILL, all_processes=True)
        pidfd = state.init.open() if state.init else None
        if pidfd is not None:
            try:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                poll = select.poll()
                poll.register(pidfd, select.POLLIN)
                poll.poll(10_000)
            finally:
                os.close(pidfd)
        executor.delete(container_id)
    except PyDockError as error:
        return error.message
    except OSError as error:
        return f"the container's first process can not be killed: {error.strerror}"
    return ""


def read_plan(path: Path) -> LaunchPlan:
    """Read a launch plan; CorruptError where it is none."""
    document = read_json(path)
    if document is None:
        raise CorruptError(f"there is no launch plan at {path}")
    try:
        return LaunchPlan.from_json(document)
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptError(f"the launch plan {path} is malformed: {error}") from error


# The lock.  An open file description lock (fcntl(2)), not flock(2): F_OFD_GETLK asks without taking, so a
# reader can never make a supervisor that starts at this moment believe that the container runs.


def take_lock(path: Path) -> int | None:
    """Take the container's lock; return the descriptor that holds it, or None where somebody else does."""
    lock_fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
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
    """Whether somebody holds the lock; the lock itself is not touched."""
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
