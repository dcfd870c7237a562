"""Makes an image from the tar of a root file system: one layer, and a config from Dockerfile instructions."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from pydock_core.errors import CorruptError, InvalidError
from pydock_core.images.changes import apply_changes
from pydock_core.images.stored import StoredImage, store_image
from pydock_core.oci.documents import ImageConfig, encode, layer_media_type
from pydock_core.oci.platform import Platform, host_architecture
from pydock_core.oci.reference import Reference
from pydock_core.oci.timestamp import format_timestamp
from pydock_core.progress import Progress
from pydock_core.store.blobs import BlobStore, BlobWriter
from pydock_core.store.compression import ANEW, InflationLimit, open_plain, peek_compression, peekable
from pydock_core.store.database.images import LayerRow
from pydock_core.store.tar_reader import TarReader
from pydock_core.store.tar_source import CHUNK_BYTES, StreamSource

_PROGRESS_BYTES = 8 << 20


def import_root(
    stream: BinaryIO,
    blobs: BlobStore,
    directory: Path,
    subject: str,
    *,
    references: Sequence[Reference] = (),
    changes: Sequence[str] = (),
    message: str = "",
    progress: Progress | None = None,
    platform: Platform | None = None,
) -> StoredImage:
    """Put the image of a root file system's tar into the blob store.

    Args:
        stream: plain or compressed; need not be seekable.
        blobs: the blob store; the caller holds its lock, shared.
        directory: a workspace on the blob store's file system.
        subject: names the archive in errors.
        references: names for the image.
        changes: Dockerfile instructions.
        message: for the history.
        progress: receives {"status": "Importing", "current"}.
        platform: of the image; this host's by default.

    Raises:
        CorruptError: the archive is damaged or truncated.
        InvalidError: it is empty, or a change is malformed.
        UnavailableError: the disk is full.
    """
    execution = apply_changes({}, changes)
    comment = message or "Imported from -"  # Docker's wording, because its client sends files, too
    with BlobWriter(directory / "root.tar", subject) as writer:
        _copy_checked(stream, writer, subject, progress)
        diff_id = blobs.put(writer, subject=subject)
    said = platform or Platform("linux", *host_architecture())
    created = format_timestamp(time.time_ns())
    config = ImageConfig(
        architecture=said.architecture,
        os=said.os,
        variant=said.variant,
        diff_ids=(diff_id,),
        config=execution,
        created=created,
        comment=comment,
        history=({"created": created, "comment": comment},),
    )
    layer = LayerRow(diff_id, diff_id, layer_media_type(""))
    return store_image(blobs, directory, encode(config.to_json()), config, [layer], references)


def _copy_checked(stream: BinaryIO, writer: BlobWriter, subject: str, progress: Progress | None) -> None:
    """Copy the plain archive and check its headers on the way, because no digest verifies it."""
    buffered = peekable(stream)
    if not buffered.peek(1):
        raise InvalidError(f"{subject} is empty", "check the file's name")
    limit = InflationLimit.for_file_system(writer.path.parent)
    plain = open_plain(buffered, peek_compression(buffered), subject, limit)
    copying = _Copying(plain, writer, progress)
    reader = TarReader(StreamSource(copying), subject)
    for _ in reader:
        pass
    if not reader.ended:
        raise CorruptError(f"{subject} is truncated: it has no end marker", ANEW)
    while copying.read(CHUNK_BYTES):
        pass  # the padding after the end marker


class _Copying:
    """Writes what is read through it."""

    def __init__(self, stream: BinaryIO, writer: BlobWriter, progress: Progress | None) -> None:
        self._stream = stream
        self._writer = writer
        self._progress = progress
        self._reported = 0

    def read(self, size: int = -1, /) -> bytes:
        data = self._stream.read(size)
        self._writer.write(data)
        if self._progress and self._writer.size_bytes - self._reported >= _PROGRESS_BYTES:
            self._reported = self._writer.size_bytes
            self._progress({"status": "Importing", "current": self._reported})
        return data
