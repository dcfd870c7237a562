"""The store of images: blobs, layers and rows together, safe against any number of processes.

Adding takes a workspace and the store's lock, shared; it writes blobs, then layers, then one short transaction.
Collecting takes the lock, exclusive; it removes the blobs and layers that neither an image nor a lease refers to.  The
remains of a killed process are swept or collected by the next one.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from pydock_core.errors import ConflictError, NoSpaceError, NotFoundError, PyDockError
from pydock_core.images.stored import StoredImage
from pydock_core.oci.digest import short_id
from pydock_core.oci.documents import REF_NAME, Descriptor, ImageConfig, decode
from pydock_core.oci.platform import parse_platform, platform_of
from pydock_core.oci.timestamp import parse_timestamp
from pydock_core.paths import StateRoot
from pydock_core.progress import Progress
from pydock_core.store.blobs import BlobStore
from pydock_core.store.database import distribution
from pydock_core.store.database import images as sql
from pydock_core.store.database.connection import Database
from pydock_core.store.database.events import Event
from pydock_core.store.database.images import ImageRow, LayerRow
from pydock_core.store.layer_blob import LayerBlob
from pydock_core.store.partial import PartialBlobs
from pydock_core.store.snapshots.protocol import Snapshotter
from pydock_core.store.snapshots.stack import chain_ids
from pydock_core.store.worker import Worker
from pydock_core.store.workspace import open_workspace, sweep

OnTaken = Callable[[str, str], None]
"""Called with a name that moved to an image, and the full id of the image that had it before."""
_TIME_LIMIT_NS = 1 << 63
"""The database's range.  Go's zero time, which tools for reproducible images write, is the year 1 and means none."""
_LEASE_SECONDS = 7 * 24 * 3600
"""The time for which the parts of an interrupted pull are kept for the next one."""
_REMOVE = "pydock_core.store.trees:remove_tree"


class ImageStore:
    """Blobs, layers and rows of one state root.

    Args:
        root: the state root, its skeleton made.
        database: its database.
        open_snapshotter: opens the layers' drivers when they are first needed; listings need none.
        worker: removes files that may belong to subordinate ids.
    """

    def __init__(
        self, root: StateRoot, database: Database, open_snapshotter: Callable[[], Snapshotter], worker: Worker
    ) -> None:
        self.root = root
        self.database = database
        self._open_snapshotter = open_snapshotter
        self.worker = worker
        self.blobs = BlobStore(root.images)
        self.blobs.ensure()
        for image_id in sql.without_labels(database):
            self._read_labels(image_id)

    @cached_property
    def snapshotter(self) -> Snapshotter:
        """The layers."""
        return self._open_snapshotter()

    def _read_labels(self, image_id: str) -> None:
        """Record the labels of an image of an earlier version."""
        subject = f"config of image {short_id(image_id)}"
        try:
            config = ImageConfig.from_json(decode(self.blobs.read(image_id, subject), subject), subject)
        except PyDockError:
            labels = "{}"  # damaged: the image's next use reports it
        else:
            labels = json.dumps(config.config.get("Labels") or {})
        sql.set_labels(self.database, image_id, labels)

    def require_platform(self, image_id: str, name: str, platform: str) -> None:
        """Check that an image is for a platform.

        Args:
            image_id: full.
            name: of the image, for the message.
            platform: "os[/arch[/variant]]".

        Raises:
            NotFoundError: the image is for another platform.
            InvalidError: ``platform`` is malformed.
        """
        subject = f"config of {name}"
        config = ImageConfig.from_json(decode(self.blobs.read(image_id, subject), subject), subject)
        required, actual = parse_platform(platform), platform_of(config)
        if required != actual:
            raise NotFoundError(
                f"image {name} is for {actual}, not for {required}",
                f"dock pull --platform {required} gets that one",
            )

    # -- adding ------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def adding(self, kind: str, lease_owner: str = "") -> Iterator[Path]:
        """Yield a workspace and hold the store's lock against collectors; at the end, collect.

        After a failure the parts that were added and not leased are removed; after a success, the superseded ones.

        Args:
            kind: of the operation, for the workspace's name.
            lease_owner: the owner whose leases end if the disk is full, so that a failed operation does not keep it full.
        """
        self.sweep()
        try:
            with (
                self.blobs.lock(exclusive=False),
                open_workspace(self.root.temporary, kind, self._remove_tree) as workspace,
            ):
                yield workspace.path
        except BaseException as error:
            with _noted_on(error, "tidying up failed"):
                self.collect(abandoned=lease_owner if isinstance(error, NoSpaceError) else "")
            raise
        self.collect()

    def lease(self, owner: str, digests: Sequence[str]) -> None:
        """Keep blobs and layers, by digest and diff id, from collectors for a week."""
        distribution.lease(self.database, owner, digests, time.time_ns() + _LEASE_SECONDS * 10**9)

    def has(self, image_id: str) -> bool:
        """Whether an image is recorded, by its full id."""
        return sql.by_id(self.database, image_id) is not None

    def is_pair(self, diff_id: str, blob_digest: str) -> bool:
        """Whether an earlier comparison found that a blob, inflated, is a layer."""
        return (
            diff_id == blob_digest
            or sql.has_layer(self.database, diff_id, blob_digest)
            or distribution.is_form(self.database, diff_id, blob_digest)
        )

    def name(self, image: StoredImage) -> None:
        """Give a recorded image its references as names.

        Only inside :meth:`adding`.

        Raises:
            ConflictError: the image was removed just now.
        """
        for reference in image.references:
            if not sql.set_tag(self.database, reference.repository, reference.tag, image.id):
                raise ConflictError(f"image {short_id(image.id)} was removed just now", "try again")
        self.refresh_index()

    def record(
        self,
        images: Sequence[StoredImage],
        progress: Progress | None,
        *,
        are_applied: bool = False,
        on_taken: OnTaken | None = None,
        event_of: Callable[[StoredImage], Event] | None = None,
    ) -> int:
        """Apply the layers of images, one image after the other, and record each with its names; return the total size.

        Only inside :meth:`adding`.  If an image fails, the earlier ones stay.

        Args:
            images: images with their blobs in the store.
            progress: receives events.
            are_applied: whether the layers have been applied from these blobs; a known image then takes the registry's new
                manifest.
            on_taken: called for each name taken from another image.
            event_of: returns the event to record with an image; None if the caller records it.
        """
        try:
            size = sum(
                self._record(
                    image,
                    progress,
                    on_taken,
                    event_of(image) if event_of is not None else None,
                    are_applied=are_applied,
                )
                for image in images
            )
        except BaseException as error:
            with _noted_on(error, "index.json could not be renewed"):
                self.refresh_index()
            raise
        self.refresh_index()
        return size

    def _record(
        self,
        image: StoredImage,
        progress: Progress | None,
        on_taken: OnTaken | None,
        event: Event | None,
        *,
        are_applied: bool,
    ) -> int:
        size = 0
        blobs = []
        for layer in image.layers:
            blob = LayerBlob(
                self.blobs.blob_path(layer.blob_digest),
                layer.media_type,
                verified=True,
                paired=are_applied or self.is_pair(layer.diff_id, layer.blob_digest),
            )
            size += self.snapshotter.apply(layer.diff_id, blob, progress)
            blobs.append(replace(blob, paired=True))
        self.snapshotter.prepare([layer.diff_id for layer in image.layers], blobs, progress)
        created = parse_timestamp(image.config.created) or 0
        if abs(created) >= _TIME_LIMIT_NS:
            created = 0
        labels = json.dumps(image.config.config.get("Labels") or {})
        row = ImageRow(image.id, image.manifest_digest, image.manifest_type, created, size, labels)
        tags = [(reference.repository, reference.tag) for reference in image.references]
        taken = sql.insert(self.database, row, image.layers, tags, replace=are_applied, event=event)
        if on_taken is not None:
            for name in taken:
                on_taken(name.reference, name.image_id)
        return size

    def whole(self, image_id: str) -> tuple[ImageRow, Sequence[LayerRow]]:
        """Return an image and its layers in one read, because another process may remove or replace them.

        Args:
            image_id: full.

        Raises:
            NotFoundError: the image is gone.
        """
        row = sql.by_id(self.database, image_id)
        while row is not None:
            layers = sql.layers_of(self.database, image_id)
            before, row = row, sql.by_id(self.database, image_id)
            if row == before:
                return row, layers
        raise NotFoundError(f"no such image: {short_id(image_id)}", "it was removed just now")

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Hold the store's lock, shared: blobs and layers stay, even those of an image that is removed at the same time."""
        with self.blobs.lock(exclusive=False):
            yield

    @contextlib.contextmanager
    def workspace(self, kind: str) -> Iterator[Path]:
        """Yield a temporary directory, which is swept if its process is killed."""
        with open_workspace(self.root.temporary, kind, self._remove_tree) as workspace:
            yield workspace.path

    # -- tidying up --------------------------------------------------------------------------------------

    def sweep(self) -> None:
        """Remove the half-made and half-removed files of killed processes."""
        sweep(self.root.temporary, self._remove_tree)

    def collect(self, *, abandoned: str = "") -> bool:
        """Remove the blobs and layers that neither an image nor a lease needs.

        Args:
            abandoned: the owner whose leases end; on a full disk, a row can be removed only after the files.

        Returns:
            False if an image is being added or read: collecting is left to the next call.
        """
        done = self._collect(abandoned)
        if abandoned:
            distribution.release(self.database, abandoned)
        return done

    def _collect(self, abandoned: str) -> bool:
        with self.blobs.lock(exclusive=True, wait=False) as held:
            if not held:
                return False
            leased = distribution.leased(self.database, time.time_ns(), abandoned=abandoned)
            if chains := self.snapshotter.chains():
                needed = {
                    chain_id
                    for layers in sql.layers_by_image(self.database).values()
                    for chain_id in chain_ids([layer.diff_id for layer in layers])
                }
                for chain_id in chains:
                    if chain_id not in needed:
                        self.snapshotter.remove_chain(chain_id)
            layers = sql.referred_layers(self.database) | leased
            for diff_id in self.snapshotter.diff_ids():
                if diff_id not in layers:
                    self.snapshotter.remove(diff_id)
            blobs = sql.referred_blobs(self.database) | leased
            for digest in self.blobs.digests():
                if digest not in blobs:
                    self.blobs.remove(digest)
            PartialBlobs(self.blobs).sweep(leased)
            with contextlib.suppress(NoSpaceError):  # superfluous rows do no harm until the next time
                distribution.forget_unused(self.database)
            return True

    def _remove_tree(self, path: Path) -> None:
        self.worker.call(_REMOVE, {"path": str(path)})

    # -- index.json --------------------------------------------------------------------------------------

    def refresh_index(self) -> None:
        """Write the image layout's index.json from the database."""
        self.blobs.refresh_index(self._manifests)

    def _manifests(self) -> Sequence[Descriptor]:
        """Return the entries of index.json: one for each name, and one for each image without names."""
        entries = []
        tags = sql.tags_by_image(self.database)
        for row in sql.all_images(self.database):
            path = self.blobs.blob_path(row.manifest_digest)
            if not path.is_file():
                continue  # damaged from outside; the index names only what can be read
            names = [{REF_NAME: tag.reference} for tag in tags.get(row.id, ())] or [{}]
            size = path.stat().st_size
            entries += [Descriptor(row.manifest_type, row.manifest_digest, size, name) for name in names]
        return entries


@contextlib.contextmanager
def _noted_on(error: BaseException, step: str) -> Iterator[None]:
    """Note the failure of a cleanup step on the primary error, which is raised in its place; once is enough."""
    try:
        yield
    except (PyDockError, OSError) as secondary:
        if str(secondary) == str(error):
            return  # the cause of both is told
        error.add_note(f"and {step}: {secondary}")
