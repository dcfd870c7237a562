"""A layer's blob as drivers get it: a file that is whole, or one that is still arriving from a registry.

Who downloads writes to the file and says so; who applies the layer reads behind.  So a layer is inflated while it
is downloaded, and the bytes are read from the page cache::

    arrival = Arrival()                                    # the downloader's thread
    arrival.advance(len(chunk)); ...; arrival.finish()     # or arrival.fail(error)
    with LayerBlob(path, media_type, arrival=arrival).open() as stream: ...   # another thread
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

BUFFER_BYTES = 1 << 20


class Arrival:
    """How much of a growing file is there; threads of one process share it.

    Args:
        size_bytes: what is there from the beginning (a download that goes on).
    """

    def __init__(self, size_bytes: int = 0) -> None:
        self._changed = threading.Condition()
        self._size_bytes = size_bytes
        self._ended = False
        self._error: BaseException | None = None

    def advance(self, count: int) -> None:
        """``count`` more bytes are in the file."""
        with self._changed:
            self._size_bytes += count
            self._changed.notify_all()

    def finish(self) -> None:
        """The file is whole, and its content is what it should be."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def fail(self, error: BaseException) -> None:
        """The file will not become whole; readers get ``error``."""
        with self._changed:
            if not self._ended:
                self._error = error
                self._ended = True
                self._changed.notify_all()

    def wait(self, position: int) -> int:
        """Wait until there is more than ``position``, or the end; return how much there is.

        At the end it returns only once the content is known to be right (:meth:`finish`), so that a reader that got
        everything may trust it.

        Raises:
            what :meth:`fail` was given.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._size_bytes > position)
            if self._error is not None:
                raise self._error
            return self._size_bytes


@dataclass(frozen=True, slots=True)
class LayerBlob:
    """A layer's blob.  A driver may keep a plain one under a further name: nobody writes to it once it is whole.

    Attributes:
        path: of the file; it may be renamed while it is open.
        media_type: says how it is compressed.
        verified: the blob's own digest was compared with its content; a plain blob's is its diff id.  Of one that
            is arriving, it is verified when the stream has ended without an error.
        arrival: None where the file is whole.
        digest: the blob's own, where it is known; the file's name in the blob store says it too.
        paired: it is known to be, inflated, the layer that it is applied as.
    """

    path: Path
    media_type: str
    verified: bool = False
    arrival: Arrival | None = None
    digest: str = ""
    paired: bool = False

    def is_known_as(self, diff_id: str) -> bool:
        """Whether a plain blob's content is known to have the digest ``diff_id``, without being hashed again.

        An image's documents may call a blob the layer of any diff id; so both are compared.
        """
        known = (self.digest.rpartition(":")[2], self.path.name)
        return self.verified and diff_id.rpartition(":")[2] in known

    def open(self) -> BinaryIO:
        """Open it for reading from the start; ``fileno`` is there only where the file is whole."""
        if self.arrival is None:
            return open(self.path, "rb", buffering=0)
        return cast(BinaryIO, io.BufferedReader(_Following(self.path, self.arrival), BUFFER_BYTES))


class _Following(io.RawIOBase):
    """Reads a file as it grows."""

    def __init__(self, path: Path, arrival: Arrival) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._arrival = arrival
        self._position = 0

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # typeshed's Buffer has no len()
        available = self._arrival.wait(self._position) - self._position
        if available <= 0:
            return 0
        count = os.preadv(self._fd, [buffer[:available]], self._position)
        self._position += count
        return count

    def close(self) -> None:
        if not self.closed:
            os.close(self._fd)
        super().close()


@contextlib.contextmanager
def reading_end(blob: LayerBlob) -> Iterator[int]:
    """A descriptor of the blob for another process: the file, or a pipe that gets the bytes as they arrive.

    Raises:
        what the arrival failed with, after the block: what the reader made of the shortened stream is void.
    """
    if blob.arrival is None:
        fd = os.open(blob.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield fd
        finally:
            os.close(fd)
        return
    reader, writer = os.pipe2(os.O_CLOEXEC)
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, BUFFER_BYTES)
    pump = _Pump(blob, writer)
    pump.start()
    try:
        yield reader
    except BaseException:
        os.close(reader)  # the pump gets EPIPE
        pump.join()
        if pump.error is not None:
            raise pump.error from None  # the reason why the reader found the stream cut off
        raise
    os.close(reader)
    pump.join()
    if pump.error is not None:
        raise pump.error


class _Pump(threading.Thread):
    """Copies an arriving blob into a pipe."""

    def __init__(self, blob: LayerBlob, writer: int) -> None:
        super().__init__(name="layer-pump", daemon=True)
        self.error: BaseException | None = None
        self._blob = blob
        self._writer = writer

    def run(self) -> None:
        try:
            with self._blob.open() as stream:
                while data := stream.read(BUFFER_BYTES):
                    view = memoryview(data)
                    while view:
                        view = view[os.write(self._writer, view) :]
        except BrokenPipeError:
            pass  # the reader has failed, and says so itself
        except BaseException as error:  # noqa: BLE001  # raised in the thread that waits for this one
            self.error = error
        finally:
            os.close(self._writer)
