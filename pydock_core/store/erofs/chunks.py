"""Files whose data is not contiguous in the tar: the positions of their blocks, and their holes."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field

from pydock_core.store.erofs import layout

_CHUNKS_LIMIT = 1 << 20
_PART_BYTES = 200
_COPIED_CHUNK_BYTES = 4096
_COPIED_CHUNKS_LIMIT = 1 << 16  # each is an object in memory
_LARGEST_CHUNK_BITS = 40
_LARGEST_FILE_BYTES = 1 << 44  # ext4's own limit, which the directory driver meets


@dataclass(slots=True)
class ChunkedFile:
    """A file in chunks.

    Attributes:
        form: the chunk format of its inode.
        chunk_bytes: a power of two.
        count: of chunks, and of indexes after its inode.
        in_tar: (first chunk, number of chunks, byte in the tar) of data that is used in place.
        copied: (number of a chunk, parts of (offset in the chunk, length, byte in the tar)) of data that is copied.
        inode_offset, index_offset: of its inode, and of its indexes.
    """

    form: int
    chunk_bytes: int
    count: int
    in_tar: list[tuple[int, int, int]] = field(default_factory=list)
    copied: dict[int, list[tuple[int, int, int]]] = field(default_factory=dict)
    inode_offset: int = 0
    index_offset: int = 0

    @property
    def memory_bytes(self) -> int:
        """The approximate size in memory, including its indexes."""
        parts = len(self.in_tar) + sum(1 + len(chunk) for chunk in self.copied.values())
        return self.count * layout.CHUNK.size + parts * _PART_BYTES


def plan_chunks(
    size_bytes: int,
    segments: tuple[tuple[int, int], ...],
    offset: int,
    block_bytes: int,
) -> ChunkedFile:
    """Return the representation of a file that consists of parts.

    Args:
        size_bytes: of the file, holes included; more than 0.
        segments: (offset in the file, length), ascending; their data is contiguous from ``offset`` in the tar.
        block_bytes: of the image; data can be used in place only at the boundary of a block of 512.

    Raises:
        OSError: EFBIG; the file is too large.
    """
    if size_bytes > _LARGEST_FILE_BYTES:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    usable = block_bytes == 1 << layout.BLOCK_BITS
    common = 1 << _LARGEST_CHUNK_BITS
    position = offset
    for start, length in segments:
        end = start + length
        common |= start
        if end != size_bytes:
            common |= length
        usable = usable and not position % block_bytes
        position += length
    # The lowest bit set in any of them: the largest power of two that divides all boundaries.
    chunk_bytes = common & -common
    usable = usable and chunk_bytes >= block_bytes and -(-size_bytes // chunk_bytes) <= _CHUNKS_LIMIT
    if not usable:
        chunk_bytes = max(_COPIED_CHUNK_BYTES, block_bytes)
        while -(-size_bytes // chunk_bytes) > _COPIED_CHUNKS_LIMIT:
            chunk_bytes *= 2
    bits = (chunk_bytes // block_bytes).bit_length() - 1
    bits = min(bits, layout.CHUNK_BITS_MASK)
    chunk_bytes = block_bytes << bits
    count = -(-size_bytes // chunk_bytes)
    plan = ChunkedFile(bits | layout.CHUNK_INDEXES, chunk_bytes, count)
    position = offset
    for start, length in segments:
        if usable:
            plan.in_tar.append((start // chunk_bytes, -(-length // chunk_bytes), position))
            position += length
            continue
        end = start + length
        while start < end:
            number, inside = divmod(start, chunk_bytes)
            part = min(end - start, chunk_bytes - inside)
            plan.copied.setdefault(number, []).append((inside, part, position))
            start += part
            position += part
    return plan
