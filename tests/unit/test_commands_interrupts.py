"""What interrupts lead to, step by step, and what is told of how a container ended."""

from __future__ import annotations

import signal

import pytest

from pydock_core.commands.ending import describe_exit, spell_memory
from pydock_core.commands.interrupts import (
    GRACE_SECONDS,
    TERMINAL_STEPS,
    Escalation,
    Step,
    steps_that_ask,
    steps_that_leave,
    steps_that_stop,
)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_terminal_passes_two_on_and_kills_at_the_third() -> None:
    escalation = Escalation(TERMINAL_STEPS, Clock())
    assert not escalation.has_begun
    sent = []
    for _ in range(4):
        assert escalation.remaining_seconds() is None
        sent.append(escalation.advance().signal)
    assert sent == [signal.SIGINT, signal.SIGINT, signal.SIGKILL, signal.SIGKILL]


def test_in_a_notebook_each_step_leads_to_the_next() -> None:
    clock = Clock()
    escalation = Escalation(steps_that_stop("the container", signal.SIGQUIT, 7), clock)
    assert escalation.remaining_seconds() is None
    assert escalation.advance().signal == signal.SIGINT
    assert escalation.remaining_seconds() == GRACE_SECONDS
    clock.now += GRACE_SECONDS + 1
    assert escalation.remaining_seconds() == 0
    step = escalation.advance()
    assert step.signal == signal.SIGQUIT
    assert step.notice.startswith("sent SIGQUIT; the container is killed if it has not ended in 7 s")
    clock.now += 2
    assert escalation.remaining_seconds() == 5
    assert [escalation.advance() for _ in range(2)] == [
        Step(signal.SIGKILL, None, "killed the container"),
        Step(signal.SIGKILL),
    ]
    assert escalation.remaining_seconds() is None


def test_a_stop_without_end_waits_for_the_next_interrupt() -> None:
    escalation = Escalation(steps_that_stop("the container", signal.SIGTERM, -1), Clock())
    escalation.advance()
    assert escalation.advance().notice == "sent SIGTERM; interrupt again to kill it now"
    assert escalation.remaining_seconds() is None


def test_what_was_not_started_here_goes_on() -> None:
    asking, leaving = steps_that_ask("web")
    assert (asking.signal, asking.grace_seconds) == (signal.SIGINT, GRACE_SECONDS)
    assert leaving.signal is None
    assert leaving.notice == "web goes on running; to end it: dock stop web"
    assert [step.signal for step in steps_that_leave("")] == [None]


@pytest.mark.parametrize(
    ("code", "oom_killed", "memory_bytes", "text"),
    [
        (0, False, None, ""),
        (3, False, 1 << 20, ""),
        (137, False, None, "killed by SIGKILL"),
        (139, False, None, "killed by SIGSEGV"),
        (255, False, None, ""),
        (137, True, 64 << 20, "killed: out of memory (-m 64m)"),
        (137, True, None, "killed: out of memory"),
        (1, True, 1 << 30, "a process of the container was killed: out of memory (-m 1g)"),
    ],
)
def test_endings(code: int, oom_killed: bool, memory_bytes: int | None, text: str) -> None:
    assert describe_exit(code, oom_killed=oom_killed, memory_bytes=memory_bytes) == text


def test_memory_is_spelled_as_the_option_takes_it() -> None:
    assert [spell_memory(size) for size in (1536 << 10, 3 << 30, 1000)] == ["1536k", "3g", "1000"]
