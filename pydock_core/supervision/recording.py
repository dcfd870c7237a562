"""Records a container's events in the state database, on behalf of its supervisor, which loads no SQLite.

Each recording is a forked child that loads it, writes one transaction and ends (some 15 ms).  A supervisor does so only
for events without a client: the end of a container, and of an ``exec`` process whose client is gone.
"""

from __future__ import annotations

import os
import signal
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from pydock_core import syscalls
from pydock_core.paths import ContainerPaths

NO_RUN = {"started_at_ns": 0, "finished_at_ns": 0, "exit_code": 0, "oom_killed": False}
"""The fields of a run that has not happened."""
_FUNCTION = "pydock_core.store.event_recording:record_events"


class Recording:
    """The recordings of one container.

    Attributes:
        subject: the arguments of a worker function that identify the container.
    """

    def __init__(self, paths: ContainerPaths) -> None:
        self.subject = {
            "data": str(paths.data.parent.parent),
            "run": str(paths.run.parent.parent),
            "container_id": paths.run.name,
        }
        self._last_pid = 0

    def record(self, action: str, attributes: Mapping[str, str]) -> None:
        """Record an event at the current time."""
        event = {"action": action, "time_ns": time.time_ns(), "attributes": dict(attributes)}
        self._perform({"happened": [event]})

    def record_end(self, run: Mapping[str, Any]) -> None:
        """Record a run's start and end unless a client already has."""
        self._perform({"last_run": dict(run)})

    def _perform(self, arguments: Mapping[str, Any]) -> None:
        try:
            pid = os.fork()
        except OSError:  # out of memory or processes; the end is in exit.json, and the next verb records it
            traceback.print_exc()
            return
        if pid:
            self._last_pid = pid
            return
        try:
            _become_recorder()
            from pydock_core.store.worker import perform  # late: it imports the database

            perform(_FUNCTION, {**self.subject, **arguments})
        except Exception:  # noqa: BLE001 - the log says why an event is missing
            traceback.print_exc()
        finally:
            os._exit(0)

    def remove_container(self, run: Mapping[str, Any]) -> None:
        """Remove the container and record its last run, in this process, which loads the database only here, at its end."""
        try:
            from pydock_core.store.worker import perform

            perform("pydock_core.store.container_removal:remove_container", {**self.subject, **run})
        except Exception:  # noqa: BLE001 - the next command tidies up; the log has the reason
            traceback.print_exc()

    def wait(self) -> None:
        """Wait for the last child; a supervisor that ended earlier would leave it to init, which may not reap."""
        if self._last_pid:
            with suppress(ChildProcessError):  # reaped with the container's processes
                os.waitpid(self._last_pid, 0)


def _become_recorder() -> None:
    """Release the supervisor's signals and descriptors, including its lock."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    syscalls.close_range(3)
