"""Writes and reads a container's log, in the format of Docker's json-file driver.

Each line is a JSON object: ``{"log": "text\\n", "stream": "stdout", "time": "2025-01-02T03:04:05.000000006Z"}``.
A line of output longer than 16 KiB becomes several entries, of which only the last ends in a newline
(Docker's ``copier``, defaultBufSize).  Bytes that are not valid UTF-8 are kept as lone surrogates (PEP 383), which
other readers display as U+FFFD.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from pydock_core.supervision.log_files import LogLimits, file_identity, open_log, open_newer, rotate

CHUNK_BYTES = 16 * 1024
_BLOCK_BYTES = 64 * 1024
_BATCH_BYTES = 32 * 1024
_UNLIMITED = LogLimits()
_encode = json.encoder.encode_basestring_ascii


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One entry: the stream ("stdout" or "stderr"), the time of reading (Unix time in nanoseconds), the bytes, and the
    attributes from the log's options."""

    stream: str
    time_ns: int
    data: bytes
    attributes: Mapping[str, str] | None = None

    @property
    def time(self) -> str:
        """The time as RFC 3339 with nanoseconds, "2025-01-02T03:04:05.000000006Z"."""
        return format_time(self.time_ns)


def format_time(time_ns: int) -> str:
    """Format Unix nanoseconds as RFC 3339 in UTC, always with nine decimals (they sort and line up)."""
    seconds, nanoseconds = divmod(time_ns, 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{nanoseconds:09d}Z"


def parse_time(text: str) -> int:
    """Parse a time of :func:`format_time` or of Docker (0 to 9 decimals, Z); return Unix nanoseconds.

    Raises:
        ValueError: the text is not such a time.
    """
    whole, _, fraction = text.removesuffix("Z").partition(".")
    return _parse_seconds(whole) * 1_000_000_000 + int((fraction or "0").ljust(9, "0")[:9])


@lru_cache(maxsize=64)
def _parse_seconds(text: str) -> int:
    # Cached: strptime is slow, and the entries of one second share it.
    import calendar  # late: only readers need it, and it loads locale and datetime

    return calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))


def encode_entry(stream: str, time_text: str, data: bytes, attributes: str = "") -> bytes:
    """Return one line of the log file.

    Args:
        attributes: ``"attrs":{...},`` or nothing.
    """
    text = data.decode("utf-8", "surrogateescape")
    return f'{{"log":{_encode(text)},"stream":"{stream}",{attributes}"time":"{time_text}"}}\n'.encode("ascii")


def decode_entry(line: bytes) -> LogEntry | None:
    """Return the entry of one line, or None for a malformed line (torn by a full disk or a power failure)."""
    try:
        document = json.loads(line)
        return LogEntry(
            document["stream"],
            parse_time(document["time"]),
            document["log"].encode("utf-8", "surrogateescape"),
            document.get("attrs"),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


class LogWriter:
    """Appends a container's output in batches.  Writing never fails: a log that cannot be written loses entries.

    Args:
        path: path of the log file.
        limits: the limits of the log; a single entry that is larger gets a file of its own.
        attributes: attributes of every entry.
        log_fd: descriptor of the open file, which this object closes; None to open it.

    Raises:
        OSError: the file cannot be opened.
    """

    has_waiting = False

    def __init__(
        self,
        path: str,
        limits: LogLimits = _UNLIMITED,
        attributes: Mapping[str, str] | None = None,
        log_fd: int | None = None,
    ) -> None:
        self._attributes = f'"attrs":{json.dumps(dict(attributes))},' if attributes else ""
        self._path = path
        self._limits = limits
        opened_fd = open_log(path) if log_fd is None else log_fd
        self._log_fd: int | None = opened_fd
        self._file_bytes = os.fstat(opened_fd).st_size
        self._partial: dict[str, bytes] = {}
        self._lines: list[bytes] = []
        self._lines_bytes = 0
        self._is_torn = False
        self._second = -1
        self._second_text = ""

    def write(self, stream: str, data: bytes) -> None:
        """Buffer output; the next :meth:`flush` writes its complete lines and 16 KiB pieces as entries."""
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
            self._append(encode_entry(stream, time_text, data[start : start + CHUNK_BYTES], self._attributes))
            start += CHUNK_BYTES
        if start < len(data):
            self._partial[stream] = data[start:]

    def _add(self, stream: str, time_text: str, data: bytes, start: int, end: int) -> None:
        for position in range(start, end, CHUNK_BYTES):
            piece = data[position : min(position + CHUNK_BYTES, end)]
            self._append(encode_entry(stream, time_text, piece, self._attributes))

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
        """Write the buffered entries to the file; return whether there were any."""
        if not self._lines:
            return False
        lines, self._lines = self._lines, []
        size, self._lines_bytes = self._lines_bytes, 0
        most = self._limits.file_bytes
        if not most or self._file_bytes + size <= most:
            self._write(lines)
            return True
        first = 0
        room = most - self._file_bytes
        for place, line in enumerate(lines):
            if len(line) > room and (place > first or self._file_bytes):
                self._write(lines[first:place])
                self._rotate()
                first, room = place, most
            room -= len(line)
        self._write(lines[first:])
        return True

    def _write(self, lines: list[bytes]) -> None:
        if not lines:
            return
        try:
            if self._log_fd is None:
                self._log_fd = open_log(self._path)
        except OSError:
            return
        # After a short write the file ends inside a line: a newline keeps the next entry from joining the torn one.
        batch = b"".join([b"\n", *lines] if self._is_torn else lines)
        written = 0
        try:
            while written < len(batch):
                written += os.write(self._log_fd, batch[written:] if written else batch)
            self._is_torn = False
        except OSError:  # a full disk must not stop the container; its reader sees a gap
            self._is_torn = self._is_torn if written == 0 else batch[written - 1 : written] != b"\n"
        self._file_bytes += written

    def _rotate(self) -> None:
        """Start a new file, which the next write opens: a full disk may have room by then."""
        if self._log_fd is None:
            return
        os.close(self._log_fd)
        self._log_fd = None
        rotate(self._path, self._limits.files)
        self._file_bytes = 0
        self._is_torn = False

    def save(self) -> tuple[Mapping[str, bytes], bool]:
        """Flush, and return the rest of the state, with which another process goes on (:meth:`restore`)."""
        self.flush()
        return self._partial, self._is_torn

    def restore(self, state: tuple[Mapping[str, bytes], bool]) -> None:
        """Go on where another object has ended with :meth:`save`."""
        self._partial.update(state[0])
        self._is_torn = state[1]

    def close(self) -> None:
        """Write incomplete lines, and close the file."""
        for stream, partial in self._partial.items():
            self._append(encode_entry(stream, self._now(), partial, self._attributes))
        self._partial.clear()
        self.flush()
        if self._log_fd is not None:
            os.close(self._log_fd)


class LogReader:
    """Reads a growing log, from its start or from its last entries on, across rotations.

    It keeps its current file open, so rotation can neither remove it nor reuse its inode.  It misses entries only if all
    files that rotation keeps have been replaced between two reads.

    Args:
        path: of the log file; a missing file is an empty log.
        tail: begin with this number of last entries; None for all.
        since_ns, until_ns: yield only entries at or after the first time and before the second (Unix nanoseconds).
    """

    def __init__(
        self, path: Path, *, tail: int | None = None, since_ns: int | None = None, until_ns: int | None = None
    ) -> None:
        self._path = path
        self._tail = tail
        self._since_ns = since_ns
        self._until_ns = until_ns
        self._files: list[BinaryIO] = []
        self._offset = 0

    def read(self) -> Iterator[LogEntry]:
        """Yield the unread entries, up to the last complete one."""
        has_begun = bool(self._files)
        # The last file stays open after it has been read, as the place to continue from.
        known = file_identity(self._files[-1]) if has_begun else None
        self._files += open_newer(self._path, known)
        if not self._files:
            return
        if not has_begun and self._tail is not None:
            self._skip_to_tail(self._tail)
        # A container may write faster than this reads: later entries are left to the next call.
        end = os.fstat(self._files[-1].fileno()).st_size
        while len(self._files) > 1:
            yield from self._read_file(None)
            self._files.pop(0).close()
            self._offset = 0
        yield from self._read_file(end)

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
            file.close()
        self._files.clear()

    def _skip_to_tail(self, count: int) -> None:
        for place in range(len(self._files) - 1, -1, -1):
            self._offset, found = _tail_offset(self._files[place].fileno(), count)
            count -= found
            if count <= 0 or place == 0:
                for file in self._files[:place]:
                    file.close()
                del self._files[:place]
                return

    def _read_file(self, end: int | None) -> Iterator[LogEntry]:
        stream = self._files[0]
        stream.seek(self._offset)
        for line in stream:
            if not line.endswith(b"\n"):
                return  # being written now
            self._offset += len(line)
            entry = decode_entry(line)
            if (
                entry is not None
                and (self._since_ns is None or entry.time_ns >= self._since_ns)
                and (self._until_ns is None or entry.time_ns < self._until_ns)
            ):
                yield entry
            if end is not None and self._offset >= end:
                return


def read_log(
    path: Path, *, tail: int | None = None, since_ns: int | None = None, until_ns: int | None = None
) -> Iterator[LogEntry]:
    """Yield the current entries of a log; arguments as in :class:`LogReader`."""
    with contextlib.closing(LogReader(path, tail=tail, since_ns=since_ns, until_ns=until_ns)) as reader:
        yield from reader.read()


def _tail_offset(log_fd: int, count: int) -> tuple[int, int]:
    """Return the offset of the last ``count`` lines and the number of lines from there; reads backwards by blocks."""
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
                return position - size + index + 1, found
            found += 1
        position -= size
    return (0, found) if count > 0 else (end, 0)
