"""Stacks: one index over all tars of an image of many layers.

Under the EROFS driver's directory::

    stack-HEX/   the layers of a chain, by its chain id: index.erofs, fs, stack.json {"diff_ids", "devices"}

A separate mount of each layer slows down a start: ``run --rm IMAGE true`` takes 29 ms with one layer, 30 ms with 5,
40 ms with 30 and 65 ms with 100; with a stack it takes 29 to 30 ms with any number (medians of 41 runs, two cores,
Linux 6.18).  So an image of more than SEPARATE_LAYERS layers gets one index over all its tars, made when the image is
added.  A stack is looked up from the top down: an image that is based on another one mounts that image's stack and its
own layers.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

from pydock_core.errors import UnsupportedError
from pydock_core.oci.digest import digest_hex, short_id
from pydock_core.oci.root_mount import RootMount
from pydock_core.store.durable import sync, write_json
from pydock_core.store.erofs.merge import merge_indexes
from pydock_core.store.erofs.reader import Index
from pydock_core.store.snapshots.erofs_view import INDEX, MOUNT_POINT, NEW, TAR, IndexView
from pydock_core.store.snapshots.shelf import Shelf
from pydock_core.store.snapshots.stack import LayerView, chain_ids

SEPARATE_LAYERS = 4
"""The largest number of layers that are mounted one by one; the cost is within the noise of a start."""
_PREFIX = "stack-"
_METADATA = "stack.json"


class Stacks:
    """Implements :class:`pydock_core.store.snapshots.stack.Merged`.

    Args:
        shelf: contains the layers, and receives the stacks.
    """

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    def prepare(self, diff_ids: Sequence[str]) -> None:
        """Merge layers, bottom first, if they are many and not merged yet.

        Raises:
            NotFoundError: a layer is missing.
            UnavailableError: the disk is full.
            FailedError: another system error.
        """
        chains = chain_ids(diff_ids)
        separate = next(
            (count for count, chain_id in enumerate(reversed(chains)) if self._place(chain_id).is_dir()),
            len(chains),
        )
        if separate <= SEPARATE_LAYERS:
            return
        with (
            contextlib.suppress(UnsupportedError),  # too large: its layers are mounted one by one
            self._shelf.making(self._place(chains[-1]), "the index of an image") as made,
        ):
            self._merge(diff_ids, made.path)

    def _merge(self, diff_ids: Sequence[str], made: Path) -> None:
        with contextlib.ExitStack() as opened:
            indexes = []
            for diff_id in diff_ids:
                base = f"{self._shelf.place(diff_id)}/"
                index = Index(base + INDEX, [base + TAR], f"layer {short_id(diff_id)}")
                opened.callback(index.close)
                indexes.append(index)
            opaque = [bool(self._shelf.metadata(diff_id)["opaque_root"]) for diff_id in diff_ids]
            fd = os.open(made / INDEX, NEW, 0o600)
            opened.callback(os.close, fd)
            files = merge_indexes(indexes, opaque, fd, f"image of {len(diff_ids)} layers")
            os.fsync(fd)
        devices = [[digest_hex(diff_ids[file.layer]), INDEX if file.is_index else TAR] for file in files]
        (made / MOUNT_POINT).mkdir(mode=0o700)
        write_json(made / _METADATA, {"diff_ids": list(diff_ids), "devices": devices})
        sync(made)

    def merged_lower(self, chain_id: str) -> tuple[str, tuple[RootMount, ...]] | None:
        """See the protocol."""
        devices = self._devices(chain_id)
        if devices is None:
            return None
        base = f"{self._place(chain_id)}/"
        target = base + MOUNT_POINT
        return target, (RootMount("erofs", base + INDEX, devices=devices, target=target),)

    def merged_view(self, chain_id: str) -> LayerView | None:
        """See the protocol."""
        devices = self._devices(chain_id)
        if devices is None:
            return None
        try:
            return IndexView(f"{self._place(chain_id)}/{INDEX}", devices, f"image {short_id(chain_id)}")
        except FileNotFoundError:
            return None  # removed just now

    def _devices(self, chain_id: str) -> tuple[str, ...] | None:
        try:
            with open(self._place(chain_id) / _METADATA, "rb") as file:
                return tuple(
                    f"{self._shelf.base}/{layer}/{name}" for layer, name in json.load(file)["devices"]
                )
        except (FileNotFoundError, ValueError):
            return None

    def remove_with(self, diff_id: str) -> None:
        """Remove the stacks that contain a layer."""
        for entry in list(os.scandir(self._shelf.base)):
            if not entry.name.startswith(_PREFIX):
                continue
            try:
                with open(f"{entry.path}/{_METADATA}", "rb") as file:
                    if diff_id not in json.load(file)["diff_ids"]:
                        continue
            except (FileNotFoundError, ValueError):
                pass  # damaged, so useless
            self._shelf.discard(Path(entry.path))

    def _place(self, chain_id: str) -> Path:
        return self._shelf.base / f"{_PREFIX}{digest_hex(chain_id)}"
