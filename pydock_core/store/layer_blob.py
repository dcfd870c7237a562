"""A layer's blob: a complete file, or one that is still being downloaded.

A layer is inflated while it is downloaded, and the bytes are read from the page cache.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from pydock_core.store.growing_file import Arrival, GrowingReader

BUFFER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class LayerBlob:
    """A layer's blob.  A driver may keep a plain one under a further name: nobody writes to it once it is whole.

    Attributes:
        path: of the file; it may be renamed while it is open.
        media_type: says how it is compressed.
        verified: the blob's own digest was compared with its content; a plain blob's is its diff id.  Of one that
            is arriving, it is verified when the stream has ended without an error.
        arrival: None if the file is whole.
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
        return cast(BinaryIO, io.BufferedReader(GrowingReader(self.path, self.arrival), BUFFER_BYTES))
