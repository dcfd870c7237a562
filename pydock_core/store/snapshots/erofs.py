"""The EROFS driver: a layer is its plain tar and an index over it, which the kernel mounts directly.

Nothing is unpacked, and no loop device is needed (Linux 6.12, CONFIG_EROFS_FS_BACKED_BY_FILE, root of the host).
A layer's entry (see :mod:`pydock_core.store.snapshots.shelf`) has::

    HEX/index.erofs  see pydock_core.store.erofs.layout
    HEX/layer.tar    a hard link to the blob if that is plain and verified, else an inflated copy
    HEX/fs           an empty directory: names the layer in a plan, and is its mount point in each supervisor's mount
                     namespace on kernels before 6.15
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from pydock_core.errors import UnsupportedError
from pydock_core.oci.digest import digest_hex, short_id
from pydock_core.oci.documents import layer_compression
from pydock_core.oci.root_mount import RootMount
from pydock_core.paths import StateRoot
from pydock_core.progress import Progress
from pydock_core.store.compression import ANEW, InflationLimit, open_plain
from pydock_core.store.durable import sync, write_json
from pydock_core.store.erofs.writer import build_index
from pydock_core.store.layer_blob import LayerBlob
from pydock_core.store.layer_digest import check_digest, check_pair
from pydock_core.store.layer_inflate import write_plain
from pydock_core.store.layer_rules import Applied
from pydock_core.store.snapshots.erofs_stacks import Stacks
from pydock_core.store.snapshots.erofs_view import INDEX, MOUNT_POINT, NEW, TAR, IndexView
from pydock_core.store.snapshots.shelf import METADATA, Shelf, missing
from pydock_core.store.snapshots.stack import LayerView, read_merged, root_mounts
from pydock_core.store.worker import Worker

_WHOLE = 1 << 62


class ErofsSnapshotter:
    """Keeps layers as tars with an index; see :class:`pydock_core.store.snapshots.protocol.Snapshotter`.

    :mod:`pydock_core.store.snapshots.probe` finds out whether the kernel can mount them.

    Args:
        root: the state root, with its skeleton made.
        worker: removes trees.

    Attributes:
        stacks: its images of many layers.
    """

    name = "erofs"

    def __init__(self, root: StateRoot, worker: Worker) -> None:
        self._shelf = Shelf(root, self.name, worker)
        self.stacks = Stacks(self._shelf)

    def has(self, diff_id: str) -> bool:
        """See the protocol."""
        return self._shelf.has(diff_id)

    def size_bytes(self, diff_id: str) -> int:
        """See the protocol."""
        return int(self._shelf.metadata(diff_id)["size_bytes"])

    def diff_ids(self) -> list[str]:
        """See the protocol."""
        return self._shelf.diff_ids()

    def apply(self, diff_id: str, blob: LayerBlob, progress: Progress | None = None) -> int:
        """See the protocol."""
        if self.has(diff_id):
            check_pair(diff_id, blob)
        else:
            subject = f"layer {short_id(diff_id)}"
            with self._shelf.making(self._shelf.place(diff_id), subject) as made:
                _make(diff_id, blob, made.path, subject, progress)
        return self.size_bytes(diff_id)

    def prepare(self, diff_ids: Sequence[str]) -> None:
        """Merge the indexes of an image of many layers."""
        self.stacks.prepare(diff_ids)

    def mounts(self, diff_ids: Sequence[str], upper: Path | None, work: Path | None) -> tuple[RootMount, ...]:
        """See the protocol."""
        empty = "" if diff_ids else self._shelf.empty()
        return root_mounts([self], diff_ids, upper, work, empty=empty, merged=self.stacks)

    def lower(self, diff_id: str) -> tuple[str, tuple[RootMount, ...], bool]:
        """See :class:`pydock_core.store.snapshots.stack.Driver`."""
        metadata = self._shelf.metadata(diff_id)
        base = f"{self._shelf.place(diff_id)}/"
        target = base + MOUNT_POINT
        mount = RootMount("erofs", base + INDEX, devices=(base + TAR,), target=target)
        return target, (mount,), bool(metadata["opaque_root"])

    def metadata(self, diff_id: str) -> Mapping[str, Any]:
        """See :class:`pydock_core.store.snapshots.stack.Driver`."""
        return self._shelf.metadata(diff_id)

    def view(self, diff_id: str) -> LayerView:
        """See :class:`pydock_core.store.snapshots.stack.Driver`."""
        base = f"{self._shelf.place(diff_id)}/"
        try:
            return IndexView(base + INDEX, [base + TAR], f"layer {short_id(diff_id)}")
        except FileNotFoundError as error:
            raise missing(diff_id) from error

    def tar_path(self, diff_id: str) -> Path:
        """Return the path of the layer's plain tar, which commit, save, push and the other driver read."""
        return self._shelf.place(diff_id) / TAR

    def read_file(self, diff_ids: Sequence[str], path: str, upper: Path | None = None) -> bytes | None:
        """See the protocol."""
        return read_merged([self], diff_ids, path, upper, self.stacks)

    def status(self) -> list[tuple[str, str]]:
        """See the protocol."""
        return [("Layers as EROFS indexes", str(len(self.diff_ids())))]

    def remove(self, diff_id: str) -> None:
        """See the protocol."""
        self.stacks.remove_with(diff_id)
        self._shelf.discard(self._shelf.place(diff_id))


# -- making a layer --------------------------------------------------------------------------------------


def _make(diff_id: str, blob: LayerBlob, made: Path, subject: str, progress: Progress | None) -> None:
    compression = layer_compression(blob.media_type)
    if compression is None:
        raise UnsupportedError(
            f"layer {diff_id} has media type {blob.media_type!r}, which is not a layer's", ANEW
        )
    index_fd = os.open(made / INDEX, NEW, 0o600)
    try:
        if compression or not blob.is_known_as(diff_id):
            applied = _inflate(diff_id, blob, compression, made / TAR, index_fd, subject, progress)
        else:
            applied = _link(diff_id, blob, made / TAR, index_fd, subject, progress)
        os.fsync(index_fd)
    finally:
        os.close(index_fd)
    (made / MOUNT_POINT).mkdir(mode=0o700)
    write_json(made / METADATA, asdict(applied))
    sync(made)


def _inflate(
    diff_id: str,
    blob: LayerBlob,
    compression: str,
    tar: Path,
    index_fd: int,
    subject: str,
    progress: Progress | None,
) -> Applied:
    with open(os.open(tar, NEW, 0o600), "w+b", buffering=0) as file, blob.open() as stream:
        total = 0 if blob.arrival else os.fstat(stream.fileno()).st_size

        def report(plain_bytes: int) -> None:
            # The total is unknown, and so is the part that has been read.
            _report(progress, diff_id, stream.tell() if total else plain_bytes, total)

        limit = InflationLimit.for_file_system(file.fileno())
        plain = open_plain(stream, compression, subject, limit)
        check_digest(write_plain(plain, file.fileno(), report), diff_id, subject)
        with _rewound(file) as reading:
            applied = build_index(
                reading,
                index_fd,
                subject,
                tag=digest_hex(diff_id),
                on_turn=lambda: report(os.fstat(file.fileno()).st_size),
            )
        os.fsync(file.fileno())
    return applied


def _link(
    diff_id: str, blob: LayerBlob, tar: Path, index_fd: int, subject: str, progress: Progress | None
) -> Applied:
    with open(blob.path, "rb") as file:
        if blob.arrival is not None:
            blob.arrival.wait(_WHOLE)
        total = os.fstat(file.fileno()).st_size
        _report(progress, diff_id, 0, total)
        applied = build_index(
            file,
            index_fd,
            subject,
            tag=digest_hex(diff_id),
            on_turn=lambda: _report(progress, diff_id, 0, total),
        )
        os.fsync(
            file.fileno()
        )  # before the layer is renamed into place; the blob store need not sync it again
        _link_file(file.fileno(), tar)
        _report(progress, diff_id, total, total)
    return applied


def _link_file(fd: int, target: Path) -> None:
    """Hard-link an open file, or copy it to another file system."""
    directory_fd = os.open(target.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Through the descriptor: the blob may have been renamed.  With a directory's descriptor, so that it is
        # linkat(2), which follows the link that /proc has.
        os.link(f"/proc/self/fd/{fd}", target.name, dst_dir_fd=directory_fd, follow_symlinks=True)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EMLINK, errno.ENOENT, errno.EPERM):
            raise
        shutil.copyfile(f"/proc/self/fd/{fd}", target)
        sync(target)
    finally:
        os.close(directory_fd)


@contextlib.contextmanager
def _rewound(file: BinaryIO) -> Iterator[BinaryIO]:
    """Return a buffered reader of the same file, from its start."""
    with open(file.fileno(), "rb", closefd=False) as reading:
        reading.seek(0)
        yield reading


def _report(progress: Progress | None, diff_id: str, current: int, total: int) -> None:
    if progress is not None:
        progress({"status": "Extracting", "id": short_id(diff_id), "current": current, "total": total})
