"""The escalation of interrupts for a command in the foreground: ask, stop, kill.

In a terminal, ctrl-c has the same effect as in Docker.  A notebook's cell has to end, and its stop button does not show
its effect.  So each step there is announced, and the next step follows by itself after a grace period.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from pydock_core.engine import signal_name

GRACE_SECONDS = 3.0
"""The grace period after SIGINT for a program in a notebook."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of an escalation.

    Attributes:
        signal: sent to the process; with None, the command ends and leaves the process running.
        grace_seconds: the time after which the next step follows without an interrupt; None for never.
        notice: a message for the person; "" for none.
    """

    signal: int | None
    grace_seconds: float | None = None
    notice: str = ""


class Escalation:
    """The sequence of a session's steps; the last one is repeated.

    Args:
        steps: at least one.
        clock: seconds, monotonic.
    """

    def __init__(self, steps: Sequence[Step], clock: Callable[[], float] = time.monotonic) -> None:
        self._steps = tuple(steps)
        self._clock = clock
        self._taken = 0
        self._due_at: float | None = None

    @property
    def has_begun(self) -> bool:
        """Whether there was an interrupt."""
        return self._taken > 0

    def advance(self) -> Step:
        """Take the next step, after an interrupt or at the end of the grace period."""
        step = replace(self._steps[-1], notice="")  # repeated: the person has been told
        if self._taken < len(self._steps):
            step = self._steps[self._taken]
        self._taken += 1
        self._due_at = None if step.grace_seconds is None else self._clock() + step.grace_seconds
        return step

    def remaining_seconds(self) -> float | None:
        """Return the time until the next step follows by itself, 0 if it is due; None for never."""
        return None if self._due_at is None else max(self._due_at - self._clock(), 0.0)


TERMINAL_STEPS = (Step(signal.SIGINT), Step(signal.SIGINT), Step(signal.SIGKILL))
"""docker/cli, cli/command/container/signals.go: the signal is passed on; the third interrupt kills."""


def steps_that_stop(subject: str, stop_signal: int, stop_seconds: float) -> tuple[Step, ...]:
    """Return a notebook's steps for a process that its cell has started: ask, stop as ``dock stop`` does, kill.

    Args:
        subject: "the container", "the command".
        stop_signal: the second signal.
        stop_seconds: from the second signal to SIGKILL; negative for never.
    """
    name = f"SIG{signal_name(stop_signal)}"
    waits = stop_seconds >= 0
    then = f"{subject} is killed if it has not ended in {stop_seconds:g} s; " if waits else ""
    return (
        Step(
            signal.SIGINT,
            GRACE_SECONDS,
            f"sent SIGINT; {subject} is stopped if it has not ended in {GRACE_SECONDS:g} s; "
            "interrupt again to stop it now",
        ),
        Step(
            stop_signal,
            stop_seconds if waits else None,
            f"sent {name}; {then}interrupt again to kill it now",
        ),
        Step(signal.SIGKILL, None, f"killed {subject}"),
    )


def steps_that_ask(name: str) -> tuple[Step, ...]:
    """Return a notebook's steps for a container that the cell has not started: ask, then leave it running."""
    asking = Step(
        signal.SIGINT,
        GRACE_SECONDS,
        f"sent SIGINT; if {name} has not ended in {GRACE_SECONDS:g} s, this cell detaches and leaves it running; "
        "interrupt again to leave it now",
    )
    return asking, *steps_that_leave(name)


def steps_that_leave(name: str) -> tuple[Step, ...]:
    """Return the step that ends the command, and leaves the container running.

    Args:
        name: of the container, for the notice; "" for none.
    """
    return (Step(None, None, f"{name} goes on running; to end it: dock stop {name}" if name else ""),)
