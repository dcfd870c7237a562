"""Freezes a running container's processes as long as a client holds it frozen.

With a control group, the kernel's freezer is used.  Without one (an ordinary user on version 1), every process gets
SIGSTOP, and afterwards those that were stopped here get SIGCONT.
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
from pydock_core.runtime.cgroups.freezer import find_freezer
from pydock_core.runtime.process_identity import ProcessIdentity
from pydock_core.supervision.event_loop import EventLoop

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
    """Stops the descendants of this process, a child subreaper, except its own forks (the port forwarder)."""

    def __init__(self) -> None:
        self._stopped: dict[ProcessIdentity, None] = {}
        own = os.stat("/proc/self/exe")
        self._own_program = (own.st_dev, own.st_ino)

    def freeze(self) -> None:
        self.is_frozen()

    def is_frozen(self) -> bool:
        all_stopped = True
        for pid, state in self._list():
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

    def _list(self) -> list[tuple[int, str]]:
        """Return the container's processes with their states (proc(5))."""
        children: dict[int, list[tuple[int, str]]] = {}
        for name in os.listdir("/proc"):
            if not name.isdigit():
                continue
            with suppress(OSError), open(f"/proc/{name}/stat", "rb") as stream:
                # After the name in parentheses, which may contain any character.
                state, parent = stream.read().rpartition(b")")[2].split(maxsplit=2)[:2]
                children.setdefault(int(parent), []).append((int(name), state.decode()))
        found: list[tuple[int, str]] = []
        pending = [os.getpid()]
        while pending:
            for pid, status in children.get(pending.pop(), ()):
                if not self._is_own(pid):
                    found.append((pid, status))
                    pending.append(pid)
        return found

    def _is_own(self, pid: int) -> bool:
        try:
            program = os.stat(f"/proc/{pid}/exe")
        except OSError:
            return False
        return (program.st_dev, program.st_ino) == self._own_program


def _send(identity: ProcessIdentity, number: int) -> None:
    pidfd = identity.open()
    if pidfd is not None:
        try:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, number)
        finally:
            os.close(pidfd)
