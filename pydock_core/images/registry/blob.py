"""The transfer of one blob: a download resumed after a break, an upload in resumable chunks."""

from __future__ import annotations

import contextlib
import os
import time
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from pydock_core.errors import (
    CorruptError,
    FailedError,
    InvalidError,
    NotFoundError,
    PyDockError,
    UnavailableError,
)
from pydock_core.images.registry.endpoint import Endpoint
from pydock_core.images.registry.failure import BrokenConnectionError, BusyError, is_web_page, web_page_error
from pydock_core.images.registry.header import parse_content_range, parse_length, parse_upload_range
from pydock_core.images.registry.retry import Attempts
from pydock_core.images.registry.transport import PIECE_BYTES, Response, Transport
from pydock_core.oci.digest import short_id
from pydock_core.oci.documents import Descriptor
from pydock_core.spelling import human_size
from pydock_core.store.growing_file import Arrival

LEAST_BYTES_PER_SECOND = 1000
"""A slower download counts as stalled."""
_GATHER_BYTES = 256 << 10
_GATHER_SECONDS = 0.05
_DOWNLOAD_PROGRESS_BYTES = 256 << 10
"""A connection that brought this much is progress: the attempts are counted from one again."""
CHUNK_BYTES = 16 << 20
"""A chunk is sent once this much, or the end, is available."""
CHUNK_LIMIT_BYTES = 64 << 20
_LARGEST_MINIMUM_BYTES = 512 << 20
_SEND_BYTES = 256 << 10
_UPLOAD_PROGRESS_BYTES = 1 << 20

Opener = Callable[[dict[str, str], Attempts], Response]
"""Opens the blob with additional headers, and counts its attempts."""


class BlobSink(Protocol):
    """The receiver of a blob's bytes, which hashes them.

    Attributes:
        position: the number of received bytes; more than 0 at the beginning of a resumed download.
    """

    @property
    def position(self) -> int: ...

    def write(self, data: bytes) -> None:
        """Take the next bytes."""

    def restart(self) -> None:
        """Discard the received bytes: the next ones are the first."""


class Pace:
    """The speed of a download; only the time spent waiting counts.

    Args:
        window_seconds: the time over which the speed is averaged.
    """

    def __init__(self, window_seconds: float) -> None:
        self._window_seconds = window_seconds
        self._waited_seconds = 0.0
        self._came_bytes = 0

    def is_kept(self, waited_seconds: float, came_bytes: int) -> bool:
        """Count a piece and the wait for it; return False if a window was below the least speed."""
        self._waited_seconds += waited_seconds
        self._came_bytes += came_bytes
        if self._waited_seconds < self._window_seconds:
            return True
        kept = self._came_bytes >= LEAST_BYTES_PER_SECOND * self._waited_seconds
        self._waited_seconds, self._came_bytes = 0.0, 0
        return kept


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
        host: the peer, for messages.
        descriptor: of the blob.
        sink: receives the bytes.
        opener: opens the blob.
        attempts: counts the breaks without progress.

    Raises:
        CorruptError: the blob has another size.
        UnavailableError: the registry stalls or fails; ``sink`` keeps the received bytes.
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
                    if not attempts.are_left():
                        raise CorruptError(
                            f"{subject}: the registry answers a range with another one", "try again"
                        )
                    attempts.next_pause()
                    continue
                _copy(response, subject, descriptor, sink)
        except BrokenConnectionError as error:
            if sink.position - begin >= _DOWNLOAD_PROGRESS_BYTES:
                attempts.reset()
            if not attempts.are_left():
                raise UnavailableError(
                    f"{error.message}, after {human_size(sink.position)} of {human_size(descriptor.size_bytes)} "
                    f"of blob {short_id(descriptor.digest)}",
                    error.hint,
                ) from error
            transport.wait(attempts.next_pause())


def _place(response: Response, subject: str, descriptor: Descriptor, sink: BlobSink) -> bool:
    """Bring the sink to the answer's first byte; return False if the answer does not serve the range."""
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
    """Write the answer's body; small pieces, such as TLS records, are gathered.

    Raises:
        BrokenConnectionError: the connection broke, or is too slow to wait for the end.
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
            # The announced length is the right one, so the connection broke.
            raise BrokenConnectionError(f"{response.origin.name}: the connection was closed in mid-blob")
        raise CorruptError(
            f"{subject} has {sink.position} bytes, not {descriptor.size_bytes}",
            "the registry's copy is damaged",
        )


# -- upload ----------------------------------------------------------------------------------------------


class Upload:
    """One blob on its way to a repository.

    Args:
        endpoint, transport: of the registry.
        path: of the repository.
        scopes: that allow it.
        file: with the blob's bytes.
        arrival: the growth of the file; None if the file is complete.
        digest: returns the blob's digest, called when the file is complete.
        report: receives the number of bytes that the registry has.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        transport: Transport,
        path: str,
        scopes: tuple[str, ...],
        file: Path,
        arrival: Arrival | None,
        digest: Callable[[], str],
        report: Callable[[int], None] | None,
    ) -> None:
        self._endpoint = endpoint
        self._transport = transport
        self._path = path
        self._scopes = scopes
        self._file = file
        self._arrival = arrival
        self._digest = digest
        self._report = report or (lambda position: None)
        self._location = ""
        self._minimum_bytes = CHUNK_BYTES
        self._position = 0
        self._resumed = False

    def run(self) -> None:
        """Upload the blob.

        Raises:
            UnavailableError: the registry cannot be reached or fails.
            DeniedError: the registry does not allow it.
            the failure of the arrival.
        """
        fd = os.open(self._file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._run(fd)
        except BaseException:
            self._cancel()
            raise
        finally:
            os.close(fd)

    def _run(self, fd: int) -> None:
        attempts = Attempts()
        furthest = 0
        while True:
            try:
                if not self._location:
                    self._begin()
                available, whole = self._available(fd)
                if whole and available - self._position <= CHUNK_LIMIT_BYTES:
                    self._end(fd, available)
                    return
                size = min(available - self._position, max(CHUNK_LIMIT_BYTES, self._minimum_bytes))
                self._send_chunk(fd, size)
                if self._position >= furthest + _UPLOAD_PROGRESS_BYTES:
                    # A session that is lost again and again is not progress: only a new furthest position is.
                    furthest = self._position
                    attempts.reset()
            except (BrokenConnectionError, BusyError) as error:
                pause_seconds = error.pause_seconds if isinstance(error, BusyError) else 0.0
                attempts.pause_or_raise(error, self._transport, pause_seconds)
                self._ask()
            except InvalidError as error:
                # After a break, a registry may announce more than it has kept.
                if not self._resumed:
                    raise
                attempts.pause_or_raise(error, self._transport)
                self._cancel()
                self._location = ""

    # -- the steps ---------------------------------------------------------------------------------------

    def _begin(self) -> None:
        url = self._endpoint.url(f"/v2/{urllib.parse.quote(self._path)}/blobs/uploads/")
        with self._endpoint.open(
            "POST",
            url,
            subject=self._path,
            scopes=self._scopes,
            headers={"Content-Length": "0"},
            expected=(202,),
            attempts=Attempts(1),
        ) as response:
            self._position = 0
            self._resumed = False
            self._move(response, url)
            minimum = parse_length(response.headers.get("OCI-Chunk-Min-Length")) or 0
            if minimum > _LARGEST_MINIMUM_BYTES:
                raise CorruptError(
                    f"{self._endpoint.name} wants chunks of {minimum} bytes", "the registry is misconfigured"
                )
            self._minimum_bytes = max(CHUNK_BYTES, minimum)

    def _available(self, fd: int) -> tuple[int, bool]:
        """Wait for a chunk or the end of the file; return the file's size by then, and whether it is final."""
        if self._arrival is None:
            return os.fstat(fd).st_size, True
        there = self._position
        while there - self._position < self._minimum_bytes:
            now = self._arrival.wait(there)
            if now <= there:
                return there, True
            there = now
        return there, False

    def _send_chunk(self, fd: int, size: int) -> None:
        begin = self._position
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(size),
            "Content-Range": f"{begin}-{begin + size - 1}",
        }
        with self._request("PATCH", self._location, headers, fd, size, (202, 201, 204, 416)) as response:
            if response.status == 416:
                raise self._misplaced()
            self._move(response, self._location)
            has = parse_upload_range(response.headers.get("Range", ""))
            if has is not None and begin < has < begin + size:
                raise self._misplaced()  # it took only a part
            self._position = begin + size
        self._report(self._position)

    def _end(self, fd: int, available: int) -> None:
        size = available - self._position
        digest = self._digest()
        joint = "&" if "?" in self._location else "?"
        headers = {"Content-Length": str(size)}
        if size:
            headers["Content-Type"] = "application/octet-stream"
            if self._position:
                headers["Content-Range"] = f"{self._position}-{available - 1}"
        url = f"{self._location}{joint}digest={urllib.parse.quote(digest, safe=':')}"
        with self._request("PUT", url, headers, fd, size, (201, 204, 416)) as response:
            if response.status == 416:
                raise self._misplaced()
            stated = response.headers.get("Docker-Content-Digest")
            if stated and stated != digest:
                raise CorruptError(
                    f"{self._endpoint.name} took {self._path}@{digest} for {stated}",
                    "the registry is broken",
                )
        self._location = ""
        self._position = available
        self._report(available)

    def _request(
        self, method: str, url: str, headers: dict[str, str], fd: int, size: int, expected: tuple[int, ...]
    ) -> Response:
        """Send a chunk once: after a failure the registry's position is unknown."""
        begin = self._position
        return self._endpoint.open(
            method,
            url,
            subject=self._path,
            scopes=self._scopes,
            headers=headers,
            body=lambda: self._pieces(fd, begin, size),
            expected=expected,
            attempts=Attempts(1),
        )

    def _pieces(self, fd: int, begin: int, size: int) -> Iterator[bytes]:
        position, end = begin, begin + size
        while position < end:
            data = os.pread(fd, min(_SEND_BYTES, end - position), position)
            if not data:
                raise FailedError(f"{self._file} became shorter while it was uploaded")
            yield data
            position += len(data)
            self._report(position)

    def _ask(self) -> None:
        """After a failure, ask for the session's position; a lost session is restarted."""
        if not self._location:
            return
        try:
            with self._endpoint.open(
                "GET", self._location, subject=self._path, scopes=self._scopes, expected=(204, 200, 202)
            ) as response:
                has = parse_upload_range(response.headers.get("Range", ""))
                self._move(response, self._location, required=False)
        except (NotFoundError, InvalidError, FailedError):
            has = None
        if has is None:
            self._location = ""
            self._position = 0
        else:
            self._position = has
            self._resumed = True
        self._report(self._position)

    def _move(self, response: Response, base: str, *, required: bool = True) -> None:
        location = response.headers.get("Location")
        if location:
            self._location = self._endpoint.resolve(base, location)
        elif required:
            raise CorruptError(
                f"{self._endpoint.name} opens an upload without an address", "the registry is broken"
            )

    def _cancel(self) -> None:
        if self._location:
            cancel_upload(self._endpoint, self._location, self._path, self._scopes)

    def _misplaced(self) -> BusyError:
        """Return the error for a registry whose position is not the expected one."""
        return BusyError(f"{self._endpoint.name}: {self._path}: a chunk is out of order", "try again")


def cancel_upload(endpoint: Endpoint, location: str, path: str, scopes: tuple[str, ...]) -> None:
    """End an upload session, best effort; the registry's own time limit does the same."""
    with contextlib.suppress(PyDockError):
        endpoint.open(
            "DELETE",
            location,
            subject=path,
            scopes=scopes,
            headers={"Content-Length": "0"},
            attempts=Attempts(1),
            expected=(200, 202, 204, 404, 405),
        ).close()
