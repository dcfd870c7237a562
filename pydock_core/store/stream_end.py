"""Where an archive is written to: a stream's own descriptor, or a pipe whose content is passed on to the stream."""

from __future__ import annotations

import contextlib
import io
import os
import threading
from collections.abc import Iterator
from typing import BinaryIO

from pydock_core.errors import FailedError
from pydock_core.store.durable import mapped

_CHUNK_BYTES = 1 << 20


@contextlib.contextmanager
def writing_archive() -> Iterator[None]:
    """Turn the errors of writing an archive into ours.

    Raises:
        FailedError: the archive's reader is gone, or it takes no more.
        NoSpaceError: the disk is full.
    """
    with mapped("the archive", "write", ""):
        try:
            yield
        except BrokenPipeError as error:
            raise FailedError("the archive's reader went away before its end") from error


@contextlib.contextmanager
def writing_end(stream: BinaryIO) -> Iterator[int]:
    """Yield a descriptor; what is written to it is in the stream when the block has ended.

    Raises:
        what the stream's ``write`` raised, where it took the data by that; the block's own error goes before.
    """
    try:
        fd = stream.fileno()
    except (AttributeError, io.UnsupportedOperation):
        fd = -1
    if fd >= 0:
        stream.flush()
        yield fd
        return
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    pump = _Pump(read_fd, stream)
    pump.start()
    try:
        yield write_fd
    except BaseException:
        if pump.error is not None:
            raise pump.error from None  # why the writer found the pipe closed
        raise
    finally:
        os.close(write_fd)
        pump.join()
    if pump.error is not None:
        raise pump.error


class _Pump(threading.Thread):
    """Reads a pipe and writes to a stream."""

    def __init__(self, read_fd: int, stream: BinaryIO) -> None:
        super().__init__(name="stream-pump", daemon=True)
        self.error: BaseException | None = None
        self._read_fd = read_fd
        self._stream = stream

    def run(self) -> None:
        try:
            while data := os.read(self._read_fd, _CHUNK_BYTES):
                self._stream.write(data)
        except BaseException as error:  # noqa: BLE001  # raised in the thread that waits for this one
            self.error = error
        finally:
            os.close(self._read_fd)
