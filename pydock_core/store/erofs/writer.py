"""Writes an EROFS index of a layer's tree to a file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO

from pydock_core.errors import CorruptError, UnsupportedError
from pydock_core.store.compression import ANEW
from pydock_core.store.erofs import layout
from pydock_core.store.erofs.chunks import ChunkedFile
from pydock_core.store.erofs.layer_tree import LayerTree
from pydock_core.store.erofs.tree import ONE_TREE, Directory, Tree
from pydock_core.store.layer_rules import Applied
from pydock_core.store.tar_reader import TarReader
from pydock_core.store.tar_source import FileSource

_COPY_BYTES = 1 << 20
_TYPE_MASK = 0xF
_NS = 1_000_000_000
_DIRECTORY_MODE = 0o040000


def build_index(
    tar: BinaryIO,
    index_fd: int,
    subject: str,
    *,
    tag: str = "",
    block_bits: int = layout.BLOCK_BITS,
    on_turn: Callable[[], None] = lambda: None,
) -> Applied:
    """Write the index of a layer's tar.

    Args:
        tar: a seekable file, the plain archive.
        index_fd: an empty file.
        subject: names the layer in errors.
        tag: the tar's digest in hexadecimal digits, kept in the device table for people.
        block_bits: 9; with a larger value, all data is copied into the index, which then needs no second device.
        on_turn: called when no other tree of this process is being made; an error that it raises ends the writing.

    Raises:
        CorruptError, InvalidError, UnsupportedError, FailedError: as in LayerApplier.apply.
        UnsupportedError: the tar is too large for an index.
        OSError: writing failed.
    """
    tar_blocks = -(-os.fstat(tar.fileno()).st_size // (1 << layout.BLOCK_BITS))
    if tar_blocks >= layout.NULL_ADDRESS - layout.TAR_ADDRESS:
        raise UnsupportedError(
            f"{subject} is larger than 1 TiB, too large for an EROFS index",
            "use the directory driver: PYDOCK_SNAPSHOTTER=directory",
        )
    with ONE_TREE:
        on_turn()
        tree = LayerTree(subject, block_bits)
        tree.apply(TarReader(FileSource(tar.fileno()), subject))
        # In an image with larger blocks, all data is copied.
        devices = [(tag, tar_blocks, layout.TAR_ADDRESS)] if block_bits == layout.BLOCK_BITS else []
        write_image(tree, index_fd, tar.fileno(), devices, subject, block_bits=block_bits)
        return tree.applied


def write_image(
    tree: Tree,
    fd: int,
    tar_fd: int,
    devices: Sequence[tuple[str, int, int]],
    subject: str,
    *,
    block_bits: int = layout.BLOCK_BITS,
) -> None:
    """Write a tree as an index.

    Args:
        fd: an empty file.
        tar_fd: the source of data that cannot be used in place.
        devices: (tag, blocks, first block in the address space) of each file with data.

    Raises:
        UnsupportedError: the tree is too large.
        OSError: writing failed.
    """
    _Image(tree, block_bits, devices, subject).write(fd, tar_fd)


class _Image:
    """The positions of an index's parts, and their bytes."""

    def __init__(
        self, tree: Tree, block_bits: int, devices: Sequence[tuple[str, int, int]], subject: str
    ) -> None:
        self._tree = tree
        self._devices = devices
        self._bits = block_bits
        self._block = 1 << block_bits
        self._subject = subject
        self._directories = list(tree.directories())
        self._inode_count = 0
        # Inodes of directories: the root's number has 16 bits, so they come first.
        position = self._first = layout.DEVICE_OFFSET + layout.DEVICE.size * len(devices)
        self._bodies: list[tuple[int, bytes]] = []
        for directory, _ in self._directories:
            directory.nid = position // layout.SLOT_BYTES
            count, body = layout.build_xattrs(directory.xattrs)
            self._bodies.append((count, body))
            position += layout.round_up(layout.INODE_BYTES + len(body), layout.SLOT_BYTES)
        self._inodes_at = layout.round_up(position, self._block)
        self._data_at = layout.round_up(self._inodes_at + len(tree.inodes), self._block)

    def write(self, fd: int, tar_fd: int) -> None:
        data = _Data(fd, self._data_at, self._block)
        head = self._directory_inodes(data)
        self._place_blocks(data)
        end = self._place_chunks(data.end())
        if end >> self._bits >= layout.TAR_ADDRESS:
            raise UnsupportedError(
                f"{self._subject} has sparse files that are too large for an index",
                "use the directory driver: PYDOCK_SNAPSHOTTER=directory",
            )
        inodes = self._tree.inodes
        inodes += bytes(self._data_at - self._inodes_at - len(inodes))
        head[: self._first] = self._superblock(end)
        _write_all(fd, 0, head)
        _write_all(fd, self._inodes_at, inodes)
        for chunked, base in self._copies:
            for number, (_, parts) in enumerate(sorted(chunked.copied.items())):
                for inside, length, source in parts:
                    _copy(tar_fd, source, fd, base + number * chunked.chunk_bytes + inside, length)
        os.ftruncate(fd, end)

    def _superblock(self, end: int) -> bytes:
        head = bytearray(self._first)
        devices = self._devices
        incompat = layout.INCOMPAT_CHUNKED_FILE | (layout.INCOMPAT_DEVICE_TABLE if devices else 0)
        layout.SUPERBLOCK.pack_into(
            head,
            layout.SUPER_OFFSET,
            layout.MAGIC,
            0,
            layout.COMPAT_MTIME,
            self._bits,
            0,
            self._first // layout.SLOT_BYTES,
            self._inode_count,
            0,
            0,
            end >> self._bits,
            0,
            0,
            bytes.fromhex(devices[-1][0][:32]) if devices else b"",
            b"",
            incompat,
            0,
            len(devices),
            layout.DEVICE_OFFSET // layout.DEVICE.size if devices else 0,
            0,
            0,
            0,
            0,
        )
        for number, (tag, blocks, address) in enumerate(devices):
            at = layout.DEVICE_OFFSET + number * layout.DEVICE.size
            layout.DEVICE.pack_into(head, at, tag.encode("ascii"), blocks, address)
        return bytes(head)

    # -- directories -------------------------------------------------------------------------------------

    def _directory_inodes(self, data: _Data) -> bytearray:
        """Return the image up to the other inodes; add the blocks of the directories to the data."""
        head = bytearray(self._inodes_at)
        base = self._inodes_at // layout.SLOT_BYTES
        names = 0
        for (directory, parent), (count, body) in zip(self._directories, self._bodies, strict=True):
            entries = [
                (name, child.nid, layout.TYPE_DIRECTORY)
                if isinstance(child, Directory)
                else (name, base + (child >> 4), child & _TYPE_MASK)
                for name, child in directory.children.items()
            ]
            names += len(entries)
            entries.append((b".", directory.nid, layout.TYPE_DIRECTORY))
            entries.append((b"..", parent.nid, layout.TYPE_DIRECTORY))
            entries.sort()
            blocks = layout.build_directory(entries, self._block)
            links = 2 + sum(1 for entry in entries if entry[2] == layout.TYPE_DIRECTORY) - 2
            at = directory.nid * layout.SLOT_BYTES
            layout.INODE.pack_into(
                head,
                at,
                layout.FORMAT_PLAIN,
                count,
                _DIRECTORY_MODE | directory.mode,
                0,
                len(blocks),
                data.append(blocks) >> self._bits,
                directory.nid & 0xFFFFFFFF,
                directory.uid,
                directory.gid,
                directory.mtime_ns // _NS,
                directory.mtime_ns % _NS,
                links,
            )
            head[at + layout.INODE_BYTES : at + layout.INODE_BYTES + len(body)] = body
        self._inode_count = names + 1
        return head

    # -- what has blocks of its own ----------------------------------------------------------------------

    def _place_blocks(self, data: _Data) -> None:
        for offset, content in self._tree.blocks:
            self._set_address(offset, data.append(content) >> self._bits)

    def _place_chunks(self, end: int) -> int:
        """Write the indexes of files in chunks; return the end of the image."""
        self._copies: list[tuple[ChunkedFile, int]] = []
        inodes = self._tree.inodes
        pack = layout.CHUNK.pack_into
        for chunked in self._tree.chunked:
            at, step = chunked.index_offset, layout.CHUNK.size
            inodes[at : at + chunked.count * step] = (
                layout.CHUNK.pack(0, 0, layout.NULL_ADDRESS) * chunked.count
            )
            blocks = chunked.chunk_bytes >> self._bits
            for first, count, source in chunked.in_tar:
                address = source >> layout.BLOCK_BITS
                for number in range(count):
                    pack(inodes, at + (first + number) * step, 0, 1, address + number * blocks)
            if chunked.copied:
                self._copies.append((chunked, end))
                address = end >> self._bits
                for number in sorted(chunked.copied):
                    if address >= layout.TAR_ADDRESS:
                        break  # refused by the caller
                    pack(inodes, at + number * step, 0, 0, address)
                    address += blocks
                end += len(chunked.copied) * chunked.chunk_bytes
        return end

    def _set_address(self, inode_offset: int, address: int) -> None:
        layout.LINKS.pack_into(self._tree.inodes, inode_offset + layout.ADDRESS_OFFSET, address)


class _Data:
    """The data after the inodes; each piece starts at a block boundary.

    Args:
        fd: the image.
        start: its offset, a block boundary.
        block_bytes: of the image.
    """

    def __init__(self, fd: int, start: int, block_bytes: int) -> None:
        self._fd = fd
        self._start = start
        self._block_bytes = block_bytes
        self._waiting = bytearray()

    def append(self, content: bytes) -> int:
        """Append content; return its offset in the image."""
        if len(self._waiting) >= _COPY_BYTES:
            self.end()
        at = self._start + len(self._waiting)
        self._waiting += content
        self._waiting += bytes(-len(content) % self._block_bytes)
        return at

    def end(self) -> int:
        """Write the buffered data; return the end offset."""
        _write_all(self._fd, self._start, self._waiting)
        self._start += len(self._waiting)
        self._waiting.clear()
        return self._start


def _write_all(fd: int, offset: int, data: bytes | bytearray) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view = view[written:]
        offset += written


def _copy(source_fd: int, source: int, target_fd: int, target: int, length: int) -> None:
    for piece in _pieces(source_fd, source, length):
        _write_all(target_fd, target, piece)
        target += len(piece)


def _pieces(fd: int, offset: int, length: int) -> Iterator[bytes]:
    while length:
        data = os.pread(fd, min(length, _COPY_BYTES), offset)
        if not data:
            raise CorruptError("a layer's tar was shortened while it was read", ANEW)
        yield data
        offset += len(data)
        length -= len(data)
