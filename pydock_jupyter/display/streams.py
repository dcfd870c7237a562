"""A command's output in the cell that runs it, as it comes."""

from __future__ import annotations

import codecs
from typing import TextIO


class CellWriter:
    """Text and a container's bytes, in order, to one of the cell's streams (a ``Writer`` of the commands'
    context).

    Bytes are decoded as UTF-8 piece by piece: a character that is cut between two pieces comes out whole, and
    what is not UTF-8 as U+FFFD.  Of text, half a surrogate pair comes out as a question mark: no message can have it.
    ``has_written`` tells whether anything came.
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
        """Write what a last, incomplete character leaves; the stream stays open."""
        self._put(self._decoder.decode(b"", final=True))
        self._stream.flush()

    def _put(self, text: str) -> None:
        if text:
            self.has_written = True
            self._stream.write(text.encode("utf-8", "replace").decode("utf-8"))
