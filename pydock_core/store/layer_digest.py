"""Compares a layer's content with its diff id, beside other work."""

from __future__ import annotations

import hashlib
import os
import threading
from typing import BinaryIO

from pydock_core.errors import CorruptError
from pydock_core.oci.digest import short_id
from pydock_core.oci.documents import layer_compression
from pydock_core.store.compression import ANEW, open_plain
from pydock_core.store.layer_blob import LayerBlob
from pydock_core.store.tar_source import CHUNK_BYTES


def check_digest(actual: str, diff_id: str, subject: str) -> None:
    """Raise CorruptError where a layer is not what its diff id says."""
    if actual != diff_id:
        raise CorruptError(f"{subject} has the digest {actual}, not {diff_id}", ANEW)


def check_pair(diff_id: str, blob: LayerBlob) -> None:
    """Compare a blob with a layer that is there already: an image's documents may pair any two.

    Raises:
        CorruptError: the blob is not that layer, inflated; or it is damaged.
        what its arrival failed with.
    """
    if blob.paired or blob.is_known_as(diff_id):
        return
    subject = f"layer {short_id(diff_id)}"
    with blob.open() as stream:
        hashing = HashingStream(open_plain(stream, layer_compression(blob.media_type) or "", subject))
        while hashing.read(CHUNK_BYTES):
            pass
    check_digest("sha256:" + hashing.digest.hexdigest(), diff_id, subject)


class HashingStream:
    """Computes the digest of what is read through it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.digest = hashlib.sha256()

    def read(self, size: int = -1, /) -> bytes:
        """Read from the stream."""
        data = self._stream.read(size)
        self.digest.update(data)
        return data


class DigestThread:
    """Computes the digest of a whole file in a thread; waits for the end of it on leaving.

    Attributes:
        result: "sha256:...", once the block has been left.
    """

    result: str

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._stop = threading.Event()
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._run, name="layer-digest", daemon=True)

    def _run(self) -> None:
        digest, position = hashlib.sha256(), 0
        try:
            while not self._stop.is_set() and (data := os.pread(self._fd, CHUNK_BYTES, position)):
                digest.update(data)
                position += len(data)
        except OSError as error:
            self._error = error
        self.result = "sha256:" + digest.hexdigest()

    def __enter__(self) -> DigestThread:
        self._thread.start()
        return self

    def __exit__(self, kind: object, value: object, traceback: object) -> None:
        if kind is not None:
            self._stop.set()
        self._thread.join()
        if kind is None and self._error is not None:
            raise self._error
