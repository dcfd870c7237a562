"""A sink for blobs in memory."""

from __future__ import annotations

import os

from pydock_core.oci.digest import digest_of
from pydock_core.oci.documents import OCI_LAYER, Descriptor


class Sink:
    """Keeps what it gets, and counts how often it was told to forget."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = bytearray(data)
        self.restarts = 0

    @property
    def position(self) -> int:
        return len(self.data)

    def write(self, data: bytes) -> None:
        self.data += data

    def restart(self) -> None:
        self.restarts += 1
        self.data.clear()


def random_blob(size_bytes: int, urls: tuple[str, ...] = ()) -> tuple[bytes, Descriptor]:
    """Return bytes that do not compress, and their descriptor."""
    data = os.urandom(size_bytes)
    return data, descriptor_of(data, urls)


def descriptor_of(data: bytes, urls: tuple[str, ...] = ()) -> Descriptor:
    """Return the descriptor of a layer."""
    return Descriptor(OCI_LAYER, digest_of(data), len(data), urls=urls)
