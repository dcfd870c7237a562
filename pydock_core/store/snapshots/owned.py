"""Copies of an image's tree in which root's files belong to another id, for containers with an id map of their own.

An ordinary user's layers belong to the ids of the user's own namespace, and neither overlayfs nor an idmapped mount
can shift them: the latter needs CAP_SYS_ADMIN in the namespace of the underlying file system (mount_setattr(2)).  So, as in
podman, a copy of the image is made once, of all its layers together.  Beside the layers of the directory driver::

    owned-UID-GID-HEX/   by the new owner of root's files and the chain id of the top layer; fs and layer.json
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydock_core import syscalls
from pydock_core.oci.digest import HEX_LENGTH, digest_hex, short_id
from pydock_core.oci.root_mount import RootMount
from pydock_core.progress import Progress
from pydock_core.runtime.rootfs import mount_root
from pydock_core.store.durable import mapped
from pydock_core.store.private_root import mount_privately
from pydock_core.store.snapshots.directory import TREE, write_metadata
from pydock_core.store.snapshots.shelf import METADATA, Shelf
from pydock_core.store.tree_copy import CopyRules, TreeCopy
from pydock_core.store.tree_tar import DIRECTORY_FLAGS
from pydock_core.store.worker import Worker

_COPY = "pydock_core.store.snapshots.owned:copy_tree"
_PREFIX = "owned-"
_XATTRS = ("user.", "security.capability", "system.posix_acl_")
Swap = Callable[[int, int], tuple[int, int]]


class OwnedTrees:
    """Keeps the copies.

    Args:
        shelf: of the directory driver.
        worker: makes and removes trees as root of the user's namespace.
    """

    def __init__(self, shelf: Shelf, worker: Worker) -> None:
        self._shelf = shelf
        self._worker = worker

    def path(self, chain_id: str, owner: tuple[int, int]) -> str | None:
        """Return the directory of a copy; None if there is none."""
        tree = self._place(chain_id, owner) / TREE
        return str(tree) if tree.is_dir() else None

    def chain_ids(self) -> list[str]:
        """Return the chains that have a copy, in no particular order."""
        return list({f"sha256:{name[-HEX_LENGTH:]}" for name in self._names()})

    def size_bytes(self, chain_id: str) -> int:
        """Return the size of a chain's copies together."""
        sizes = (
            json.loads((place / METADATA).read_bytes())["size_bytes"] for place in self._places(chain_id)
        )
        return sum(int(size) for size in sizes)

    def remove(self, chain_id: str) -> None:
        """Remove the copies of a chain."""
        for place in self._places(chain_id):
            self._shelf.discard(place)

    def make(self, chain_id: str, owner: tuple[int, int], mounts: Sequence[RootMount], bottom: str) -> None:
        """Make a copy.

        Args:
            owner: the user and the group that own root's files in it; root owns theirs.
            mounts: of the image, read-only.
            bottom: a directory below the image's layers.

        Raises:
            UnavailableError: the disk is full; nothing was kept.
            FailedError: another system error.
        """
        *others, last = mounts
        lower = last.lower or (last.source,)
        options = last.options if last.kind == "overlay" else ("userxattr", "ro")
        merged = RootMount("overlay", "", (*lower, bottom), options=options)
        with self._shelf.making(self._place(chain_id, owner), f"image {short_id(chain_id)}") as made:
            arguments = {
                "mounts": [mount.to_json() for mount in (*others, merged)],
                "target": str(made.path),
                "owner": list(owner),
            }
            self._worker.call(_COPY, arguments, (made.lock_fd,))

    def _place(self, chain_id: str, owner: tuple[int, int]) -> Path:
        return self._shelf.base / f"{_PREFIX}{owner[0]}-{owner[1]}-{digest_hex(chain_id)}"

    def _names(self) -> list[str]:
        return [entry.name for entry in os.scandir(self._shelf.base) if entry.name.startswith(_PREFIX)]

    def _places(self, chain_id: str) -> list[Path]:
        return [self._shelf.base / name for name in self._names() if name.endswith(digest_hex(chain_id))]


def swap_ids(owner: Sequence[int]) -> Swap:
    """Return the function that exchanges root and another owner: an Owner of :mod:`pydock_core.store.tree_copy`."""

    def swap(number: int, other: int) -> int:
        return other if number == 0 else 0 if number == other else number

    return lambda uid, gid: (swap(uid, owner[0]), swap(gid, owner[1]))


def copy_tree(
    mounts: Sequence[Mapping[str, Any]],
    target: str,
    owner: Sequence[int],
    *,
    fds: Sequence[int] = (),
    progress: Progress | None = None,
) -> None:
    """Make ``target``/fs and ``target``/layer.json from an image's mounts.  A worker function.

    Args:
        mounts: of the image, read-only, as data (:class:`RootMount`).
        target: an empty directory.
        owner: see :meth:`OwnedTrees.make`.
        fds: descriptors to keep open during the job.
        progress: unused; the signature is that of all worker functions.

    Raises:
        UnavailableError, FailedError: see :meth:`OwnedTrees.make`.
    """
    root, tree = Path(target, "root"), Path(target, TREE)

    def copy(check: Callable[[], None]) -> int:
        mount_root([RootMount.from_json(mount) for mount in mounts], root)
        source_fd, target_fd = os.open(root, DIRECTORY_FLAGS), os.open(tree, DIRECTORY_FLAGS)
        try:
            rules = CopyRules(swap_ids(owner), _XATTRS, devices=True)
            made = TreeCopy(source_fd, target_fd, rules, "the image")
            made.copy_content()
            made.copy_root()
            syscalls.syncfs(target_fd)
            return made.size_bytes
        finally:
            os.close(source_fd)
            os.close(target_fd)
            syscalls.umount(str(root))

    with mapped("the image", "copy", "see dock doctor"):
        root.mkdir(mode=0o700)
        tree.mkdir(mode=0o755)
        size_bytes = mount_privately(copy)
        root.rmdir()
        write_metadata(f"{target}/{METADATA}", {"size_bytes": size_bytes})
