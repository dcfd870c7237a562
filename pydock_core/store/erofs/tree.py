"""A directory tree in memory, from which an index is written.

All inodes except those of directories are kept in their final form, so an entry costs one dictionary look-up and one
packed record.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

from pydock_core.errors import UnsupportedError
from pydock_core.store.erofs.chunks import ChunkedFile

MEMORY_LIMIT_BYTES = 72 << 20
"""The memory budget of a tree, enough for some 400,000 files.  It keeps a program that pulls below 150 MB for any layer;
the directory driver takes larger layers."""
ENTRY_BYTES = 160
"""The memory of a name that is not a directory, except its length: a key, its place in a dictionary, a number, an inode.
Measured with CPython 3.11, like the next."""
_DIRECTORY_BYTES = 550
ONE_TREE = threading.Lock()
"""Held while a tree is made and written, so that a process has the memory of only one tree.  It costs no time, because
the interpreter's lock serializes this work anyway."""
_KIND_BITS = 4
KIND_MASK = (1 << _KIND_BITS) - 1
"""The bits of a child's type, if it is not a directory."""


class Directory:
    """A directory of the layer.

    Attributes:
        children: by name; a child that is not a directory is an integer, ``offset in inodes // 32 << 4 | type``.
        nid: set by the writer.
    """

    __slots__ = ("children", "gid", "mode", "mtime_ns", "nid", "uid", "xattrs")

    def __init__(self) -> None:
        self.children: dict[bytes, Directory | int] = {}
        self.mode = 0o755
        self.uid = self.gid = 0
        self.mtime_ns = 0
        self.xattrs: dict[bytes, bytes] = {}
        self.nid = 0


def child_offset(child: int) -> int:
    """Return the position of a child's inode in :attr:`LayerTree.inodes`."""
    return child >> _KIND_BITS << 5


class Tree:
    """The contents of an index.

    Args:
        subject: names the layer or image in errors.

    Attributes:
        root: the root directory.
        inodes: the records of all inodes except directories.
        blocks: (offset of an inode, content) of contents with their own blocks: long symlink targets.
        chunked: files whose data is copied, or has holes.
        charged_bytes: the approximate memory of all this, including its writing.
    """

    def __init__(self, subject: str) -> None:
        self._subject = subject
        self.charged_bytes = 0
        self.root = Directory()
        self.inodes = bytearray()
        self.blocks: list[tuple[int, bytes]] = []
        self.chunked: list[ChunkedFile] = []

    def charge(self, count: int) -> None:
        """Charge about ``count`` bytes to the memory budget.

        Raises:
            UnsupportedError: the budget is exceeded.
        """
        self.charged_bytes += count
        if self.charged_bytes > MEMORY_LIMIT_BYTES:
            raise UnsupportedError(
                f"{self._subject} has too many names, attributes and holes for an index",
                "the directory driver takes it",
            )

    def make_directory(self, parent: Directory, name: bytes) -> Directory:
        """Make an empty directory, replacing an entry of the same name."""
        self.charge(_DIRECTORY_BYTES + len(name))
        made = parent.children[name] = Directory()
        return made

    def directories(self) -> Iterator[tuple[Directory, Directory]]:
        """Yield every directory with its parent, the root first; without recursion, because archives can be deep."""
        waiting = [(self.root, self.root)]
        while waiting:
            directory, parent = waiting.pop()
            yield directory, parent
            waiting += [
                (child, directory) for child in directory.children.values() if isinstance(child, Directory)
            ]

    def align_inline(self, head_bytes: int, size_bytes: int, block_bytes: int) -> None:
        """Insert padding so that the data after the next inode does not cross a block boundary."""
        start = (len(self.inodes) + head_bytes) & (block_bytes - 1)
        if start + size_bytes > block_bytes:
            self.inodes += bytes(-len(self.inodes) % block_bytes)
