"""Writes archives that are both a docker-archive and an OCI layout, as Docker 25 and newer do.

manifest.json and repositories are Docker's ("Image Specification v1.2"); oci-layout, index.json and the blobs are the
image specification's (image-layout.md), and manifest.json names the same blobs.  Each blob is written once, in its stored
form, compressed or not; the same images give the same bytes.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, BinaryIO

from pydock_core.errors import CorruptError
from pydock_core.oci.digest import digest_hex, short_id
from pydock_core.oci.documents import (
    CONTAINERD_NAME,
    REF_NAME,
    Descriptor,
    Index,
    Manifest,
    decode,
    encode,
)
from pydock_core.oci.reference import Reference
from pydock_core.progress import Progress
from pydock_core.store.blobs import BlobStore
from pydock_core.store.compression import ANEW
from pydock_core.store.database.images import LayerRow
from pydock_core.store.pipe import writing_archive, writing_end
from pydock_core.store.tar_writer import TarWriter, build_header, write_all

_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
_PROGRESS_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class ImageToSave:
    """One image of an archive.

    Attributes:
        id: digest of the config.
        manifest_digest, manifest_type: of its manifest.
        layers: bottom first.
        references: its names in the archive, each with a tag; none for an image saved by its id.
    """

    id: str
    manifest_digest: str
    manifest_type: str
    layers: tuple[LayerRow, ...]
    references: tuple[Reference, ...]


def save_archive(
    images: Sequence[ImageToSave], blobs: BlobStore, stream: BinaryIO, progress: Progress | None = None
) -> None:
    """Write an archive to a stream (:func:`write_archive`), and map write errors to PyDockError.

    Raises:
        FailedError: the stream's reader is gone, or its target is full.
        UnavailableError: the disk is full.
    """
    with writing_archive(), writing_end(stream) as fd:
        write_archive(images, blobs, fd, progress)


def write_archive(
    images: Sequence[ImageToSave], blobs: BlobStore, fd: int, progress: Progress | None = None
) -> int:
    """Write the archive of some images.

    Args:
        images: each id once, in the order of manifest.json.
        blobs: contains their blobs; the caller holds its lock, shared.
        fd: the target: a blocking file, pipe or socket.
        progress: receives {"status": "Saving", "current", "total"} (bytes of blobs) every few megabytes.

    Returns:
        the number of bytes written.

    Raises:
        NotFoundError: a blob is missing.
        CorruptError: a manifest is damaged, or a blob's size is not its manifest's.
        OSError: writing failed.
    """
    archive = _Archive(blobs)
    for image in images:
        archive.add(image)
    output = TarWriter(partial(write_all, fd), fd, archive.reporter(progress))
    for name, content in archive.members():
        if content is None:
            output.put(build_header(name.encode(), stat.S_IFDIR, mode=0o755))
        elif isinstance(content, bytes):
            output.put(
                build_header(name.encode(), stat.S_IFREG, mode=0o644, size_bytes=len(content)) + content
            )
            output.pad(len(content))
        else:
            archive.copy(output, name, content)
    output.finish()
    return output.size_bytes


class _Archive:
    """Collects the contents of one archive."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._kept: dict[str, Descriptor] = {}
        self._documents: list[dict[str, Any]] = []
        self._entries: list[Descriptor] = []
        self._repositories: dict[str, dict[str, str]] = {}

    def add(self, image: ImageToSave) -> None:
        subject = f"manifest of image {short_id(image.id)}"
        data = self._blobs.read(image.manifest_digest, subject)
        manifest = Manifest.from_json(decode(data, subject), subject)
        described = Descriptor(image.manifest_type, image.manifest_digest, len(data))
        for descriptor in (described, manifest.config, *manifest.layers):
            self._kept[descriptor.digest] = descriptor
        sources = {
            layer.diff_id: replace(descriptor, annotations={}, urls=()).to_json()
            for layer, descriptor in zip(image.layers, manifest.layers, strict=True)
        }
        self._documents.append(
            {
                "Config": _blob_name(image.id),
                "RepoTags": [reference.familiar for reference in image.references] or None,
                "Layers": [_blob_name(layer.blob_digest) for layer in image.layers],
                "LayerSources": sources,
            }
        )
        self._entries += [
            replace(described, annotations={CONTAINERD_NAME: reference.canonical, REF_NAME: reference.tag})
            for reference in image.references
        ] or [described]
        for reference in image.references if image.layers else ():
            tags = self._repositories.setdefault(reference.repository, {})
            tags[reference.tag] = digest_hex(image.layers[-1].blob_digest)

    def members(self) -> Iterator[tuple[str, bytes | Descriptor | None]]:
        """Return the files by name, with their content or its blob; directories with None."""
        yield "blobs", None
        yield "blobs/sha256", None
        for digest in sorted(self._kept):
            yield _blob_name(digest), self._kept[digest]
        yield "index.json", encode(Index(tuple(self._entries)).to_json())
        yield "manifest.json", json.dumps(self._documents, separators=(",", ":")).encode()
        yield "oci-layout", _LAYOUT
        if self._repositories:
            yield "repositories", _sorted(self._repositories)

    def reporter(self, progress: Progress | None) -> Callable[[int], None] | None:
        """Return a callback that reports the writer's progress."""
        if progress is None:
            return None
        total = sum(blob.size_bytes for blob in self._kept.values())
        reported = 0

        def report(written: int) -> None:
            nonlocal reported
            if written - reported >= _PROGRESS_BYTES:
                reported = written
                progress({"status": "Saving", "current": min(written, total), "total": total})

        return report

    def copy(self, output: TarWriter, name: str, blob: Descriptor) -> None:
        subject = f"blob {blob.digest}"
        with self._blobs.open(blob.digest, subject) as file:
            fd = file.fileno()
            size = os.fstat(fd).st_size
            if size != blob.size_bytes:
                raise CorruptError(f"{subject} has {size} bytes, not {blob.size_bytes}", ANEW)
            output.put(build_header(name.encode(), stat.S_IFREG, mode=0o644, size_bytes=size))
            if not output.copy(fd, size):
                raise CorruptError(f"{subject} became shorter while it was read", ANEW)


def _blob_name(digest: str) -> str:
    return f"blobs/sha256/{digest_hex(digest)}"


def _sorted(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
