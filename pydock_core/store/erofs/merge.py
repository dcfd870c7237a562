"""Merges the indexes of an image's layers into one: a container then mounts one file system instead of thirty.

The data stays in the layers' tars, which are the devices of the merged index.  The result equals the overlay of the
layers: whiteouts and opaque directories have been applied and are gone.
"""

from __future__ import annotations

import stat
from collections.abc import Sequence
from dataclasses import dataclass

from pydock_core.errors import UnsupportedError
from pydock_core.store.erofs import layout
from pydock_core.store.erofs.reader import Index, Inode, chunks_offset, xattr_bytes
from pydock_core.store.erofs.tree import ENTRY_BYTES, ONE_TREE, Directory, Tree
from pydock_core.store.erofs.writer import write_image

_OPAQUE = b"trusted.overlay.opaque"
_BLOCK_BYTES = 1 << layout.BLOCK_BITS
_LAYER_SHIFT = 40
_NS = 1_000_000_000
_MAPPED_BYTES = 50
"""The bytes of a name, in its layer's own index, which stays mapped."""


@dataclass(frozen=True, slots=True)
class MergedDevice:
    """A file with data of a merged index.

    Attributes:
        layer: number of the layer, the bottom one is 0.
        is_index: the file is the layer's own index, with the data that could not stay in the tar; otherwise its tar.
    """

    layer: int
    is_index: bool


def merge_indexes(
    indexes: Sequence[Index], opaque_roots: Sequence[bool], fd: int, subject: str
) -> list[MergedDevice]:
    """Write the index of several layers.

    Args:
        indexes: of the layers, the bottom one first.
        opaque_roots: whether each of them hides all lower layers.
        fd: an empty file.
        subject: names the image in errors.

    Returns:
        the files with data, in the order that the mount requires.

    Raises:
        CorruptError: an index is damaged.
        UnsupportedError: the tars have more than 1 TiB together, or too many names to be merged in memory.
        OSError: writing failed.
    """
    with ONE_TREE:
        merge = _Merge(indexes, subject)
        for number, is_opaque in enumerate(opaque_roots):
            merge.add(number, is_opaque=is_opaque)
        merge.place()
        write_image(merge.tree, fd, -1, merge.devices, subject)
        return merge.files


class _Merge:
    def __init__(self, indexes: Sequence[Index], subject: str) -> None:
        self.tree = Tree(subject)
        self.devices: list[tuple[str, int, int]] = []
        self.files: list[MergedDevice] = []
        self._indexes = indexes
        self._subject = subject
        self._bases: list[int] = []
        self._tars: list[int] = []
        self._own: dict[int, int] = {}
        self._placed: dict[int, int] = {}
        address = layout.TAR_ADDRESS
        for number, index in enumerate(indexes):
            tag, blocks, _ = index.devices[0]
            self._bases.append(address)
            self.files.append(MergedDevice(number, is_index=False))
            self._tars.append(len(self.files))
            self.devices.append((tag.rstrip(b"\0").decode("ascii"), blocks, address))
            address += blocks
        if address >= layout.NULL_ADDRESS:
            raise UnsupportedError(f"{subject} has more than 1 TiB of layers", "they are mounted one by one")

    def add(self, number: int, *, is_opaque: bool) -> None:
        """Add a layer on top; a child that is not a directory is recorded as ``layer << 40 | nid``."""
        index = self._indexes[number]
        if is_opaque:
            self.tree.root.children.clear()
        waiting = [(self.tree.root, index.inode(index.root_nid))]
        mark = number << _LAYER_SHIFT
        while waiting:
            merged, inode = waiting.pop()
            self._take_attributes(index, merged, inode)
            children = merged.children
            for name, nid, kind in index.entries(inode):
                if kind == layout.TYPE_DIRECTORY:
                    if name in (b".", b".."):
                        continue
                    below = index.inode(nid)
                    known = children.get(name)
                    if not isinstance(known, Directory) or index.xattrs(below).get(_OPAQUE) == b"y":
                        known = self.tree.make_directory(merged, name)
                    waiting.append((known, below))
                elif kind == layout.TYPE_CHARACTER and not index.inode(nid).address:
                    children.pop(name, None)
                else:
                    # Replacing a lower layer's entry takes no more memory.
                    own_bytes = 0 if name in children else ENTRY_BYTES + 2 * len(name)
                    self.tree.charge(_MAPPED_BYTES + own_bytes)
                    children[name] = mark | nid

    @staticmethod
    def _take_attributes(index: Index, merged: Directory, inode: Inode) -> None:
        _, _, mode, _, _, _, _, uid, gid, mtime, mtime_ns, _ = index.record(inode.offset // layout.SLOT_BYTES)
        merged.mode, merged.uid, merged.gid = stat.S_IMODE(mode), uid, gid
        merged.mtime_ns = mtime * _NS + mtime_ns
        merged.xattrs = index.xattrs(inode)
        merged.xattrs.pop(_OPAQUE, None)

    def place(self) -> None:
        """Copy the remaining inodes."""
        for directory, _ in self.tree.directories():
            children = directory.children
            for name, child in children.items():
                if isinstance(child, int):
                    placed = self._placed.get(child)
                    if placed is None:
                        placed = self._copy(child)
                    else:
                        at = (placed >> 4 << 5) + layout.LINKS_OFFSET
                        (links,) = layout.LINKS.unpack_from(self.tree.inodes, at)
                        layout.LINKS.pack_into(self.tree.inodes, at, links + 1)
                    children[name] = placed

    def _copy(self, child: int) -> int:
        number, nid = child >> _LAYER_SHIFT, child & ((1 << _LAYER_SHIFT) - 1)
        index, inodes = self._indexes[number], self.tree.inodes
        form, count, mode, _, size, address, _, uid, gid, mtime, mtime_ns, links = index.record(nid)
        inode = Inode(form, count, mode, size, address, nid * layout.SLOT_BYTES)
        kind = stat.S_IFMT(mode)
        tail = b""
        if count:
            tail = index.behind(inode.offset + layout.INODE_BYTES, xattr_bytes(inode))
        content = b""
        if kind == stat.S_IFREG and size:
            if form == layout.FORMAT_PLAIN:
                address += self._bases[number] - layout.TAR_ADDRESS
            else:
                tail += bytes(-len(tail) % layout.CHUNK.size) + self._chunks(number, index, inode)
        elif kind == stat.S_IFLNK:
            content = index.contents(inode)
            if form == layout.FORMAT_INLINE:
                self.tree.align_inline(layout.INODE_BYTES + len(tail), size, _BLOCK_BYTES)
                tail += content
                content = b""
        position = len(inodes)
        inodes += layout.INODE.pack(
            form, count, mode, 0, size, address, position >> 5, uid, gid, mtime, mtime_ns, 1
        )
        if tail:
            inodes += tail
            inodes += bytes(-len(inodes) % layout.SLOT_BYTES)
        if content:
            self.tree.blocks.append((position, content))
        self.tree.charge(len(tail) + len(content))
        placed = (position >> 1) | layout.TYPES[kind]
        if links > 1:
            self.tree.charge(ENTRY_BYTES)
            self._placed[child] = placed  # its other names come yet
        return placed

    def _chunks(self, number: int, index: Index, inode: Inode) -> bytes:
        chunk_bytes = 1 << (layout.BLOCK_BITS + (inode.address & layout.CHUNK_BITS_MASK))
        count = -(-inode.size // chunk_bytes)
        pack = layout.CHUNK.pack
        parts = []
        for _, device, address in layout.CHUNK.iter_unpack(
            index.behind(chunks_offset(inode), count * layout.CHUNK.size)
        ):
            if address == layout.NULL_ADDRESS:
                parts.append(pack(0, 0, address))
            else:
                parts.append(pack(0, self._tars[number] if device else self._own_device(number), address))
        return b"".join(parts)

    def _own_device(self, number: int) -> int:
        """Return the device of a layer's own index, whose blocks only it addresses."""
        device = self._own.get(number)
        if device is None:
            self.files.append(MergedDevice(number, is_index=True))
            device = self._own[number] = len(self.files)
            self.devices.append(("0" * 64, self._indexes[number].blocks, 0))
        return device
