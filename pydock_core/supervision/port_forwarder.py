"""Keeps the process that forwards a container's published ports: starts it again when it dies."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence

from pydock_core.runtime import reaping
from pydock_core.supervision import ports
from pydock_core.supervision.event_loop import EventLoop, Signals

_DEATH_SECONDS = 10.0
_RESTART_SECONDS = 1.0
"""The minimum time between two starts."""


class PortForwarder:
    """The forwarding process of one container.

    Args:
        list_listeners: returns the listeners, which stay open here too: their mark follows the container's default route, and
            no client is refused between two forwarding processes.
        hosts: addresses in the container: :func:`pydock_core.supervision.dial.addresses`.
        subject: the container in messages.
    """

    def __init__(
        self,
        list_listeners: Callable[[], Sequence[ports.Listener]],
        hosts: tuple[str, ...],
        loop: EventLoop,
        signals: Signals,
        subject: str,
    ) -> None:
        self._list_listeners = list_listeners
        self._hosts = hosts
        self._loop = loop
        self._signals = signals
        self._subject = subject
        self._pid = 0
        self._has_ended = False

    def start(self) -> None:
        """Begin to forward; clients that have connected before wait in the sockets' queues."""
        if self._has_ended:
            return  # the container has ended in the meantime
        self._started_at = time.monotonic()
        try:
            self._pid = ports.fork_forwarder(self._list_listeners(), self._hosts)
        except OSError as error:
            print(f"{self._subject}: cannot fork the port forwarder: {error.strerror}", file=sys.stderr)
            self._loop.call_later(_RESTART_SECONDS, self.start)
            return
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
