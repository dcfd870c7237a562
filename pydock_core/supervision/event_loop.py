"""A supervisor's event loop: callbacks for descriptors, timers, signals and children.

asyncio would take 30 ms more of imports, and more memory than the rest of a supervisor.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the functions of signal look up enumeration members
import heapq
import os
import select
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from pydock_core.runtime.reaping import read_held_status

READ = select.EPOLLIN
WRITE = select.EPOLLOUT
HANGUP = select.EPOLLHUP | select.EPOLLERR
_BATCH_EVENTS = 256

OnEvent = Callable[[int], None]


class Timer:
    """A scheduled call that can be cancelled."""

    __slots__ = ("callback", "due")

    def __init__(self, due: float, callback: Callable[[], None]) -> None:
        self.due = due
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Cancel the call; harmless after it has happened."""
        self.callback = None

    def __lt__(self, other: Timer) -> bool:
        return self.due < other.due


class EventLoop:
    """Level-triggered callbacks by descriptor.

    ``before_wait`` is called after all events have been handled, just before the loop waits.
    """

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._callbacks: dict[int, OnEvent] = {}
        self._paused: dict[int, int] = {}  # descriptor to the events that it had
        self._timers: list[Timer] = []
        self._running = False
        self.before_wait: Callable[[], None] = lambda: None

    def watch(self, fd: int, events: int, callback: OnEvent) -> None:
        """Call back with the event mask; hang-ups and errors are always reported, even with ``events`` 0."""
        self._poll.register(fd, events)
        self._callbacks[fd] = callback

    def change(self, fd: int, events: int) -> None:
        """Set the events to wait for."""
        if fd in self._paused:
            self._paused[fd] = events
        else:
            self._poll.modify(fd, events)

    def pause(self, fd: int) -> None:
        """Report no events of the descriptor, not even hang-ups: a loop that ignored them would spin."""
        if fd in self._callbacks and fd not in self._paused:
            self._poll.unregister(fd)
            self._paused[fd] = READ

    def resume(self, fd: int, events: int = READ) -> None:
        """Report events of a paused descriptor again."""
        if self._paused.pop(fd, None) is not None:
            self._poll.register(fd, events)

    def forget(self, fd: int) -> None:
        """Stop watching a descriptor; call this before closing it.  Ignores a descriptor that is not watched."""
        if self._callbacks.pop(fd, None) is not None and self._paused.pop(fd, None) is None:
            self._poll.unregister(fd)

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call once, after that time."""
        timer = Timer(time.monotonic() + seconds, callback)
        heapq.heappush(self._timers, timer)
        return timer

    def run(self) -> None:
        """Run until :meth:`stop`."""
        self._running = True
        while self._running:
            self.run_once()

    def stop(self) -> None:
        """Let :meth:`run` return after the current callbacks."""
        self._running = False

    def run_once(self) -> None:
        """Wait for events and handle them."""
        self.before_wait()
        for fd, events in self._poll.poll(self._timeout_seconds(), _BATCH_EVENTS):
            # An earlier callback of this batch may have forgotten or paused it.
            callback = self._callbacks.get(fd)
            if callback is not None and fd not in self._paused:
                callback(events)
        now = time.monotonic()
        while self._timers and (self._timers[0].callback is None or self._timers[0].due <= now):
            timer = heapq.heappop(self._timers)
            if timer.callback is not None:
                timer.callback()

    def _timeout_seconds(self) -> float | None:
        while self._timers and self._timers[0].callback is None:
            heapq.heappop(self._timers)
        return max(0.0, self._timers[0].due - time.monotonic()) if self._timers else None

    def close(self) -> None:
        """Close the loop's own descriptor."""
        self._poll.close()


class Signals:
    """Turns signals into callbacks of an event loop, and SIGCHLD into one callback per registered child.

    A child subreaper gets children that nobody registered; they are reaped too.  The end of a registered child is also
    seen on a pidfd, because a tracer that does not wait for the child holds back SIGCHLD.

    Args:
        read_status: returns the wait status of a registered process that has ended but cannot be reaped here.
    """

    def __init__(self, loop: EventLoop, read_status: Callable[[int], int] = read_held_status) -> None:
        self._loop = loop
        self._read_status = read_status
        self._read_fd, self._write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._children: dict[int, Callable[[int], None]] = {}
        self._pidfds: dict[int, int] = {}
        self._callbacks: dict[int, Callable[[], None]] = {}
        signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        _signal.signal(signal.SIGCHLD, _ignore)
        loop.watch(self._read_fd, READ, self._on_wakeup)

    def on(self, number: int, callback: Callable[[], None]) -> None:
        """Call back for a signal, in the loop."""
        self._callbacks[number] = callback
        _signal.signal(number, _ignore)

    def on_exit(self, pid: int, callback: Callable[[int], None]) -> None:
        """Call back with the exit code (128+n for signal n) when a child has ended.

        Reports a child that has already ended, too: only the loop reaps children.
        """
        self._children[pid] = callback
        with suppress(OSError):  # without a descriptor to spare, SIGCHLD alone tells
            self._pidfds[pid] = pidfd = os.pidfd_open(pid)
            self._loop.watch(pidfd, READ, partial(self._on_end, pid))
        # Its SIGCHLD may have been consumed with an earlier one, or not have come through an executor's own
        # wait.
        with suppress(BlockingIOError):
            os.write(self._write_fd, bytes([signal.SIGCHLD]))

    def _on_wakeup(self, _: int) -> None:
        numbers = set(os.read(self._read_fd, 4096))
        for number in sorted(numbers):
            if number == signal.SIGCHLD:
                self.reap()
            elif number in self._callbacks:
                self._callbacks[number]()

    def reap(self) -> None:
        """Reap every child that has ended."""
        with suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                self._report(pid, status)

    def _on_end(self, pid: int, _: int) -> None:
        """Report a child that has ended; a child held by its tracer is reaped when the tracer releases it."""
        self.reap()
        if pid in self._children:
            self._report(pid, self._read_status(pid))

    def _report(self, pid: int, status: int) -> None:
        self._forget_pidfd(pid)
        callback = self._children.pop(pid, None)
        if callback is not None:
            callback(exit_code(status))

    def _forget_pidfd(self, pid: int) -> None:
        pidfd = self._pidfds.pop(pid, None)
        if pidfd is not None:
            self._loop.forget(pidfd)
            os.close(pidfd)

    def close(self) -> None:
        """Stop handling signals, and ignore those that had callbacks."""
        signal.set_wakeup_fd(-1)
        for pid in list(self._pidfds):
            self._forget_pidfd(pid)
        self._loop.forget(self._read_fd)
        os.close(self._read_fd)
        os.close(self._write_fd)


def exit_code(wait_status: int) -> int:
    """Return the exit code of a wait status, as in a shell and Docker: 128+n for signal n."""
    code = os.waitstatus_to_exitcode(wait_status)
    return code if code >= 0 else 128 - code


def _ignore(*_: object) -> None:
    """Do nothing: a Python handler makes the interpreter install its C handler, which writes to the wake-up descriptor."""
