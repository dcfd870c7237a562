"""Reads small files from an index of this package and its tar, without mounting them."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from pydock_core.errors import CorruptError
from pydock_core.store.erofs import layout


class Inode(NamedTuple):
    """An inode: data layout, number of attributes, mode, size and address (or chunk format)."""

    form: int
    xattr_count: int
    mode: int
    size: int
    address: int
    offset: int


class Index:
    """An index over one tar or several, with all files open.

    Attributes:
        root_nid: the root's number.
        blocks: of the index itself.
        devices: (tag, blocks, first block in the address space) of the files with data, in order.

    Raises:
        OSError: a file cannot be opened.
        CorruptError: the file is not an index of this package.
    """

    def __init__(self, index: str, files: Sequence[str], subject: str) -> None:
        self._subject = subject
        self._files = files
        fd = os.open(index, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._map = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
        except ValueError as error:
            raise self._damaged() from error
        finally:
            os.close(fd)
        try:
            head = layout.SUPERBLOCK.unpack_from(self._map, layout.SUPER_OFFSET)
            self.devices = [
                layout.DEVICE.unpack_from(self._map, layout.DEVICE_OFFSET + number * layout.DEVICE.size)
                for number in range(head[16])
            ]
        except struct.error as error:
            self._map.close()
            raise self._damaged() from error
        self.root_nid: int = head[5]
        self.blocks: int = head[9]
        if head[0] != layout.MAGIC or head[3] != layout.BLOCK_BITS or len(self.devices) != len(files):
            self._map.close()
            raise self._damaged()

    def _damaged(self) -> CorruptError:
        return CorruptError(
            f"the index of {self._subject} is damaged",
            "remove the image (dock rmi), and pull or load it again",
        )

    def inode(self, nid: int) -> Inode:
        """Return an inode."""
        offset = nid * layout.SLOT_BYTES
        try:
            form, count, mode, _, size, address, *_ = layout.INODE.unpack_from(self._map, offset)
        except struct.error as error:
            raise self._damaged() from error
        return Inode(form, count, mode, size, address, offset)

    def record(self, nid: int) -> tuple[int, ...]:
        """Return all fields of an inode, in the order of :data:`layout.INODE`."""
        try:
            return layout.INODE.unpack_from(self._map, nid * layout.SLOT_BYTES)
        except struct.error as error:
            raise self._damaged() from error

    def behind(self, offset: int, length: int) -> bytes:
        """Return the bytes at an offset of the index."""
        return self._map[offset : offset + length]

    def entries(self, directory: Inode) -> Iterator[tuple[bytes, int, int]]:
        """Yield (name, number of the inode, type) of all entries of a directory, including "." and ".."."""
        block_bytes = 1 << layout.BLOCK_BITS
        base = directory.address << layout.BLOCK_BITS
        for start in range(0, directory.size, block_bytes):
            yield from self._names(base + start, min(block_bytes, directory.size - start))

    def lookup(self, directory: Inode, name: bytes) -> int | None:
        """Return the inode number of a name in a directory, by a binary search over blocks, then entries."""
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
        names = self._names(base + low * block_bytes, length)
        return next((nid for known, nid, _ in names if known == name), None)

    def _names(self, offset: int, length: int) -> list[tuple[bytes, int, int]]:
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
        return [(name, entry[0], entry[2]) for name, entry in zip(names, entries, strict=True)]

    def xattrs(self, inode: Inode) -> dict[bytes, bytes]:
        """Return the extended attributes."""
        found: dict[bytes, bytes] = {}
        if not inode.xattr_count:
            return found
        at = inode.offset + layout.INODE_BYTES + layout.XATTR_HEADER_BYTES
        end = at + 4 * (inode.xattr_count - 1)
        prefixes = {index: prefix for prefix, index in layout.XATTR_PREFIXES}
        try:
            while at < end:
                length, index, size = layout.XATTR_ENTRY.unpack_from(self._map, at)
                name_at = at + layout.XATTR_ENTRY.size
                value_at = name_at + length
                name = prefixes.get(index, b"") + self._map[name_at:value_at]
                found[name] = self._map[value_at : value_at + size]
                at = layout.round_up(value_at + size, 4)
        except struct.error as error:
            raise self._damaged() from error
        return found

    def contents(self, inode: Inode) -> bytes:
        """Return the contents of a file, or the target of a symbolic link."""
        if inode.form == layout.FORMAT_INLINE:
            start = inode.offset + layout.INODE_BYTES + xattr_bytes(inode)
            return self._map[start : start + inode.size]
        if not inode.size:
            return b""
        if inode.form == layout.FORMAT_PLAIN:
            return self._extent(inode.address, inode.size)
        return self._chunks(inode)

    def _extent(self, address: int, size: int) -> bytes:
        """Read from the address space, in which the files follow the index."""
        for number, (_, blocks, first) in enumerate(self.devices):
            if first and first <= address < first + blocks:
                return self._from_file(number, address - first, size)
        start = address << layout.BLOCK_BITS
        return self._map[start : start + size]

    def _from_file(self, number: int, block: int, size: int) -> bytes:
        fd = os.open(self._files[number], os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.pread(fd, size, block << layout.BLOCK_BITS)
        finally:
            os.close(fd)

    def _chunks(self, inode: Inode) -> bytes:
        at = chunks_offset(inode)
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
            elif device:
                parts.append(self._from_file(device - 1, address, length))
            else:
                parts.append(self._extent(address, length))
        return b"".join(parts)

    def close(self) -> None:
        """Close the files."""
        self._map.close()


def xattr_bytes(inode: Inode) -> int:
    """Return the size of an inode's attributes."""
    return layout.XATTR_HEADER_BYTES + 4 * (inode.xattr_count - 1) if inode.xattr_count else 0


def chunks_offset(inode: Inode) -> int:
    """Return the offset of an inode's chunk indexes."""
    return layout.round_up(inode.offset + layout.INODE_BYTES + xattr_bytes(inode), layout.CHUNK.size)
