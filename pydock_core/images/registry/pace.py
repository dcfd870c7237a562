"""How slowly an answer may come: a deadline for what is awaited as a whole, and a least rate for blobs.

A time limit for silence alone is not enough: who sends a byte now and then is never silent.
"""

from __future__ import annotations

import http.client
import io
import math
import socket
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

CONNECT_SECONDS = 10.0
"""A connection may take so long to be made."""
PATIENCE = 3
"""A head, or a document, may take so many times as long as a connection may be silent."""
LEAST_BYTES_PER_SECOND = 1000


class TimedReader(io.RawIOBase):
    """What a connection brings, until a deadline.

    Args:
        raw: the connection's bytes.
        connected: the connection; its time limit at this moment is how long it may be silent.
    """

    def __init__(self, raw: io.RawIOBase, connected: socket.socket) -> None:
        self._raw = raw
        self._connected = connected
        self.silence_seconds = connected.gettimeout() or math.inf
        self._end_seconds = math.inf

    def expect_within(self, seconds: float) -> None:
        """Set the deadline, from now; what is read after it raises TimeoutError."""
        self._end_seconds = time.monotonic() + seconds

    def readinto(self, buffer: WriteableBuffer, /) -> int | None:
        """Read what is there (io.RawIOBase)."""
        left_seconds = self._end_seconds - time.monotonic()
        if left_seconds <= 0:
            raise TimeoutError("the deadline has passed")
        limit_seconds = min(self.silence_seconds, left_seconds)
        if math.isfinite(limit_seconds) and limit_seconds != self._connected.gettimeout():
            self._connected.settimeout(limit_seconds)
        return self._raw.readinto(buffer)

    def readable(self) -> bool:
        """It is (io.RawIOBase)."""
        return True

    def close(self) -> None:
        """Let go of the connection (io.RawIOBase)."""
        self._raw.close()
        super().close()


class TimedAnswer(http.client.HTTPResponse):
    """An answer whose head has a deadline; who reads its body sets another one.

    Attributes:
        timed: what the answer is read from.
    """

    def __init__(
        self, sock: socket.socket, debuglevel: int = 0, method: str | None = None, url: str | None = None
    ) -> None:
        super().__init__(sock, debuglevel, method, url)
        self.timed = TimedReader(self.fp.detach(), sock)
        self.timed.expect_within(PATIENCE * self.timed.silence_seconds)
        self.fp = io.BufferedReader(self.timed)


class Pace:
    """Measures how fast a blob comes; only the time that is spent waiting for it counts.

    Args:
        window_seconds: over which the rate is averaged.
    """

    def __init__(self, window_seconds: float) -> None:
        self._window_seconds = window_seconds
        self._waited_seconds = 0.0
        self._came_bytes = 0

    def is_kept(self, waited_seconds: float, came_bytes: int) -> bool:
        """Count a piece and how long it was waited for; False where less than the least rate came in a window."""
        self._waited_seconds += waited_seconds
        self._came_bytes += came_bytes
        if self._waited_seconds < self._window_seconds:
            return True
        kept = self._came_bytes >= LEAST_BYTES_PER_SECOND * self._waited_seconds
        self._waited_seconds, self._came_bytes = 0.0, 0
        return kept
