"""Writes a container's output to the journal of systemd, in its native protocol (systemd.io, JOURNAL_NATIVE_PROTOCOL).

Each entry is one datagram.  The writer never waits for the journal: entries that it does not accept at once are buffered up to
a limit, beyond which the oldest entries are dropped.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Mapping

from pydock_core.supervision.logs import CHUNK_BYTES

SOCKET = "/run/systemd/journal/socket"
_PRIORITIES = {"stdout": b"6", "stderr": b"3"}


def has_journal(path: str = SOCKET) -> bool:
    """Whether a journal listens on this host."""
    return os.path.exists(path)


def build_field(name: str, value: bytes) -> bytes:
    """Return one field; the length precedes a value with a newline."""
    if b"\n" in value:
        return name.encode() + b"\n" + len(value).to_bytes(8, "little") + value + b"\n"
    return name.encode() + b"=" + value + b"\n"


def connect(path: str = SOCKET) -> socket.socket:
    """Return a socket to the journal, which does not block; OSError if no journal listens there."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        connection.setblocking(False)
        connection.connect(path)
    except OSError:
        connection.close()
        raise
    return connection


class JournalWriter:
    """Sends a container's output, line by line; never fails, and never waits.

    Args:
        fields: fields of every entry, in upper case.
        buffer_bytes: size of the buffer for entries that the journal does not accept.
        connected: a socket from :func:`connect`; one is made by default.

    Raises:
        OSError: no journal listens at ``path``.
    """

    def __init__(
        self,
        fields: Mapping[str, str],
        buffer_bytes: int,
        path: str = SOCKET,
        connected: socket.socket | None = None,
    ) -> None:
        self._socket = connect(path) if connected is None else connected
        self._path = path
        self._fields = b"".join(
            build_field(name, value.encode("utf-8", "replace")) for name, value in fields.items()
        )
        self._partial: dict[str, bytes] = {}
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._most_bytes = buffer_bytes

    @property
    def has_waiting(self) -> bool:
        """Whether entries wait for the journal."""
        return bool(self._waiting)

    def write(self, stream: str, data: bytes) -> None:
        """Accept a chunk of output; whole lines and pieces of 16 KiB become entries."""
        data = self._partial.pop(stream, b"") + data
        *lines, rest = data.split(b"\n")
        for line in lines:
            for start in range(0, len(line), CHUNK_BYTES):
                is_partial = start + CHUNK_BYTES < len(line)
                self._add(stream, line[start : start + CHUNK_BYTES], is_partial=is_partial)
        while len(rest) >= CHUNK_BYTES:
            self._add(stream, rest[:CHUNK_BYTES], is_partial=True)
            rest = rest[CHUNK_BYTES:]
        if rest:
            self._partial[stream] = rest

    def _add(self, stream: str, line: bytes, *, is_partial: bool = False) -> None:
        partial = build_field("CONTAINER_PARTIAL_MESSAGE", b"true") if is_partial else b""
        entry = (
            build_field("MESSAGE", line)
            + build_field("PRIORITY", _PRIORITIES[stream])
            + partial
            + self._fields
        )
        self._waiting.append(entry)
        self._waiting_bytes += len(entry)
        while self._waiting_bytes > self._most_bytes and len(self._waiting) > 1:
            self._waiting_bytes -= len(self._waiting.popleft())
        if self._waiting_bytes > self._most_bytes // 2:
            self.flush()

    def flush(self) -> bool:
        """Send the entries that the journal accepts; return whether it accepted any.  A restarted journal is found again."""
        has_sent = False
        while self._waiting:
            try:
                self._socket.send(self._waiting[0])
            except (ConnectionRefusedError, FileNotFoundError, OSError):
                if not self._reconnect():
                    break
                try:
                    self._socket.send(self._waiting[0])
                except OSError:
                    break
            has_sent = True
            self._waiting_bytes -= len(self._waiting.popleft())
        return has_sent

    def _reconnect(self) -> bool:
        try:
            self._socket.connect(self._path)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Send incomplete lines, and close; entries that the journal does not accept now are lost."""
        for stream, line in self._partial.items():
            self._add(stream, line)
        self._partial.clear()
        self.flush()
        self._socket.close()
