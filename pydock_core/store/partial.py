"""Partial downloads of blobs: one file each, kept for resumption, with one writer at a time.

They are under the image layout's ``partial/``, named by their digest.  The downloader holds the file's lock (flock(2)): a
second process that needs the same blob waits for it, and then finds the blob in the store.  The partial file of a killed
process is hashed again and continued.

A driver may hard-link the file of a plain layer.  So the file is only appended to or unlinked, never truncated or
overwritten.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pydock_core.errors import CorruptError, InvalidError, NoSpaceError
from pydock_core.oci.digest import HEX_LENGTH, digest_hex
from pydock_core.oci.documents import Descriptor
from pydock_core.store.blobs import BlobStore, check_content
from pydock_core.store.durable import mapped
from pydock_core.store.growing_file import Arrival
from pydock_core.store.layer_blob import LayerBlob

PARTIAL_DIRECTORY = "partial"
_CHUNK_BYTES = 1 << 20
_POLL_SECONDS = 0.1


class PartialBlob:
    """A growing blob, from :meth:`PartialBlobs.open`.  One thread writes; any number of threads read.

    Attributes:
        path: the file.
        position: the size of the part that is written and hashed.
        arrival: for the readers.
    """

    def __init__(self, path: Path, fd: int, descriptor: Descriptor, subject: str) -> None:
        self.path = path
        self.position = 0
        self.descriptor = descriptor
        self._fd = fd
        self._subject = subject
        self._hash = hashlib.sha256()
        # Hash the part from an earlier download.
        while data := os.pread(fd, _CHUNK_BYTES, self.position):
            self._hash.update(data)
            self.position += len(data)
        self._furthest = self.position
        self.arrival = Arrival(self.position)

    def write(self, data: bytes) -> None:
        """Append ``data``; after a restart, compare it with the existing part.

        Raises:
            CorruptError: the blob becomes longer than its manifest says, or differs from the existing part.
            UnavailableError: the disk is full.
        """
        if self.position + len(data) > self.descriptor.size_bytes:
            raise CorruptError(
                f"{self._subject} is longer than the {self.descriptor.size_bytes} bytes of its manifest",
                "the registry is broken or hostile; tell its owner",
            )
        known = min(self._furthest - self.position, len(data))
        if known > 0 and os.pread(self._fd, known, self.position) != data[:known]:
            raise CorruptError(
                f"{self._subject} differs from its earlier download",
                "pull again: it is then fetched from the start",
            )
        view, offset = memoryview(data)[known:], self.position + known
        with mapped(self._subject):
            while view:
                written = os.pwrite(self._fd, view, offset)
                view, offset = view[written:], offset + written
        self._hash.update(data)
        self.position = offset
        if self.position > self._furthest:
            self.arrival.advance(self.position - self._furthest)
            self._furthest = self.position

    def restart(self) -> None:
        """Begin again, because the server cannot resume the download: the same bytes follow again."""
        self._hash, self.position = hashlib.sha256(), 0

    def finish(self) -> None:
        """Verify the complete blob, and tell the readers.

        Raises:
            CorruptError: the digest or the size differs.
        """
        check_content(
            "sha256:" + self._hash.hexdigest(),
            self.position,
            self.descriptor.digest,
            self.descriptor.size_bytes,
            self._subject,
        )
        self.arrival.finish()

    def layer(self) -> LayerBlob:
        """Return the blob for a driver."""
        descriptor = self.descriptor
        return LayerBlob(
            self.path, descriptor.media_type, verified=True, arrival=self.arrival, digest=descriptor.digest
        )


class PartialBlobs:
    """The partial blobs of one store.

    Args:
        blobs: the store for completed blobs; the caller holds its lock, shared.
    """

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._directory = blobs.path / PARTIAL_DIRECTORY

    @contextlib.contextmanager
    def open(
        self,
        descriptor: Descriptor,
        subject: str,
        waiting: Callable[[int], None],
        is_cancelled: Callable[[], bool],
    ) -> Iterator[PartialBlob | None]:
        """Begin or continue a download; None if the blob is in the store, possibly from another process just now.

        The caller calls :meth:`PartialBlob.finish` in the block; at its end, the blob is moved into the store.  If the
        block ends with an error, the partial file stays for the next attempt, unless the content is wrong or hostile or
        the disk is full.

        Args:
            subject: names the blob in errors.
            waiting: called, with the size so far, while another process downloads it.
            is_cancelled: called during the wait; if it returns True, the wait ends and the result is None.
        """
        with mapped(subject):
            self._directory.mkdir(mode=0o700, exist_ok=True)
        path = self._directory / digest_hex(descriptor.digest)
        while True:
            fd = self._lock(path, subject, waiting, is_cancelled)
            if fd is None:
                yield None
                return
            try:
                if self._blobs.has(descriptor.digest):
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(path)
                    yield None
                    return
                if not _is_named(fd, path):
                    continue  # its previous holder has moved or removed it: open the new file
                if _is_useless(fd, descriptor.size_bytes):
                    os.unlink(path)
                    continue
                partial = PartialBlob(path, fd, descriptor, subject)
                try:
                    yield partial
                except BaseException as error:
                    partial.arrival.fail(error)
                    # Of wrong or hostile content nothing is of use; on a full disk nothing else, not even a row, can
                    # be written before there is room.  Never by truncation: a layer may have the same file under its
                    # own name.
                    if isinstance(error, CorruptError | InvalidError | NoSpaceError):
                        with contextlib.suppress(FileNotFoundError):
                            os.unlink(path)
                    raise
                self._blobs.adopt(path, descriptor.digest, subject)
                return
            finally:
                os.close(fd)

    @staticmethod
    def _lock(
        path: Path, subject: str, waiting: Callable[[int], None], is_cancelled: Callable[[], bool]
    ) -> int | None:
        with mapped(subject):
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            while True:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    # Polled, because flock(2) cannot be cancelled, and progress is shown during the wait.
                    if is_cancelled():
                        os.close(fd)
                        return None
                    waiting(os.fstat(fd).st_size)
                    time.sleep(_POLL_SECONDS)
                else:
                    return fd
        except BaseException:
            os.close(fd)
            raise

    def sweep(self, kept: set[str]) -> None:
        """Remove the partial files that no pull will continue.  The caller holds the store's lock, exclusive.

        Args:
            kept: digests of the files to keep.
        """
        for name in _names(self._directory):
            if len(name) == HEX_LENGTH and f"sha256:{name}" not in kept:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._directory / name)


def _names(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


def _is_useless(fd: int, size_bytes: int) -> bool:
    """Whether a partial file cannot be continued.

    It is longer than the blob, or older than this boot: its unsynced data may not have reached the disk.
    """
    status = os.fstat(fd)
    started = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return status.st_size > size_bytes or (status.st_size > 0 and status.st_mtime < started)


def _is_named(fd: int, path: Path) -> bool:
    try:
        named = os.stat(path, follow_symlinks=False)
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
        return False
    held = os.fstat(fd)
    return (held.st_dev, held.st_ino) == (named.st_dev, named.st_ino)
