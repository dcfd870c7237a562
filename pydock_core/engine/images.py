"""The use cases of images: list, inspect, history, load, import, tag, remove, capture, and what containers ask of
them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from pydock_core.engine.image_filters import parse_image_filters
from pydock_core.engine.image_shapes import SeenImage, build_history, build_inspect, build_summary
from pydock_core.engine.image_store import ImageStore, OnTaken
from pydock_core.errors import ConflictError, InvalidError, NotFoundError
from pydock_core.oci.digest import is_digest, short_id
from pydock_core.oci.documents import ImageConfig, decode
from pydock_core.oci.platform import Platform, host_platform, parse_platform, platform_of, runnable
from pydock_core.oci.reference import Reference, parse_reference, parse_tagged
from pydock_core.store.database import images as sql
from pydock_core.store.database.images import DigestRow, ImageRow, TagRow
from pydock_core.store.worker import Progress

if TYPE_CHECKING:
    from pydock_core.images.archive_writer import ImageToSave

# Names for what the class, which has a method "list", cannot spell.
Documents = list[dict[str, Any]]
Changes = list[dict[str, str]]
Names = list[str]
NameRow = TagRow | DigestRow

_ID_PREFIX = re.compile(r"[0-9a-f]{1,64}")


@dataclass(frozen=True, slots=True)
class CaptureResult:
    """What a capture made.

    Attributes:
        image_id: "sha256:...".
        notes: what was left out or is missing, one line each.
        size_bytes: contents of all layers.
    """

    image_id: str
    notes: tuple[str, ...]
    size_bytes: int


class Images:
    """The images of one state root; any number of processes may have one.

    Args:
        store: keeps blobs, layers and rows.
    """

    def __init__(self, store: ImageStore) -> None:
        self._store = store
        self._database = store.database
        self._blobs = store.blobs
        self._configs: dict[str, ImageConfig] = {}

    # -- looking up --------------------------------------------------------------------------------------

    def resolve(self, reference: str) -> ImageRow:
        """Return the image that a name, a full id or a unique id prefix names.

        Raises:
            NotFoundError: there is none.
            ConflictError: the prefix fits several.
            InvalidError: it is neither an id nor a name.
        """
        row = self._by_id(reference) or self._by_name(reference)
        if row is None:
            raise NotFoundError(
                f"no such image: {reference}",
                "dock images lists what there is; dock pull, dock load and dock image capture get more",
            )
        return row

    def _by_name(self, text: str) -> ImageRow | None:
        if text.startswith("sha256:"):
            return None
        try:
            reference = parse_reference(text).with_default_tag()
        except InvalidError:
            if _ID_PREFIX.fullmatch(text):
                return None  # 64 digits: an id, and no name
            raise
        if reference.digest:
            return sql.by_digest(self._database, reference.repository, reference.digest)
        return sql.by_tag(self._database, reference.repository, reference.tag)

    def _by_id(self, text: str) -> ImageRow | None:
        if is_digest(text):
            return sql.by_id(self._database, text)
        hexadecimal = text.removeprefix("sha256:")
        if not _ID_PREFIX.fullmatch(hexadecimal):
            return None
        if hexadecimal == text and (row := self._by_name(text)) is not None:
            return row  # as Docker: a name goes before a prefix that looks like it
        rows = sql.by_id_prefix(self._database, hexadecimal)
        if len(rows) > 1:
            raise ConflictError(f"image id prefix {text} fits several images", "give more of its digits")
        return rows[0] if rows else None

    def layers(self, image_id: str) -> Names:
        """Return the diff ids of an image, bottom first."""
        return [layer.diff_id for layer in sql.layers_of(self._database, image_id)]

    def config(self, image_id: str) -> dict[str, Any]:
        """Return an image's config document (image specification, config.md), by full id.

        Raises:
            NotFoundError: there is no such image.
            CorruptError: its blob is damaged.
        """
        return self._config(image_id).to_json()

    def _config(self, image_id: str) -> ImageConfig:
        # The id is the digest of the content, so what is known stays right.
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
            all: intermediate images too; there are none here, every image is listed.

        Raises:
            InvalidError: an unknown filter.
            NotFoundError: before or since name no image.
        """
        wanted = parse_image_filters(
            filters or {}, lambda name: self.resolve(name).created_ns, time.time_ns()
        )
        fitting = (wanted(seen) for seen in self.see_all())
        return [build_summary(seen) for seen in fitting if seen is not None]

    def see_all(self) -> Sequence[SeenImage]:
        """Look at all images, the newest first; no blob is read."""
        tags = sql.tags_by_image(self._database)
        digests = sql.digests_by_image(self._database)
        counts = sql.container_counts(self._database)
        return [
            SeenImage(row, tuple(tags.get(row.id, ())), tuple(digests.get(row.id, ())), counts.get(row.id, 0))
            for row in sql.all_images(self._database)
        ]

    def see(self, row: ImageRow) -> SeenImage:
        """Look at one image; no blob is read."""
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
        """Return the platform that an image is for, in normal form."""
        return platform_of(self._config(self.resolve(reference).id))

    def platform_warnings(self, image_id: str) -> Names:
        """Return what is to be said of an image that this host may not be able to run, by full id."""
        config = self._config(image_id)
        its_own = platform_of(config)
        if not config.architecture or its_own in runnable(host_platform()):
            return []
        return [f"the image is for {its_own}, which does not match this host's {host_platform()}"]

    def require_platform(self, reference: str, wanted: str) -> None:
        """Look whether an image is for a platform; see :meth:`ImageStore.require_platform`."""
        self._store.require_platform(self.resolve(reference).id, reference, wanted)

    def content_bytes(self, reference: str) -> int:
        """Return the size of an image's blobs: its layers as they were pulled or loaded, its config, its manifest."""
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
            platform: "os[/arch[/variant]]" that the images must be for; of an index the best that runs there.
            on_taken: is told of each name that another image had, and of that image's id.

        Returns:
            a name for each name that was given, and the id of each image without a name.

        Raises:
            CorruptError, InvalidError, UnsupportedError, UnavailableError: see
                :func:`pydock_core.images.archive.load_archive`; the store is as it was.
        """
        from pydock_core.images.archive import load_archive

        with self._store.adding("load") as directory:
            wanted = parse_platform(platform) if platform else None
            images = load_archive(stream, self._blobs, directory, _subject(stream), progress, wanted)
            self._store.record(images, progress, on_taken=on_taken)
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
            progress: gets events.
            platform: "os[/arch[/variant]]" that the image is said to be for; this host's by default.
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
            self._store.record([image], progress)
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
            references: a name with its tag; a repository, for all its tags; or an id or a digest, for an image without
                names.  As ``docker save``.
            stream: with a descriptor the data goes there within the kernel.
            progress: gets events.
            platform: "os[/arch[/variant]]" that all of them must be for.

        Raises:
            NotFoundError: there is no such image, or not for that platform.
            FailedError: the stream's reader has gone.
            UnavailableError: the disk that it goes to is full.
        """
        from pydock_core.images.archive_writer import save_archive

        with self._store.reading():
            images = self._to_save(references, platform)
            save_archive(images, self._blobs, stream, progress)

    def _to_save(self, references: Sequence[str], platform: str | None) -> Sequence[ImageToSave]:
        from pydock_core.images.archive_writer import ImageToSave

        names: dict[str, dict[Reference, None]] = {}
        for text in references:
            for row, reference in self._named_for_saving(text):
                if platform:
                    self.require_platform(reference.familiar if reference else text, platform)
                names.setdefault(row.id, {}).update({reference: None} if reference else {})
        found = []
        for image_id in names:
            row, layers = self._store.whole(image_id)
            found.append(
                ImageToSave(
                    row.id, row.manifest_digest, row.manifest_type, tuple(layers), tuple(names[row.id])
                )
            )
        return found

    def _named_for_saving(self, text: str) -> Sequence[tuple[ImageRow, Reference | None]]:
        """The images that a word names, each with the name that it is to have in an archive."""
        try:
            # "sha256:..." would be a repository of that name.
            reference = None if text.startswith("sha256:") else parse_reference(text)
        except InvalidError:
            reference = None
        if reference is None:
            return [(self.resolve(text), None)]
        if not reference.tag and not reference.digest:
            tags = [tag for tag in sql.all_tags(self._database) if tag.repository == reference.repository]
            if tags:
                return [(self.resolve(tag.reference), parse_tagged(tag.reference)) for tag in tags]
        row = self.resolve(text)
        is_named = bool(reference.tag) and not reference.digest
        return [(row, reference if is_named else None)]

    def capture(
        self,
        reference: str | None,
        prefix: Path,
        paths: Sequence[Path] = (),
        progress: Progress | None = None,
    ) -> CaptureResult:
        """Make an image of a Python environment; see :func:`pydock_core.images.capture.capture_environment`.

        Args:
            reference: its name, if any.
            prefix: of the environment: ``sys.prefix``, or another virtual or conda environment's directory.
            paths: files and directories to take along, absolute.
            progress: gets events.
        """
        from pydock_core.images.capture import capture_environment

        references = _named(reference)
        with self._store.adding("capture") as directory:
            captured = capture_environment(prefix, paths, self._blobs, directory, references, progress)
            size = self._store.record([captured.image], progress)
        return CaptureResult(captured.image.id, captured.notes, size)

    # -- naming and removing -----------------------------------------------------------------------------

    def tag(self, source: str, target: str) -> None:
        """Give an image a further name; another image that had it loses it.

        Raises:
            NotFoundError: there is no image ``source``.
            InvalidError: ``target`` is no name.
        """
        name = parse_tagged(target)
        row = self.resolve(source)
        if not sql.set_tag(self._database, name.repository, name.tag, row.id):
            raise NotFoundError(f"no such image: {source}", "it was removed just now")
        self._store.refresh_index()

    def remove(self, reference: str, force: bool = False) -> Changes:
        """Take a name away; with the last one, or by id, remove the image with what no other image needs.

        Docker's rules: an image that a container uses keeps its last name unless ``force``, and is kept
        itself as long as the container is there; one with several names is removed by id only with ``force``,
        and one that a running container uses not even then.

        Returns:
            {"Untagged": NAME} and {"Deleted": DIGEST} in order (Engine API, ImageDeleteResponseItem).

        Raises:
            NotFoundError: there is no such image.
            ConflictError: a container uses it, or it has several names.
        """
        self._store.sweep()
        row = self.resolve(reference)
        tags = sql.tags_of(self._database, row.id)
        digests = sql.digests_of(self._database, row.id)
        named = self._names(reference, tags, digests)
        going_tags, going_digests = self._going(named, tags, digests)
        names: tuple[NameRow, ...] = (*tags, *digests)
        used_by = sql.containers_of(self._database, row.id)
        if named is not None and (len(going_tags) < len(tags) or len(going_digests) < len(digests)):
            return self._untag(going_tags, going_digests)
        running = named is None and next((user for user in used_by if self._is_running(user)), "")
        if running:
            raise ConflictError(
                f"image {short_id(row.id)} cannot be removed: container {running[:12]} runs from it",
                f"stop the container first: dock stop {running[:12]}",
            )
        if used_by and not (force and names):
            raise self._in_use(reference, row, used_by, by_name=named is not None)
        if named is None and not force and len({name.repository for name in names}) > 1:
            raise ConflictError(
                f"image {short_id(row.id)} has names in several repositories",
                "remove it by its names, or with -f: " + ", ".join(name.reference for name in names),
            )
        if used_by:
            return self._untag(going_tags, going_digests)
        changes = self.discard(row, going_tags, going_digests)
        self._store.collect()
        return changes

    def discard(self, row: ImageRow, tags: Sequence[TagRow], digests: Sequence[DigestRow]) -> Changes:
        """Take the last names of an image away and forget it; its parts go when they are collected.

        Returns:
            see :meth:`remove`.

        Raises:
            ConflictError: a container was made from it just now, or it got another name.
        """
        layers = sql.layers_of(self._database, row.id)
        if not sql.delete_unused(self._database, row.id, tags, digests):
            raise ConflictError(f"image {short_id(row.id)} was used or named just now", "try again")
        self._configs.pop(row.id, None)
        self._store.refresh_index()
        kept = sql.referred_layers(self._database)
        gone = [layer.diff_id for layer in reversed(layers) if layer.diff_id not in kept]
        return [
            *_untagged(tags, digests),
            {"Deleted": row.id},
            *({"Deleted": diff_id} for diff_id in dict.fromkeys(gone)),
        ]

    @staticmethod
    def _going(
        named: NameRow | None, tags: Sequence[TagRow], digests: Sequence[DigestRow]
    ) -> tuple[Sequence[TagRow], Sequence[DigestRow]]:
        """What goes with a name: with the last tag of a repository, its digests too (Docker's rule); by id, all."""
        if named is None:
            return tags, digests
        if isinstance(named, DigestRow):
            return (), (named,)
        if any(tag != named and tag.repository == named.repository for tag in tags):
            return (named,), ()
        return (named,), [digest for digest in digests if digest.repository == named.repository]

    def _untag(self, tags: Sequence[TagRow], digests: Sequence[DigestRow]) -> Changes:
        sql.delete_names(self._database, tags, digests)
        self._store.refresh_index()
        return _untagged(tags, digests)

    @staticmethod
    def _names(reference: str, tags: Sequence[TagRow], digests: Sequence[DigestRow]) -> NameRow | None:
        """The name that ``reference`` is; None where it is an id."""
        try:
            name = parse_reference(reference).with_default_tag()
        except InvalidError:
            return None
        wanted = name.digest or name.tag
        rows: Sequence[NameRow] = digests if name.digest else tags
        return next(
            (
                row
                for row in rows
                if (row.repository, row.digest if isinstance(row, DigestRow) else row.tag)
                == (name.repository, wanted)
            ),
            None,
        )

    def _is_running(self, container_id: str) -> bool:
        from pydock_core.supervision.container_status import derive_status  # late: for a removal only

        return derive_status(self._store.root.container(container_id)).is_running

    @staticmethod
    def _in_use(reference: str, row: ImageRow, used_by: Sequence[str], *, by_name: bool) -> ConflictError:
        subject = f"name {reference}" if by_name else f"image {short_id(row.id)}"
        return ConflictError(
            f"{subject} cannot be removed: container {used_by[0][:12]} uses image {short_id(row.id)}",
            f"remove its containers first: dock rm -f {' '.join(user[:12] for user in used_by)}"
            + ("; or use rmi -f, which removes only the name" if by_name else ""),
        )


def _untagged(tags: Sequence[TagRow], digests: Sequence[DigestRow]) -> Changes:
    names: tuple[NameRow, ...] = (*tags, *digests)
    return [{"Untagged": name.reference} for name in names]


def _named(reference: str | None) -> tuple[Reference, ...]:
    return (parse_tagged(reference),) if reference else ()


def _subject(stream: BinaryIO) -> str:
    """How an archive is called in messages."""
    name = getattr(stream, "name", None)
    return (
        f"archive {name}"
        if isinstance(name, str) and not name.startswith("<")
        else "archive from standard input"
    )
