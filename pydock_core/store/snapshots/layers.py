"""The layers of a store across drivers: new layers use the best driver that works, existing ones keep theirs.

The environment variable PYDOCK_SNAPSHOTTER forces a driver for new layers: "directory", or "erofs", which is refused
if it cannot be mounted.  Layers of the other driver stay usable; if EROFS can no longer be mounted (after a change of
kernel), the directory driver makes its own form of a layer from the index's tar.

A layer is made once: a second thread or process that needs it waits, and then finds it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydock_core.errors import InvalidError, UnsupportedError
from pydock_core.oci.digest import digest_hex, short_id
from pydock_core.oci.documents import layer_media_type
from pydock_core.oci.root_mount import RootMount
from pydock_core.paths import StateRoot
from pydock_core.progress import Progress
from pydock_core.store.layer_blob import LayerBlob
from pydock_core.store.layer_digest import check_pair
from pydock_core.store.snapshots.chained import NOTHING, ChainedTrees, is_dependent
from pydock_core.store.snapshots.directory import DirectorySnapshotter, needs_user_xattrs
from pydock_core.store.snapshots.shelf import missing
from pydock_core.store.snapshots.stack import (
    Driver,
    Merged,
    chain_ids,
    driver_of,
    read_merged,
    root_mounts,
)
from pydock_core.store.worker import Worker

if TYPE_CHECKING:
    from pydock_core.store.snapshots.erofs import ErofsSnapshotter
    from pydock_core.store.snapshots.owned import OwnedTrees

VARIABLE = "PYDOCK_SNAPSHOTTER"
_FLOCK = "hhqqi4x"
_OFFSET_DIGITS = 15
_POLL_SECONDS = 0.05


class Layers:
    """Layers of a store; see :class:`pydock_core.store.snapshots.protocol.Snapshotter`.

    Args:
        root: the state root, with its skeleton made.
        directory: the driver that works everywhere.
        erofs: the EROFS driver, if the state root has, or may get, layers of it.
        prefers_erofs: it makes new layers.
        why_not: the reason why it cannot mount, "" if it can.

    Attributes:
        name: of the driver that makes new layers.
    """

    def __init__(
        self,
        root: StateRoot,
        directory: DirectorySnapshotter,
        erofs: ErofsSnapshotter | None,
        *,
        prefers_erofs: bool,
        why_not: str = "",
    ) -> None:
        self._root = root
        self._directory = directory
        self._erofs = erofs
        self._prefers_erofs = prefers_erofs
        self._why_not = why_not
        self._trees = ChainedTrees(directory.shelf, directory.worker, user_xattrs=directory.user_xattrs)
        self.name = "erofs" if prefers_erofs else "directory"

    @cached_property
    def _owned(self) -> OwnedTrees:
        from pydock_core.store.snapshots.owned import OwnedTrees  # late: a start does without

        return OwnedTrees(self._directory.shelf, self._directory.worker)

    # -- making and removing -----------------------------------------------------------------------------

    def has(self, diff_id: str) -> bool:
        """See the protocol."""
        return self._directory.has(diff_id) or (self._erofs is not None and self._erofs.has(diff_id))

    def apply(self, diff_id: str, blob: LayerBlob, progress: Progress | None = None) -> int:
        """See the protocol."""
        if not self.has(diff_id):
            with self._lock(diff_id, progress):
                if not self.has(diff_id):
                    return self._apply(diff_id, blob, progress)
        check_pair(diff_id, blob)
        return self.size_bytes(diff_id)

    def _apply(self, diff_id: str, blob: LayerBlob, progress: Progress | None) -> int:
        if self._erofs is not None and self._prefers_erofs:
            try:
                return self._erofs.apply(diff_id, blob, progress)
            except UnsupportedError:
                # A directory can represent what an index cannot (some sparse files), or is refused as well.
                pass
        return self._directory.apply(diff_id, blob, progress)

    def prepare(
        self, diff_ids: Sequence[str], blobs: Sequence[LayerBlob], progress: Progress | None = None
    ) -> None:
        """See the protocol."""
        chains = chain_ids(diff_ids)
        mergeable = len(diff_ids)
        for position, (diff_id, chain_id) in enumerate(zip(diff_ids, chains, strict=True)):
            metadata = driver_of(self._drivers(), diff_id).metadata(diff_id)
            if not _is_chained(diff_id, chain_id, metadata):
                continue
            mergeable = min(mergeable, position)
            if not self._trees.has(chain_id):
                below = [] if metadata["opaque_root"] else diff_ids[:position]
                with self._lock(chain_id, progress):
                    if not self._trees.has(chain_id):
                        self._chain(below, diff_id, chain_id, blobs[position], progress)
        if self._erofs is None or self._why_not:
            return
        indexed = 0
        while indexed < mergeable and self._erofs.has(diff_ids[indexed]):
            indexed += 1
        if indexed:
            with self._lock(chains[indexed - 1], progress):
                self._erofs.prepare(diff_ids[:indexed])

    def _chain(
        self,
        below: Sequence[str],
        diff_id: str,
        chain_id: str,
        blob: LayerBlob,
        progress: Progress | None,
    ) -> None:
        metadata = driver_of(self._drivers(), diff_id).metadata(diff_id)
        if self._erofs is not None and self._erofs.has(diff_id):
            tar = self._erofs.tar_path(diff_id)
            blob = LayerBlob(tar, layer_media_type(""), verified=True, digest=diff_id, paired=True)
        self._trees.make(
            chain_id,
            diff_id,
            blob,
            lambda upper, work: self._mounts(below, upper, work, str(upper.with_name(NOTHING))),
            progress,
            has_whiteouts=bool(metadata["whiteouts"]) and bool(below),
        )

    def owned(self, diff_ids: Sequence[str], owner: tuple[int, int], bottom: str) -> str:
        """See the protocol."""
        chain_id = chain_ids(diff_ids)[-1]
        if (found := self._owned.path(chain_id, owner)) is None:
            with self._lock(chain_id):
                if (found := self._owned.path(chain_id, owner)) is None:
                    self._owned.make(chain_id, owner, self.mounts(diff_ids, None, None), bottom)
                    found = self._owned.path(chain_id, owner)
        assert found is not None  # made
        return found

    def chains(self) -> list[str]:
        """See the protocol."""
        return list({*self._trees.chain_ids(), *self._owned.chain_ids()})

    def chain_size_bytes(self, chain_id: str) -> int:
        """See the protocol."""
        return self._trees.size_bytes(chain_id) + self._owned.size_bytes(chain_id)

    def remove_chain(self, chain_id: str) -> None:
        """See the protocol."""
        self._trees.remove(chain_id)
        self._owned.remove(chain_id)

    def remove(self, diff_id: str) -> None:
        """See the protocol."""
        self._directory.remove(diff_id)
        if self._erofs is not None:
            self._erofs.remove(diff_id)

    # -- reading -----------------------------------------------------------------------------------------

    def size_bytes(self, diff_id: str) -> int:
        """See the protocol."""
        if self._erofs is not None and self._erofs.has(diff_id):
            return self._erofs.size_bytes(diff_id)
        return self._directory.size_bytes(diff_id)

    def diff_ids(self) -> list[str]:
        """See the protocol."""
        found = self._directory.diff_ids()
        if self._erofs is not None:
            found += self._erofs.diff_ids()
        return list(dict.fromkeys(found))

    def mounts(self, diff_ids: Sequence[str], upper: Path | None, work: Path | None) -> tuple[RootMount, ...]:
        """See the protocol."""
        return self._mounts(diff_ids, upper, work, self._directory.empty() if not diff_ids else "")

    def _mounts(
        self, diff_ids: Sequence[str], upper: Path | None, work: Path | None, empty: str
    ) -> tuple[RootMount, ...]:
        if self._why_not:
            self._convert(diff_ids)
        return root_mounts(
            self._drivers(),
            diff_ids,
            upper,
            work,
            options=self._directory.options,
            empty=empty,
            merged=self._merged(),
            chained=self,
        )

    def chained_lower(
        self, diff_id: str, chain_id: str, metadata: Mapping[str, Any]
    ) -> tuple[str, bool] | None:
        """See :class:`pydock_core.store.snapshots.stack.Chained`."""
        if not _is_chained(diff_id, chain_id, metadata):
            return None
        found = self._trees.lower(chain_id)
        if found is None and metadata["unresolved_links"]:
            raise missing(diff_id)
        return found  # without a tree, the layer itself is used: its image was recorded by an earlier version

    def read_file(self, diff_ids: Sequence[str], path: str, upper: Path | None = None) -> bytes | None:
        """See the protocol."""
        return read_merged(self._drivers(), diff_ids, path, upper, self._merged(), self)

    def status(self) -> list[tuple[str, str]]:
        """See the protocol."""
        found = [("Driver of new layers", self.name), *self._directory.status()]
        if self._erofs is not None:
            found += self._erofs.status()
        if self._why_not:
            found.append(("EROFS", self._why_not))
        return found

    def _merged(self) -> Merged | None:
        return None if self._why_not or self._erofs is None else self._erofs.stacks

    def _drivers(self) -> Sequence[Driver]:
        """Return the drivers in the order of the search for a layer."""
        if self._erofs is None:
            return (self._directory,)
        # If both have a layer, the directory was made because the index could not be mounted.
        return (self._directory, self._erofs) if self._why_not else (self._erofs, self._directory)

    def _convert(self, diff_ids: Sequence[str]) -> None:
        """Make directories of the layers that exist only as indexes, which cannot be mounted here."""
        if self._erofs is None:
            return
        for diff_id in diff_ids:
            if not self._directory.has(diff_id) and self._erofs.has(diff_id):
                with self._lock(diff_id):
                    tar = self._erofs.tar_path(diff_id)
                    self._directory.apply(diff_id, LayerBlob(tar, layer_media_type("")))

    @contextlib.contextmanager
    def _lock(self, diff_id: str, progress: Progress | None = None) -> Iterator[None]:
        """Hold a layer's lock: one byte of a common file.

        During a wait, ``progress`` is called, and may raise to give up.

        It is an open file description lock (fcntl(2)), so that it also excludes threads, and leaves nothing behind.
        """
        path = self._root.layers / "lock"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            offset = int(digest_hex(diff_id)[:_OFFSET_DIGITS], 16)
            lock = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, offset, 1, 0)
            while not _try_lock(fd, lock):
                if progress is not None:
                    progress({"status": "Waiting", "id": short_id(diff_id)})
                time.sleep(_POLL_SECONDS)
            yield
        finally:
            os.close(fd)


def _is_chained(diff_id: str, chain_id: str, metadata: Mapping[str, Any]) -> bool:
    """Whether a layer has a form of its own in a chain.  A bottom layer has one only to detect links without a target."""
    return is_dependent(metadata) and (chain_id != diff_id or bool(metadata["unresolved_links"]))


def _try_lock(fd: int, lock: bytes) -> bool:
    # Polled, because a thread that waits in the kernel cannot be cancelled.
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, lock)
    except (BlockingIOError, PermissionError):  # EAGAIN or EACCES (fcntl(2))
        return False
    return True


def open_layers(root: StateRoot, worker: Worker, choice: str | None = None) -> Layers:
    """Return the layers of a state root.

    Args:
        root: the state root, its skeleton made.
        worker: makes and removes trees.
        choice: "directory" or "erofs"; by default the value of PYDOCK_SNAPSHOTTER, or the best driver that works.

    Raises:
        InvalidError: there is no such driver.
        UnsupportedError: "erofs", if it cannot be mounted.
    """
    if choice is None:
        choice = os.environ.get(VARIABLE, "")
    if choice not in ("", "directory", "erofs"):
        raise InvalidError(f"{VARIABLE}: unknown driver {choice!r}", "it is directory or erofs")
    directory = DirectorySnapshotter(root, worker)
    if needs_user_xattrs():
        if choice == "erofs":
            raise _refused("it needs root of the host")
        return Layers(root, directory, None, prefers_erofs=False)
    from pydock_core.store.snapshots.erofs import ErofsSnapshotter  # late: rootless has no use for it
    from pydock_core.store.snapshots.probe import probe_erofs

    has_indexes = (root.layers / ErofsSnapshotter.name).is_dir()
    if choice == "directory" and not has_indexes:
        return Layers(root, directory, None, prefers_erofs=False)
    why_not = probe_erofs(root)
    if why_not and choice == "erofs":
        raise _refused(why_not)
    erofs = ErofsSnapshotter(root, worker) if has_indexes or not why_not else None
    prefers = not why_not and choice != "directory"
    return Layers(root, directory, erofs, prefers_erofs=prefers, why_not=why_not)


def _refused(reason: str) -> UnsupportedError:
    return UnsupportedError(
        f"cannot use the EROFS driver: {reason}",
        f"it needs root and Linux 6.12; {VARIABLE}=directory works everywhere",
    )
