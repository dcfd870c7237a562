"""Compresses a layer with gzip on all cores, into a file that readers can follow."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from pydock_core.errors import CorruptError
from pydock_core.oci.digest import short_id
from pydock_core.store.compression import ANEW
from pydock_core.store.durable import mapped
from pydock_core.store.growing_file import Arrival
from pydock_core.store.layer_blob import BUFFER_BYTES

_LEVEL = 2


class CompressedLayer:
    """A growing gzip file, whose bytes depend only on the content.

    Args:
        path: of the new file.

    Attributes:
        arrival: for the file's readers.
        digest, size_bytes: final once the file is filled.
    """

    def __init__(self, path: Path) -> None:
        self.arrival = Arrival()
        self.size_bytes = 0
        self._hash = hashlib.sha256()
        self._subject = "the compressed layer"
        with mapped(self._subject):
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    @property
    def digest(self) -> str:
        return "sha256:" + self._hash.hexdigest()

    def fill(self, source: Path, digest: str, check: Callable[[], None]) -> None:
        """Compress a whole file, and verify its digest.

        Args:
            source: a plain layer.
            digest: the expected digest of the source.
            check: called for every megabyte; its exception ends the compression.

        Raises:
            CorruptError: the source does not have the digest.
            UnavailableError: the disk is full.
        """
        from isal import igzip_threaded

        plain = hashlib.sha256()
        threads = os.cpu_count() or 1
        with (
            open(source, "rb", buffering=0) as file,
            igzip_threaded.open(_Sink(self), "wb", compresslevel=_LEVEL, threads=max(threads, 2)) as stream,
        ):
            while data := file.read(BUFFER_BYTES):
                check()
                stream.write(data)
                plain.update(data)
        if plain.hexdigest() != digest.partition(":")[2]:
            raise CorruptError(f"layer {short_id(digest)} is damaged in the store", ANEW)
        self.arrival.finish()

    def append(self, data: bytes) -> None:
        """Append compressed bytes to the file."""
        view = memoryview(data)
        with mapped(self._subject):
            while view:
                view = view[os.write(self._fd, view) :]
        self._hash.update(data)
        self.size_bytes += len(data)
        self.arrival.advance(len(data))

    def __enter__(self) -> CompressedLayer:
        return self

    def __exit__(self, kind: object, value: object, traceback: object) -> None:
        os.close(self._fd)


class _Sink:
    """The file interface that the compressor expects."""

    def __init__(self, compressed: CompressedLayer) -> None:
        self._compressed = compressed

    def write(self, data: bytes) -> int:
        self._compressed.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Do nothing: there is no buffer."""

    def close(self) -> None:
        """Do nothing: the owner closes the file."""
