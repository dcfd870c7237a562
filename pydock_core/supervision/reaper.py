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

from pydock_core.errors import PyDockError
from pydock_core.paths import ContainerPaths
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
    state = StateRecord.read(paths.state_file)
    if state is None:
        return  # another process was first
    problem = _reap(paths, state)
    if not paths.exit_file.exists():
        record = ExitRecord.of_killed(state, time.time_ns())
        replace(record, error=problem or record.error).write(paths.exit_file)
    paths.control_socket.unlink(missing_ok=True)
    paths.state_file.unlink(missing_ok=True)


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
