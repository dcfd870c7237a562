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
    """A layer's blob.  A driver may keep a plain one as a hard link: a complete file is never written to.

    Attributes:
        path: of the file; it may be renamed while it is open.
        media_type: tells the compression.
        verified: the content has been compared with the blob's own digest, which is a plain blob's diff id.  An arriving
            blob is verified when its stream ends without an error.
        arrival: None if the file is complete.
        digest: the blob's own, if it is known.
        paired: an earlier comparison found that the inflated blob is the layer that it is applied as.
    """

    path: Path
    media_type: str
    verified: bool = False
    arrival: Arrival | None = None
    digest: str = ""
    paired: bool = False

    def is_known_as(self, diff_id: str) -> bool:
        """Whether a plain blob's content is known to have the digest ``diff_id``, without being hashed again.

        An image's documents may pair a blob with any diff id, so both are compared.
        """
        known = (self.digest.rpartition(":")[2], self.path.name)
        return self.verified and diff_id.rpartition(":")[2] in known

    def open(self) -> BinaryIO:
        """Open the blob for reading from the start; the stream has a ``fileno`` only if the file is complete."""
        if self.arrival is None:
            return open(self.path, "rb", buffering=0)
        return cast(BinaryIO, io.BufferedReader(GrowingReader(self.path, self.arrival), BUFFER_BYTES))
