"""The use cases of images: list, inspect, history, load, import, save, capture, tag, remove."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pydock_core.engine.image_filters import parse_image_filters
from pydock_core.engine.image_removal import Changes, discard_image, remove_image
from pydock_core.engine.image_shapes import SeenImage, build_history, build_inspect, build_summary
from pydock_core.errors import NotFoundError
from pydock_core.images.image_lookup import find_image, find_to_save
from pydock_core.images.image_store import ImageStore, OnTaken
from pydock_core.images.stored import StoredImage
from pydock_core.oci.digest import short_id
from pydock_core.oci.documents import ImageConfig, decode
from pydock_core.oci.platform import Platform, host_platform, parse_platform, platform_of, runnable
from pydock_core.oci.reference import Reference, parse_tagged
from pydock_core.progress import Progress
from pydock_core.store.database import events
from pydock_core.store.database import images as sql
from pydock_core.store.database.events import Event
from pydock_core.store.database.images import DigestRow, ImageRow, TagRow

# Types that the class, which has a method "list", cannot spell.
Documents = list[dict[str, Any]]
Names = list[str]
Sizes = list[int | None]


@dataclass(frozen=True, slots=True)
class CaptureResult:
    """The result of a capture.

    Attributes:
        image_id: "sha256:...".
        notes: omitted and missing files, one line each.
        size_bytes: contents of all layers.
    """

    image_id: str
    notes: tuple[str, ...]
    size_bytes: int


class Images:
    """The images of one state root; any number of processes may use it.

    Args:
        store: of blobs, layers and rows.
    """

    def __init__(self, store: ImageStore) -> None:
        self._store = store
        self._database = store.database
        self._blobs = store.blobs
        self._configs: dict[str, ImageConfig] = {}

    # -- looking up --------------------------------------------------------------------------------------

    def resolve(self, reference: str) -> ImageRow:
        """Return the image with a name, a full id or a unique id prefix; see :func:`find_image`."""
        return find_image(self._database, reference)

    def layers(self, image_id: str) -> Names:
        """Return the diff ids of an image, bottom first."""
        return [layer.diff_id for layer in sql.layers_of(self._database, image_id)]

    def layer_sizes(self, image_id: str) -> Sizes:
        """Return the sizes of an image's layers in bytes, from the base layer up; None for a missing layer."""
        return [self._layer_size(diff_id) for diff_id in self.layers(image_id)]

    def _layer_size(self, diff_id: str) -> int | None:
        try:
            return self._store.snapshotter.size_bytes(diff_id)
        except NotFoundError:
            return None

    def config(self, image_id: str) -> dict[str, Any]:
        """Return an image's config document (image specification, config.md), by full id.

        Raises:
            NotFoundError: there is no such image.
            CorruptError: its blob is damaged.
        """
        return self._config(image_id).to_json()

    def _config(self, image_id: str) -> ImageConfig:
        # The id is the digest of the content, so a cached config stays valid.
        known = self._configs.get(image_id)
        if known is None:
            subject = f"config of image {short_id(image_id)}"
            known = ImageConfig.from_json(decode(self._blobs.read(image_id, subject), subject), subject)
            self._configs[image_id] = known
        return known

    def list(self, filters: Mapping[str, Sequence[str]] | None = None, all: bool = False) -> Documents:
        """Return ImageSummary dictionaries (Engine API), the newest first.

        Args:
            filters: dangling, label, reference, before, since, until.
            all: intermediate images too; PyDock has none, so every image is listed.

        Raises:
            InvalidError: an unknown filter.
            NotFoundError: there is no image of that name for before or since.
        """
        select = parse_image_filters(
            filters or {}, lambda name: self.resolve(name).created_ns, time.time_ns()
        )
        fitting = (select(seen) for seen in self.see_all())
        return [build_summary(seen) for seen in fitting if seen is not None]

    def see_all(self) -> Sequence[SeenImage]:
        """Return all images, the newest first; no blob is read."""
        tags = sql.tags_by_image(self._database)
        digests = sql.digests_by_image(self._database)
        counts = sql.container_counts(self._database)
        return [
            SeenImage(row, tuple(tags.get(row.id, ())), tuple(digests.get(row.id, ())), counts.get(row.id, 0))
            for row in sql.all_images(self._database)
        ]

    def see(self, row: ImageRow) -> SeenImage:
        """Return one image; no blob is read."""
        return SeenImage(
            row,
            tuple(sql.tags_of(self._database, row.id)),
            tuple(sql.digests_of(self._database, row.id)),
            len(sql.containers_of(self._database, row.id)),
        )

    def inspect(self, reference: str) -> dict[str, Any]:
        """Return the ImageInspect dictionary (Engine API) of an image."""
        seen = self.see(self.resolve(reference))
        return build_inspect(seen, self._config(seen.row.id), self._store.snapshotter.name)

    def platform(self, reference: str) -> Platform:
        """Return the platform of an image, in normal form."""
        return platform_of(self._config(self.resolve(reference).id))

    def platform_warnings(self, image_id: str) -> Names:
        """Return the warnings of an image, by full id, whose platform this host may not run."""
        config = self._config(image_id)
        platform = platform_of(config)
        if not config.architecture or platform in runnable(host_platform()):
            return []
        return [f"the image is for {platform}, which does not match this host's {host_platform()}"]

    def require_platform(self, reference: str, platform: str) -> None:
        """Check that an image is for a platform; see :meth:`ImageStore.require_platform`."""
        self._store.require_platform(self.resolve(reference).id, reference, platform)

    def content_bytes(self, reference: str) -> int:
        """Return the size of an image's blobs: its layers as pulled or loaded, its config, its manifest."""
        row = self.resolve(reference)
        digests = {layer.blob_digest for layer in sql.layers_of(self._database, row.id)}
        paths = [self._blobs.blob_path(digest) for digest in {*digests, row.id, row.manifest_digest}]
        return sum(path.stat().st_size for path in paths if path.is_file())

    def history(self, reference: str) -> Documents:
        """Return HistoryResponseItem dictionaries (Engine API), the newest step first.

        Raises:
            NotFoundError: there is no such image.
        """
        row = self.resolve(reference)
        sizes = [self._store.snapshotter.size_bytes(diff_id) for diff_id in self.layers(row.id)]
        return build_history(row.id, sql.tags_of(self._database, row.id), self._config(row.id), sizes)

    # -- adding ------------------------------------------------------------------------------------------

    def load(
        self,
        stream: BinaryIO,
        progress: Progress | None = None,
        platform: str | None = None,
        on_taken: OnTaken | None = None,
    ) -> Names:
        """Load the images of an archive (docker-archive or OCI, plain or compressed; need not be seekable).

        Args:
            platform: "os[/arch[/variant]]" that the images must be for; of an index the best match is loaded.
            on_taken: called for each name that another image had, with that image's id.

        Returns:
            the names of the loaded images, and the id of each image without a name.

        Raises:
            CorruptError, InvalidError, UnsupportedError, UnavailableError: see
                :func:`pydock_core.images.archive.load_archive`; the store is unchanged.
        """
        from pydock_core.images.archive import load_archive

        with self._store.adding("load") as directory:
            chosen = parse_platform(platform) if platform else None
            images = load_archive(stream, self._blobs, directory, _subject(stream), progress, chosen)
            self._store.record(images, progress, on_taken=on_taken, event_of=_event_of("load"))
        return [
            name
            for image in images
            for name in ([reference.familiar for reference in image.references] or [image.id])
        ]

    def import_(
        self,
        stream: BinaryIO,
        reference: str | None = None,
        changes: Sequence[str] = (),
        message: str | None = None,
        progress: Progress | None = None,
        platform: str | None = None,
    ) -> str:
        """Make an image of the tar of a root file system; return its id.

        Args:
            stream: plain or compressed; need not be seekable.
            reference: its name, if any.
            changes: Dockerfile instructions, see :func:`pydock_core.images.changes.apply_changes`.
            message: for the history.
            progress: receives events.
            platform: "os[/arch[/variant]]" of the image; this host's by default.
        """
        from pydock_core.images.root_archive import import_root

        with self._store.adding("import") as directory:
            image = import_root(
                stream,
                self._blobs,
                directory,
                _subject(stream),
                references=_named(reference),
                changes=changes or (),
                message=message or "",
                progress=progress,
                platform=parse_platform(platform) if platform else None,
            )
            self._store.record([image], progress, event_of=_event_of("import"))
        return image.id

    def save(
        self,
        references: Sequence[str],
        stream: BinaryIO,
        progress: Progress | None = None,
        platform: str | None = None,
    ) -> None:
        """Write images to an archive that is a docker-archive and an OCI layout; see
        :mod:`pydock_core.images.archive_writer`.

        Args:
            references: as for ``docker save``: a name with its tag; a repository, for all its tags; or an id or a digest,
                for an image without names.
            stream: one with a descriptor is written within the kernel.
            progress: receives events.
            platform: "os[/arch[/variant]]" that all of them must be for.

        Raises:
            NotFoundError: there is no such image, or not for that platform.
            FailedError: the stream's reader is gone.
            UnavailableError: the target's disk is full.
        """
        from pydock_core.images.archive_writer import save_archive

        with self._store.reading():
            images = find_to_save(self._store, references, platform)
            save_archive(images, self._blobs, stream, progress)
        events.note(self._database, *(sql.build_event("save", image.id, None) for image in images))

    def capture(
        self,
        reference: str | None,
        prefix: Path,
        paths: Sequence[Path] = (),
        progress: Progress | None = None,
    ) -> CaptureResult:
        """Make an image of a Python environment; see :func:`pydock_core.images.capture.image.capture_environment`.

        Args:
            reference: its name, if any.
            prefix: of the environment: ``sys.prefix``, or another virtual or conda environment's directory.
            paths: additional files and directories, absolute.
            progress: receives events.
        """
        from pydock_core.images.capture.image import capture_environment

        references = _named(reference)
        with self._store.adding("capture") as directory:
            captured = capture_environment(prefix, paths, self._blobs, directory, references, progress)
            size = self._store.record(
                [captured.image],
                progress and captured.name_layers(progress),
                event_of=_event_of("import"),
            )
        return CaptureResult(captured.image.id, captured.notes, size)

    # -- naming and removing -----------------------------------------------------------------------------

    def tag(self, source: str, target: str) -> None:
        """Give an image another name; an image that had the name loses it.

        Raises:
            NotFoundError: there is no image ``source``.
            InvalidError: ``target`` is malformed.
        """
        name = parse_tagged(target)
        row = self.resolve(source)
        event = sql.build_event("tag", row.id, json.loads(row.labels or "{}"), name=name.familiar)
        if not sql.set_tag(self._database, name.repository, name.tag, row.id, event):
            raise NotFoundError(f"no such image: {source}", "it was removed just now")
        self._store.refresh_index()

    def remove(self, reference: str, force: bool = False) -> Changes:
        """Remove a name, and with the last name the image; see :func:`remove_image`."""
        row = self.resolve(reference)
        changes = remove_image(self._store, row, reference, force=force)
        self._configs.pop(row.id, None)
        return changes

    def discard(self, row: ImageRow, tags: Sequence[TagRow], digests: Sequence[DigestRow]) -> Changes:
        """Remove the last names of an image, and its row; see :func:`discard_image`."""
        self._configs.pop(row.id, None)
        return discard_image(self._store, row, tags, digests)


def _event_of(action: str) -> Callable[[StoredImage], Event]:
    return lambda image: sql.build_event(action, image.id, image.config.config.get("Labels"))


def _named(reference: str | None) -> tuple[Reference, ...]:
    return (parse_tagged(reference),) if reference else ()


def _subject(stream: BinaryIO) -> str:
    """Return the name of an archive for messages."""
    name = getattr(stream, "name", None)
    return (
        f"archive {name}"
        if isinstance(name, str) and not name.startswith("<")
        else "archive from standard input"
    )
