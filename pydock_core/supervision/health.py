"""Probes a container's health: executes its check periodically and records the results.

A probe is an additional process of the container, like that of an ``exec``, with the container's user, environment and working
directory.  At most one runs; the next one is due an interval after its end.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from pydock_core.errors import PyDockError
from pydock_core.runtime.executor import Stdio
from pydock_core.supervision.event_loop import READ, EventLoop, Signals, Timer
from pydock_core.supervision.health_plan import OUTPUT_BYTES, Health, HealthPlan, ProbeResult

_READ_BYTES = 16 * 1024
_POSTPONED_SECONDS = 0.5


class Probe:
    """One run of the check.

    Args:
        pid: pid of its process, a child of this one.
        output_fd: read end of its output; this object closes it.
        on_done: called once with the result.
    """

    def __init__(
        self,
        loop: EventLoop,
        signals: Signals,
        pid: int,
        output_fd: int,
        timeout_seconds: float,
        on_done: Callable[[ProbeResult], None],
    ) -> None:
        self._loop = loop
        self._pid: int | None = pid
        self._output_fd = output_fd
        self._output = bytearray()
        self._timeout_seconds = timeout_seconds
        self._is_late = False
        self._on_done = on_done
        self._started_at_ns = time.time_ns()
        os.set_blocking(output_fd, False)
        loop.watch(output_fd, READ, self._on_output)
        self._timer = loop.call_later(timeout_seconds, self._on_timeout)
        signals.on_exit(pid, self._on_exit)

    def _on_output(self, _: int) -> None:
        self._read()

    def _read(self) -> bool:
        """Read once; return whether there may be more.  Output beyond the limit is discarded, so that the probe can end."""
        try:
            data = os.read(self._output_fd, _READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._loop.forget(self._output_fd)
            return False
        self._output += data[: OUTPUT_BYTES + 1 - len(self._output)]
        return True

    def _on_timeout(self) -> None:
        self._is_late = True
        if self._pid is not None:
            with suppress(OSError):
                os.kill(self._pid, signal.SIGKILL)

    def _on_exit(self, exit_code: int) -> None:
        self._pid = None
        for _ in range(OUTPUT_BYTES // 1024):  # bounded: a child of the probe may write endlessly
            if not self._read():
                break
        self.close()
        text = bytes(self._output[:OUTPUT_BYTES]).decode("utf-8", "replace")
        if len(self._output) > OUTPUT_BYTES:
            text += "..."
        if self._is_late:
            exit_code = -1
            text = f"Health check exceeded timeout ({self._timeout_seconds:g}s){': ' if text else ''}{text}"
        self._on_done(ProbeResult(exit_code, text, self._started_at_ns, time.time_ns()))

    def close(self) -> None:
        """Release the descriptor and the timer; idempotent."""
        self._timer.cancel()
        if self._output_fd >= 0:
            self._loop.forget(self._output_fd)
            os.close(self._output_fd)
            self._output_fd = -1


class HealthMonitor:
    """The health check of one running container.

    Args:
        execute: executes a command with three descriptors, and returns the pid of a child.
        is_held: returns whether the container is frozen at the moment, so that a probe would wait.
        report: called with a changed status.
        path: path of the record.
        started_at_ns: start time of the container.
    """

    def __init__(
        self,
        plan: HealthPlan,
        loop: EventLoop,
        signals: Signals,
        execute: Callable[[Sequence[str], Stdio], int],
        is_held: Callable[[], bool],
        report: Callable[[str], None],
        path: Path,
        started_at_ns: int,
    ) -> None:
        self._plan = plan
        self._loop = loop
        self._signals = signals
        self._execute = execute
        self._is_held = is_held
        self._report = report
        self._path = path
        self._started_at_ns = started_at_ns
        self._health = Health(log=Health.read(path).log)  # Docker keeps the log over a restart
        self._probe: Probe | None = None
        self._timer: Timer | None = None
        self._is_closed = False
        self._write()
        self._schedule()

    def _write(self) -> None:
        try:
            self._health.write(self._path)
        except OSError as error:  # a full disk: the recorded state is outdated
            print(f"{self._path}: {error.strerror}", file=sys.stderr)

    def _schedule(self) -> None:
        since_start = (time.time_ns() - self._started_at_ns) / 1e9
        seconds = self._health.interval_seconds(self._plan, since_start)
        self._timer = self._loop.call_later(seconds, self._begin)

    def _begin(self) -> None:
        if self._is_held():
            self._timer = self._loop.call_later(_POSTPONED_SECONDS, self._begin)
            return
        started = time.time_ns()
        read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
        null_fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        try:
            pid = self._execute(self._plan.words, Stdio(null_fd, write_fd, write_fd))
        except PyDockError as error:
            os.close(read_fd)
            self._on_done(ProbeResult(-1, error.message, started, time.time_ns()))
            return
        finally:
            os.close(write_fd)
            os.close(null_fd)
        timeout = self._plan.timeout_seconds
        self._probe = Probe(self._loop, self._signals, pid, read_fd, timeout, self._on_done)

    def _on_done(self, result: ProbeResult) -> None:
        self._probe = None
        if self._is_closed:
            return
        before = self._health.status
        self._health = self._health.after(result, self._plan, self._started_at_ns)
        self._write()
        if self._health.status != before:
            self._report(self._health.status)
        self._schedule()

    def close(self) -> None:
        """Stop probing; a running probe ends with its container."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._probe is not None:
            self._probe.close()
            self._probe = None
