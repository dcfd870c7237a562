"""Reads a layer's EROFS index without mounting it, and defines the names of the EROFS driver's files."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from pydock_core.store.erofs.reader import Index, Inode
from pydock_core.store.snapshots.stack import Node

INDEX = "index.erofs"
TAR = "layer.tar"
MOUNT_POINT = "fs"
NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
"""The flags for creating the driver's files; no file is written twice."""


class IndexView:
    """A layer that is an index; see :class:`pydock_core.store.snapshots.stack.LayerView`."""

    def __init__(self, index: str, files: Sequence[str], subject: str) -> None:
        self._index = Index(index, files, subject)

    def root(self) -> Node | None:
        """See the protocol."""
        return Node(self, self._index.root_nid, stat.S_IFDIR)

    def lookup(self, directory: Node, name: bytes) -> Node | None:
        """See the protocol."""
        nid = self._index.lookup(self._index.inode(directory.place), name)
        if nid is None:
            return None
        inode = self._index.inode(nid)
        kind = stat.S_IFMT(inode.mode)
        return Node(self, nid, kind, self._index.contents(inode) if stat.S_ISLNK(kind) else b"")

    def is_opaque(self, directory: Node) -> bool:
        """See the protocol."""
        return self._index.xattrs(self._inode(directory)).get(b"trusted.overlay.opaque") == b"y"

    def read(self, file: Node, limit: int) -> bytes | None:
        """See the protocol."""
        inode = self._inode(file)
        return None if inode.size > limit else self._index.contents(inode)

    def close(self) -> None:
        """See the protocol."""
        self._index.close()

    def _inode(self, node: Node) -> Inode:
        return self._index.inode(node.place)
