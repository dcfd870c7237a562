"""When another attempt is worth it, and how long to wait before: exponential back-off with jitter, bounded."""

from __future__ import annotations

import random
from collections.abc import Mapping

from pydock_core.images.registry.problem import PATIENCE_SECONDS, rate_limit_of, seconds_to_wait

ATTEMPTS = 5
REFUSED_ATTEMPTS = 2
_FIRST_SECONDS = 0.25
_LONGEST_SECONDS = 8.0
_TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})


class Attempts:
    """Counts the attempts at one thing.

    Args:
        most: attempts in all, the first one included.
    """

    def __init__(self, most: int = ATTEMPTS) -> None:
        self._most = most
        self._made = 1

    def left(self, *, was_refused: bool = False) -> bool:
        """Whether another one may be made; where nobody listens at all, waiting rarely helps."""
        return self._made < min(self._most, REFUSED_ATTEMPTS if was_refused else self._most)

    def next_pause(self) -> float:
        """Count one more attempt, and return how many seconds to wait before it."""
        longest = min(_FIRST_SECONDS * 2 ** (self._made - 1), _LONGEST_SECONDS)
        self._made += 1
        return float(longest * random.uniform(0.5, 1.0))

    def succeeded(self) -> None:
        """There was progress: the next failure is a first one."""
        self._made = 1


def pause_after(status: int, headers: Mapping[str, str]) -> float | None:
    """Return how long to wait after an answer, at least; None where another attempt is not worth it."""
    if status not in _TRANSIENT:
        return None
    seconds = seconds_to_wait(headers) if status in (429, 503) else 0.0
    if seconds is None:
        said = rate_limit_of(headers)
        used_up = status == 429 and said.remaining == 0 and (said.window_seconds or 0) > PATIENCE_SECONDS
        return None if used_up else 0.0
    return seconds if seconds <= PATIENCE_SECONDS else None
