"""Inconsistencies of images: missing parts, and unreferenced parts."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pydock_core.engine.consistency.finding import Inconsistency, inconsistency, inode_of, names_in, short
from pydock_core.errors import UnavailableError
from pydock_core.oci.digest import short_id
from pydock_core.store.database import distribution
from pydock_core.store.database import images as sql
from pydock_core.store.database.images import LayerRow
from pydock_core.store.layer_blob import LayerBlob
from pydock_core.store.partial import PARTIAL_DIRECTORY
from pydock_core.store.snapshots.stack import chain_ids

if TYPE_CHECKING:
    from pydock_core.engine.state import State

_AGAIN = "remove the image (dock rmi), and pull or load it again"


class ImageCheck:
    """Checks the images of one state root; skips them while an image is being added or read."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._store = state.image_store
        self._database = state.database

    def look(self) -> Iterator[Inconsistency]:
        """Yield the current inconsistencies."""
        with self._store.blobs.lock(exclusive=True, wait=False) as held:
            found = list(self._look()) if held else []
        yield from found

    def _look(self) -> Iterator[Inconsistency]:
        layers = sql.layers_by_image(self._database)
        yield from self._missing(layers)
        leased = distribution.leased(self._database, time.time_ns())
        yield from self._unreferred(layers, leased)
        yield from self._index()

    # -- parts that are missing --------------------------------------------------------------------------

    def _missing(self, layers: Mapping[str, Sequence[LayerRow]]) -> Iterator[Inconsistency]:
        blobs, applied = set(self._store.blobs.digests()), set(self._store.snapshotter.diff_ids())
        tags = sql.tags_by_image(self._database)
        for row in sql.all_images(self._database):
            named = tags.get(row.id, ())
            name = named[0].reference if named else short_id(row.id)
            own = layers.get(row.id, ())
            required = {row.id: "config", row.manifest_digest: "manifest"}
            required |= {layer.blob_digest: "layer" for layer in own}
            gone = [f"{kind} {short_id(digest)}" for digest, kind in required.items() if digest not in blobs]
            if gone:
                yield inconsistency("image", name, f"blobs are missing: {short(gone)}", _AGAIN)
            unapplied = [layer for layer in own if layer.diff_id not in applied]
            if not unapplied:
                continue
            problem = f"layers are missing: {short(short_id(layer.diff_id) for layer in unapplied)}"
            if any(layer.blob_digest not in blobs for layer in unapplied):
                yield inconsistency("image", name, problem, _AGAIN)
            else:
                yield inconsistency(
                    "image",
                    name,
                    problem,
                    "makes them again from their blobs",
                    partial(self._apply, own),
                )

    def _apply(self, layers: Sequence[LayerRow]) -> None:
        """Apply the missing layers of an image from its blobs."""
        with self._store.reading():
            blobs = [
                LayerBlob(
                    self._store.blobs.blob_path(layer.blob_digest), layer.media_type, digest=layer.blob_digest
                )
                for layer in layers
            ]
            for layer, blob in zip(layers, blobs, strict=True):
                self._store.snapshotter.apply(layer.diff_id, blob)
            self._store.snapshotter.prepare([layer.diff_id for layer in layers], blobs)

    # -- parts that nothing refers to --------------------------------------------------------------------

    def _unreferred(
        self, layers: Mapping[str, Sequence[LayerRow]], leased: set[str]
    ) -> Iterator[Inconsistency]:
        chains = {
            chain_id for own in layers.values() for chain_id in chain_ids([layer.diff_id for layer in own])
        }
        kept_layers = sql.referred_layers(self._database) | leased
        kept_blobs = sql.referred_blobs(self._database) | leased
        snapshotter = self._store.snapshotter
        for kind, digests, kept in (
            ("layer", [*snapshotter.diff_ids()], kept_layers),
            ("layer", [*snapshotter.chains()], chains),
            ("blob", self._store.blobs.digests(), kept_blobs),
            ("blob", self._partial(), leased),
        ):
            for digest in sorted(set(digests) - kept):
                yield inconsistency(
                    kind, short_id(digest), "no image refers to it", "removes it", self._collect
                )

    def _partial(self) -> list[str]:
        """The digests of downloads without an active process."""
        directory = self._store.blobs.path / PARTIAL_DIRECTORY
        return [f"sha256:{name}" for name in names_in(directory) if not _is_held(directory / name)]

    def _collect(self) -> None:
        if not self._store.collect():
            raise UnavailableError(
                "an image is being added or read", "try again when the other command has ended"
            )

    # -- index.json --------------------------------------------------------------------------------------

    def _index(self) -> Iterator[Inconsistency]:
        path = self._store.blobs.path / "index.json"
        try:
            listed = {entry["digest"] for entry in json.loads(path.read_bytes())["manifests"]}
        except (OSError, ValueError, KeyError, TypeError):
            listed = {""}
        blobs = set(self._store.blobs.digests())
        recorded = {row.manifest_digest for row in sql.all_images(self._database)} & blobs
        if listed != recorded:
            yield inconsistency(
                "file",
                "images/index.json",
                "it does not list the images that are recorded",
                "writes it again",
                self._store.refresh_index,
                identity=inode_of(path),
            )


def _is_held(path: Path) -> bool:
    """Whether a process downloads into a partial file."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return True  # gone just now
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
