"""Reaps the container of a supervisor that was killed, and records how it ended.

Who acts on a container (start, wait, remove, the engine's sweep) reaps first; who only looks at it does not:
:func:`pydock_core.supervision.container_status.derive_status` shows the same end beforehand.
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
    """Reap the container if its supervisor was killed; return its status then.  Never waits for a running one."""
    while not is_locked(paths.lock_file) and paths.state_file.exists():
        lock_fd = take_lock(paths.lock_file)
        if lock_fd is not None:
            try:
                record_killed(paths)
            finally:
                os.close(lock_fd)
    return derive_status(paths)


def record_killed(paths: ContainerPaths) -> None:
    """With the lock held: remove what a killed supervisor left, and record the exit that it did not record.

    Postcondition: exit.json is there, state.json is not, init is dead.
    """
    state = StateRecord.read(paths.state_file)
    if state is None:
        return  # another process was first
    problem = _reap(paths, state)
    _withdraw_names(paths)
    if not paths.exit_file.exists():
        record = ExitRecord.of_killed(state, time.time_ns())
        replace(record, error=problem or record.error).write(paths.exit_file)
    paths.control_socket.unlink(missing_ok=True)
    paths.state_file.unlink(missing_ok=True)


def _withdraw_names(paths: ContainerPaths) -> None:
    """Remove the container from the names of its networks."""
    if not paths.names_file.exists():
        return
    from pydock_core.supervision.names.names_file import withdraw  # late: few containers have names

    for _, directory in (read_json(paths.names_file) or {}).get("networks", ()):
        withdraw(Path(directory), paths.run.name)
    paths.names_file.unlink(missing_ok=True)


def _reap(paths: ContainerPaths, state: StateRecord) -> str:
    """Kill init and delete the container; return a line about what could not be removed."""
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
                poll.poll(_DEATH_TIMEOUT_MS)
            finally:
                os.close(pidfd)
        executor.delete(container_id)
    except PyDockError as error:
        return error.message
    except OSError as error:
        return f"cannot kill the container's first process: {error.strerror}"
    return ""
