"""Descriptors for another process: a stream's own, or a pipe that a thread of this process fills or drains."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import threading
from collections.abc import Callable, Iterator
from typing import BinaryIO

from pydock_core.errors import FailedError
from pydock_core.store.durable import mapped
from pydock_core.store.layer_blob import LayerBlob

_CHUNK_BYTES = 1 << 20


@contextlib.contextmanager
def writing_archive() -> Iterator[None]:
    """Map the errors of writing an archive to PyDockError.

    Raises:
        FailedError: the archive's reader is gone, or its target is full.
        NoSpaceError: the disk is full.
    """
    with mapped("the archive", "write", ""):
        try:
            yield
        except BrokenPipeError as error:
            raise FailedError("the archive's reader went away before its end") from error


@contextlib.contextmanager
def writing_end(stream: BinaryIO) -> Iterator[int]:
    """Yield a descriptor; at the end of the block, the stream has received everything written to it.

    The block's own error takes precedence over an error of the stream's ``write``.
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

    def empty() -> None:
        while data := os.read(read_fd, _CHUNK_BYTES):
            stream.write(data)

    with _pumping(empty, read_fd, write_fd):
        yield write_fd


@contextlib.contextmanager
def stream_end(stream: BinaryIO) -> Iterator[int]:
    """Yield a descriptor for reading a stream: its own, or that of a pipe filled by a thread.

    Raises:
        The errors of the stream's ``read``.
    """
    try:
        fd = stream.fileno()
    except (AttributeError, io.UnsupportedOperation):
        fd = -1
    if fd >= 0:
        yield fd
        return
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)

    def fill() -> None:
        with contextlib.suppress(BrokenPipeError):  # the reader reports its failure itself
            while data := stream.read(_CHUNK_BYTES):
                view = memoryview(data)
                while view:
                    view = view[os.write(write_fd, view) :]

    with _pumping(fill, write_fd, read_fd):
        yield read_fd


@contextlib.contextmanager
def reading_end(blob: LayerBlob) -> Iterator[int]:
    """Yield a descriptor of a blob: of its file, or of a pipe that receives the bytes as they arrive.

    Raises:
        PyDockError: the failure of the arrival, which makes a result of the truncated stream invalid.
    """
    if blob.arrival is None:
        fd = os.open(blob.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield fd
        finally:
            os.close(fd)
        return
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    fcntl.fcntl(write_fd, fcntl.F_SETPIPE_SZ, _CHUNK_BYTES)

    def fill() -> None:
        with (
            contextlib.suppress(BrokenPipeError),
            blob.open() as stream,
        ):  # the reader reports its own failure
            while data := stream.read(_CHUNK_BYTES):
                view = memoryview(data)
                while view:
                    view = view[os.write(write_fd, view) :]

    with _pumping(fill, write_fd, read_fd):
        yield read_fd


@contextlib.contextmanager
def _pumping(pump: Callable[[], None], pump_fd: int, block_fd: int) -> Iterator[None]:
    """Run a function in a thread during the block; close both ends of the pipe between them.

    The function's error is raised at the end of the block, and replaces the error of a block that found the pipe closed.
    """
    errors: list[BaseException] = []

    def run() -> None:
        try:
            pump()
        except BaseException as error:  # noqa: BLE001  # raised in the thread that waits for this one
            errors.append(error)
        finally:
            os.close(pump_fd)

    thread = threading.Thread(target=run, name="pipe-pump", daemon=True)
    thread.start()
    try:
        yield
    except BaseException:
        if errors:
            raise errors[0] from None
        raise
    finally:
        os.close(block_fd)
        thread.join()
    if errors:
        raise errors[0]
