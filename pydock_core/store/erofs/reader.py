"""Reads an index that this package wrote, with its tar, without mounting it: a few small files of an image."""

from __future__ import annotations

import mmap
import os
import struct
from typing import NamedTuple

from pydock_core.errors import CorruptError
from pydock_core.store.erofs import layout


class Inode(NamedTuple):
    """An inode: its data layout, attributes' count, mode, size and address (or chunk format)."""

    form: int
    xattr_count: int
    mode: int
    size: int
    address: int
    offset: int


class Index:
    """An index over a tar, both files.

    Raises:
        OSError: one cannot be opened.
        CorruptError: it is no index of ours.
    """

    def __init__(self, index: str, tar: str, subject: str) -> None:
        self._subject = subject
        self._tar = tar
        fd = os.open(index, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._map = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
        except ValueError as error:
            raise self._damaged() from error
        finally:
            os.close(fd)
        try:
            head = layout.SUPERBLOCK.unpack_from(self._map, layout.SUPER_OFFSET)
        except struct.error as error:
            self._map.close()
            raise self._damaged() from error
        if head[0] != layout.MAGIC or head[3] != layout.BLOCK_BITS or head[5] != layout.ROOT_NID:
            self._map.close()
            raise self._damaged()

    def _damaged(self) -> CorruptError:
        return CorruptError(f"the index of {self._subject} is damaged", "remove the image and get it anew")

    def inode(self, nid: int) -> Inode:
        """Return an inode."""
        offset = nid * layout.SLOT_BYTES
        try:
            form, count, mode, _, size, address, *_ = layout.INODE.unpack_from(self._map, offset)
        except struct.error as error:
            raise self._damaged() from error
        return Inode(form, count, mode, size, address, offset)

    def lookup(self, directory: Inode, name: bytes) -> int | None:
        """Return the number of the inode that a directory has under a name: by halves, first blocks, then entries."""
        block_bytes = 1 << layout.BLOCK_BITS
        base = directory.address << layout.BLOCK_BITS
        low, high = 0, -(-directory.size // block_bytes) - 1
        while low < high:
            middle = (low + high + 1) // 2
            if self._names(base + middle * block_bytes, block_bytes)[0][0] <= name:
                low = middle
            else:
                high = middle - 1
        length = min(block_bytes, directory.size - low * block_bytes)
        return dict(self._names(base + low * block_bytes, length)).get(name)

    def _names(self, offset: int, length: int) -> list[tuple[bytes, int]]:
        block = self._map[offset : offset + length]
        try:
            count = layout.DIRENT.unpack_from(block)[1] // layout.DIRENT.size
            entries = [layout.DIRENT.unpack_from(block, layout.DIRENT.size * n) for n in range(count)]
            ends = [entry[1] for entry in entries[1:]]
            names = [block[entry[1] : end] for entry, end in zip(entries, [*ends, length], strict=True)]
        except (struct.error, ValueError) as error:
            raise self._damaged() from error
        if not names:
            raise self._damaged()
        names[-1] = names[-1].rstrip(b"\0")
        return [(name, entry[0]) for name, entry in zip(names, entries, strict=True)]

    def xattr(self, inode: Inode, wanted: bytes) -> bytes | None:
        """Return an attribute's value, None where there is none."""
        if not inode.xattr_count:
            return None
        at = inode.offset + layout.INODE_BYTES + layout.XATTR_HEADER_BYTES
        end = at + 4 * (inode.xattr_count - 1)
        prefixes = {index: prefix for prefix, index in layout.XATTR_PREFIXES}
        try:
            while at < end:
                length, index, size = layout.XATTR_ENTRY.unpack_from(self._map, at)
                name_at = at + layout.XATTR_ENTRY.size
                value_at = name_at + length
                if prefixes.get(index, b"") + self._map[name_at:value_at] == wanted:
                    return self._map[value_at : value_at + size]
                at = layout.round_up(value_at + size, 4)
        except struct.error as error:
            raise self._damaged() from error
        return None

    def contents(self, inode: Inode) -> bytes:
        """Return the contents of a file, or the target of a symbolic link."""
        if inode.form == layout.FORMAT_INLINE:
            body = layout.XATTR_HEADER_BYTES + 4 * (inode.xattr_count - 1) if inode.xattr_count else 0
            start = inode.offset + layout.INODE_BYTES + body
            return self._map[start : start + inode.size]
        if not inode.size:
            return b""
        tar_fd = os.open(self._tar, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if inode.form == layout.FORMAT_PLAIN:
                return self._extent(tar_fd, inode.address, inode.size)
            return self._chunks(tar_fd, inode)
        finally:
            os.close(tar_fd)

    def _extent(self, tar_fd: int, address: int, size: int) -> bytes:
        if address >= layout.TAR_ADDRESS:
            return os.pread(tar_fd, size, (address - layout.TAR_ADDRESS) << layout.BLOCK_BITS)
        start = address << layout.BLOCK_BITS
        return self._map[start : start + size]

    def _chunks(self, tar_fd: int, inode: Inode) -> bytes:
        body = layout.XATTR_HEADER_BYTES + 4 * (inode.xattr_count - 1) if inode.xattr_count else 0
        at = layout.round_up(inode.offset + layout.INODE_BYTES + body, layout.CHUNK.size)
        chunk_bytes = 1 << (layout.BLOCK_BITS + (inode.address & layout.CHUNK_BITS_MASK))
        parts = []
        for start in range(0, inode.size, chunk_bytes):
            length = min(chunk_bytes, inode.size - start)
            try:
                _, device, address = layout.CHUNK.unpack_from(self._map, at)
            except struct.error as error:
                raise self._damaged() from error
            at += layout.CHUNK.size
            if address == layout.NULL_ADDRESS:
                parts.append(bytes(length))
            else:
                parts.append(self._extent(tar_fd, address + (layout.TAR_ADDRESS if device else 0), length))
        return b"".join(parts)

    def close(self) -> None:
        """Give the files up."""
        self._map.close()
