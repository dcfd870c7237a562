"""Compares a layer's content with its diff id."""

from __future__ import annotations

import hashlib
from typing import BinaryIO

from pydock_core.errors import CorruptError
from pydock_core.oci.digest import short_id
from pydock_core.oci.documents import layer_compression
from pydock_core.store.compression import ANEW, open_plain
from pydock_core.store.layer_blob import LayerBlob
from pydock_core.store.tar_source import CHUNK_BYTES


def check_digest(actual: str, diff_id: str, subject: str) -> None:
    """Raise CorruptError if a layer's digest is not its diff id."""
    if actual != diff_id:
        raise CorruptError(f"{subject} has the digest {actual}, not {diff_id}", ANEW)


def check_pair(diff_id: str, blob: LayerBlob) -> None:
    """Compare a blob with an existing layer, because an image's documents may pair any two.

    Raises:
        CorruptError: the inflated blob is not that layer, or the blob is damaged.
        PyDockError: the failure of its arrival.
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
    """Computes the digest of the bytes that are read through it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.digest = hashlib.sha256()

    def read(self, size: int = -1, /) -> bytes:
        """Read from the stream."""
        data = self._stream.read(size)
        self.digest.update(data)
        return data
