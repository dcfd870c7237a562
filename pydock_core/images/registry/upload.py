"""The upload of a blob that may still be growing: in chunks, each resumed from where the registry has it."""

from __future__ import annotations

import contextlib
import os
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path

from pydock_core.errors import (
    CorruptError,
    FailedError,
    InvalidError,
    NotFoundError,
    PyDockError,
)
from pydock_core.images.registry.endpoint import BusyError, Endpoint
from pydock_core.images.registry.failures import BrokenConnectionError
from pydock_core.images.registry.headers import parse_length, parse_upload_range
from pydock_core.images.registry.retry import Attempts
from pydock_core.images.registry.transport import Response, Transport
from pydock_core.store.layer_blob import Arrival

CHUNK_BYTES = 16 << 20
"""A chunk is sent when this much is there, or the end."""
CHUNK_LIMIT_BYTES = 64 << 20
_LARGEST_MINIMUM_BYTES = 512 << 20
_SEND_BYTES = 256 << 10
_PROGRESS_BYTES = 1 << 20


class Upload:
    """One blob on its way to a repository.

    Args:
        endpoint, transport: of the registry.
        path: of the repository.
        scopes: that allow it.
        file: with the blob's bytes.
        arrival: tells how much of the file is there; None where it is whole.
        digest: gives the blob's digest, asked when the file is whole.
        report: is told how many bytes the registry has.
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
        """Upload it.

        Raises:
            UnavailableError: the registry cannot be reached or fails.
            DeniedError: it does not allow it.
            what the arrival failed with.
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
                if self._position >= furthest + _PROGRESS_BYTES:
                    # Beyond all that was ever there: a session that is lost again and again is no progress.
                    furthest = self._position
                    attempts.succeeded()
            except (BrokenConnectionError, BusyError) as error:
                if not attempts.left():
                    raise
                pause = error.pause_seconds if isinstance(error, BusyError) else 0.0
                self._transport.wait(max(pause, attempts.next_pause()))
                self._ask()
            except InvalidError:
                # After a break, what the registry said that it has may have been more than it kept.
                if not self._resumed or not attempts.left():
                    raise
                self._cancel()
                self._location = ""
                self._transport.wait(attempts.next_pause())

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
        """How much of the file is there, at least a chunk or to the end, and whether that is the end."""
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
                raise self._misplaced()  # it took a part
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
            told = response.headers.get("Docker-Content-Digest")
            if told and told != digest:
                raise CorruptError(
                    f"{self._endpoint.name} took {self._path}@{digest} for {told}",
                    "the registry is broken",
                )
        self._location = ""
        self._position = available
        self._report(available)

    def _request(
        self, method: str, url: str, headers: dict[str, str], fd: int, size: int, expected: tuple[int, ...]
    ) -> Response:
        """Send a chunk once: what the registry has of it after a failure must be asked for."""
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
        """After a failure: ask the session how much it has; one that is lost is begun anew."""
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
        """Tell the registry, best effort, that nothing more comes; its own time limit does the same."""
        if not self._location:
            return
        with contextlib.suppress(PyDockError):
            self._endpoint.open(
                "DELETE",
                self._location,
                subject=self._path,
                scopes=self._scopes,
                headers={"Content-Length": "0"},
                attempts=Attempts(1),
                expected=(200, 202, 204, 404, 405),
            ).close()

    def _misplaced(self) -> BusyError:
        """The registry has another part of the blob than was thought."""
        return BusyError(f"{self._endpoint.name}: {self._path}: a chunk is out of order", "try again")
