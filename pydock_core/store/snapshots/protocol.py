"""The seam between the engine and a snapshot driver.

Vocabulary (OCI image specification): a *layer* is a tar of changes; its *diff id* is the digest of the
uncompressed tar.  A *snapshot* here is one layer made ready for mounting, kept under its diff id, on its own:
overlayfs stacks them.  A use::

    driver.apply(diff_id, tar_stream)             # once per layer, bottom first
    mounts = driver.mounts(diff_ids, upper, work)  # data; the supervisor does the mounting
    driver.remove(diff_id)                        # when no image and no container refers to it
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

from pydock_core.runtime.plan import RootMount


class Snapshotter(Protocol):
    """Keeps layers by diff id.  ``apply`` and ``remove`` are atomic: a killed one leaves only trash to sweep."""

    name: str

    def has(self, diff_id: str) -> bool:
        """Whether the layer is there, whole."""
        ...

    def apply(self, diff_id: str, tar_stream: BinaryIO) -> int:
        """Make the layer from its uncompressed tar; verify the digest; return its size in bytes (contents).

        Raises:
            CorruptError: the stream does not have the digest ``diff_id``, or is no tar; nothing was kept.
            InvalidError: an entry would leave the layer's root.
        """
        ...

    def mounts(self, diff_ids: Sequence[str], upper: Path | None, work: Path | None) -> tuple[RootMount, ...]:
        """Describe the root filesystem of ``diff_ids`` (bottom first), read-only where ``upper`` is None."""
        ...

    def remove(self, diff_id: str) -> None:
        """Remove the layer; one that is not there is not an error."""
        ...
