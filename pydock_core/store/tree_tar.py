"""Writes a directory tree, which may be changing, as a tar; equal trees give equal bytes.

Every directory is opened by its name in its parent, with O_NOFOLLOW, and every file in its directory.  So no concurrent
rename or replacement can lead out of the tree.  Files that vanish during the walk are left out.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from pydock_core import syscalls
from pydock_core.errors import ConflictError, UnsupportedError
from pydock_core.progress import Progress
from pydock_core.runtime.namespaces import enter_mapped
from pydock_core.store.layer_rules import OVERLAY_XATTR
from pydock_core.store.pipe import writing_archive
from pydock_core.store.private_root import open_private_root, open_running_root
from pydock_core.store.tar_writer import TarWriter, build_header, write_all

DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_RESOLVE = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_SYMLINKS | syscalls.RESOLVE_NO_MAGICLINKS
_OPEN_DIRECTORIES = 64
_PATH_BYTES = 4095
_NOTES_LIMIT = 10
# Attributes that have a meaning on another host; security.selinux, security.ima and others belong to this one.
_KEPT_XATTRS = ("user.", "trusted.", "security.capability", "system.posix_acl_")

Xattrs = list[tuple[bytes, bytes]]


@dataclass(slots=True)
class TreeNotes:
    """The omitted entries, one line each: the first ones, and a count of the rest."""

    lines: list[str] = field(default_factory=list)
    _count: int = 0

    def add(self, line: str) -> None:
        self._count += 1
        if self._count <= _NOTES_LIMIT:
            self.lines.append(line)
        elif self._count == _NOTES_LIMIT + 1:
            self.lines.append("and more")


@dataclass(slots=True)
class _Level:
    """A directory that is being read; its ``fd`` is -1 while too many others are open."""

    fd: int
    path: bytes
    identity: tuple[int, int]
    entries: Iterator[os.DirEntry[str]]


class TreeTar:
    """Writes one tree; subclasses override the hooks at the end.

    Args:
        root_fd: the tree's root, opened for reading.
        output: receives the entries; the caller writes the end marker.
        subject: names the tree in errors.
        report: called with the size of the archive so far, for each directory.
    """

    def __init__(
        self, root_fd: int, output: TarWriter, subject: str, report: Callable[[int], None] | None = None
    ) -> None:
        self.output = output
        self.notes = TreeNotes()
        self.entries = 0
        self._root_fd = root_fd
        self._subject = subject
        self._report = report
        self._linked: dict[tuple[int, int], bytes] = {}
        self._flags = _FILE_FLAGS | os.O_NOATIME

    def write(self) -> None:
        """Write all entries below the root (without an entry for the root, as in Docker's archives), sorted by name.

        Raises:
            ConflictError: the tree was changed so that the walk cannot continue.
            UnsupportedError: a path is too long, or a subclass refuses an entry.
        """
        levels = [self._level(os.dup(self._root_fd), b"")]
        try:
            while levels:
                level = levels[-1]
                below = self._read(level)
                if below is not None:
                    levels.append(below)
                    if len(levels) > _OPEN_DIRECTORIES:
                        _close(levels[-1 - _OPEN_DIRECTORIES])
                    continue
                _close(levels.pop())
                if levels and levels[-1].fd < 0:
                    levels[-1].fd = self._reopen(levels[-1])
        finally:
            for level in levels:
                _close(level)

    # -- directories -------------------------------------------------------------------------------------

    def _level(self, fd: int, path: bytes) -> _Level:
        status = os.fstat(fd)
        with os.scandir(fd) as found:
            entries = sorted(found, key=_name)
        return _Level(fd, path, (status.st_dev, status.st_ino), iter(entries))

    def _reopen(self, level: _Level) -> int:
        try:
            fd = syscalls.openat2(
                self._root_fd, os.fsdecode(level.path) or ".", DIRECTORY_FLAGS, resolve=_RESOLVE
            )
        except OSError:
            raise self._changed(level) from None
        status = os.fstat(fd)
        if (status.st_dev, status.st_ino) != level.identity:
            os.close(fd)
            raise self._changed(level)
        return fd

    def _changed(self, level: _Level) -> ConflictError:
        return ConflictError(
            f"{self._subject}: directory /{os.fsdecode(level.path)} was moved while it was read",
            "stop the container, or let it be paused meanwhile",
        )

    def _too_long(self, path: bytes) -> UnsupportedError:
        return UnsupportedError(
            f"cannot archive {self._subject}: a path has {len(path)} bytes, more than the {_PATH_BYTES} that tools can "
            f"unpack (PATH_MAX): /{os.fsdecode(path[:100])}[...]{os.fsdecode(path[-100:])}",
            "remove or rename it in the container, then try again",
        )

    def _read(self, level: _Level) -> _Level | None:
        """Write a directory's entries up to its next subdirectory; return that, or None at the end."""
        prefix = level.path + b"/" if level.path else b""
        for entry in level.entries:
            name = entry.name
            path = prefix + os.fsencode(name)
            if len(path) > _PATH_BYTES:
                raise self._too_long(path)
            try:
                if entry.is_dir(follow_symlinks=False):
                    below = self._enter(level.fd, name, path)
                    if below is not None:
                        return below
                elif entry.is_file(follow_symlinks=False):
                    self.write_file(level.fd, name, path)
                else:
                    self.write_other(level.fd, name, path)
            except OSError as error:
                # Gone, or of another kind by now.
                if error.errno not in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR, errno.ENXIO, errno.EINVAL):
                    raise
        return None

    def _enter(self, directory_fd: int, name: str, path: bytes) -> _Level | None:
        fd = os.open(name, DIRECTORY_FLAGS, dir_fd=directory_fd)
        try:
            status = os.fstat(fd)
            names = os.listxattr(fd)
            if self.takes(name, path):
                self._put(path, stat.S_IFDIR, status, self._xattrs(fd, names, path))
                self.after_directory(fd, path, names)
                if self._report is not None:
                    self._report(self.output.size_bytes)
                return self._level(fd, path)
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        return None

    # -- what is not a directory ----------------------------------------------------------------------------

    def _open_file(self, directory_fd: int, name: str) -> int:
        try:
            return os.open(name, self._flags, dir_fd=directory_fd)
        except PermissionError:
            # O_NOATIME requires the file's owner or CAP_FOWNER (open(2)).
            return os.open(name, _FILE_FLAGS, dir_fd=directory_fd)

    def write_file(self, directory_fd: int, name: str, path: bytes) -> None:
        fd = self._open_file(directory_fd, name)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                return  # replaced since it was listed
            names = os.listxattr(fd)
            if names and self.is_hidden(status, names, path):
                return
            if not self.takes(name, path) or (status.st_nlink > 1 and self._link(path, status)):
                return
            self.entries += 1
            fields = _fields(status, self._xattrs(fd, names, path) if names else ())
            if not self.output.put_file(self.archived_name(path), fd, status.st_size, **fields):
                self.notes.add(f"/{os.fsdecode(path)} became shorter while it was read; its end is zeros")
        finally:
            os.close(fd)

    def write_other(self, directory_fd: int, name: str, path: bytes) -> None:
        status = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
        kind = stat.S_IFMT(status.st_mode)
        if kind in (stat.S_IFDIR, stat.S_IFREG) or self.is_hidden(status, (), path):
            return
        if kind == stat.S_IFSOCK:
            self.notes.add(f"/{os.fsdecode(path)} is a socket, which archives do not have")
            return
        if not self.takes(name, path) or (status.st_nlink > 1 and self._link(path, status)):
            return
        link, device = b"", (0, 0)
        if kind == stat.S_IFLNK:
            link = os.fsencode(os.readlink(name, dir_fd=directory_fd))
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            device = (os.major(status.st_rdev), os.minor(status.st_rdev))
        self._put(path, kind, status, (), link=link, device=device)

    def _link(self, path: bytes, status: os.stat_result) -> bool:
        """Write a hard link if the file already has an entry; otherwise remember the file."""
        known = self._linked.setdefault((status.st_dev, status.st_ino), path)
        if known is path:
            return False
        self._put(path, 0, status, (), link=self.archived_name(known))
        return True

    def _put(
        self,
        path: bytes,
        kind: int,
        status: os.stat_result,
        xattrs: Xattrs | tuple[()],
        *,
        link: bytes = b"",
        device: tuple[int, int] = (0, 0),
    ) -> None:
        self.entries += 1
        name = self.archived_name(path)
        self.output.put(build_header(name, kind, link=link, device=device, **_fields(status, xattrs)))

    def _xattrs(self, fd: int, names: list[str], path: bytes) -> Xattrs:
        kept = []
        for name in sorted(names):
            archive_name = self.xattr_name(name, path)
            if archive_name.startswith(_KEPT_XATTRS):
                kept.append((os.fsencode(archive_name), os.getxattr(fd, name)))
        return kept

    # -- for subclasses ----------------------------------------------------------------------------------

    def archived_name(self, path: bytes) -> bytes:
        """Return the name of an entry in the archive."""
        return path

    def takes(self, name: str, path: bytes) -> bool:
        """Whether an entry of this name belongs in the archive."""
        return True

    def is_hidden(self, status: os.stat_result, xattrs: tuple[()] | list[str], path: bytes) -> bool:
        """Whether this is a marker, which the subclass has handled, rather than a file."""
        return False

    def after_directory(self, fd: int, path: bytes, xattrs: list[str]) -> None:
        """Handle a directory whose entry has been written, before the entries in it."""

    def xattr_name(self, name: str, path: bytes) -> str:
        """Return the name of an extended attribute in the archive, "" to leave it out."""
        return "" if os.fsencode(name).startswith(OVERLAY_XATTR) else name


def export_tree(
    root_mounts: Sequence[Mapping[str, Any]],
    mount_point: str,
    supervisor: Mapping[str, Any] | None,
    rootfs: str,
    *,
    uid_mappings: Sequence[Mapping[str, Any]] = (),
    gid_mappings: Sequence[Mapping[str, Any]] = (),
    fds: Sequence[int] = (),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write a container's file system.  A worker function.

    Args:
        root_mounts: of a stopped container; see :func:`open_private_root`.
        mount_point: an empty directory.
        supervisor: of a running container; None for a stopped one.
        rootfs: the supervisor's mount point of the root.
        uid_mappings, gid_mappings: OCI id maps of the container's own user namespace, whose ids are written; empty for none.
        fds: the archive's target: a file, a pipe or a socket.
        progress: unused; the signature is that of all worker functions.

    Returns:
        {"size_bytes", "entries", "notes"}.

    Raises:
        ConflictError: the container has ended.
        UnavailableError: the archive's disk is full.
        FailedError: the archive's reader is gone, or a file cannot be read.
    """
    output = TarWriter(partial(write_all, fds[0]), fds[0])
    with writing_archive():
        root_fd = (
            open_private_root(root_mounts, mount_point)
            if supervisor is None
            else open_running_root(supervisor, rootfs)
        )
        if uid_mappings:
            enter_mapped(uid_mappings, gid_mappings)
        tree = TreeTar(root_fd, output, "the container's file system")
        tree.write()
        output.finish()
    os.close(root_fd)
    return {"size_bytes": output.size_bytes, "entries": tree.entries, "notes": tree.notes.lines}


def _fields(status: os.stat_result, xattrs: Xattrs | tuple[()]) -> dict[str, Any]:
    """Return the header fields that every kind of entry has."""
    return {
        "mode": status.st_mode & 0o7777,
        "uid": status.st_uid,
        "gid": status.st_gid,
        # Whole seconds, as in Docker, containerd and BuildKit: a fraction would take a pax header, two more
        # blocks, for every entry, and other tools' images have none.
        "mtime_ns": status.st_mtime_ns // 1_000_000_000 * 1_000_000_000,
        "xattrs": xattrs,
    }


def _name(entry: os.DirEntry[str]) -> str:
    return entry.name


def _close(level: _Level) -> None:
    if level.fd >= 0:
        os.close(level.fd)
        level.fd = -1
