"""Writes and reads a container's log, in the format of Docker's json-file driver.

One JSON object a line: ``{"log": "text\\n", "stream": "stdout", "time": "2025-01-02T03:04:05.000000006Z"}``.
A line of output longer than 16 KiB becomes several entries, of which only the last ends in a newline
(Docker's ``copier``, defaultBufSize).  Bytes that are no UTF-8 are kept, as lone surrogates (PEP 383), which
other readers show as U+FFFD.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

CHUNK_BYTES = 16 * 1024
_BLOCK_BYTES = 64 * 1024
_BATCH_BYTES = 256 * 1024
_encode = json.encoder.encode_basestring_ascii


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One entry: the stream ("stdout" or "stderr"), when it was read (Unix time in nanoseconds), the
    bytes."""

    stream: str
    time_ns: int
    data: bytes

    @property
    def time(self) -> str:
        """The time as RFC 3339 with nanoseconds, "2025-01-02T03:04:05.000000006Z"."""
        return format_time(self.time_ns)


def format_time(time_ns: int) -> str:
    """Format Unix nanoseconds as RFC 3339 in UTC, always with nine decimals (they sort and line up)."""
    seconds, nanoseconds = divmod(time_ns, 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{nanoseconds:09d}Z"


def parse_time(text: str) -> int:
    """Return Unix nanoseconds of what :func:`format_time` or Docker (0 to 9 decimals, Z) wrote; ValueError otherwise."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    return _parse_seconds(whole) * 1_000_000_000 + int((fraction or "0").ljust(9, "0")[:9])


@lru_cache(maxsize=64)
def _parse_seconds(text: str) -> int:
    # Cached: strptime is slow, and the entries of one second share it.
    import calendar  # late: only readers need it, and it brings locale and datetime along

    return calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))


def encode_entry(stream: str, time_text: str, data: bytes) -> bytes:
    """Return one line of the log file."""
    text = data.decode("utf-8", "surrogateescape")
    return f'{{"log":{_encode(text)},"stream":"{stream}","time":"{time_text}"}}\n'.encode("ascii")


def decode_entry(line: bytes) -> LogEntry | None:
    """Return the entry of one line, or None for a line that is none (torn by a full disk or a power cut)."""
    try:
        document = json.loads(line)
        return LogEntry(
            document["stream"],
            parse_time(document["time"]),
            document["log"].encode("utf-8", "surrogateescape"),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


class LogWriter:
    """Appends what a container writes, in batches; never fails: a log that can not be written loses entries.

    Args:
        log_fd: opened for appending; the writer's to close.
    """

    def __init__(self, log_fd: int) -> None:
        self._log_fd = log_fd
        self._partial: dict[str, bytes] = {}
        self._lines: list[bytes] = []
        self._lines_bytes = 0
        self._is_torn = False
        self._second = -1
        self._second_text = ""

    def write(self, stream: str, data: bytes) -> None:
        """Take output as it comes; whole lines and 16 KiB pieces become entries at the next :meth:`flush`."""
        time_text = self._now()
        partial = self._partial.pop(stream, b"")
        if partial:
            data = partial + data
        start = 0
        end = data.find(b"\n") + 1
        while end:
            self._add(stream, time_text, data, start, end)
            start = end
            end = data.find(b"\n", start) + 1
        while len(data) - start >= CHUNK_BYTES:
            self._append(encode_entry(stream, time_text, data[start : start + CHUNK_BYTES]))
            start += CHUNK_BYTES
        if start < len(data):
            self._partial[stream] = data[start:]

    def _add(self, stream: str, time_text: str, data: bytes, start: int, end: int) -> None:
        for position in range(start, end, CHUNK_BYTES):
            self._append(encode_entry(stream, time_text, data[position : min(position + CHUNK_BYTES, end)]))

    def _append(self, line: bytes) -> None:
        self._lines.append(line)
        self._lines_bytes += len(line)
        if self._lines_bytes > _BATCH_BYTES:
            self.flush()

    def _now(self) -> str:
        seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
        if seconds != self._second:
            self._second = seconds
            self._second_text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
        return f"{self._second_text}.{nanoseconds:09d}Z"

    def flush(self) -> bool:
        """Write the entries to the file; whether there were any."""
        if not self._lines:
            return False
        # After a short write the file ends inside a line: a newline keeps the torn one from eating the next.
        batch = b"".join([b"\n", *self._lines] if self._is_torn else self._lines)
        self._lines.clear()
        self._lines_bytes = 0
        written = 0
        try:
            while written < len(batch):
                written += os.write(self._log_fd, batch[written:] if written else batch)
            self._is_torn = False
        except OSError:  # a full disk must not stop the container; its reader sees a gap
            self._is_torn = self._is_torn if written == 0 else batch[written - 1 : written] != b"\n"
        return True

    def close(self) -> None:
        """Write lines that have no end, and close the file."""
        for stream, partial in self._partial.items():
            self._append(encode_entry(stream, self._now(), partial))
        self._partial.clear()
        self.flush()
        os.close(self._log_fd)


class LogReader:
    """Reads a log from its start or from its last entries on, as often as it has grown.

    Args:
        path: of the log file; one that is not there yet is an empty log.
        tail: begin with that many last entries; None for all.
        since_ns, until_ns: only entries of this time and later, before this time (Unix nanoseconds).
    """

    def __init__(
        self, path: Path, *, tail: int | None = None, since_ns: int | None = None, until_ns: int | None = None
    ) -> None:
        self._path = path
        self._tail = tail
        self._since_ns = since_ns
        self._until_ns = until_ns
        self._offset: int | None = None

    def read(self) -> Iterator[LogEntry]:
        """Yield the entries that were not read yet, up to the last whole one."""
        with contextlib.suppress(FileNotFoundError), open(self._path, "rb") as stream:
            if self._offset is None:
                self._offset = 0 if self._tail is None else _tail_offset(stream.fileno(), self._tail)
            stream.seek(self._offset)
            for line in stream:
                if not line.endswith(b"\n"):
                    return  # being written now
                self._offset += len(line)
                entry = decode_entry(line)
                if entry is None or (self._since_ns is not None and entry.time_ns < self._since_ns):
                    continue
                if self._until_ns is not None and entry.time_ns >= self._until_ns:
                    continue
                yield entry


def read_log(
    path: Path, *, tail: int | None = None, since_ns: int | None = None, until_ns: int | None = None
) -> Iterator[LogEntry]:
    """Yield the entries of a log that is there now; arguments as in :class:`LogReader`."""
    return LogReader(path, tail=tail, since_ns=since_ns, until_ns=until_ns).read()


def _tail_offset(log_fd: int, count: int) -> int:
    """Return the offset of the last ``count`` lines, reading backwards by blocks."""
    end = os.fstat(log_fd).st_size
    position = end
    found = 0
    while position > 0:
        size = min(_BLOCK_BYTES, position)
        block = os.pread(log_fd, size, position - size)
        index = len(block)
        while (index := block.rfind(b"\n", 0, index)) >= 0:
            # The newline that ends the line before the wanted ones; the file's own last newline ends the last
            # one.
            if found == count:
                return position - size + index + 1
            found += 1
        position -= size
    return 0 if found <= count and count > 0 else end
