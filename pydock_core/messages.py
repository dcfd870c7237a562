"""Sends and receives local messages: one JSON object per SOCK_SEQPACKET packet, with descriptors.

Both sides of every control socket use it.  A document larger than one packet travels in a memfd (the last
descriptor), so an exec with a huge environment needs no second protocol.
"""

from __future__ import annotations

import array
import json
import os
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from pydock_core.errors import CorruptError, PyDockError, from_json

PACKET_BYTES = 64 * 1024
"""Largest packet; well under the default send buffer of an AF_UNIX socket (net.core.wmem_default)."""

DOCUMENT_BYTES = 8 * 1024 * 1024
"""Largest accepted document."""

MAXIMUM_FDS = 32
_PATH_BYTES = 107  # sun_path is 108 bytes with its terminating zero: unix(7)
_INDIRECT = b"@memfd"


def send(connection: socket.socket, document: Mapping[str, Any], fds: Sequence[int] = ()) -> None:
    """Send one message; the caller keeps its descriptors.

    Raises:
        OSError: as sendmsg(2); EPIPE if the peer is gone (without SIGPIPE).
    """
    payload = json.dumps(document, separators=(",", ":")).encode()
    if len(payload) <= PACKET_BYTES:
        _send_packet(connection, payload, fds)
        return
    memory_fd = os.memfd_create("pydock-message", os.MFD_CLOEXEC)
    try:
        view = memoryview(payload)
        while view:
            view = view[os.write(memory_fd, view) :]
        _send_packet(connection, _INDIRECT, [*fds, memory_fd])
    finally:
        os.close(memory_fd)


def _send_packet(connection: socket.socket, payload: bytes, fds: Sequence[int]) -> None:
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    connection.sendmsg([payload], ancillary, socket.MSG_NOSIGNAL)


def receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """Receive one message: the document and its descriptors (close-on-exec, owned by the caller).

    Returns None at the end of the connection.

    Raises:
        CorruptError: the packet is not a message; its descriptors were closed.
        OSError: as recvmsg(2); BlockingIOError if the socket is non-blocking and empty.
    """
    fd_bytes = array.array("i").itemsize
    space = socket.CMSG_SPACE(MAXIMUM_FDS * fd_bytes)
    try:
        received = connection.recvmsg(PACKET_BYTES + 1, space, socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        # The peer closed with data from this side unread.  The kernel reports that once, before it delivers the
        # peer's last messages (an error, an exit code).
        received = connection.recvmsg(PACKET_BYTES + 1, space, socket.MSG_CMSG_CLOEXEC)
    payload, ancillary, flags, _ = received
    fds: list[int] = []
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.extend(array.array("i", data[: len(data) - len(data) % fd_bytes]))
    if not payload and not fds:
        return None
    try:
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise CorruptError("a message is longer than the protocol allows")
        if payload == _INDIRECT:
            payload = _read_memory(fds)
        document = json.loads(payload)
        if not isinstance(document, dict):
            raise CorruptError("a message is not a JSON object")
    except (ValueError, CorruptError) as error:
        close_all(fds)
        if isinstance(error, CorruptError):
            raise
        raise CorruptError("a message is not valid JSON") from error
    return document, fds


def _read_memory(fds: list[int]) -> bytes:
    if not fds:
        raise CorruptError("a message lacks the descriptor that holds it")
    memory_fd = fds.pop()
    try:
        size = os.fstat(memory_fd).st_size
        if size > DOCUMENT_BYTES:
            raise CorruptError(f"a message of {size} bytes is longer than {DOCUMENT_BYTES} bytes")
        return os.pread(memory_fd, size, 0)
    except OSError as error:
        raise CorruptError("cannot read a message's descriptor") from error
    finally:
        os.close(memory_fd)


def close_all(fds: Sequence[int]) -> None:
    """Close every descriptor; ignore those already closed."""
    for fd in fds:
        with suppress(OSError):
            os.close(fd)


def send_error(connection: socket.socket, error: PyDockError) -> None:
    """Reply with an error; ignore a peer that is gone."""
    with suppress(OSError):
        send(connection, {"ok": False, "error": error.to_json()})


def tell(connection: socket.socket, document: Mapping[str, Any]) -> bool:
    """Send a message; return whether the peer has received it."""
    try:
        send(connection, document)
    except OSError:
        return False
    return True


def checked(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a reply, or raise the error that it carries."""
    if not document.get("ok"):
        raise from_json(document.get("error") or {"message": "a malformed reply"})
    return document


@contextmanager
def short_address(path: str) -> Iterator[str]:
    """Yield an address for bind(2) or connect(2) that fits sun_path, through a directory descriptor if needed."""
    if len(os.fsencode(path)) <= _PATH_BYTES:
        yield path
        return
    directory_fd = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory_fd}/{os.path.basename(path)}"
    finally:
        os.close(directory_fd)


def connect(path: str) -> socket.socket:
    """Connect to a SEQPACKET socket; OSError (ENOENT, ECONNREFUSED) if nobody listens."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        with short_address(path) as address:
            connection.connect(address)
    except BaseException:
        connection.close()
        raise
    return connection


def listen(path: str, backlog: int = 1024) -> socket.socket:
    """Make a SEQPACKET listener at ``path`` (mode 0600), atomically replacing an existing file."""
    listener = socket.socket(
        socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    )
    # Bound under another name and renamed once it listens: no client can find a socket that refuses.
    temporary = f"{path}.{os.getpid()}"
    try:
        os.fchmod(
            listener.fileno(), 0o600
        )  # bind(2) gives the file the socket's own mode: unix_bind_bsd() in Linux
        with short_address(temporary) as address:
            listener.bind(address)
        listener.listen(backlog)
        os.rename(temporary, path)
    except BaseException:
        listener.close()
        raise
    return listener


def peer(connection: socket.socket) -> tuple[int, int]:
    """Return the pid and uid of the peer (SO_PEERCRED, unix(7))."""
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int.from_bytes(data[0:4], sys.byteorder), int.from_bytes(data[4:8], sys.byteorder)
