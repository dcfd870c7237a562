"""Freezes a running container's processes while a client holds it frozen.

A user's pause is one of the holds; only ``unpause`` ends it.

The kernel's freezer holds a container with a control group.  Without one (an ordinary user on version 1), every process
gets SIGSTOP, and later the processes that this stopped get SIGCONT.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from pydock_core.errors import FailedError, PyDockError
from pydock_core.runtime.cgroups.freezer import GroupFreezer, find_freezer
from pydock_core.runtime.process_identity import ProcessIdentity
from pydock_core.supervision.event_loop import EventLoop
from pydock_core.supervision.process_tree import list_processes

_PATIENCE_SECONDS = 10.0
_FIRST_LOOK_SECONDS = 0.0005
_LONGEST_LOOK_SECONDS = 0.02

OnHeld = Callable[[PyDockError | None], None]


class Freezer(Protocol):
    """Freezes and thaws all processes of one container."""

    def freeze(self) -> None:
        """Begin to stop the processes; FailedError if that is impossible."""
        ...

    def is_frozen(self) -> bool:
        """Whether all processes have stopped; also stops those forked since :meth:`freeze`."""
        ...

    def thaw(self) -> None:
        """Continue the processes that were stopped here; ignore those that are gone."""
        ...


def choose_freezer(init_pid: int, container_id: str) -> Freezer:
    """Return the freezer of the container whose init is a child of this process."""
    return find_freezer(init_pid, container_id) or ProcessFreezer()


class Pause:
    """The holders of a frozen container.  A holder is any object, and must be released at its end.

    Args:
        loop: waits for the processes to stop.
        choose: returns the freezer; called for the first holder.
    """

    def __init__(self, loop: EventLoop, choose: Callable[[], Freezer]) -> None:
        self._loop = loop
        self._choose = choose
        self._freezer: Freezer | None = None
        self._holders: set[object] = set()
        self._waiting: dict[object, OnHeld] = {}
        self._postponed: list[Callable[[], None]] = []

    @property
    def is_held(self) -> bool:
        """Whether the container is frozen, or is about to be."""
        return self._freezer is not None

    def is_lasting(self) -> bool:
        """Whether the kernel's freezer can hold the container; SIGSTOP does not count: any of its processes can send SIGCONT."""
        return isinstance(self._freezer or self._choose(), GroupFreezer)

    def hold(self, holder: object, on_held: OnHeld) -> None:
        """Freeze the container; call back once, with None when it is frozen or with the error."""
        self._holders.add(holder)
        if self._freezer is not None and not self._waiting:
            on_held(None)
            return
        self._waiting[holder] = on_held
        if self._freezer is None:
            self._freezer = self._choose()
            try:
                self._freezer.freeze()
            except PyDockError as error:
                self._give_up(error)
                return
            self._look(time.monotonic() + _PATIENCE_SECONDS, _FIRST_LOOK_SECONDS)

    def _look(self, deadline: float, pause_seconds: float) -> None:
        # The kernel does not report when a group of version 1 has stopped.
        if self._freezer is None:
            return
        if self._freezer.is_frozen():
            waiting, self._waiting = self._waiting, {}
            for on_held in waiting.values():
                on_held(None)
        elif time.monotonic() > deadline:
            self._give_up(
                FailedError(
                    f"the container's processes do not stop within {_PATIENCE_SECONDS:.0f} seconds",
                    "one may wait for a device or a network file system; go without the pause",
                )
            )
        else:
            following = min(pause_seconds * 2, _LONGEST_LOOK_SECONDS)
            self._loop.call_later(pause_seconds, lambda: self._look(deadline, following))

    def _give_up(self, error: PyDockError) -> None:
        waiting, self._waiting = self._waiting, {}
        for holder in waiting:
            self.release(holder)
        for on_held in waiting.values():
            on_held(error)

    def release(self, holder: object) -> None:
        """Release a holder, and thaw the container with the last one; ignore an object that is not a holder."""
        self._holders.discard(holder)
        self._waiting.pop(holder, None)
        if self._holders or self._freezer is None:
            return
        freezer, self._freezer = self._freezer, None
        try:
            freezer.thaw()
        except PyDockError as error:
            # Its group is being removed: the container has just ended.
            print(f"a container could not be continued: {error.message}", file=sys.stderr)
        postponed, self._postponed = self._postponed, []
        for action in postponed:
            action()

    def postpone(self, action: Callable[[], None]) -> None:
        """Call ``action`` when the container is thawed: for an action that would wait for a process in it."""
        self._postponed.append(action)


class ProcessFreezer:
    """Freezes the processes of the container that this process supervises."""

    def __init__(self) -> None:
        self._stopped: dict[ProcessIdentity, None] = {}

    def freeze(self) -> None:
        self.is_frozen()

    def is_frozen(self) -> bool:
        all_stopped = True
        for pid, state in list_processes(os.getpid()):
            if state in "TtZX":
                continue
            all_stopped = False
            with suppress(FileNotFoundError, ProcessLookupError):
                identity = ProcessIdentity.of(pid)
                if identity not in self._stopped:
                    self._stopped[identity] = None
                    _send(identity, signal.SIGSTOP)
        return all_stopped

    def thaw(self) -> None:
        for identity in self._stopped:
            _send(identity, signal.SIGCONT)
        self._stopped.clear()


def _send(identity: ProcessIdentity, number: int) -> None:
    pidfd = identity.open()
    if pidfd is not None:
        try:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, number)
        finally:
            os.close(pidfd)
