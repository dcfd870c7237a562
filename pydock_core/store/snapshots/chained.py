"""Layers that depend on the layers below them: applied over these, with one tree for each chain.

Vocabulary (OCI image specification, config.md, "Layer ChainID"): a *chain id* names a layer and all layers below it.
Most layers are the same in every chain.  A layer with implied parents or unresolved hard links
(:class:`pydock_core.store.layer_rules.Applied`) is not, and gets a *chained* tree for each of its chains, made when an
image is recorded.  It is a directory, whatever the driver of the layer itself.  Under the directory driver's directory::

    chain-HEX/   by the chain id; fs and layer.json, like those of a layer

The layer itself stays unchanged: other images have it over other layers.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydock_core import syscalls
from pydock_core.oci.digest import digest_hex, short_id
from pydock_core.oci.documents import layer_compression
from pydock_core.oci.root_mount import RootMount
from pydock_core.progress import Progress
from pydock_core.runtime.rootfs import mount_root
from pydock_core.store.compression import InflationLimit, open_plain
from pydock_core.store.durable import mapped
from pydock_core.store.layer_blob import LayerBlob
from pydock_core.store.layer_over import OverlayApplier, Whiteouts
from pydock_core.store.pipe import reading_end
from pydock_core.store.private_root import mount_privately
from pydock_core.store.snapshots.directory import TREE, apply_archive, has_one_id, write_metadata
from pydock_core.store.snapshots.shelf import METADATA, Shelf
from pydock_core.store.tar_reader import Entry, TarReader
from pydock_core.store.tar_source import StreamSource
from pydock_core.store.trees import remove_tree, tree_sizes
from pydock_core.store.worker import Worker

_APPLY = "pydock_core.store.snapshots.chained:apply_over"
_PREFIX = "chain-"
_WORK, _ROOT, NOTHING = "work", "root", "nothing"
_SCRATCH = (_WORK, _ROOT, NOTHING)


def is_dependent(metadata: Mapping[str, Any]) -> bool:
    """Whether a layer, according to its layer.json, depends on the layers below it.

    A layer of an earlier version has no such note and stays unchanged.
    """
    return bool(metadata.get("unresolved_links")) or (
        bool(metadata.get("implied_parents")) and not metadata["opaque_root"]
    )


class ChainedTrees:
    """Keeps the trees.

    Args:
        shelf: of the directory driver.
        worker: makes and removes trees as root of the user's namespace.
        user_xattrs: see :class:`pydock_core.store.snapshots.directory.DirectorySnapshotter`.
    """

    def __init__(self, shelf: Shelf, worker: Worker, *, user_xattrs: bool) -> None:
        self._shelf = shelf
        self._worker = worker
        self._user_xattrs = user_xattrs

    def has(self, chain_id: str) -> bool:
        """Whether there is a tree for a chain."""
        return self._place(chain_id).is_dir()

    def chain_ids(self) -> list[str]:
        """Return the chains that have a tree, in no particular order."""
        return [
            f"sha256:{entry.name.removeprefix(_PREFIX)}"
            for entry in os.scandir(self._shelf.base)
            if entry.name.startswith(_PREFIX)
        ]

    def lower(self, chain_id: str) -> tuple[str, bool] | None:
        """Return the directory for an overlay and whether its root is opaque; None if there is no tree."""
        try:
            with open(self._place(chain_id) / METADATA, "rb") as file:
                return f"{self._place(chain_id)}/{TREE}", bool(json.load(file)["opaque_root"])
        except FileNotFoundError:
            return None

    def size_bytes(self, chain_id: str) -> int:
        """Return the size of a tree's contents; 0 if it is missing."""
        try:
            with open(self._place(chain_id) / METADATA, "rb") as file:
                return int(json.load(file)["size_bytes"])
        except FileNotFoundError:
            return 0

    def make(
        self,
        chain_id: str,
        diff_id: str,
        blob: LayerBlob,
        below: Callable[[Path, Path], Sequence[RootMount]],
        progress: Progress | None = None,
        *,
        has_whiteouts: bool,
    ) -> None:
        """Apply a layer over the layers below it.

        Args:
            blob: complete, and compared with the diff id.
            below: returns the mounts of the layers below, the overlay last, with an upper and a work directory.  The
                empty directory NOTHING is beside the two.
            has_whiteouts: of its layer.json.

        Raises:
            InvalidError: a hard link's target is missing, or is a directory.
            UnavailableError: the disk is full; nothing was kept.
            FailedError: another system error.
        """
        if progress is not None:
            progress({"status": "Extracting", "id": short_id(diff_id)})
        subject = f"layer {short_id(diff_id)}"
        with self._shelf.making(self._place(chain_id), subject) as made:
            for name in _SCRATCH:
                (made.path / name).mkdir(mode=0o700)
            (made.path / TREE).mkdir(mode=0o755)
            (made.path / TREE).chmod(0o755)  # visible to containers, so independent of the umask
            *others, overlay = below(made.path / TREE, made.path / _WORK)
            # Without an index there is nothing in the work directory that the tree refers to.
            overlay = replace(overlay, options=(*overlay.options, "index=off"))
            arguments = {
                "media_type": blob.media_type,
                "diff_id": diff_id,
                "target": str(made.path),
                "mounts": [asdict(mount) for mount in (*others, overlay)],
                "user_xattrs": self._user_xattrs,
                "has_whiteouts": has_whiteouts,
                "is_verified": blob.is_known_as(diff_id),
            }
            with reading_end(blob) as blob_fd:
                self._worker.call(_APPLY, arguments, (blob_fd, made.lock_fd))

    def remove(self, chain_id: str) -> None:
        """Remove the tree of a chain; ignore a missing one."""
        self._shelf.discard(self._place(chain_id))

    def _place(self, chain_id: str) -> Path:
        return self._shelf.base / f"{_PREFIX}{digest_hex(chain_id)}"


def apply_over(
    media_type: str,
    diff_id: str,
    target: str,
    mounts: Sequence[Mapping[str, Any]],
    user_xattrs: bool,
    has_whiteouts: bool,
    is_verified: bool,
    *,
    fds: Sequence[int] = (),
    progress: Progress | None = None,
) -> None:
    """Make ``target``/fs and ``target``/layer.json from a layer's blob, over the layers below.  A worker function.

    Args:
        media_type: tells the blob's compression.
        diff_id: the expected digest of the uncompressed tar.
        target: a directory with the empty directories fs, work, root and nothing; only fs is kept.
        mounts: of the layers below, with ``target``/fs as the upper directory.
        user_xattrs: see :class:`pydock_core.store.snapshots.directory.DirectorySnapshotter`.
        has_whiteouts: the layer has whiteouts or opaque markers.
        is_verified: a plain blob is known to have the digest, which is not computed again.
        fds: the blob, a file at its start; and descriptors to keep open during the job.
        progress: unused; the signature is that of all worker functions.

    Raises:
        PyDockError: as in :meth:`ChainedTrees.make`.
    """
    job = _Job(
        subject=f"layer {short_id(diff_id)}",
        compression=layer_compression(media_type) or "",
        diff_id="" if is_verified else diff_id,
        target=target,
        mounts=[RootMount.from_json(mount) for mount in mounts],
        user_xattrs=user_xattrs,
        blob_fd=fds[0],
    )
    with mapped(job.subject, "apply", "see dock doctor"):
        if has_whiteouts:
            mount_privately(job.hide)
        mount_privately(job.apply)
        for name in _SCRATCH:
            remove_tree(f"{target}/{name}")
        tree_fd = os.open(f"{target}/{TREE}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            syscalls.syncfs(tree_fd)
        finally:
            os.close(tree_fd)


@dataclass(frozen=True, slots=True)
class _Job:
    """One application; its methods run in a mount namespace of their own, and leave nothing mounted."""

    subject: str
    compression: str
    diff_id: str
    target: str
    mounts: Sequence[RootMount]
    user_xattrs: bool
    blob_fd: int

    def hide(self, check: Callable[[], None]) -> None:
        """Apply the layer's whiteouts."""
        whiteouts = Whiteouts(self.subject, user_xattrs=self.user_xattrs)
        with open(self.blob_fd, "rb", closefd=False) as file:
            plain = open_plain(file, self.compression, self.subject)
            whiteouts.read(_checked(TarReader(StreamSource(plain), self.subject), check))
        os.lseek(self.blob_fd, 0, os.SEEK_SET)
        with self._mounted() as root_fd:
            whiteouts.copy_up(root_fd, self._root)
        whiteouts.write(f"{self.target}/{TREE}")

    def apply(self, check: Callable[[], None]) -> None:
        """Apply the layer's entries, and write layer.json."""
        with self._mounted() as root_fd:
            applier = OverlayApplier(
                root_fd,
                self._root,
                subject=self.subject,
                squash_owners=has_one_id(),
                progress=lambda _: check(),
            )
            limit = InflationLimit.for_file_system(root_fd)
            applied = apply_archive(
                applier, self.blob_fd, self.compression, self.diff_id, self.subject, limit, is_file=True
            )
        # A file that was copied up for a hard link takes space, too.
        (size_bytes,) = tree_sizes([f"{self.target}/{TREE}"])
        write_metadata(f"{self.target}/{METADATA}", asdict(replace(applied, size_bytes=size_bytes)))

    @property
    def _root(self) -> str:
        return f"{self.target}/{_ROOT}"

    @contextlib.contextmanager
    def _mounted(self) -> Iterator[int]:
        mount_root(self.mounts, Path(self._root))
        try:
            root_fd = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                yield root_fd
            finally:
                os.close(root_fd)
        finally:
            # Not lazily: afterwards, the upper directory is an ordinary directory.
            syscalls.umount(self._root)


def _checked(entries: Iterable[Entry], check: Callable[[], None]) -> Iterator[Entry]:
    for entry in entries:
        check()
        yield entry
