"""Writes a command's output to its cell."""

from __future__ import annotations

import codecs
from typing import TextIO


class CellWriter:
    """Writes text and a container's bytes, in order, to a stream of the cell.

    The ``Writer`` of the commands' context.  Bytes are decoded as UTF-8 incrementally: a character may span two calls,
    and invalid bytes become U+FFFD.  In text, a lone surrogate becomes a question mark, because a message cannot carry
    it.  ``has_written`` tells whether any text was written.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self.has_written = False

    def write(self, text: str) -> None:
        self._put(self._decoder.decode(b"", final=True) + text)

    def write_bytes(self, data: bytes) -> None:
        self._put(self._decoder.decode(data))

    def flush(self) -> None:
        self._stream.flush()

    def close(self) -> None:
        """Write a last, incomplete character as U+FFFD; the stream stays open."""
        self._put(self._decoder.decode(b"", final=True))
        self._stream.flush()

    def _put(self, text: str) -> None:
        if text:
            self.has_written = True
            self._stream.write(text.encode("utf-8", "replace").decode("utf-8"))
