"""Records a container's events on behalf of its supervisor, in a process that loads the database.  A worker function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from pydock_core.errors import NotFoundError
from pydock_core.paths import StateRoot
from pydock_core.store.database import Database, events
from pydock_core.store.database import containers as table
from pydock_core.store.database.containers import Run


class Happening(TypedDict):
    """An event of a known container: Docker's word, the time since the epoch, and additional attributes."""

    action: str
    time_ns: int
    attributes: dict[str, str]


def record_events(
    *,
    data: str,
    run: str,
    container_id: str,
    happened: Sequence[Happening] = (),
    last_run: Mapping[str, Any] | None = None,
    fds: Sequence[int] = (),
    progress: Callable[[Mapping[str, object]], None] | None = None,
) -> None:
    """Record events of one container in one transaction.

    No events are recorded for a removed container: the process that removed it recorded its end.

    Args:
        data, run: the two directories of the state root.
        container_id: full.
        happened: each event's action, time and attributes.
        last_run: the fields of :class:`~pydock_core.store.database.containers.Run`, whose start and end are recorded
            unless they are already.
        fds, progress: unused; the signature is that of all worker functions.
    """
    root = StateRoot(Path(data), Path(run))
    database = Database(root.database, signal=root.changed)
    try:
        row = table.find(database, container_id)
    except NotFoundError:
        return
    if not database.has_room:
        return  # see events.note; the end is in exit.json, and the next verb records it
    with database.transaction(durable=False) as connection:
        for event in happened:
            built = table.build_event(row, event["action"], time_ns=event["time_ns"], **event["attributes"])
            events.record_once(connection, built)
        if last_run is not None:
            table.record_run(connection, row, Run(**last_run))
