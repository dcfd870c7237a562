"""Reaps the container of a killed supervisor, and records its end.

Commands that act on a container (start, wait, remove, the engine's sweep) reap first; commands that only read do not:
:func:`pydock_core.supervision.container_status.derive_status` returns the same end before and after.
"""

from __future__ import annotations

import os
import select
import signal
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from pydock_core.errors import PyDockError
from pydock_core.paths import ContainerPaths
from pydock_core.runtime.record_file import read_json
from pydock_core.supervision.container_status import (
    ExitRecord,
    StateRecord,
    Status,
    derive_status,
    is_locked,
    take_lock,
)
from pydock_core.supervision.executor_choice import make_executor

_DEATH_TIMEOUT_MS = 10_000


def reap_killed(paths: ContainerPaths) -> Status:
    """Reap the container if its supervisor was killed; return its status.  Never waits for a running container."""
    while not is_locked(paths.lock_file) and paths.state_file.exists():
        lock_fd = take_lock(paths.lock_file)
        if lock_fd is not None:
            try:
                record_killed(paths)
            finally:
                os.close(lock_fd)
    return derive_status(paths)


def record_killed(paths: ContainerPaths) -> None:
    """Remove the remains of a killed supervisor, and record the exit if it did not; the caller holds the lock.

    Postcondition: exit.json exists, state.json does not, and init is dead.
    """
    if record_killed_run(paths):
        paths.state_file.unlink(missing_ok=True)


def mark_stopped(paths: ContainerPaths) -> bool:
    """Record a client's request to end a container that is not running, so that no keeper restarts it.

    Returns:
        Whether it was recorded; False while another process acts on the container.
    """
    try:
        lock_fd = take_lock(paths.lock_file)
    except FileNotFoundError:
        return True  # it has never run
    if lock_fd is None:
        return False
    try:
        ended = ExitRecord.read(paths.exit_file)
        if ended is not None and not ended.stopped_by_hand:
            replace(ended, stopped_by_hand=True).write(paths.exit_file)
    finally:
        os.close(lock_fd)
    return True


def record_killed_run(paths: ContainerPaths) -> bool:
    """Do the same as :func:`record_killed`, but keep state.json; return whether it existed.

    A keeper replaces it in one step, so that a container that is about to restart never appears as exited.
    """
    state = StateRecord.read(paths.state_file)
    if state is None:
        return False  # another process was first
    problem = _reap(paths, state)
    _withdraw_names(paths)
    if not paths.exit_file.exists():
        record = ExitRecord.of_killed(state, time.time_ns())
        replace(record, error=problem or record.error).write(paths.exit_file)
    paths.control_socket.unlink(missing_ok=True)
    return True


def _withdraw_names(paths: ContainerPaths) -> None:
    """Remove the container from the names of its networks."""
    if not paths.names_file.exists():
        return
    from pydock_core.supervision.names.names_file import withdraw  # late: few containers have names

    for _, directory in (read_json(paths.names_file) or {}).get("networks", ()):
        withdraw(Path(directory), paths.run.name)
    paths.names_file.unlink(missing_ok=True)


def _reap(paths: ContainerPaths, state: StateRecord) -> str:
    """Kill init and delete the container; return the error of the removal in one line, or ""."""
    container_id = paths.run.name
    try:
        executor = make_executor(state.executor, paths)
        with suppress(PyDockError):  # it may not have been made yet
            # Through its control group: a signal alone does not kill a frozen process.
            executor.kill(container_id, signal.SIGKILL, all_processes=True)
        pidfd = state.init.open() if state.init else None
        if pidfd is not None:
            try:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                poll = select.poll()
                poll.register(pidfd, select.POLLIN)
                poll.poll(_DEATH_TIMEOUT_MS)
            finally:
                os.close(pidfd)
        executor.delete(container_id)
    except PyDockError as error:
        return error.message
    except OSError as error:
        return f"cannot kill the container's first process: {error.strerror}"
    return ""
