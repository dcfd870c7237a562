"""Disk usage of images, containers and volumes, and pruning of unused ones."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydock_core.engine.image_filters import parse_boolean
from pydock_core.engine.image_shapes import SeenImage, build_summary
from pydock_core.engine.labels import parse_prune_filters
from pydock_core.errors import ConflictError, NotFoundError
from pydock_core.progress import Progress
from pydock_core.spec.definition import decode
from pydock_core.store.database import containers as containers_sql
from pydock_core.store.database import distribution
from pydock_core.store.database import images as images_sql
from pydock_core.store.database.events import Event
from pydock_core.store.database.images import LayerRow
from pydock_core.store.snapshots.stack import chain_ids
from pydock_core.supervision.container_status import derive_status

if TYPE_CHECKING:
    from pydock_core.engine.containers import Containers
    from pydock_core.engine.state import State
    from pydock_core.engine.volumes import Volumes

Filters = Mapping[str, Sequence[str]]

_SIZES = "pydock_core.store.trees:tree_sizes"
_BUSY = "an image is being added or read, so what no image needs any more goes later, with the next command that removes"


class Usage:
    """Disk usage of one state root.  Sizes are in bytes of content, not of blocks, as in Docker."""

    def __init__(self, state: State, containers: Containers, volumes: Volumes) -> None:
        self._state = state
        self._containers = containers
        self._volumes = volumes
        self._root = state.root
        self._database = state.database

    # -- looking -----------------------------------------------------------------------------------------

    def df(self) -> dict[str, Any]:
        """Return SystemDataUsageResponse of the Engine API, with two additional sizes.

        LayersSize is the size of all images: each layer once, and the blobs.  ``BlobsSize`` is the size of the blobs alone
        (layers in the form in which they were loaded or pulled, configs, manifests, unfinished downloads), and
        ``ImagesReclaimable`` is the size of all images that no container uses.
        """
        images = self._state.images.see_all()
        layers = images_sql.layers_by_image(self._database)
        sizes = self._layer_sizes()
        blobs_bytes = self._blobs_bytes()
        total_bytes = sum(sizes.values()) + self._chains_bytes() + blobs_bytes
        used = [seen for seen in images if seen.containers]
        return {
            "LayersSize": total_bytes,
            "BlobsSize": blobs_bytes,
            "ImagesReclaimable": max(total_bytes - self._needed_bytes(used, layers, sizes), 0),
            "Images": [
                build_summary(seen, shared)
                for seen, shared in zip(images, _shared_sizes(images, layers, sizes), strict=True)
            ],
            "Containers": self._containers.list(all=True, size=True),
            "Volumes": self._volumes.usage(),
            "BuildCache": [],
        }

    def _layer_sizes(self) -> dict[str, int]:
        """Return the size of every existing layer, whether an image has it or not, by diff id."""
        snapshotter = self._state.snapshotter
        sizes = {}
        for diff_id in snapshotter.diff_ids():
            try:
                sizes[diff_id] = snapshotter.size_bytes(diff_id)
            except NotFoundError:
                continue  # collected just now
        return sizes

    def _needed_bytes(
        self, images: Iterable[SeenImage], layers: Mapping[str, Sequence[LayerRow]], sizes: Mapping[str, int]
    ) -> int:
        """Return the size of images together: their layers, and the blobs of layers, configurations and manifests."""
        diff_ids: set[str] = set()
        chains: set[str] = set()
        digests: set[str] = set()
        for seen in images:
            digests |= {seen.row.id, seen.row.manifest_digest}
            own = layers.get(seen.row.id, ())
            for layer in own:
                diff_ids.add(layer.diff_id)
                digests.add(layer.blob_digest)
            chains.update(chain_ids([layer.diff_id for layer in own]))
        blobs = self._state.image_store.blobs
        return (
            sum(sizes.get(diff_id, 0) for diff_id in diff_ids)
            + sum(self._state.snapshotter.chain_size_bytes(chain_id) for chain_id in chains)
            + sum(_blob_size(blobs.blob_path(digest)) for digest in digests)
        )

    def _footprint(self) -> int:
        """Return the size of all layers and blobs, referenced or not."""
        return sum(self._layer_sizes().values()) + self._chains_bytes() + self._blobs_bytes()

    def _chains_bytes(self) -> int:
        """Return the size of the layers that were applied over the layers below them."""
        snapshotter = self._state.snapshotter
        return sum(snapshotter.chain_size_bytes(chain_id) for chain_id in snapshotter.chains())

    def _blobs_bytes(self) -> int:
        """Return the size of blobs and of partial downloads."""
        blobs = self._state.image_store.blobs
        partial_bytes = self._tree_sizes([str(self._root.images / "partial")])[0]
        return partial_bytes + sum(_blob_size(blobs.blob_path(digest)) for digest in blobs.digests())

    def _tree_sizes(self, paths: Sequence[str]) -> list[int]:
        return [int(size) for size in self._state.worker.call(_SIZES, {"paths": list(paths)})]

    # -- pruning -----------------------------------------------------------------------------------------

    def prune_images(
        self, *, all: bool = False, filters: Filters | None = None, progress: Progress | None = None
    ) -> dict[str, Any]:
        """Remove images without a name that no container uses, and the remains of interrupted pulls.

        Args:
            all: remove images with a name, too.
            filters: label, label!, until; and the Engine API's ``dangling=false``, which is ``all``.
            progress: receives {"status": "Untagged" or "Deleted", "id": NAME or ID} as it happens, and then
                {"status": "Freeing space"}, which takes longest.

        Returns:
            ImagePruneResponse of the Engine API: ImagesDeleted and SpaceReclaimed; and ``Warnings`` if a part of the
            work is left for later.

        Raises:
            InvalidError: an unknown filter, or a malformed one.
        """
        conditions = dict(filters or {})
        for value in conditions.pop("dangling", ()):
            all = not parse_boolean(value, "dangling")
        may_go = parse_prune_filters(conditions, time.time_ns())
        store = self._state.image_store
        before_bytes = self._footprint()
        deleted: list[dict[str, str]] = []
        for seen in self._state.images.see_all():
            if seen.containers or (seen.tags and not all) or not may_go(seen.row.created_ns, seen.labels):
                continue
            try:
                changes = self._state.images.discard(seen.row, seen.tags, seen.digests)
            except ConflictError:
                continue  # used or named since it was looked at
            deleted += changes
            if progress:
                for status, subject in (pair for change in changes for pair in change.items()):
                    progress({"status": status, "id": subject})
        if progress:
            progress({"status": "Freeing space"})
        with store.blobs.lock(exclusive=True, wait=False) as held:
            if held:  # no pull is going on: leases are those of interrupted ones
                distribution.release_all(self._database)
        store.sweep()
        is_done = store.collect()
        reclaimed_bytes = max(before_bytes - self._footprint(), 0)
        self._note_prune("image", reclaimed_bytes)
        return {
            "ImagesDeleted": deleted,
            "SpaceReclaimed": reclaimed_bytes,
            "Warnings": [] if is_done else [_BUSY],
        }

    def prune_containers(
        self, filters: Filters | None = None, progress: Progress | None = None
    ) -> dict[str, Any]:
        """Remove the stopped containers.

        Args:
            filters: label, label!, until.
            progress: receives {"status": "Deleted", "id": ID} as it happens.

        Returns:
            ContainerPruneResponse of the Engine API: ContainersDeleted and SpaceReclaimed.

        Raises:
            InvalidError: an unknown filter, or a malformed one.
        """
        may_go = parse_prune_filters(filters or {}, time.time_ns())
        self._state.sweep_once()
        going = []
        for row in containers_sql.all_rows(self._database):
            labels = decode(row.definition).request["Labels"]
            if _is_stopped(derive_status(self._root.container(row.id)).status) and may_go(
                row.created_ns, labels
            ):
                going.append(row.id)
        sizes = self._tree_sizes([str(self._root.container(row_id).upper) for row_id in going])
        deleted, reclaimed_bytes = [], 0
        for row_id, size in zip(going, sizes, strict=True):
            try:
                self._containers.remove(row_id)
            except (ConflictError, NotFoundError):
                continue  # started or removed since it was looked at
            deleted.append(row_id)
            reclaimed_bytes += size
            if progress:
                progress({"status": "Deleted", "id": row_id})
        self._note_prune("container", reclaimed_bytes)
        return {"ContainersDeleted": deleted, "SpaceReclaimed": reclaimed_bytes}

    def _note_prune(self, kind: str, reclaimed_bytes: int) -> None:
        self._state.recorder.note(Event(kind, "prune", "", {"reclaimed": str(reclaimed_bytes)}))


def _is_stopped(status: str) -> bool:
    return status in ("created", "exited")


def _shared_sizes(
    images: Sequence[SeenImage], layers: Mapping[str, Sequence[LayerRow]], sizes: Mapping[str, int]
) -> list[int]:
    """Return, for each image, the size of the layers that it shares with other images."""
    owners: dict[str, int] = {}
    distinct = [{layer.diff_id for layer in layers.get(seen.row.id, ())} for seen in images]
    for diff_ids in distinct:
        for diff_id in diff_ids:
            owners[diff_id] = owners.get(diff_id, 0) + 1
    return [
        sum(sizes.get(diff_id, 0) for diff_id in diff_ids if owners[diff_id] > 1) for diff_ids in distinct
    ]


def _blob_size(path: os.PathLike[str]) -> int:
    """Return the size of a blob; 0 if it is a hard link to a layer's file, which is counted with the layer."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return 0  # collected just now
    return status.st_size if status.st_nlink == 1 else 0
