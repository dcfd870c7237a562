"""Records the events of verbs that work outside the database: the start, the signals and the end of a container.

Such work cannot be undone, so a failure to record it does not fail the verb (:func:`pydock_core.store.database.events.note`).
"""

from __future__ import annotations

from contextlib import suppress

from pydock_core.errors import NoSpaceError, UnavailableError
from pydock_core.store.database import Database, events
from pydock_core.store.database import containers as table
from pydock_core.store.database.containers import ContainerRow, Run, build_event
from pydock_core.store.database.events import Event
from pydock_core.supervision.container_status import Status


def last_run(status: Status) -> Run | None:
    """Return the last run from a container's records; None if it never ran, or its end has no time."""
    if not status.started_at_ns or (status.status == "exited" and not status.finished_at_ns):
        return None
    if status.status in ("starting", "running"):
        return Run(status.started_at_ns)
    return Run(status.started_at_ns, status.finished_at_ns, status.exit_code, status.oom_killed)


class Recorder:
    """Records events of containers and images in one state root."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def note(self, *noted: Event) -> None:
        """Record events."""
        events.note(self._database, *noted)

    def container(self, row: ContainerRow, action: str, *, time_ns: int = 0, **attributes: str) -> None:
        """Record an event of a container."""
        self.note(build_event(row, action, time_ns=time_ns, **attributes))

    def run(self, row: ContainerRow, run: Run | None, *before: Event) -> None:
        """Record events, and then the known and unrecorded parts of a run."""
        if not self._database.has_room:
            return
        with (
            suppress(NoSpaceError, UnavailableError),
            self._database.transaction(durable=False) as connection,
        ):
            events.record(connection, *before)
            if run is not None:
                table.record_run(connection, row, run)
