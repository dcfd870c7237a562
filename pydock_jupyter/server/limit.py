"""Limits of the proxied requests of a server: their number, and the idle time of uploads."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from pydock_core.errors import UnavailableError
from pydock_jupyter.server.backend import Key


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a server.

    ``per_port`` and ``total`` limit concurrent requests, including WebSockets, to one port and to all.
    ``body_idle_seconds`` limits the time without data of a request's body while the application would accept some.
    A response has no time limit: long polls, event streams and paused downloads may last for any time.
    """

    per_port: int = 256
    total: int = 1024
    body_idle_seconds: float = 60.0


DEFAULT_LIMITS = Limits()


class Gate:
    """Counts concurrent requests.  Used on the event loop only."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._counts: Counter[Key] = Counter()

    def enter(self, key: Key) -> None:
        """Count a request, until :meth:`leave`.

        Raises:
            UnavailableError: a limit is reached.
        """
        if self._counts.total() >= self._limits.total:
            raise UnavailableError(
                f"cannot accept the request: {self._limits.total} proxied requests are in progress",
                "Close applications, or raise c.PyDockProxy.max_requests.",
            )
        if self._counts[key] >= self._limits.per_port:
            raise UnavailableError(
                f"cannot accept the request: {self._limits.per_port} requests to port {key[1]} are in progress",
                "Close pages of the application, or raise c.PyDockProxy.max_requests_per_port.",
            )
        self._counts[key] += 1

    def leave(self, key: Key) -> None:
        self._counts[key] -= 1
        if not self._counts[key]:
            del self._counts[key]
