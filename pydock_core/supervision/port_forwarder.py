"""Keeps the process that forwards a container's published ports: starts it again when it dies."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from pydock_core.runtime import reaping
from pydock_core.supervision import ports
from pydock_core.supervision.event_loop import EventLoop, Signals

_DEATH_SECONDS = 10.0
_RESTART_SECONDS = 1.0
"""The minimum time between two starts."""
_STDERR = 2


class PortForwarder:
    """The forwarding process of one container.

    Args:
        listeners: they stay open here too: their mark follows the container's default route, and no client is refused between
            two forwarding processes.
        hosts: addresses in the container: :func:`pydock_core.supervision.dial.addresses`.
        subject: the container in messages.
    """

    def __init__(
        self,
        listeners: Sequence[ports.Listener],
        hosts: tuple[str, ...],
        loop: EventLoop,
        signals: Signals,
        subject: str,
    ) -> None:
        self._listeners = listeners
        self._hosts = hosts
        self._loop = loop
        self._signals = signals
        self._subject = subject
        self._pid = 0
        self._has_ended = False

    def start(self) -> None:
        """Begin to forward."""
        if self._has_ended:
            return  # the container has ended in the meantime
        self._started_at = time.monotonic()
        self._pid = ports.fork_forwarder(self._listeners, self._hosts, [_STDERR])
        self._signals.on_exit(self._pid, self._on_exit)

    def end(self) -> None:
        """Stop to forward."""
        self._has_ended = True
        pid, self._pid = self._pid, 0
        if pid:
            reaping.kill_and_reap(pid, _DEATH_SECONDS)

    def _on_exit(self, code: int) -> None:
        if not self._pid:
            return
        print(f"{self._subject}: the port forwarder ended with {code}", file=sys.stderr)
        self._pid = 0
        wait_seconds = max(0.0, self._started_at + _RESTART_SECONDS - time.monotonic())
        self._loop.call_later(wait_seconds, self.start)
