"""The on-disk records of EROFS in an index (kernel, fs/erofs/erofs_fs.h).

An index has blocks of 512 bytes, like a tar, in this order::

    1024   superblock; at 1152 the device table: a layer's tar, or the tars of several layers
    ...    inodes of the directories, the root first (its number must fit 16 bits)
    ...    all other inodes, each followed by its attributes, symlink target or chunk indexes
    ...    blocks of directory entries, long symlink targets, data that is not at a block boundary in the tar

The number of an inode (nid) is its offset divided by 32.  All inodes are "extended" (64 bytes): only these have a
time, a 32-bit owner and a 32-bit link count.  A file whose data is contiguous in the tar is "flat": the tar follows the
index in one address space (``uniaddr``), so a file needs no chunk index, an inode is one record of fixed size, and the
kernel finds the block by an addition.
"""

from __future__ import annotations

import stat
import struct

MAGIC = 0xE0F5E1E2
SUPER_OFFSET = 1024
DEVICE_OFFSET = 1152
SLOT_BYTES = 32
"""The unit of inode numbers."""
BLOCK_BITS = 9
TAR_ADDRESS = 1 << 31
"""The first block of the first tar in the address space; so an index has at most 1 TiB, and so have its tars."""
NULL_ADDRESS = 0xFFFFFFFF

COMPAT_MTIME = 0x2
INCOMPAT_CHUNKED_FILE = 0x4
INCOMPAT_DEVICE_TABLE = 0x8

# i_format: bit 0 is the extended form, bits 1 to 3 the data layout.
FORMAT_PLAIN = 1
FORMAT_INLINE = 1 | 2 << 1
FORMAT_CHUNKS = 1 | 4 << 1
CHUNK_BITS_MASK = 0x1F
CHUNK_INDEXES = 0x20

TYPE_FILE, TYPE_DIRECTORY, TYPE_CHARACTER, TYPE_BLOCK, TYPE_FIFO, TYPE_SYMLINK = 1, 2, 3, 4, 5, 7
TYPES = {
    stat.S_IFREG: TYPE_FILE,
    stat.S_IFDIR: TYPE_DIRECTORY,
    stat.S_IFCHR: TYPE_CHARACTER,
    stat.S_IFBLK: TYPE_BLOCK,
    stat.S_IFIFO: TYPE_FIFO,
    stat.S_IFLNK: TYPE_SYMLINK,
}

SUPERBLOCK = struct.Struct("<IIIBBHQQIIII16s16sIHHHBBIQ24x")
"""magic, checksum, compat, blkszbits, slots, root nid, inodes, build time, its ns, blocks, meta and xattr address,
uuid, volume name, incompat, compression, devices, slot of the device table, dirblkbits, xattr prefixes, where, packed
nid."""
DEVICE = struct.Struct("<64sII56x")
"""tag, blocks, uniaddr."""
INODE = struct.Struct("<HHHHQIIIIQII16x")
"""format, xattr count, mode, 0, size, address (or device number, or chunk format), number, uid, gid, mtime, its ns,
links."""
INODE_BYTES = INODE.size
ADDRESS_OFFSET = 16
LINKS_OFFSET = 44
LINKS = struct.Struct("<I")
DIRENT = struct.Struct("<QHBB")
"""nid, offset of the name in the block, type, 0; the names follow the block's entries."""
CHUNK = struct.Struct("<HHI")
"""0, device, block."""
XATTR_HEADER_BYTES = 12
XATTR_ENTRY = struct.Struct("<BBH")
"""length of the name without its prefix, prefix, length of the value."""
XATTR_PREFIXES = (
    (b"user.", 1),
    (b"system.posix_acl_access", 2),
    (b"system.posix_acl_default", 3),
    (b"trusted.", 4),
    (b"security.", 6),
)
XATTR_LIMIT = 0xFFFF


def round_up(value: int, unit: int) -> int:
    """Return the next multiple of ``unit``, a power of two."""
    return (value + unit - 1) & -unit


def encode_device(major: int, minor: int) -> int:
    """Encode a device number in 32 bits (kernel, new_encode_dev)."""
    return (minor & 0xFF) | major << 8 | (minor & ~0xFF) << 12


def build_xattrs(xattrs: dict[bytes, bytes]) -> tuple[int, bytes]:
    """Return the count for the inode (i_xattr_icount) and the attributes that follow it; (0, b"") for none."""
    if not xattrs:
        return 0, b""
    body = bytearray(XATTR_HEADER_BYTES)
    for name, value in sorted(xattrs.items()):
        prefix, index = next(item for item in XATTR_PREFIXES if name.startswith(item[0]))
        suffix = name[len(prefix) :]
        body += XATTR_ENTRY.pack(len(suffix), index, len(value)) + suffix + value
        body += bytes(-len(body) % 4)
    return (len(body) - XATTR_HEADER_BYTES) // 4 + 1, bytes(body)


def build_directory(entries: list[tuple[bytes, int, int]], block_bytes: int) -> bytes:
    """Return the blocks of a directory; the last one is not padded.

    Args:
        entries: (name, nid, type) sorted by the names' bytes, including "." and "..": the kernel uses a binary search
            over blocks and entries.
    """
    blocks: list[bytes] = []
    group: list[tuple[bytes, int, int]] = []
    used = 0
    for entry in entries:
        need = DIRENT.size + len(entry[0])
        if used + need > block_bytes:
            blocks.append(_directory_block(group).ljust(block_bytes, b"\0"))
            group, used = [], 0
        group.append(entry)
        used += need
    blocks.append(_directory_block(group))
    return b"".join(blocks)


def _directory_block(group: list[tuple[bytes, int, int]]) -> bytes:
    offset = DIRENT.size * len(group)
    parts = []
    pack = DIRENT.pack
    for name, nid, kind in group:
        parts.append(pack(nid, offset, kind, 0))
        offset += len(name)
    parts += [entry[0] for entry in group]
    return b"".join(parts)
