"""Past and new events of one state root, as EventMessage of the Engine API 1.51."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydock_core.change_watch import ChangeWatch
from pydock_core.engine.event_filters import parse_event_filters
from pydock_core.errors import InvalidError, UnavailableError
from pydock_core.store.database import events as sql
from pydock_core.store.database.events import Criteria, Event

if TYPE_CHECKING:
    from pydock_core.engine.state import State


def build_message(event: Event) -> dict[str, Any]:
    """Return an event as EventMessage, with the older fields (status, id, from) that Docker 28 still has."""
    older: dict[str, str] = {}
    if event.type in ("container", "image"):
        older = {"status": event.action, "id": event.actor}
    if event.type == "container":
        older["from"] = event.attributes.get("image", "")
    return {
        **older,
        "Type": event.type,
        "Action": event.action,
        "Actor": {"ID": event.actor, "Attributes": dict(sorted(event.attributes.items()))},
        "scope": "local",
        "time": event.time_ns // 1_000_000_000,
        "timeNano": event.time_ns,
    }


class Events:
    """Reads and follows events.  Reading changes nothing; any number of processes may follow."""

    def __init__(self, state: State) -> None:
        self._state = state

    def stream(
        self,
        since_ns: int | None = None,
        until_ns: int | None = None,
        filters: Mapping[str, Sequence[str]] | None = None,
    ) -> EventStream:
        """Return the events of an interval, and new ones as they happen, as EventMessage.

        The past is read from ``since_ns`` (or, with ``until_ns`` alone, from the beginning); without either only new events
        come.  The stream ends at ``until_ns``, which may be in the future; without it, it does not end.

        Args:
            since_ns, until_ns: inclusive, since the epoch.
            filters: container, daemon, event, image, label, network, scope, type, volume.

        Raises:
            InvalidError: an unknown filter, or an interval that ends before it begins.
        """
        criteria = parse_event_filters(filters or {})
        if since_ns is not None and until_ns is not None and since_ns > until_ns:
            raise InvalidError("--since is after --until", "give an earlier --since", exit_code=1)
        return EventStream(self._state, criteria, since_ns, until_ns)

    def changes(self) -> ChangeWatch:
        """Return a watch for future changes of containers, images, networks and volumes.

        It does not report a killed supervisor.
        """
        return _watch(self._state)


class EventStream:
    """An iterator over events as documents; see :meth:`Events.stream`."""

    def __init__(
        self, state: State, criteria: Criteria | None, since_ns: int | None, until_ns: int | None
    ) -> None:
        self._database = state.database
        self._criteria = criteria
        self._since_ns = since_ns
        self._until_ns = until_ns
        # In this order no event is missed: the watch, the position, the past.
        self._watch = _watch(state)
        self._position = sql.last_id(self._database)
        self._is_closed = False

    def close(self) -> None:
        """End the iteration, even in another thread."""
        self._is_closed = True
        self._watch.interrupt()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        try:
            yield from self._past()
            yield from self._future()
        finally:
            self._watch.close()

    def _past(self) -> Iterator[dict[str, Any]]:
        if self._criteria is None or (self._since_ns is None and self._until_ns is None):
            return
        for event in sql.select(
            self._database,
            self._criteria,
            since_ns=self._since_ns,
            until_ns=self._until_ns,
            last_id=self._position,
        ):
            if self._is_closed:
                return
            yield build_message(event)

    def _future(self) -> Iterator[dict[str, Any]]:
        while not self._is_closed:
            # The time is read before the events, so they include all that were recorded by then.
            left_ns = None if self._until_ns is None else self._until_ns - time.time_ns()
            if self._criteria is not None:
                found, self._position = sql.select_after(self._database, self._position, self._criteria)
                for event in found:
                    if (self._since_ns or 0) <= event.time_ns <= (self._until_ns or 1 << 63):
                        yield build_message(event)
            if left_ns is not None and left_ns <= 0:
                return
            self._watch.wait(None if left_ns is None else left_ns / 1e9)


def _watch(state: State) -> ChangeWatch:
    state.ensure_root()
    try:
        return ChangeWatch(state.root.changed)
    except OSError as error:
        raise UnavailableError(
            f"cannot watch {state.root.changed}: {error.strerror}", "check the directory (dock doctor)"
        ) from error
