"""The seam between the engine and a snapshot driver.

Vocabulary (OCI image specification): a *layer* is a tar of changes; its *diff id* is the digest of the
uncompressed tar; its *blob* is that tar as it is stored, plain or compressed.  A *snapshot* here is one layer
made ready for mounting, kept under its diff id, on its own: overlayfs stacks them.  A use::

    driver.apply(diff_id, blob)                    # once per layer, in any order
    driver.prepare(diff_ids, blobs)                # once per image: what depends on the layers below
    mounts = driver.mounts(diff_ids, upper, work)  # data; the supervisor does the mounting
    driver.remove(diff_id)                         # when no image refers to it
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from pydock_core.oci.root_mount import RootMount
from pydock_core.progress import Progress
from pydock_core.store.layer_blob import LayerBlob


class Snapshotter(Protocol):
    """Keeps layers by diff id.  ``apply`` and ``remove`` are atomic: a killed one leaves only trash to
    sweep.
    """

    name: str

    def has(self, diff_id: str) -> bool:
        """Whether the layer is there, whole."""
        ...

    def apply(self, diff_id: str, blob: LayerBlob, progress: Progress | None = None) -> int:
        """Make the layer from its blob; verify the digest; return its size in bytes (contents).

        A layer that is there already is left as it is.

        Args:
            diff_id: digest of the uncompressed tar.
            blob: the archive as it is stored, or as it arrives.
            progress: gets {"status": "Extracting", "id": short diff id, "current", "total"} (bytes).

        Raises:
            CorruptError: the blob does not have the digest ``diff_id``, or is no tar; nothing was kept.
            InvalidError: an entry would leave the layer's root; nothing was kept.
            UnavailableError: the disk is full; nothing was kept.
            what the blob's arrival failed with; nothing was kept.
        """
        ...

    def prepare(
        self, diff_ids: Sequence[str], blobs: Sequence[LayerBlob], progress: Progress | None = None
    ) -> None:
        """Do once, when an image is added, what needs all its layers.

        A layer that depends on the layers below (it has implied parents, or hard links to their files) is applied over
        those, for this chain.  Then many layers may be merged, which makes the starts of containers quicker.

        Args:
            diff_ids: of an image's layers, all there, bottom first.
            blobs: of the same layers, whole and compared with their diff ids.
            progress: see ``apply``.

        Raises:
            InvalidError: a hard link leads to a file that neither its layer nor one below has.
            UnavailableError: the disk is full; nothing was kept.
        """
        ...

    def chains(self) -> list[str]:
        """Return the ids of all chains that a layer was applied for, in no order."""
        ...

    def chain_size_bytes(self, chain_id: str) -> int:
        """Return the size of what was made for a chain, in bytes (contents); 0 if it is not there."""
        ...

    def remove_chain(self, chain_id: str) -> None:
        """Remove what was made for a chain; one that is not there is not an error."""
        ...

    def size_bytes(self, diff_id: str) -> int:
        """Return the size of a layer's contents, as ``apply`` did; NotFoundError if it is not there."""
        ...

    def diff_ids(self) -> list[str]:
        """Return all layers that are there, in no order."""
        ...

    def mounts(self, diff_ids: Sequence[str], upper: Path | None, work: Path | None) -> tuple[RootMount, ...]:
        """Describe the root filesystem of ``diff_ids`` (bottom first), read-only where ``upper`` is None.

        Raises:
            NotFoundError: a layer is not there.
        """
        ...

    def read_file(self, diff_ids: Sequence[str], path: str, upper: Path | None = None) -> bytes | None:
        """Return the contents of a small regular file as the root filesystem shows it; nothing is mounted.

        Args:
            diff_ids: bottom first.
            path: absolute, in the root filesystem; links are resolved within it.
            upper: a writable layer's directory, which need not be there.

        Returns:
            None if there is no such file, or it is larger than 4 MiB.

        Raises:
            NotFoundError: a layer is not there.
        """
        ...

    def status(self) -> list[tuple[str, str]]:
        """Return the driver's lines of ``info`` (Engine API, SystemInfo.DriverStatus)."""
        ...

    def remove(self, diff_id: str) -> None:
        """Remove the layer; one that is not there is not an error."""
        ...
