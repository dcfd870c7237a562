"""The download of a blob: resumed where it broke, and never more than was announced."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from pydock_core.errors import CorruptError, UnavailableError
from pydock_core.images.registry.failures import BrokenConnectionError
from pydock_core.images.registry.headers import parse_content_range
from pydock_core.images.registry.pace import Pace
from pydock_core.images.registry.problem import is_web_page, web_page_error
from pydock_core.images.registry.retry import Attempts
from pydock_core.images.registry.transport import PIECE_BYTES, Response, Transport
from pydock_core.oci.digest import short_id
from pydock_core.oci.documents import Descriptor
from pydock_core.sizes import human_size

_GATHER_BYTES = 256 << 10
_GATHER_SECONDS = 0.05
_PROGRESS_BYTES = 256 << 10
"""A connection that brought this much counts as a success, after which a failure is a first one again."""

Opener = Callable[[dict[str, str], Attempts], Response]
"""Opens the blob with the given headers; the attempts are counted."""


class BlobSink(Protocol):
    """Where a blob's bytes go; hashing is its business.

    Attributes:
        position: how many bytes it has; more than 0 at the beginning of a download that goes on.
    """

    @property
    def position(self) -> int: ...

    def write(self, data: bytes) -> None:
        """Take the next bytes."""

    def restart(self) -> None:
        """Forget what came: the next bytes are the first ones."""


def download(
    transport: Transport,
    host: str,
    descriptor: Descriptor,
    sink: BlobSink,
    opener: Opener,
    attempts: Attempts,
) -> None:
    """Fill ``sink`` up to ``descriptor.size_bytes``.

    Args:
        transport: waits between attempts.
        host: who is asked, for messages.
        descriptor: of the blob.
        sink: gets the bytes.
        opener: opens the blob.
        attempts: how often it may break without progress.

    Raises:
        CorruptError: the blob has another size.
        UnavailableError: the registry stalls or fails; ``sink`` keeps what came.
    """
    subject = f"{host}: blob {descriptor.digest}"
    use_ranges = True
    if sink.position > descriptor.size_bytes:
        sink.restart()
    while sink.position < descriptor.size_bytes:
        begin = sink.position
        headers = {"Range": f"bytes={begin}-"} if begin and use_ranges else {}
        try:
            with opener(headers, attempts) as response:
                if not _place(response, subject, descriptor, sink):
                    use_ranges = False
                    if not attempts.left():
                        raise CorruptError(
                            f"{subject}: the registry answers a range with another one", "try again"
                        )
                    attempts.next_pause()
                    continue
                _copy(response, subject, descriptor, sink)
        except BrokenConnectionError as error:
            if sink.position - begin >= _PROGRESS_BYTES:
                attempts.succeeded()
            if not attempts.left():
                raise UnavailableError(
                    f"{error.message}, after {human_size(sink.position)} of {human_size(descriptor.size_bytes)} "
                    f"of blob {short_id(descriptor.digest)}",
                    error.hint,
                ) from error
            transport.wait(attempts.next_pause())


def _place(response: Response, subject: str, descriptor: Descriptor, sink: BlobSink) -> bool:
    """Bring the sink to where the answer begins; False where the answer is of no use for a range."""
    if response.status == 416:
        return False
    expected = descriptor.size_bytes
    if response.status == 206:
        place = parse_content_range(response.headers.get("Content-Range", ""))
        if place is None or place[0] != sink.position:
            return False
        if place[2] is not None and place[2] != expected:
            raise CorruptError(
                f"{subject} has {place[2]} bytes, not {expected}", "the registry's copy is damaged"
            )
        return True
    if response.length is not None and response.length != expected:
        if is_web_page(response.content_type, b""):
            raise web_page_error(response.origin.name)
        raise CorruptError(
            f"{subject} has {response.length} bytes, not {expected}", "the registry's copy is damaged"
        )
    if sink.position:
        sink.restart()
    return True


def _copy(response: Response, subject: str, descriptor: Descriptor, sink: BlobSink) -> None:
    """Write what comes; pieces that come small, as TLS has them, are gathered.

    Raises:
        BrokenConnectionError: it broke, or comes too slowly to wait for its end.
    """
    pieces: list[bytes] = []
    gathered = 0
    pace = Pace(response.silence_seconds)
    begin_seconds = time.monotonic()

    def flush() -> None:
        nonlocal gathered
        if pieces:
            sink.write(pieces[0] if len(pieces) == 1 else b"".join(pieces))
            pieces.clear()
            gathered = 0

    try:
        while True:
            left = descriptor.size_bytes - sink.position - gathered
            asked_seconds = time.monotonic()
            piece = response.read1(min(PIECE_BYTES - gathered, left + 1))
            if not piece:
                break
            if len(piece) > left:
                pieces.clear()
                raise CorruptError(
                    f"{subject} is larger than its {descriptor.size_bytes} bytes",
                    "the registry's copy is damaged",
                )
            pieces.append(piece)
            gathered += len(piece)
            now_seconds = time.monotonic()
            if not pace.is_kept(now_seconds - asked_seconds, len(piece)) and len(piece) < left:
                raise BrokenConnectionError(f"{response.origin.name}: the registry stalls", "try again later")
            if gathered >= _GATHER_BYTES or now_seconds - begin_seconds > _GATHER_SECONDS:
                flush()
                begin_seconds = now_seconds
    except BrokenConnectionError:
        flush()
        raise
    flush()
    if sink.position < descriptor.size_bytes:
        if response.ends_by_closing or response.length is not None:
            # A length that was announced is the right one: the connection broke.
            raise BrokenConnectionError(f"{response.origin.name}: the connection was closed in mid-blob")
        raise CorruptError(
            f"{subject} has {sink.position} bytes, not {descriptor.size_bytes}",
            "the registry's copy is damaged",
        )
