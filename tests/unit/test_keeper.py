"""The keeper's judgement of a container of which it has lost the supervisor."""

from __future__ import annotations

import os

import pytest

from pydock_core.runtime.process_identity import ProcessIdentity
from pydock_core.supervision.container_status import StateRecord
from pydock_core.supervision.keeper import has_successor

HERE = ProcessIdentity.of(os.getpid())
GONE = ProcessIdentity(HERE.pid, HERE.start_ticks + 1, HERE.boot_id)
KILLED_PID = 1


def record(supervisor_pid: int, init: ProcessIdentity | None) -> StateRecord:
    supervisor = ProcessIdentity(supervisor_pid, 1, HERE.boot_id)
    return StateRecord(init, supervisor, 0, (), "embedded")


def test_the_record_of_the_killed_supervisor_is_no_successors_while_its_init_still_dies() -> None:
    assert not has_successor(record(KILLED_PID, HERE), KILLED_PID)


def test_another_supervisor_with_a_live_init_is_a_successor() -> None:
    assert has_successor(record(KILLED_PID + 1, HERE), KILLED_PID)


@pytest.mark.parametrize("state", [None, record(KILLED_PID + 1, None), record(KILLED_PID + 1, GONE)])
def test_a_start_that_has_not_come_to_an_init_is_waited_for(state: StateRecord | None) -> None:
    assert not has_successor(state, KILLED_PID)
