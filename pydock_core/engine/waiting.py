"""Waits for a container by the conditions of ContainerWait of the Engine API."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pydock_core.engine.events import Events
from pydock_core.errors import InvalidError, NotFoundError
from pydock_core.store.database import containers as table
from pydock_core.store.database import events as sql
from pydock_core.store.database.containers import ContainerRow
from pydock_core.store.database.events import Criteria
from pydock_core.supervision.container_status import derive_status

if TYPE_CHECKING:
    from pydock_core.engine.state import State

NOT_RUNNING = "not-running"
NEXT_EXIT = "next-exit"
REMOVED = "removed"
_ENDS = ("die", "destroy")


def check_condition(condition: str) -> None:
    """Raise InvalidError for an unknown condition."""
    if condition not in (NOT_RUNNING, NEXT_EXIT, REMOVED):
        raise InvalidError(
            f'invalid condition: "{condition}"', f"there are {NOT_RUNNING}, {NEXT_EXIT} and {REMOVED}"
        )


def wait_for_event(state: State, row: ContainerRow, condition: str) -> int:
    """Wait until a container has ended once more, or until it is removed; return its exit code.

    Args:
        condition: NEXT_EXIT, for a container that is not running, or REMOVED.

    Raises:
        NotFoundError: it was removed before it ran.
    """
    # An earlier end may be recorded only now; it does not count.
    stream = Events(state).stream(
        since_ns=time.time_ns(), filters={"container": [row.id], "event": list(_ENDS)}
    )
    try:
        code = derive_status(state.root.container(row.id)).exit_code
        try:
            table.find(state.database, row.id)
        except NotFoundError:  # before the stream began
            if condition == NEXT_EXIT:
                raise
            return _last_exit_code(state, row)
        for message in stream:
            if message["Action"] == "die":
                code = int(message["Actor"]["Attributes"]["exitCode"])
                if condition == NEXT_EXIT:
                    return code
            elif condition == REMOVED:
                return code
            else:
                break
    finally:
        stream.close()
    raise NotFoundError(f"no such container: {row.id[:12]}", "it was removed before it ran")


def _last_exit_code(state: State, row: ContainerRow) -> int:
    criteria = Criteria(actions=("die",), subjects=((row.id,),))
    codes = [
        int(event.attributes["exitCode"])
        for event in sql.select(state.database, criteria, since_ns=row.created_ns)
    ]
    return codes[-1] if codes else 0
