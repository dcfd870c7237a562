"""A directory tree in memory, from which an index is written.

Inodes of everything but directories are kept in their final form, so that an entry costs one dictionary look-up and one
packed record.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

from pydock_core.errors import UnsupportedError
from pydock_core.store.erofs.chunks import ChunkedFile

MEMORY_LIMIT_BYTES = 72 << 20
"""The memory budget of a tree, enough for some 400,000 files.  With it a program that pulls stays below 150 MB
whatever a layer holds; the directory driver takes a larger layer."""
ENTRY_BYTES = 160
"""The memory of a name that is not a directory, without its length: a key, its place in a dictionary, a number, an
inode.  Measured with CPython 3.11, as the next."""
_DIRECTORY_BYTES = 550
ONE_TREE = threading.Lock()
"""Held while a tree is made and written: it is the interpreter's work, which threads take turns at anyway, and so a
process has the memory of one tree only."""
_KIND_BITS = 4
KIND_MASK = (1 << _KIND_BITS) - 1
"""Of a child that is not a directory: its type."""


class Directory:
    """A directory of the layer.

    Attributes:
        children: by name; what is not a directory is an integer, ``offset in inodes // 32 << 4 | type``.
        nid: given by the writer.
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
        subject: names what it is of in errors.

    Attributes:
        root: the root directory.
        inodes: the records of all that is not a directory.
        blocks: (offset of an inode, content) of what needs blocks of its own: long symlink targets.
        chunked: files whose data is copied, or has holes.
        charged_bytes: what all this takes, and will take while it is written, about.
    """

    def __init__(self, subject: str) -> None:
        self._subject = subject
        self.charged_bytes = 0
        self.root = Directory()
        self.inodes = bytearray()
        self.blocks: list[tuple[int, bytes]] = []
        self.chunked: list[ChunkedFile] = []

    def charge(self, count: int) -> None:
        """Note that the tree takes ``count`` bytes more, or hardly more.

        Raises:
            UnsupportedError: that is too much.
        """
        self.charged_bytes += count
        if self.charged_bytes > MEMORY_LIMIT_BYTES:
            raise UnsupportedError(
                f"{self._subject} has more names, attributes and holes than an index is made for",
                "the directory driver takes it",
            )

    def make_directory(self, parent: Directory, name: bytes) -> Directory:
        """Make an empty directory, in the place of what has the name."""
        self.charge(_DIRECTORY_BYTES + len(name))
        made = parent.children[name] = Directory()
        return made

    def directories(self) -> Iterator[tuple[Directory, Directory]]:
        """Every directory with its parent, the root first.  Without recursion: archives can be deep."""
        waiting = [(self.root, self.root)]
        while waiting:
            directory, parent = waiting.pop()
            yield directory, parent
            waiting += [
                (child, directory) for child in directory.children.values() if isinstance(child, Directory)
            ]

    def align_inline(self, head_bytes: int, size_bytes: int, block_bytes: int) -> None:
        """Make room so that what stands behind the next inode does not cross a block's boundary."""
        start = (len(self.inodes) + head_bytes) & (block_bytes - 1)
        if start + size_bytes > block_bytes:
            self.inodes += bytes(-len(self.inodes) % block_bytes)
