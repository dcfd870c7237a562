"""Builds the tree of a layer's entries in memory, equal to the one that LayerApplier makes on disk.

The rules and the errors are those of :mod:`pydock_core.store.layer_rules`: an operation that the kernel would refuse on
disk raises the same errno here.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable

from pydock_core.errors import InvalidError
from pydock_core.store.erofs import layout
from pydock_core.store.erofs.chunks import ChunkedFile, plan_chunks
from pydock_core.store.erofs.tree import ENTRY_BYTES, KIND_MASK, Directory, Tree, child_offset
from pydock_core.store.erofs.xattr import add_xattrs
from pydock_core.store.layer_rules import (
    HOSTILE,
    LINK_DEPTH,
    OPAQUE_NAME,
    WHITEOUT_PREFIX,
    Applied,
    clean_name,
    hidden_name,
    map_error,
)
from pydock_core.store.tar_reader import Entry

_OPAQUE_XATTR = b"trusted.overlay.opaque"
_NAME_LIMIT = 255
_PATH_LIMIT = 4095
_SYMLINK_BYTES = 180
_ATTRIBUTE_BYTES = 80
_UNRESOLVED = -1
"""In the place of a child: a hard link to a file that the layer does not have."""
_LINKS_FOLLOWED = 40  # kernel, MAXSYMLINKS
_NS = 1_000_000_000


class LayerTree(Tree):
    """A layer's tree.

    Args:
        subject: names the layer in errors.
        block_bits: of the image to be written.

    Attributes:
        applied: the result of applying the layer.
    """

    def __init__(self, subject: str, block_bits: int = layout.BLOCK_BITS) -> None:
        super().__init__(subject)
        self.applied = Applied()
        self._block_bytes = 1 << block_bits
        self._targets: dict[int, bytes] = {}
        self._known: dict[bytes, Directory] = {}
        self._opaque: set[bytes] = set()
        self._whiteouts: set[bytes] = set()
        self._implied: set[bytes] = set()

    def apply(self, entries: Iterable[Entry]) -> Applied:
        """Apply every entry.

        Raises:
            InvalidError, UnsupportedError, FailedError: as in LayerApplier.apply.  Errors of the reader are raised as they
                are.
        """
        applied = self.applied
        plain = layout.FORMAT_PLAIN
        pack = layout.INODE.pack
        inodes = self.inodes
        known = self._known
        block_mask = self._block_bytes - 1
        address, bits = layout.TAR_ADDRESS, layout.BLOCK_BITS
        regular, is_small = stat.S_IFREG, self._block_bytes == 1 << layout.BLOCK_BITS
        charge = self.charge
        for entry in entries:
            applied.entries += 1
            name, kind, mode, uid, gid, size, mtime_ns, _, _, xattrs, segments, offset = entry
            where, _, last = name.rpartition(b"/")
            parent = known.get(where)
            try:
                if (
                    parent is None
                    or last in (b"", b".", b"..")
                    or len(last) > _NAME_LIMIT
                    or last.startswith(WHITEOUT_PREFIX)
                ):
                    self._apply_entry(entry)
                # The common case: a file with a new name, and its data at a block boundary of the tar.
                elif (
                    kind == regular
                    and is_small
                    and segments is None
                    and not xattrs
                    and not offset & block_mask
                    and last not in parent.children
                ):
                    charge(ENTRY_BYTES + len(last))
                    position = len(inodes)
                    parent.children[last] = (position >> 1) | layout.TYPE_FILE
                    inodes += pack(
                        plain,
                        0,
                        regular | mode,
                        0,
                        size,
                        address + (offset >> bits) if size else 0,
                        position >> 5,
                        uid,
                        gid,
                        mtime_ns // _NS,
                        mtime_ns % _NS,
                        1,
                    )
                    applied.size_bytes += size
                else:
                    self._put(entry, parent, last)
            except OSError as error:
                raise map_error(error, self._subject, entry.text, (uid, gid)) from error
        try:
            self._finish()
        except OSError as error:
            raise map_error(error, self._subject) from error
        return applied

    # -- one entry ---------------------------------------------------------------------------------------

    def _apply_entry(self, entry: Entry) -> None:
        path = clean_name(entry.name, self._subject)
        if not path:
            if entry.kind == stat.S_IFDIR:
                self._set_directory(self.root, entry)
                self._remember(entry.name, self.root)
            return
        where, _, name = path.rpartition(b"/")
        if name.startswith(WHITEOUT_PREFIX):
            self._apply_whiteout(where, name)
            return
        parent = self._parent(where)
        raw = entry.name.rpartition(b"/")
        if raw[2] == name:
            self._remember(raw[0], parent)
        if len(name) > _NAME_LIMIT:
            raise _error(errno.ENAMETOOLONG)
        self._put(entry, parent, name)

    def _remember(self, name: bytes, directory: Directory) -> None:
        """Record the archive's name of a directory."""
        if name not in self._known:
            self.charge(ENTRY_BYTES + len(name))
            self._known[name] = directory

    def _put(self, entry: Entry, parent: Directory, name: bytes) -> None:
        """Make an entry under a name in a directory."""
        attributes = sum(_ATTRIBUTE_BYTES + len(name) + len(value) for name, value in entry.xattrs)
        self.charge(ENTRY_BYTES + len(name) + attributes)
        if entry.kind == stat.S_IFDIR:
            there = parent.children.get(name)
            if not isinstance(there, Directory):
                if there is not None:
                    parent = self._remove(entry, name, parent)
                there = self.make_directory(parent, name)
            self._set_directory(there, entry)
            self._remember(entry.name, there)
            if self._implied:
                self._implied.discard(clean_name(entry.name, self._subject))
            return
        child = self._make(entry, name, parent)
        if child is None:
            parent = self._remove(entry, name, parent)
            child = self._make(entry, name, parent)
            if child is None:
                raise _error(errno.EEXIST)
        if child == _UNRESOLVED:
            self.applied.unresolved_links += 1
            return
        parent.children[name] = child

    def _make(self, entry: Entry, name: bytes, parent: Directory) -> int | None:
        """Make the inode of an entry that is not a directory; None if the name is taken, or _UNRESOLVED."""
        if entry.kind == 0:
            return self._hard_link(entry, name, parent)
        if entry.kind == stat.S_IFLNK:
            if not entry.link:
                raise _error(errno.ENOENT)
            if len(entry.link) > _PATH_LIMIT:
                raise _error(errno.ENAMETOOLONG)
            self.charge(_SYMLINK_BYTES + len(entry.link) * 5 // 4)
        if name in parent.children:
            return None
        if entry.kind == stat.S_IFREG:
            self.applied.size_bytes += entry.size_bytes
        return self._inode(entry)

    def _inode(self, entry: Entry) -> int:
        inodes = self.inodes
        kind, size, link = entry.kind, entry.size_bytes, entry.link
        xattrs: dict[bytes, bytes] = {}
        mode = self._add_xattrs(entry, xattrs)
        count, body = layout.build_xattrs(xattrs)
        head = layout.INODE_BYTES + len(body)
        address, form, tail = 0, layout.FORMAT_PLAIN, b""
        chunks: ChunkedFile | None = None
        if kind == stat.S_IFLNK:
            size, mode = len(link), 0o777
            if (head & (self._block_bytes - 1)) + size <= self._block_bytes:
                form, tail = layout.FORMAT_INLINE, link
        elif kind == stat.S_IFREG and size:
            if (
                entry.segments is None
                and not entry.offset % self._block_bytes
                and self._block_bytes == 1 << layout.BLOCK_BITS
            ):
                address = layout.TAR_ADDRESS + (entry.offset >> layout.BLOCK_BITS)
            else:
                segments = ((0, size),) if entry.segments is None else entry.segments
                chunks = plan_chunks(size, segments, entry.offset, self._block_bytes)
                self.charge(chunks.memory_bytes)
                form, address = layout.FORMAT_CHUNKS, chunks.form
                body += bytes(-head % layout.CHUNK.size)
                head = layout.INODE_BYTES + len(body)
                tail = bytes(chunks.count * layout.CHUNK.size)
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            address = layout.encode_device(*entry.device)
        if form == layout.FORMAT_INLINE:
            self.align_inline(head, size, self._block_bytes)
        position = len(inodes)
        inodes += layout.INODE.pack(
            form,
            count,
            kind | mode,
            0,
            size,
            address,
            position >> 5,
            entry.uid,
            entry.gid,
            entry.mtime_ns // _NS,
            entry.mtime_ns % _NS,
            1,
        )
        inodes += body
        if chunks is not None:
            chunks.inode_offset = position
            chunks.index_offset = len(inodes)
            self.chunked.append(chunks)
        inodes += tail
        inodes += bytes(-len(inodes) % layout.SLOT_BYTES)
        child = (position >> 1) | layout.TYPES[kind]
        if kind == stat.S_IFLNK:
            self._targets[child] = link
            if not tail:
                self.blocks.append((position, link))
        return child

    def _hard_link(self, entry: Entry, name: bytes, parent: Directory) -> int | None:
        where, _, target = clean_name(entry.link, self._subject, entry.name).rpartition(b"/")
        if not target:
            raise InvalidError(f"{self._subject}: hard link {entry.text!r} leads to a directory", HOSTILE)
        directory = self._existing(where)
        if len(target) > _NAME_LIMIT and directory is not None:
            raise _error(errno.ENAMETOOLONG)
        child = None if directory is None else directory.children.get(target)
        if child is None or (isinstance(child, int) and self._is_whiteout(child)):
            return _UNRESOLVED
        if isinstance(child, Directory):
            raise InvalidError(f"{self._subject}: hard link {entry.text!r} leads to a directory", HOSTILE)
        if name in parent.children:
            return None
        self._count_links(child, 1)
        return child

    def _count_links(self, child: int, change: int) -> None:
        at = child_offset(child) + layout.LINKS_OFFSET
        (links,) = layout.LINKS.unpack_from(self.inodes, at)
        layout.LINKS.pack_into(self.inodes, at, links + change)

    def _set_directory(self, directory: Directory, entry: Entry) -> None:
        directory.uid, directory.gid = entry.uid, entry.gid
        directory.mtime_ns = entry.mtime_ns
        directory.mode = self._add_xattrs(entry, directory.xattrs)

    def _add_xattrs(self, entry: Entry, xattrs: dict[bytes, bytes]) -> int:
        """Add the attributes that Linux supports for an entry's kind; return its mode."""
        mode, skipped = add_xattrs(xattrs, entry.xattrs, entry.mode, entry.kind)
        self.applied.skipped_xattrs += skipped
        return mode

    # -- whiteouts ---------------------------------------------------------------------------------------

    def _apply_whiteout(self, where: bytes, name: bytes) -> None:
        hidden = hidden_name(name, self._subject)
        if hidden is None:
            return
        parent = self._parent(where)
        self.applied.whiteouts += 1
        if hidden == OPAQUE_NAME:
            self._opaque.add(where)
            self.applied.opaque_root = self.applied.opaque_root or not where
            return
        path = where + b"/" + hidden if where else hidden
        if hidden in parent.children:
            self._opaque.add(path)
            return
        parent.children[hidden] = self._whiteout()
        self._whiteouts.add(path)

    def _whiteout(self) -> int:
        return self._inode(
            Entry(b"", stat.S_IFCHR, 0o600, 0, 0, 0, 0, b"", (0, 0), (), None, 0),
        )

    def _is_whiteout(self, child: int) -> bool:
        if child & KIND_MASK != layout.TYPE_CHARACTER:
            return False
        at = child_offset(child) + layout.ADDRESS_OFFSET
        return bytes(self.inodes[at : at + 4]) == bytes(4)

    # -- directories -------------------------------------------------------------------------------------

    def _parent(self, path: bytes) -> Directory:
        """Return the directory ``path``; create it if it is missing."""
        if not path:
            return self.root
        directory = self._existing(path)
        if directory is None:
            self._make_parents(path, 0)
            directory = self._existing(path)
            if directory is None:
                raise _error(errno.ENOENT)
        return directory

    def _existing(self, path: bytes) -> Directory | None:
        """Resolve a path within the root, like openat2(2) with RESOLVE_IN_ROOT; None if it is not a directory."""
        if len(path) > _PATH_LIMIT:
            raise _error(errno.ENAMETOOLONG)
        stack = [self.root]
        parts = path.split(b"/")[::-1]
        followed = 0
        while parts:
            part = parts.pop()
            if part in (b"", b"."):
                continue
            if part == b"..":
                if len(stack) > 1:
                    stack.pop()
                continue
            if len(part) > _NAME_LIMIT:
                raise _error(errno.ENAMETOOLONG)
            child = stack[-1].children.get(part)
            if isinstance(child, Directory):
                stack.append(child)
                continue
            if child is None or child & KIND_MASK != layout.TYPE_SYMLINK:
                return None
            followed += 1
            if followed > _LINKS_FOLLOWED:
                raise _error(errno.ELOOP)
            target = self._targets[child]
            if target.startswith(b"/"):
                stack = [self.root]
            parts += target.split(b"/")[::-1]
        return stack[-1]

    def _make_parents(self, path: bytes, depth: int) -> None:
        if depth > LINK_DEPTH:
            raise _error(errno.ELOOP)
        parts = [part for part in path.split(b"/") if part and part != b"."]
        for count in range(1, len(parts) + 1):
            prefix = b"/".join(parts[:count])
            if self._existing(prefix) is not None:
                continue
            where = b"/".join(parts[: count - 1])
            parent = self._existing(where)
            if parent is None:
                raise _error(errno.ENOTDIR)
            self._make_parent(prefix, parts[count - 1], where, parent, depth)

    def _make_parent(self, prefix: bytes, name: bytes, where: bytes, parent: Directory, depth: int) -> None:
        child = parent.children.get(name)
        self._implied.add(prefix)
        if child is None:
            self.make_directory(parent, name)
        elif isinstance(child, int) and prefix in self._whiteouts and self._is_whiteout(child):
            self._whiteouts.discard(prefix)
            self.make_directory(parent, name).xattrs[_OPAQUE_XATTR] = b"y"
        elif isinstance(child, int) and child & KIND_MASK == layout.TYPE_SYMLINK:
            self._implied.discard(prefix)  # the directory is the link's target
            target = self._targets[child]
            self._make_parents(target if target.startswith(b"/") else where + b"/" + target, depth + 1)
        else:
            raise _error(errno.ENOTDIR)

    def _remove(self, entry: Entry, name: bytes, parent: Directory) -> Directory:
        """Remove the path that an entry replaces; return the entry's directory, a new one if the old one was in that path.

        A directory that replaces a whiteout becomes opaque.
        """
        removed = parent.children.pop(name)
        waiting = [removed]
        while waiting:
            child = waiting.pop()
            if isinstance(child, Directory):
                waiting += child.children.values()
            else:
                self._count_links(child, -1)
        path = clean_name(entry.name, self._subject)
        if path in self._whiteouts:
            self._whiteouts.discard(path)
            self._opaque.add(path)
        if isinstance(removed, Directory) or removed & KIND_MASK == layout.TYPE_SYMLINK:
            self._known.clear()
        return self._parent(path.rpartition(b"/")[0])

    # -- the end -----------------------------------------------------------------------------------------

    def _finish(self) -> None:
        self.applied.implied_parents = len(self._implied)
        for path in self._whiteouts:
            where, _, name = path.rpartition(b"/")
            parent = self._existing(where)
            if parent is not None and name not in parent.children:
                parent.children[name] = self._whiteout()
        for path in self._opaque:
            directory = self._existing(path)
            if directory is not None:
                directory.xattrs[_OPAQUE_XATTR] = b"y"


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
