"""Writes deterministic tar archives: ustar (POSIX.1-1988), with pax headers (POSIX.1-2001) for values that do not fit.

Names are written as raw bytes.  A pax header's values should be UTF-8; a name that is not is written as it is, as in Go's
archive/tar, and Go, GNU tar and tarfile read it back unchanged.

A file with large holes is written in GNU tar's sparse format 1.0 (GNU tar manual, "Storing Sparse Files"), which GNU
tar, libarchive, tarfile and Go's archive/tar read, and with it Docker, containerd and podman.  Smaller holes are
written as zeros: the image specification (layer.md) advises against sparse files, and every tool reads zeros.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Sequence
from typing import Any

from pydock_core.store.extents import data_segments

BLOCK_BYTES = 512
_BUFFER_BYTES = 1 << 20
# The data of a smaller file is read into the buffer: one system call less than sending it separately, and no flush.
_SMALL_BYTES = 128 << 10
# The largest piece of one copy, so that progress is reported often enough.
_SENT_BYTES = 8 << 20
_NAME_BYTES, _PREFIX_BYTES = 100, 155
_SMALLEST_TOO_LARGE_ID = 1 << 21
_SMALLEST_TOO_LARGE_NUMBER = 1 << 33
# A file with at least this much in holes is sparse in the archive.
SPARSE_BYTES = 64 << 20
_SPARSE_DIRECTORY = b"GNUSparseFile.0/"
_ZEROS = bytes(BLOCK_BYTES)
_PAX_NAME = b"././@PaxHeader"
_TYPES = {
    stat.S_IFREG: b"0",
    0: b"1",
    stat.S_IFLNK: b"2",
    stat.S_IFCHR: b"3",
    stat.S_IFBLK: b"4",
    stat.S_IFDIR: b"5",
    stat.S_IFIFO: b"6",
}
# The checksum is computed with eight spaces in its place.
_CHECKSUM_SPACES = 8 * 0x20
_MAGIC = b"ustar\x0000"


def build_header(
    name: bytes,
    kind: int,
    *,
    mode: int = 0,
    uid: int = 0,
    gid: int = 0,
    size_bytes: int = 0,
    mtime_ns: int = 0,
    link: bytes = b"",
    device: tuple[int, int] = (0, 0),
    xattrs: Sequence[tuple[bytes, bytes]] = (),
    extra: Sequence[tuple[bytes, bytes]] = (),
) -> bytes:
    """Return the header of an entry, after a pax header if one is needed.

    Args:
        name: without null bytes; a directory's slash is added here.
        kind: a stat.S_IF* constant; 0 for a hard link.
        mode: permission bits.
        size_bytes: of the following data; only a regular file has any.
        mtime_ns: since the epoch; a fraction of a second, or a time before the epoch, needs a pax header.
        link: target of a symbolic or hard link.
        device: (major, minor).
        xattrs: (name, value), written in the given order as SCHILY.xattr.NAME.
        extra: additional records of the pax header.

    Raises:
        KeyError: tar has no such kind (a socket).
    """
    if kind == stat.S_IFDIR and not name.endswith(b"/"):
        name += b"/"
    seconds, fraction = divmod(mtime_ns, 1_000_000_000)
    prefix = b""
    if (
        len(name) <= _NAME_BYTES
        and len(link) <= _NAME_BYTES
        and name.isascii()
        and link.isascii()
        and not xattrs
        and not extra
        and not fraction
        and uid < _SMALLEST_TOO_LARGE_ID
        and gid < _SMALLEST_TOO_LARGE_ID
        and size_bytes < _SMALLEST_TOO_LARGE_NUMBER
        and 0 <= seconds < _SMALLEST_TOO_LARGE_NUMBER
    ):
        return _block(name, prefix, _TYPES[kind], mode, uid, gid, size_bytes, seconds, link, device)
    records: list[tuple[bytes, bytes]] = list(extra)
    if not name.isascii():
        records.append((b"path", name))
    elif len(name) > _NAME_BYTES:
        split = _split(name)
        if split is None:
            records.append((b"path", name))
        else:
            prefix, name = split
    if len(link) > _NAME_BYTES or not link.isascii():
        records.append((b"linkpath", link))
    for key, number, limit in (
        (b"uid", uid, _SMALLEST_TOO_LARGE_ID),
        (b"gid", gid, _SMALLEST_TOO_LARGE_ID),
        (b"size", size_bytes, _SMALLEST_TOO_LARGE_NUMBER),
    ):
        if number >= limit:
            records.append((key, b"%d" % number))
    if fraction or not 0 <= seconds < _SMALLEST_TOO_LARGE_NUMBER:
        records.append((b"mtime", _format_time(mtime_ns)))
    records += [(b"SCHILY.xattr." + key, value) for key, value in xattrs]
    header = _block(
        name[:_NAME_BYTES],
        prefix,
        _TYPES[kind],
        mode,
        uid if uid < _SMALLEST_TOO_LARGE_ID else 0,
        gid if gid < _SMALLEST_TOO_LARGE_ID else 0,
        size_bytes if size_bytes < _SMALLEST_TOO_LARGE_NUMBER else 0,
        seconds if 0 <= seconds < _SMALLEST_TOO_LARGE_NUMBER else 0,
        link[:_NAME_BYTES],
        device,
    )
    if not records:
        return header
    body = b"".join(_record(key, value) for key, value in records)
    extended = _block(_PAX_NAME, b"", b"x", 0o644, 0, 0, len(body), 0, b"", (0, 0))
    return extended + body + bytes(-len(body) % BLOCK_BYTES) + header


def _block(
    name: bytes,
    prefix: bytes,
    kind: bytes,
    mode: int,
    uid: int,
    gid: int,
    size_bytes: int,
    seconds: int,
    link: bytes,
    device: tuple[int, int],
) -> bytes:
    numbers = b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (mode & 0o7777, uid, gid, size_bytes, seconds)
    devices = b"%07o\0%07o\0" % device if device != (0, 0) else b""
    # The sum of all bytes (POSIX, ustar), without the zero bytes.
    total = sum(name) + sum(numbers) + kind[0] + sum(link) + sum(devices) + sum(prefix) + _FIXED_SUM
    return b"%b%b%06o\0 %b%b%b%b%b%b" % (
        name.ljust(_NAME_BYTES, b"\0"),
        numbers,
        total,
        kind,
        link.ljust(_NAME_BYTES, b"\0"),
        _MAGIC,
        bytes(64),  # the names of owner and group, which images leave empty
        devices.ljust(16, b"\0"),
        prefix.ljust(_PREFIX_BYTES + 12, b"\0"),
    )


_FIXED_SUM = _CHECKSUM_SPACES + sum(_MAGIC)


def _split(name: bytes) -> tuple[bytes, bytes] | None:
    """Split a long name at a slash into ustar's prefix and name; None if it does not fit."""
    if len(name) > _PREFIX_BYTES + 1 + _NAME_BYTES:
        return None
    # The last slash at which the prefix fits and the name is not empty.
    slash = name.rfind(b"/", 0, min(_PREFIX_BYTES + 1, len(name) - 1))
    if slash <= 0 or len(name) - slash - 1 > _NAME_BYTES:
        return None
    return name[:slash], name[slash + 1 :]


def _format_time(nanoseconds: int) -> bytes:
    """Format a pax time: seconds, and a fraction without trailing zeros."""
    seconds, fraction = divmod(abs(nanoseconds), 1_000_000_000)
    sign = b"-" if nanoseconds < 0 else b""
    return sign + (b"%d.%09d" % (seconds, fraction)).rstrip(b"0").rstrip(b".")


def _record(key: bytes, value: bytes) -> bytes:
    """A pax record, "LENGTH KEY=VALUE\\n": the length counts itself."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %b=%b\n" % (length, key, value)


class TarWriter:
    """Writes one archive, and buffers small writes.

    Args:
        write: writes all of its argument.
        fd: the descriptor behind ``write``, if the kernel may send file data to it (a file, a pipe or a socket); None
            sends everything through ``write``.
        written: called with the size of the written part each time that it has grown.
    """

    def __init__(
        self,
        write: Callable[[bytes], Any],
        fd: int | None = None,
        written: Callable[[int], None] | None = None,
    ) -> None:
        self._write = write
        self._fd = fd
        self._written = written
        self._pieces: list[bytes] = []
        self._gathered = 0
        self.size_bytes = 0
        """The size of the archive so far, including buffered data."""

    def put(self, data: bytes) -> None:
        """Append bytes: a header, or data; :meth:`pad` follows the last of an entry's data."""
        self._pieces.append(data)
        self._gathered += len(data)
        self.size_bytes += len(data)
        if self._gathered >= _BUFFER_BYTES:
            self.flush()

    def pad(self, size_bytes: int) -> None:
        """Pad the last block of an entry's data."""
        if size_bytes % BLOCK_BYTES:
            self.put(_ZEROS[: -size_bytes % BLOCK_BYTES])

    def put_file(self, name: bytes, source_fd: int, size_bytes: int, **fields: Any) -> bool:
        """Append the entry of a regular file: header, data and padding; large holes stay holes (SPARSE_BYTES).

        Args:
            name: of the entry.
            source_fd: the file, open for reading; its position changes.
            size_bytes: of the file.
            fields: further arguments of :func:`build_header`.

        Returns:
            whether the file had ``size_bytes``; if it was shortened just now, the missing part is zeros.
        """
        if size_bytes >= SPARSE_BYTES:
            segments = data_segments(source_fd, size_bytes)
            if size_bytes - sum(length for _, length in segments) >= SPARSE_BYTES:
                return self._put_sparse(name, source_fd, size_bytes, segments, fields)
        self.put(build_header(name, stat.S_IFREG, size_bytes=size_bytes, **fields))
        return self.copy(source_fd, size_bytes)

    def _put_sparse(
        self,
        name: bytes,
        source_fd: int,
        size_bytes: int,
        segments: Sequence[tuple[int, int]],
        fields: dict[str, Any],
    ) -> bool:
        # The last pair of numbers, with length 0, marks the end of the file.
        numbers = [len(segments) + 1, *(number for part in segments for number in part), size_bytes, 0]
        described = b"".join(b"%d\n" % number for number in numbers)
        described += bytes(-len(described) % BLOCK_BYTES)
        stored = sum(length for _, length in segments)
        last = name.rpartition(b"/")[2]
        fits = last.isascii() and len(last) <= _NAME_BYTES - len(_SPARSE_DIRECTORY)
        extra = (
            (b"GNU.sparse.major", b"1"),
            (b"GNU.sparse.minor", b"0"),
            (b"GNU.sparse.name", name),
            (b"GNU.sparse.realsize", b"%d" % size_bytes),
        )
        header = build_header(
            _SPARSE_DIRECTORY + (last if fits else b"file"),
            stat.S_IFREG,
            size_bytes=len(described) + stored,
            extra=extra,
            **fields,
        )
        self.put(header + described)
        is_whole = True
        for offset, length in segments:
            is_whole = self._copy_part(source_fd, offset, length) and is_whole
        self.pad(stored)
        return is_whole

    def copy(self, source_fd: int, size_bytes: int) -> bool:
        """Append an entry's data from the beginning of a file, with holes as zeros, and the padding.

        Returns:
            see :meth:`put_file`.
        """
        is_whole = self._copy_part(source_fd, 0, size_bytes)
        self.pad(size_bytes)
        return is_whole

    def _copy_part(self, source_fd: int, offset: int, length: int) -> bool:
        end = offset + length
        position = self._send(source_fd, offset, end) if length > _SMALL_BYTES else offset
        while position < end:
            data = os.pread(source_fd, min(end - position, _BUFFER_BYTES), position)
            if not data:
                break
            self.put(data)
            position += len(data)
        is_whole = position == end
        while position < end:
            zeros = bytes(min(end - position, _BUFFER_BYTES))
            self.put(zeros)
            position += len(zeros)
        return is_whole

    def _send(self, source_fd: int, position: int, end: int) -> int:
        """Have the kernel send a file's data; return the position reached.

        It is less than ``end`` if the kernel cannot send, or if the file is shorter.
        """
        if self._fd is None:
            return position
        self.flush()
        try:
            while position < end:
                piece = min(end - position, _SENT_BYTES)
                sent = os.sendfile(self._fd, source_fd, position, piece)
                if not sent:
                    break
                position += sent
                self.size_bytes += sent
                if self._written is not None:
                    self._written(self.size_bytes)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self._fd = None  # opened for appending, or of a kind that supports only plain writes: sendfile(2)
        return position

    def finish(self) -> None:
        """Write the end marker, two blocks of zeros, and flush."""
        self.put(bytes(2 * BLOCK_BYTES))
        self.flush()

    def flush(self) -> None:
        """Write the buffered data."""
        if self._pieces:
            data = b"".join(self._pieces)
            self._pieces.clear()
            self._gathered = 0
            self._write(data)
            if self._written is not None:
                self._written(self.size_bytes)


def write_all(fd: int, data: bytes) -> None:
    """Write all of ``data`` to a blocking descriptor."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
