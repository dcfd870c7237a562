"""The blob store: an OCI image layout (image-layout.md) that other tools can read as ``oci:DIR:NAME``.

A blob is written under a temporary name, hashed on the way, synced, and renamed to its digest.  So a file under a
digest's name is complete, and had that digest when it was written.  index.json lists the images and their names; it is
generated from the database, which is authoritative, and replaced by rename.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from pydock_core.errors import CorruptError, NotFoundError
from pydock_core.oci.digest import HEX_LENGTH, digest_hex, short_id
from pydock_core.oci.documents import Descriptor, Index
from pydock_core.private_files import make_directories, open_private
from pydock_core.store.compression import ANEW
from pydock_core.store.durable import mapped, sync

_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
_CHUNK_BYTES = 1 << 20
_DAMAGED = "remove the image (dock rmi), and pull or load it again: what is here is not fetched anew"
DOCUMENT_LIMIT = 8 << 20
"""The largest manifest, index or config that is read into memory; registries allow 4 MiB."""


class BlobWriter:
    """Writes one blob under a temporary name; see :meth:`BlobStore.writer`.

    Attributes:
        path: the temporary file.
        size_bytes: written so far.
    """

    def __init__(self, path: Path, subject: str) -> None:
        self.path = path
        self.size_bytes = 0
        self._subject = subject
        self._hash = hashlib.sha256()
        with mapped(subject):
            self._fd = os.open(
                path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
            )

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Append ``data``, all of it.

        Raises:
            UnavailableError: the disk is full.
        """
        self._hash.update(data)
        view = memoryview(data)
        with mapped(self._subject):
            while view:
                view = view[os.write(self._fd, view) :]
        self.size_bytes += len(data)
        return len(data)

    @property
    def digest(self) -> str:
        """Return the digest of the bytes written so far."""
        return "sha256:" + self._hash.hexdigest()

    def close(self) -> None:
        """Close the file; idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> BlobWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class BlobStore:
    """Blobs by digest in an OCI image layout.

    Args:
        path: the layout's directory (``StateRoot.images``), existing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._blobs = path / "blobs" / "sha256"

    def ensure(self) -> None:
        """Make the layout's skeleton if it is missing: oci-layout, index.json, blobs/sha256."""
        if (self.path / "index.json").exists():
            return
        with mapped("the image store"):
            make_directories(self._blobs)
            with self.lock(exclusive=True):
                _replace(self.path / "oci-layout", _LAYOUT)
                if not (self.path / "index.json").exists():
                    self.write_index(())

    def blob_path(self, digest: str) -> Path:
        """Return the path of a blob, existing or not."""
        return self._blobs / digest_hex(digest)

    def has(self, digest: str) -> bool:
        """Whether the blob exists."""
        return self.blob_path(digest).is_file()

    def digests(self) -> list[str]:
        """Return the digests of all blobs, in no order."""
        if not self._blobs.is_dir():
            return []
        return [f"sha256:{entry.name}" for entry in os.scandir(self._blobs) if len(entry.name) == HEX_LENGTH]

    def writer(self, directory: Path, name: str, subject: str) -> BlobWriter:
        """Begin a blob under ``directory``/``name``, in a workspace on the same file system.

        Args:
            subject: names the blob in errors.
        """
        return BlobWriter(directory / name, subject)

    def put(
        self, writer: BlobWriter, *, digest: str = "", size_bytes: int | None = None, subject: str = ""
    ) -> str:
        """Verify the written blob and move it into the store; the temporary file is gone afterwards.

        Args:
            digest, size_bytes: the expected values; not checked if empty or None.
            subject: names the blob in errors.

        Returns:
            the digest.

        Raises:
            CorruptError: the digest or the size differs; nothing was kept.
            UnavailableError: the disk is full.
        """
        check_content(writer.digest, writer.size_bytes, digest, size_bytes, subject or "blob")
        writer.close()
        self.adopt(writer.path, writer.digest, subject or "blob")
        return writer.digest

    def adopt(self, path: Path, digest: str, subject: str) -> None:
        """Sync a file whose digest the caller has verified, and rename it into the store.

        Raises:
            UnavailableError: the disk is full.
        """
        with mapped(subject):
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
            os.rename(path, self.blob_path(digest))
            sync(self._blobs)

    def put_bytes(self, data: bytes, directory: Path, subject: str) -> str:
        """Store a small blob; return its digest.  ``directory`` is a workspace on the same file system."""
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        if self.has(digest):
            return digest
        with self.writer(directory, f"blob-{digest_hex(digest)}", subject) as writer:
            writer.write(data)
            return self.put(writer, subject=subject)

    def read(self, digest: str, subject: str) -> bytes:
        """Return a whole document (manifest, config), verified.

        Raises:
            NotFoundError: the blob is missing.
            CorruptError: it does not have its digest, or is larger than any document.
        """
        with self.open(digest, subject) as file:
            data = file.read(DOCUMENT_LIMIT + 1)
        if len(data) > DOCUMENT_LIMIT:
            raise CorruptError(f"{subject} is larger than {DOCUMENT_LIMIT >> 20} MiB", _DAMAGED)
        actual = "sha256:" + hashlib.sha256(data).hexdigest()
        check_content(actual, len(data), digest, None, subject, _DAMAGED)
        return data

    def open(self, digest: str, subject: str) -> BinaryIO:
        """Open a blob for reading; the reader verifies the digest, as the application of a layer does.

        Raises:
            NotFoundError: the blob is missing.
        """
        try:
            return open(self.blob_path(digest), "rb")
        except FileNotFoundError as error:
            raise NotFoundError(
                f"{subject}: blob {digest} is not in the store", "load the image again"
            ) from error

    def remove(self, digest: str) -> None:
        """Remove a blob; ignore a missing one."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.blob_path(digest))

    # -- the index ---------------------------------------------------------------------------------------

    def write_index(self, manifests: Sequence[Descriptor]) -> None:
        """Replace index.json; the caller holds a lock, see :meth:`refresh_index`."""
        index = Index(tuple(manifests)).to_json()
        with mapped("index.json of the image store"):
            _replace(self.path / "index.json", json.dumps(index, indent=1).encode())

    def refresh_index(self, list_manifests: Callable[[], Sequence[Descriptor]]) -> None:
        """Write the result of ``list_manifests`` to index.json.

        ``list_manifests`` is called under a lock, so of several processes, the last writer has seen the changes of the
        others.
        """
        fd = os.open(self.path / ".index.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            self.write_index(list_manifests())
        finally:
            os.close(fd)

    # -- adding and collecting ---------------------------------------------------------------------------

    @contextlib.contextmanager
    def lock(self, *, exclusive: bool, wait: bool = True) -> Iterator[bool]:
        """Hold the store's lock: shared while adding an image, exclusive while collecting garbage.

        A blob that is being added has no references yet, so a collector would take it for garbage.  Collectors do not
        wait (``wait=False``), and leave their work to the next one.

        Yields:
            whether the lock is held.
        """
        fd = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            operation = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
            try:
                fcntl.flock(fd, operation if wait else operation | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(fd)


def check_content(
    actual_digest: str, actual_size: int, digest: str, size_bytes: int | None, subject: str, hint: str = ANEW
) -> None:
    """Compare content with its expected digest and size.

    Raises:
        CorruptError: they differ.
    """
    if size_bytes is not None and actual_size != size_bytes:
        raise CorruptError(f"{subject} has {actual_size} bytes, not {size_bytes}", hint)
    if digest and actual_digest != digest:
        raise CorruptError(
            f"{subject} has the digest {short_id(actual_digest)}, not {short_id(digest)}", hint
        )


def _replace(path: Path, data: bytes) -> None:
    """Write a file by rename.  The caller holds a lock, so the temporary name can be a fixed one."""
    temporary = path.with_name(f".{path.name}.new")
    try:
        with open(temporary, "wb", opener=open_private) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    sync(path.parent)
