"""The retry policy: how often a request is sent again, after which answers, and after how long."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from urllib3 import Retry

from pydock_core.errors import PyDockError
from pydock_core.images.registry.failure import BrokenConnectionError, BusyError, RefusedConnectionError
from pydock_core.images.registry.header import rate_limit_of, seconds_to_wait
from pydock_core.images.registry.transport import Response, Transport

ATTEMPTS = 5
"""The most attempts at one thing without progress, the first one included."""
REFUSED_ATTEMPTS = 2
PATIENCE_SECONDS = 30.0
"""A registry that asks for a longer pause is not waited for: the error names the time."""

# Only its counting and its back-off are used: urllib3's own loop reads a refused answer's body without a limit, sleeps
# through the closing of the client, and cannot send a body twice that is made piece by piece.
_POLICY = Retry(
    total=None,
    backoff_factor=0.25,
    backoff_jitter=0.25,
    backoff_max=8.0,
    status_forcelist=(408, 429, 500, 502, 503, 504),
    allowed_methods=None,
)

_T = TypeVar("_T")


class Attempts:
    """The attempts at one operation.

    Args:
        limit: of attempts, the first one included.
        refused_limit: of attempts while connections are refused.
    """

    def __init__(self, limit: int = ATTEMPTS, refused_limit: int = ATTEMPTS) -> None:
        self._limit = limit
        self._refused_limit = refused_limit
        self._retry = _POLICY

    def are_left(self, error: BaseException | None = None) -> bool:
        """Whether another attempt may be made after ``error``."""
        limit = self._limit
        if isinstance(error, RefusedConnectionError):
            limit = min(limit, self._refused_limit)
        return len(self._retry.history) + 1 < limit

    def next_pause(self) -> float:
        """Count another attempt, and return how many seconds to wait before it."""
        self._retry = self._retry.increment()
        return self._retry.get_backoff_time()

    def pause_or_raise(self, error: PyDockError, transport: Transport, least_seconds: float = 0.0) -> None:
        """Wait before another attempt; raise ``error`` if none is left."""
        if not self.are_left(error):
            raise error
        transport.wait(max(least_seconds, self.next_pause()))

    def reset(self) -> None:
        """Forget the failures: there was progress."""
        self._retry = _POLICY


def exchange(
    transport: Transport,
    attempts: Attempts,
    send: Callable[[], Response],
    accept: Callable[[Response], _T | None],
    refuse: Callable[[Response, bytes], PyDockError | None],
) -> _T:
    """Send a request until its answer is accepted.

    Args:
        transport: waits between attempts.
        attempts: counts the failures.
        send: sends the request.
        accept: returns the result of an answer, or None if the answer is a refusal.
        refuse: returns the error for a refusal and the beginning of its body; None to send again at once.

    Raises:
        BrokenConnectionError: the last attempt's.
        BusyError: the registry fails or asks to be called later, after the last attempt.
        the result of ``refuse``, if another attempt is not worthwhile.
    """
    while True:
        try:
            response = send()
            if (result := accept(response)) is not None:
                return result
        except BrokenConnectionError as broken:
            attempts.pause_or_raise(broken, transport)
            continue
        with response:
            error = refuse(response, response.read_beginning())
            pause_seconds = pause_after(response.status, response.headers)
        if error is None:
            continue
        if pause_seconds is None:
            raise error
        busy = BusyError(error.message, error.hint, pause_seconds=pause_seconds)
        attempts.pause_or_raise(busy, transport, pause_seconds)


def pause_after(status: int, headers: Mapping[str, str]) -> float | None:
    """Return the least pause after an answer, in seconds; None if another attempt is not worthwhile."""
    if not _POLICY.is_retry("GET", status):
        return None
    seconds = seconds_to_wait(headers) if status in (429, 503) else 0.0
    if seconds is None:
        limit = rate_limit_of(headers)
        is_used_up = status == 429 and limit.remaining == 0 and (limit.window_seconds or 0) > PATIENCE_SECONDS
        return None if is_used_up else 0.0
    return seconds if seconds <= PATIENCE_SECONDS else None
