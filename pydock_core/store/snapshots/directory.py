"""The directory driver: every layer is a directory tree, and overlayfs stacks them.

A layer's entry (see :mod:`pydock_core.store.snapshots.shelf`) has::

    HEX/fs/         the layer's tree, with overlayfs's whiteouts and opaque directories
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from pydock_core import syscalls
from pydock_core.errors import UnsupportedError
from pydock_core.oci.digest import short_id
from pydock_core.oci.documents import layer_compression
from pydock_core.oci.root_mount import RootMount
from pydock_core.paths import StateRoot
from pydock_core.private_files import open_private
from pydock_core.progress import Progress
from pydock_core.store.compression import ANEW, BUFFER_BYTES, InflationLimit, open_plain
from pydock_core.store.durable import mapped
from pydock_core.store.growing_file import FollowingDigest
from pydock_core.store.layer_blob import LayerBlob
from pydock_core.store.layer_digest import HashingStream, check_digest, check_pair
from pydock_core.store.layer_rules import Applied
from pydock_core.store.layer_tar import LayerApplier
from pydock_core.store.pipe import reading_end
from pydock_core.store.snapshots.shelf import METADATA, Shelf
from pydock_core.store.snapshots.stack import DirectoryView, LayerView, read_merged, root_mounts
from pydock_core.store.tar_reader import TarReader
from pydock_core.store.tar_source import CHUNK_BYTES, FileSource, StreamSource
from pydock_core.store.worker import Worker

_APPLY = "pydock_core.store.snapshots.directory:apply_blob"
TREE = "fs"
# Enough for a header and the data of small files; the data of larger ones bypasses the buffer.
_HEADER_BUFFER_BYTES = 32 << 10


class DirectorySnapshotter:
    """Keeps layers as directory trees; see :class:`pydock_core.store.snapshots.protocol.Snapshotter`.

    :class:`pydock_core.store.snapshots.layers.Layers` adds the protocol's methods for chains.

    Args:
        root: the state root, with its skeleton made.
        worker: makes and removes trees as root of the user's namespace.
        user_xattrs: overlayfs is mounted in a user namespace and keeps its attributes under "user."; the default is
            whether this process is not root of the host.

    Attributes:
        shelf: the directory of the layers.
        worker, user_xattrs: as in Args.
    """

    name = "directory"

    def __init__(self, root: StateRoot, worker: Worker, *, user_xattrs: bool | None = None) -> None:
        self.shelf = Shelf(root, self.name, worker)
        self.worker = worker
        self.user_xattrs = needs_user_xattrs() if user_xattrs is None else user_xattrs
        self.options = ("userxattr",) if self.user_xattrs else ()

    def has(self, diff_id: str) -> bool:
        """See the protocol."""
        return self.shelf.has(diff_id)

    def size_bytes(self, diff_id: str) -> int:
        """See the protocol."""
        return int(self.shelf.metadata(diff_id)["size_bytes"])

    def diff_ids(self) -> list[str]:
        """See the protocol."""
        return self.shelf.diff_ids()

    def apply(self, diff_id: str, blob: LayerBlob, progress: Progress | None = None) -> int:
        """See the protocol."""
        if self.has(diff_id):
            check_pair(diff_id, blob)
            return self.size_bytes(diff_id)
        with self.shelf.making(self.shelf.place(diff_id), f"layer {short_id(diff_id)}") as made:
            arguments = {
                "media_type": blob.media_type,
                "diff_id": diff_id,
                "target": str(made.path),
                "user_xattrs": self.user_xattrs,
                "size_bytes": 0 if blob.arrival else blob.path.stat().st_size,
                "is_verified": blob.arrival is None and blob.is_known_as(diff_id),
            }
            with reading_end(blob) as blob_fd:
                self.worker.call(_APPLY, arguments, (blob_fd, made.lock_fd), progress)
        return self.size_bytes(diff_id)

    def mounts(self, diff_ids: Sequence[str], upper: Path | None, work: Path | None) -> tuple[RootMount, ...]:
        """See the protocol."""
        empty = "" if diff_ids else self.shelf.empty()
        return root_mounts([self], diff_ids, upper, work, options=self.options, empty=empty)

    def lower(self, diff_id: str) -> tuple[str, tuple[RootMount, ...], bool]:
        """See :class:`pydock_core.store.snapshots.stack.Driver`."""
        metadata = self.shelf.metadata(diff_id)
        return f"{self.shelf.place(diff_id)}/{TREE}", (), bool(metadata["opaque_root"])

    def metadata(self, diff_id: str) -> Mapping[str, Any]:
        """See :class:`pydock_core.store.snapshots.stack.Driver`."""
        return self.shelf.metadata(diff_id)

    def view(self, diff_id: str) -> LayerView:
        """See :class:`pydock_core.store.snapshots.stack.Driver`."""
        return DirectoryView(f"{self.shelf.place(diff_id)}/{TREE}")

    def read_file(self, diff_ids: Sequence[str], path: str, upper: Path | None = None) -> bytes | None:
        """See the protocol."""
        return read_merged([self], diff_ids, path, upper)

    def status(self) -> list[tuple[str, str]]:
        """See the protocol."""
        return [("Layers as directories", str(len(self.diff_ids())))]

    def remove(self, diff_id: str) -> None:
        """See the protocol."""
        self.shelf.discard(self.shelf.place(diff_id))

    def empty(self) -> str:
        """Return an empty directory: the bottom of an image without layers."""
        return self.shelf.empty()


def needs_user_xattrs() -> bool:
    """Whether overlayfs mounts of this user need ``userxattr``, because "trusted." attributes require root of the host."""
    if os.geteuid() != 0:
        return True
    with open("/proc/self/uid_map", encoding="ascii") as file:
        return file.read().split() != ["0", "0", "4294967295"]


def has_one_id() -> bool:
    """Whether the user namespace of this process maps only one id, that of a user without subordinate ids."""
    with open("/proc/self/uid_map", encoding="ascii") as file:
        return [line.split()[2] for line in file] == ["1"]


def apply_blob(
    media_type: str,
    diff_id: str,
    target: str,
    user_xattrs: bool,
    size_bytes: int,
    is_verified: bool,
    *,
    fds: Sequence[int] = (),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Make ``target``/fs and ``target``/layer.json from a layer's blob, and sync them.  A worker function.

    Args:
        media_type: tells the blob's compression.
        diff_id: the expected digest of the uncompressed tar.
        target: an empty directory.
        user_xattrs: see :class:`DirectorySnapshotter`.
        size_bytes: of the blob; 0 if it arrives through a pipe.
        is_verified: a plain blob is known to have the digest, which is not computed again.
        fds: the blob, a file at its start or a pipe; and descriptors to keep open during the job.
        progress: see the protocol's ``apply``.

    Returns:
        a :class:`pydock_core.store.layer_rules.Applied`, as a dictionary.

    Raises:
        CorruptError, InvalidError, UnavailableError, UnsupportedError: as in the protocol's ``apply``.
    """
    compression = layer_compression(media_type)
    if compression is None:
        raise UnsupportedError(f"layer {diff_id} has media type {media_type!r}, which is not a layer's", ANEW)
    subject = f"layer {short_id(diff_id)}"
    tree = os.path.join(target, TREE)
    with mapped(subject, "apply", "see dock doctor"):
        os.mkdir(tree, 0o755)
        os.chmod(tree, 0o755)
        root_fd = os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:

            def report(current: int) -> None:
                if progress is not None:
                    progress(
                        {
                            "status": "Extracting",
                            "id": short_id(diff_id),
                            "current": current,
                            "total": size_bytes,
                        }
                    )

            applier = LayerApplier(
                root_fd,
                user_xattrs=user_xattrs,
                squash_owners=has_one_id(),
                subject=subject,
                progress=report,
            )
            applied = apply_archive(
                applier,
                fds[0],
                compression,
                "" if is_verified else diff_id,
                subject,
                InflationLimit.for_file_system(root_fd),
                is_file=bool(size_bytes),
            )
            result = asdict(applied)
            write_metadata(os.path.join(target, METADATA), result)
            syscalls.syncfs(root_fd)
        finally:
            os.close(root_fd)
    return result


def apply_archive(
    applier: LayerApplier,
    fd: int,
    compression: str,
    diff_id: str,
    subject: str,
    limit: InflationLimit,
    *,
    is_file: bool,
) -> Applied:
    """Apply a layer's blob with an applier, and compare its digest.

    Args:
        fd: the blob, a file at its start or a pipe.
        compression: of the blob, "" for none.
        diff_id: the expected digest of the uncompressed tar; "" for a plain file whose digest is known.
        is_file: the blob is a file.
    """
    buffer_bytes = BUFFER_BYTES if compression or not is_file else _HEADER_BUFFER_BYTES
    with open(fd, "rb", buffering=buffer_bytes, closefd=False) as file:
        if compression or not is_file:
            return _apply_stream(applier, open_plain(file, compression, subject, limit), diff_id, subject)
        return _apply_file(applier, file, diff_id, subject)


def _apply_file(applier: LayerApplier, file: BinaryIO, diff_id: str, subject: str) -> Applied:
    """Apply a plain tar: the kernel copies from file to file, while a thread computes the digest if it is unknown."""
    reader = TarReader(FileSource(file.fileno()), subject)
    if not diff_id:
        return applier.apply(reader)
    with FollowingDigest(file.fileno(), os.fstat(file.fileno()).st_size) as digest:
        applied = applier.apply(reader)
        check_digest(digest.finish(), diff_id, subject)
    return applied


def _apply_stream(applier: LayerApplier, plain: BinaryIO, diff_id: str, subject: str) -> Applied:
    hashing = HashingStream(plain)
    applied = applier.apply(TarReader(StreamSource(hashing), subject))
    while hashing.read(CHUNK_BYTES):
        pass  # bytes after the archive's end marker count for the digest, too
    check_digest("sha256:" + hashing.digest.hexdigest(), diff_id, subject)
    return applied


def write_metadata(path: str, document: dict[str, Any]) -> None:
    """Write a layer's layer.json."""
    with open(path, "w", encoding="utf-8", opener=open_private) as file:
        json.dump(document, file)
