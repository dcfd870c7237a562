"""Writes tar archives, the same bytes for the same entries: ustar (POSIX.1-1988), and pax headers (POSIX.1-2001)
for what ustar has no room for.

Names go out as the bytes that they are.  A pax header's values should be UTF-8; where a name is not, its bytes are
written all the same, as Go's archive/tar does, and read back as they were by that, by GNU tar and by tarfile.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Sequence
from typing import Any

BLOCK_BYTES = 512
_BUFFER_BYTES = 1 << 20
# Below this, a file's data is read into the buffer: one system call less than sending it by itself, and no flush.
_SMALL_BYTES = 128 << 10
# So much at once that whoever follows what is written is not kept waiting.
_SENT_BYTES = 8 << 20
_NAME_BYTES, _PREFIX_BYTES = 100, 155
_SMALLEST_TOO_LARGE_ID = 1 << 21
_SMALLEST_TOO_LARGE_NUMBER = 1 << 33
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
# Eight spaces stand in the place of the checksum while it is computed.
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
) -> bytes:
    """Return the header of an entry, with the pax header before it where one is needed.

    Args:
        name: without null bytes; a directory's gets its slash here.
        kind: a stat.S_IF* constant; 0 for a hard link.
        mode: permission bits.
        size_bytes: of the data that follows; only a regular file has any.
        mtime_ns: since the epoch; a fraction of a second, or a time before the epoch, needs a pax header.
        link: target of a symbolic or hard link.
        device: (major, minor).
        xattrs: (name, value), written in the order given, as SCHILY.xattr.NAME.

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
        and not fraction
        and uid < _SMALLEST_TOO_LARGE_ID
        and gid < _SMALLEST_TOO_LARGE_ID
        and size_bytes < _SMALLEST_TOO_LARGE_NUMBER
        and 0 <= seconds < _SMALLEST_TOO_LARGE_NUMBER
    ):
        return _block(name, prefix, _TYPES[kind], mode, uid, gid, size_bytes, seconds, link, device)
    records: list[tuple[bytes, bytes]] = []
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
    # The sum of all bytes (POSIX, ustar); those that are zero need not be added.
    total = sum(name) + sum(numbers) + kind[0] + sum(link) + sum(devices) + sum(prefix) + _FIXED_SUM
    return b"%b%b%06o\0 %b%b%b%b%b%b" % (
        name.ljust(_NAME_BYTES, b"\0"),
        numbers,
        total,
        kind,
        link.ljust(_NAME_BYTES, b"\0"),
        _MAGIC,
        bytes(64),  # the names of owner and group, which images do not have
        devices.ljust(16, b"\0"),
        prefix.ljust(_PREFIX_BYTES + 12, b"\0"),
    )


_FIXED_SUM = _CHECKSUM_SPACES + sum(_MAGIC)


def _split(name: bytes) -> tuple[bytes, bytes] | None:
    """Split a long name at a slash into ustar's prefix and name; None where it does not fit."""
    if len(name) > _PREFIX_BYTES + 1 + _NAME_BYTES:
        return None
    # The last slash at which the prefix fits and something of the name is left.
    slash = name.rfind(b"/", 0, min(_PREFIX_BYTES + 1, len(name) - 1))
    if slash <= 0 or len(name) - slash - 1 > _NAME_BYTES:
        return None
    return name[:slash], name[slash + 1 :]


def _format_time(nanoseconds: int) -> bytes:
    """A pax time: seconds, and a fraction that has no zeros at its end."""
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
    """Writes one archive, gathering small writes.

    Args:
        write: takes all of what it is given.
        fd: the descriptor that ``write`` writes to, where the data of files may go there within the kernel (a file,
            a pipe or a socket); None sends everything through ``write``.
        written: called with how much of the archive has been written, each time that it is more.
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
        """Of the archive so far, with what is still gathered."""

    def put(self, data: bytes) -> None:
        """Append bytes: a header, or data; :meth:`pad` follows the last of an entry's data."""
        self._pieces.append(data)
        self._gathered += len(data)
        self.size_bytes += len(data)
        if self._gathered >= _BUFFER_BYTES:
            self.flush()

    def pad(self, size_bytes: int) -> None:
        """Fill the last block of an entry's data."""
        if size_bytes % BLOCK_BYTES:
            self.put(_ZEROS[: -size_bytes % BLOCK_BYTES])

    def copy(self, source_fd: int, size_bytes: int) -> bool:
        """Append the data of an entry from a file's beginning, and the padding.

        Returns:
            whether there were ``size_bytes``; what is missing, because somebody shortened the file, is zeros.
        """
        position = self._send(source_fd, size_bytes) if size_bytes > _SMALL_BYTES else 0
        while position < size_bytes:
            data = os.pread(source_fd, min(size_bytes - position, _BUFFER_BYTES), position)
            if not data:
                break
            self.put(data)
            position += len(data)
        is_whole = position == size_bytes
        while position < size_bytes:
            zeros = bytes(min(size_bytes - position, _BUFFER_BYTES))
            self.put(zeros)
            position += len(zeros)
        self.pad(size_bytes)
        return is_whole

    def _send(self, source_fd: int, size_bytes: int) -> int:
        """Have the kernel send a file's data; return how much it has sent, less where it cannot or the file ends."""
        if self._fd is None:
            return 0
        self.flush()
        position = 0
        try:
            while position < size_bytes:
                piece = min(size_bytes - position, _SENT_BYTES)
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
            self._fd = None  # opened for appending, or of a kind that takes plain writes only: sendfile(2)
        return position

    def finish(self) -> None:
        """Write the end marker, two blocks of zeros, and everything that is gathered."""
        self.put(bytes(2 * BLOCK_BYTES))
        self.flush()

    def flush(self) -> None:
        """Write what is gathered."""
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
