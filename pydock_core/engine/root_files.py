"""The files of one container's root file system that are read without mounting it: passwd and group."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydock_core.store.snapshots.protocol import Snapshotter


class RootFiles:
    """The files of one container's root file system.

    Args:
        snapshotter: has the layers.
        diff_ids: of the image, bottom first.
        upper: the writable layer.
    """

    def __init__(self, snapshotter: Snapshotter, diff_ids: Sequence[str], upper: Path) -> None:
        self._snapshotter = snapshotter
        self._diff_ids = diff_ids
        self._upper = upper

    def read(self, path: str) -> bytes | None:
        """Return the contents of a regular file, None where there is none (or more than 4 MiB of it)."""
        return self._snapshotter.read_file(self._diff_ids, path, self._upper)
