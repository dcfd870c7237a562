"""The files of one container's root file system that are read without mounting it: passwd and group."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydock_core.store.snapshots.protocol import Snapshotter

_KEPT = 64


class RootFiles:
    """The files of one container's root file system.

    Args:
        snapshotter: reads the layers.
        diff_ids: of the image, bottom first.
        upper: the writable layer.
        kept: a cache of images' files, by layers and path, valid for a container that has written nothing, because layers
            never change.
    """

    def __init__(
        self,
        snapshotter: Snapshotter,
        diff_ids: Sequence[str],
        upper: Path,
        kept: dict[tuple[tuple[str, ...], str], bytes | None],
    ) -> None:
        self._snapshotter = snapshotter
        self._diff_ids = tuple(diff_ids)
        self._upper = upper
        self._kept = kept

    def read(self, path: str) -> bytes | None:
        """Return the contents of a regular file, None if there is none (or more than 4 MiB of it)."""
        if not self._is_untouched():
            return self._snapshotter.read_file(self._diff_ids, path, self._upper)
        key = (self._diff_ids, path)
        if key not in self._kept:
            if len(self._kept) >= _KEPT:
                self._kept.clear()
            self._kept[key] = self._snapshotter.read_file(self._diff_ids, path, None)
        return self._kept[key]

    def _is_untouched(self) -> bool:
        try:
            return not os.listdir(self._upper)
        except FileNotFoundError:
            return True
        except PermissionError:  # an ordinary user: the container's root may have closed it
            return False
