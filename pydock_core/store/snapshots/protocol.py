"""The seam between the engine and a snapshot driver.

Vocabulary (OCI image specification): a *layer* is a tar of changes; its *diff id* is the digest of the
uncompressed tar; its *blob* is the stored form of that tar, plain or compressed.  A *snapshot* here is a single layer
prepared for mounting, kept under its diff id; overlayfs stacks them.  A use::

    driver.apply(diff_id, blob)                    # once per layer, in any order
    driver.prepare(diff_ids, blobs)                # once per image: layers that depend on those below
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
    """Keeps layers by diff id.  ``apply`` and ``remove`` are atomic: a killed one leaves only trash to sweep."""

    name: str

    def has(self, diff_id: str) -> bool:
        """Whether the complete layer exists."""
        ...

    def apply(self, diff_id: str, blob: LayerBlob, progress: Progress | None = None) -> int:
        """Make the layer from its blob; verify the digest; return the size of its contents in bytes.

        An existing layer stays unchanged.

        Args:
            diff_id: digest of the uncompressed tar.
            blob: the stored or arriving archive.
            progress: receives {"status": "Extracting", "id": short diff id, "current", "total"} (bytes).

        Raises:
            CorruptError: the blob does not have the digest ``diff_id``, or is not a tar; nothing was kept.
            InvalidError: an entry would leave the layer's root; nothing was kept.
            UnavailableError: the disk is full; nothing was kept.
            PyDockError: the failure of the blob's arrival; nothing was kept.
        """
        ...

    def prepare(
        self, diff_ids: Sequence[str], blobs: Sequence[LayerBlob], progress: Progress | None = None
    ) -> None:
        """Do the steps that need all layers of an image, once, when it is added.

        A layer that depends on the layers below (with implied parents, or hard links to their files) is applied over
        these, for this chain.  Then a driver may merge many layers, so that containers start faster.

        Args:
            diff_ids: of an image's layers, all of which exist, bottom first.
            blobs: of the same layers, complete and compared with their diff ids.
            progress: see ``apply``.

        Raises:
            InvalidError: a hard link leads to a file that neither its layer nor one below has.
            UnavailableError: the disk is full; nothing was kept.
        """
        ...

    def owned(self, diff_ids: Sequence[str], owner: tuple[int, int], bottom: str) -> str:
        """Return a directory with the layers' tree in which another user owns root's files, and root that user's.

        It is made at the first call, which copies the whole tree.

        Args:
            diff_ids: of an image's layers, bottom first; not empty.
            owner: the user and the group.
            bottom: a directory below the layers.

        Raises:
            NotFoundError: a layer is missing.
            UnavailableError: the disk is full; nothing was kept.
        """
        ...

    def chains(self) -> list[str]:
        """Return the ids of all chains for which a tree was made, in no particular order."""
        ...

    def chain_size_bytes(self, chain_id: str) -> int:
        """Return the size of the trees made for a chain, in bytes; 0 if there are none."""
        ...

    def remove_chain(self, chain_id: str) -> None:
        """Remove the trees made for a chain; ignore missing ones."""
        ...

    def size_bytes(self, diff_id: str) -> int:
        """Return the size of a layer's contents, like ``apply``; NotFoundError if it is missing."""
        ...

    def diff_ids(self) -> list[str]:
        """Return all existing layers, in no particular order."""
        ...

    def mounts(self, diff_ids: Sequence[str], upper: Path | None, work: Path | None) -> tuple[RootMount, ...]:
        """Describe the root filesystem of ``diff_ids`` (bottom first); read-only if ``upper`` is None.

        Raises:
            NotFoundError: a layer is missing.
        """
        ...

    def read_file(self, diff_ids: Sequence[str], path: str, upper: Path | None = None) -> bytes | None:
        """Return the contents of a small regular file of the root filesystem, without mounting anything.

        Args:
            diff_ids: bottom first.
            path: absolute, in the root filesystem; links are resolved within it.
            upper: a writable layer's directory, which may be missing.

        Returns:
            None if there is no such file, or it is larger than 4 MiB.

        Raises:
            NotFoundError: a layer is missing.
        """
        ...

    def status(self) -> list[tuple[str, str]]:
        """Return the driver's lines of ``info`` (Engine API, SystemInfo.DriverStatus)."""
        ...

    def remove(self, diff_id: str) -> None:
        """Remove the layer; ignore a missing one."""
        ...
