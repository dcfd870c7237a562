"""Copies a tree from one directory to another, either of which a container may be changing.

Both sides are walked by descriptors: a name is opened in its directory with O_NOFOLLOW, and made with O_EXCL or its like.
So even if entries are renamed, linked or replaced meanwhile, no file outside the two trees is read or written.  An entry
that vanishes between two steps is skipped.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from pydock_core import syscalls
from pydock_core.errors import ConflictError, InvalidError
from pydock_core.store.extents import data_segments
from pydock_core.store.layer_rules import OVERLAY_XATTR
from pydock_core.store.tree_tar import DIRECTORY_FLAGS, TreeNotes

_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MAKE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_RESOLVE = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_SYMLINKS | syscalls.RESOLVE_NO_MAGICLINKS
_OPEN_LEVELS = 64
_SMALL_BYTES = 256 << 10
_PIECE_BYTES = 8 << 20
_VANISHED = (errno.ENOENT, errno.ELOOP, errno.ENOTDIR, errno.ENXIO)
_UNSUPPORTED = (errno.ENOTSUP, errno.EPERM, errno.EINVAL, errno.EACCES)

Owner = Callable[[int, int], tuple[int, int] | None]
"""Returns the owner and the group of a copy from those of the source; None leaves them unchanged."""


def same_owner(uid: int, gid: int) -> tuple[int, int]:
    """Keep owners: an :data:`Owner`."""
    return uid, gid


@dataclass(frozen=True, slots=True)
class CopyRules:
    """The attributes and kinds of files that a copy keeps.

    Attributes:
        owner: see :data:`Owner`.
        xattrs: name prefixes of extended attributes to keep.
        devices: whether to make device nodes and sockets; otherwise they are noted.
    """

    owner: Owner = same_owner
    xattrs: tuple[str, ...] = ("user.",)
    devices: bool = False


@dataclass(slots=True)
class _Level:
    """A directory that is being copied; the descriptors are -1 while too many others are open."""

    source_fd: int
    target_fd: int
    path: str
    status: os.stat_result
    target: tuple[int, int]
    entries: Iterator[os.DirEntry[str]]


@dataclass(slots=True)
class TreeCopy:
    """Copies entries from below one directory to below another.

    Args:
        source_fd, target_fd: the two directories, opened for reading.
        rules: the rules of the copy.
        subject: the name of the copy in errors.

    Attributes:
        size_bytes: size of the files' content copied so far.
        entries: number of entries of every kind.
        notes: skipped entries.
    """

    source_fd: int
    target_fd: int
    rules: CopyRules
    subject: str
    size_bytes: int = 0
    entries: int = 0
    notes: TreeNotes = field(default_factory=TreeNotes)
    _links: dict[tuple[int, int], tuple[str, int]] = field(default_factory=dict)

    def copy_content(self) -> None:
        """Copy everything in the source directory into the target directory, which keeps its own attributes.

        Raises:
            InvalidError: a directory would replace another kind of file, or the reverse.
            ConflictError: the tree was changed so that the copy cannot continue.
            OSError: reading or writing failed.
        """
        self._walk(self._level(os.dup(self.source_fd), os.dup(self.target_fd), ""))

    def copy_root(self) -> None:
        """Give the target directory the attributes of the source directory."""
        self._set_attributes(self.source_fd, self.target_fd, os.fstat(self.source_fd))

    def copy_entry(self, name: str, target_name: str) -> None:
        """Copy one entry of the source directory, with all below it, to a name in the target directory.

        Raises:
            FileNotFoundError: there is no such entry.
            InvalidError, ConflictError, OSError: see :meth:`copy_content`.
        """
        mode = os.stat(name, dir_fd=self.source_fd, follow_symlinks=False).st_mode
        where = (self.source_fd, self.target_fd, name, target_name, target_name)
        if stat.S_ISDIR(mode):
            self._walk(self._enter(*where))
        elif stat.S_ISREG(mode):
            self._copy_file(*where)
        else:
            self._copy_other(*where)

    # -- directories -------------------------------------------------------------------------------------

    def _walk(self, first: _Level) -> None:
        levels = [first]
        roots = (os.dup(first.source_fd), os.dup(first.target_fd))
        try:
            while levels:
                level = levels[-1]
                below = self._copy_names(level)
                if below is not None:
                    levels.append(below)
                    if len(levels) > _OPEN_LEVELS:
                        _close(levels[-1 - _OPEN_LEVELS])
                    continue
                if level.path:
                    self._set_attributes(level.source_fd, level.target_fd, level.status)
                _close(levels.pop())
                if levels and levels[-1].source_fd < 0:
                    self._reopen(levels[-1], first.path, *roots)
        finally:
            for level in levels:
                _close(level)
            for fd in roots:
                os.close(fd)

    def _copy_names(self, level: _Level) -> _Level | None:
        """Copy a directory's entries up to its next subdirectory, and return that; None at the end."""
        prefix = f"{level.path}/" if level.path else ""
        for entry in level.entries:
            name = entry.name
            try:
                if entry.is_dir(follow_symlinks=False):
                    return self._enter(level.source_fd, level.target_fd, name, name, prefix + name)
                copy = self._copy_file if entry.is_file(follow_symlinks=False) else self._copy_other
                copy(level.source_fd, level.target_fd, name, name, prefix + name)
            except OSError as error:
                # Gone, or of another kind in the meantime: skipped as if it had vanished earlier.
                if error.errno not in _VANISHED or (
                    error.errno == errno.ENOENT and _is_there(level.source_fd, name)
                ):
                    raise
        return None

    def _enter(self, source_dir: int, target_dir: int, name: str, target_name: str, path: str) -> _Level:
        source_fd = os.open(name, DIRECTORY_FLAGS, dir_fd=source_dir)
        target_fd = -1
        try:
            with suppress(FileExistsError):
                os.mkdir(target_name, 0o700, dir_fd=target_dir)
            try:
                target_fd = os.open(target_name, DIRECTORY_FLAGS, dir_fd=target_dir)
            except OSError as error:
                if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                    raise
                raise InvalidError(
                    f"{self.subject}: cannot overwrite non-directory {path!r} with a directory",
                    "remove it first, or copy to another place",
                ) from error
            self.entries += 1
            return self._level(source_fd, target_fd, path)
        except BaseException:
            os.close(source_fd)
            if target_fd >= 0:
                os.close(target_fd)
            raise

    def _level(self, source_fd: int, target_fd: int, path: str) -> _Level:
        with os.scandir(source_fd) as found:
            entries = list(found)
        at = os.fstat(target_fd)
        identity = (at.st_dev, at.st_ino)
        return _Level(source_fd, target_fd, path, os.fstat(source_fd), identity, iter(entries))

    def _reopen(self, level: _Level, first: str, source_root: int, target_root: int) -> None:
        """Reopen a directory by its path from the first one; it must still be the same."""
        below = level.path.removeprefix(first).lstrip("/") or "."
        level.source_fd = self._same(source_root, below, (level.status.st_dev, level.status.st_ino))
        level.target_fd = self._same(target_root, below, level.target)

    def _same(self, root_fd: int, below: str, identity: tuple[int, int]) -> int:
        moved = ConflictError(
            f"{self.subject}: directory {below} was moved while it was copied", "stop the container meanwhile"
        )
        try:
            fd = syscalls.openat2(root_fd, below, DIRECTORY_FLAGS, resolve=_RESOLVE)
        except OSError as error:
            raise moved from error
        status = os.fstat(fd)
        if (status.st_dev, status.st_ino) != identity:
            os.close(fd)
            raise moved
        return fd

    # -- what is not a directory -------------------------------------------------------------------------

    def _copy_other(self, source_dir: int, target_dir: int, name: str, target_name: str, path: str) -> None:
        status = os.stat(name, dir_fd=source_dir, follow_symlinks=False)
        kind = stat.S_IFMT(status.st_mode)
        if kind in (stat.S_IFREG, stat.S_IFDIR):
            return  # replaced between the two steps
        if kind not in (stat.S_IFLNK, stat.S_IFIFO) and not self.rules.devices:
            what = "a socket" if kind == stat.S_IFSOCK else "a device"
            self.notes.add(f"/{path} is {what}")
            return
        if status.st_nlink > 1 and self._link(status, target_dir, target_name):
            return
        if kind == stat.S_IFLNK:
            link = os.readlink(name, dir_fd=source_dir)
            self._make(
                target_dir, target_name, path, lambda: os.symlink(link, target_name, dir_fd=target_dir)
            )
        else:

            def make() -> None:
                os.mknod(target_name, kind | 0o600, status.st_rdev, dir_fd=target_dir)

            try:
                self._make(target_dir, target_name, path, make)
            except PermissionError:
                if kind in (stat.S_IFIFO, stat.S_IFSOCK):
                    raise
                self.notes.add(f"/{path} is a device")
                return
        self.entries += 1
        owner = self.rules.owner(status.st_uid, status.st_gid)
        if owner is not None:
            os.chown(target_name, *owner, dir_fd=target_dir, follow_symlinks=False)
        if kind != stat.S_IFLNK:
            self._set_mode(target_dir, target_name, self._mode(status, owner))
        os.utime(
            target_name,
            ns=(status.st_atime_ns, status.st_mtime_ns),
            dir_fd=target_dir,
            follow_symlinks=False,
        )
        self._remember(status, target_dir, target_name, path)

    @staticmethod
    def _mode(status: os.stat_result, owner: tuple[int, int] | None) -> int:
        """The mode of a copy; a file that the caller owns afterwards loses its set-id bits."""
        mode = stat.S_IMODE(status.st_mode)
        is_lent = owner is None and not stat.S_ISDIR(status.st_mode)
        return mode & ~(stat.S_ISUID | stat.S_ISGID) if is_lent else mode

    def _set_mode(self, target_dir: int, name: str, mode: int) -> None:
        """Set the mode of a node by descriptor: fchmodat(2) follows links, and another process may have made one there."""
        fd = os.open(name, syscalls.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=target_dir)
        try:
            if not stat.S_ISLNK(os.fstat(fd).st_mode):
                os.chmod(f"/proc/self/fd/{fd}", mode)
        finally:
            os.close(fd)

    def _copy_file(self, source_dir: int, target_dir: int, name: str, target_name: str, path: str) -> None:
        source_fd = os.open(name, _READ_FLAGS, dir_fd=source_dir)
        try:
            status = os.fstat(source_fd)
            if not stat.S_ISREG(status.st_mode):
                return  # replaced between the two steps
            if status.st_nlink > 1 and self._link(status, target_dir, target_name):
                return
            target_fd = self._make(
                target_dir,
                target_name,
                path,
                lambda: os.open(target_name, _MAKE_FLAGS, 0o600, dir_fd=target_dir),
            )
            try:
                _copy_data(source_fd, target_fd, status.st_size)
                self._set_attributes(source_fd, target_fd, status)
                self._remember(status, target_dir, target_name, path, target_fd)
            finally:
                os.close(target_fd)
            self.entries += 1
            self.size_bytes += status.st_size
        finally:
            os.close(source_fd)

    def _make(self, target_dir: int, name: str, path: str, make: Callable[[], int | None]) -> int:
        """Make an entry; an existing one is replaced unless it is a directory."""
        for _ in range(100):
            try:
                return make() or 0
            except FileExistsError:
                with suppress(FileNotFoundError):
                    if stat.S_ISDIR(os.stat(name, dir_fd=target_dir, follow_symlinks=False).st_mode):
                        raise InvalidError(
                            f"{self.subject}: cannot overwrite directory {path!r} with a non-directory",
                            "remove it first, or copy to another place",
                        ) from None
                    os.unlink(name, dir_fd=target_dir)
        raise ConflictError(
            f"{self.subject}: {path!r} is made anew each time that it is replaced",
            "stop the container meanwhile",
        )

    # -- hard links --------------------------------------------------------------------------------------

    def _remember(
        self, status: os.stat_result, target_dir: int, name: str, path: str, target_fd: int | None = None
    ) -> None:
        if status.st_nlink > 1:
            made = (
                os.stat(name, dir_fd=target_dir, follow_symlinks=False)
                if target_fd is None
                else os.fstat(target_fd)
            )
            self._links[status.st_dev, status.st_ino] = (path, made.st_ino)

    def _link(self, status: os.stat_result, target_dir: int, name: str) -> bool:
        """Make a hard link to the copy of the same file; return False if that does not exist."""
        known = self._links.get((status.st_dev, status.st_ino))
        if known is None:
            return False
        path, inode = known
        try:
            flags = syscalls.O_PATH | os.O_NOFOLLOW
            # Only the parent is resolved with RESOLVE_NO_SYMLINKS: the copy itself may be a link.
            parent, _, last = path.rpartition("/")
            parent_fd = syscalls.openat2(self.target_fd, parent or ".", syscalls.O_PATH, resolve=_RESOLVE)
            try:
                fd = os.open(last, flags | os.O_CLOEXEC, dir_fd=parent_fd)
            finally:
                os.close(parent_fd)
        except OSError:
            return False
        try:
            if os.fstat(fd).st_ino != inode:
                return False
            with suppress(FileNotFoundError, IsADirectoryError):
                os.unlink(name, dir_fd=target_dir)
            # The descriptor of the directory makes os.link follow the first name (AT_SYMLINK_FOLLOW).
            os.link(f"/proc/self/fd/{fd}", name, dst_dir_fd=target_dir)
            self.entries += 1
            return True
        except OSError:
            return False
        finally:
            os.close(fd)

    # -- attributes --------------------------------------------------------------------------------------

    def _set_attributes(self, source_fd: int, target_fd: int, status: os.stat_result) -> None:
        owner = self.rules.owner(status.st_uid, status.st_gid)
        if owner is not None:
            os.fchown(target_fd, *owner)
        # After the owner: a change of owner clears set-user-id bits and file capabilities.
        os.fchmod(target_fd, self._mode(status, owner))
        for name in os.listxattr(source_fd):
            if name.startswith(self.rules.xattrs) and not os.fsencode(name).startswith(OVERLAY_XATTR):
                try:
                    os.setxattr(target_fd, name, os.getxattr(source_fd, name))
                except OSError as error:
                    if error.errno not in (*_UNSUPPORTED, errno.ENODATA):
                        raise
        os.utime(target_fd, ns=(status.st_atime_ns, status.st_mtime_ns))


def _copy_data(source_fd: int, target_fd: int, size_bytes: int) -> None:
    """Copy a file's content, holes as holes: a sparse file can be larger than the disk."""
    if size_bytes <= _SMALL_BYTES:
        left = size_bytes
        while left > 0 and (data := os.read(source_fd, left)):
            view = memoryview(data)
            while view:
                view = view[os.write(target_fd, view) :]
            left -= len(data)
        return
    end = 0
    for offset, length in data_segments(source_fd, size_bytes):
        os.lseek(target_fd, offset, os.SEEK_SET)
        position, end = offset, offset + length
        while position < end:
            sent = os.sendfile(target_fd, source_fd, position, min(end - position, _PIECE_BYTES))
            if not sent:
                break  # it was truncated meanwhile
            position += sent
    if end != size_bytes:
        os.ftruncate(target_fd, size_bytes)


def _is_there(directory_fd: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _close(level: _Level) -> None:
    for fd in (level.source_fd, level.target_fd):
        if fd >= 0:
            os.close(fd)
    level.source_fd = level.target_fd = -1
