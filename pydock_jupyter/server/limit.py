"""Bounds on the proxied requests of one server: how many at once, and how long one may stall."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from pydock_core.errors import UnavailableError
from pydock_jupyter.server.backend import Key


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds.

    ``per_port`` and ``total`` count requests that are under way, WebSockets included, to one port and
    altogether; ``body_idle_seconds`` is how long the client may send nothing of a request's body while the
    application would take it.  A response has no such bound: long polls, event streams and paused downloads
    are legitimate at any length, so their number alone is bounded.
    """

    per_port: int = 256
    total: int = 1024
    body_idle_seconds: float = 60.0


DEFAULT_LIMITS = Limits()


class Gate:
    """Counts the requests that are under way.  Used on the event loop only."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._counts: Counter[Key] = Counter()

    def enter(self, key: Key) -> None:
        """Count a request, until :meth:`leave`.

        Raises:
            UnavailableError: there are as many as there may be.
        """
        if self._counts.total() >= self._limits.total:
            raise UnavailableError(
                f"cannot take the request: {self._limits.total} proxied requests are under way",
                "Close applications, or raise c.PyDockProxy.max_requests.",
            )
        if self._counts[key] >= self._limits.per_port:
            raise UnavailableError(
                f"cannot take the request: {self._limits.per_port} are under way to port {key[1]}",
                "Close pages of the application, or raise c.PyDockProxy.max_requests_per_port.",
            )
        self._counts[key] += 1

    def leave(self, key: Key) -> None:
        self._counts[key] -= 1
        if not self._counts[key]:
            del self._counts[key]
