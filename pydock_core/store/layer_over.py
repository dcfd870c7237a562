"""Applies a layer over the layers below it: in an overlay whose upper directory becomes the layer.

The rules are those of :mod:`pydock_core.store.layer_rules`.  The kernel handles the dependencies on lower layers: in the
mounted overlay, an implied parent is copied up with its attributes, a symbolic link of a lower layer is followed within
the root (openat2(2), RESOLVE_IN_ROOT), and a hard link to a file of a lower layer copies that file up.  The result equals
containerd's, which applies a layer over the mounted snapshot of its parent.

Whiteouts apply to the lower layers wherever they stand in the archive, so they come first.  Removing a large directory in
an overlay would remove its files one by one.  So the directories with whiteouts are only copied up, and the whiteouts are
written to the upper directory while it is not mounted.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable
from functools import partial

from pydock_core import syscalls
from pydock_core.errors import InvalidError
from pydock_core.store.layer_rules import (
    HOSTILE,
    OPAQUE_NAME,
    WHITEOUT_PREFIX,
    clean_name,
    hidden_name,
)
from pydock_core.store.layer_tar import LayerApplier, is_whiteout
from pydock_core.store.tar_reader import Entry
from pydock_core.store.trees import remove_tree

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_READABLE = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class OverlayApplier(LayerApplier):
    """Applies one layer, without its whiteouts (:class:`Whiteouts`), to a mounted overlay.

    Args:
        root_fd: the overlay's root, opened for reading.
        mount_point: of the overlay.
        subject: names the layer in errors.
        squash_owners, progress: see :class:`LayerApplier`.
    """

    def __init__(
        self,
        root_fd: int,
        mount_point: str,
        *,
        subject: str,
        squash_owners: bool,
        progress: Callable[[int], None],
    ) -> None:
        super().__init__(
            root_fd, user_xattrs=False, subject=subject, squash_owners=squash_owners, progress=progress
        )
        self._mount_point = mount_point
        self._found: dict[str, int] = {}

    def _leave_link(self, entry: Entry) -> None:
        raise InvalidError(
            f"{self._subject}: hard link {entry.text!r} leads to {os.fsdecode(entry.link)!r}, which does not exist",
            HOSTILE,
        )

    def _hide(self, parent: str, hidden: str) -> None:
        self._parent(parent)

    def _make_opaque(self, path: str) -> None:
        super()._make_opaque(path)
        self._opaque.discard(path)

    def _enter(self, directory_fd: int) -> None:
        """Save a directory's time: new entries change it, and unless an entry sets it, it must stay the lower layer's."""
        if path := _location(directory_fd, self._mount_point):
            self._found.setdefault(path, os.fstat(directory_fd).st_mtime_ns)

    def _replace_parent(self, prefix: str, name: str, parent_fd: int) -> None:
        # A file of a lower layer: an overlay of the two layers would show the directory.
        os.unlink(name, dir_fd=parent_fd)
        os.mkdir(name, 0o755, dir_fd=parent_fd)

    def _remove(self, path: str, name: str, parent_fd: int) -> None:
        gone = f"{_location(parent_fd, self._mount_point)}/{name}".lstrip("/")
        super()._remove(path, name, parent_fd)
        for known in [known for known in self._found if known == gone or known.startswith(gone + "/")]:
            del self._found[known]

    def _remove_directory(self, name: str, parent_fd: int) -> None:
        """Remove a tree of any depth.  An overlay renames no directory of a lower layer, as remove_tree does."""
        fd = os.open(name, _READABLE, dir_fd=parent_fd)
        try:
            levels: list[list[str]] = []
            names = _unlink_files(fd)
            while names or levels:
                if names:
                    below_fd = os.open(names[-1], _READABLE, dir_fd=fd)
                    levels.append(names)
                    names = _unlink_files(below_fd)
                else:
                    below_fd = os.open("..", _READABLE, dir_fd=fd)
                    names = levels.pop()
                    os.rmdir(names.pop(), dir_fd=below_fd)
                os.close(fd)
                fd = below_fd
        finally:
            os.close(fd)
        os.rmdir(name, dir_fd=parent_fd)

    def _finish(self) -> None:
        try:
            for path, mtime_ns in self._found.items():
                self._finish_directory(path, partial(os.utime, ns=(mtime_ns, mtime_ns)))
        except OSError as error:
            raise self._mapped(None, error) from error
        super()._finish()


def _unlink_files(directory_fd: int) -> list[str]:
    """Remove what is not a directory; return the names of those."""
    with os.scandir(directory_fd) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in found:
        if not is_directory:
            os.unlink(name, dir_fd=directory_fd)
    return [name for name, is_directory in found if is_directory]


class Whiteouts:
    """The whiteouts of a layer, and the paths of lower layers that they hide.

    Args:
        subject: names the layer in errors.
        user_xattrs: see :class:`LayerApplier`.
    """

    def __init__(self, subject: str, *, user_xattrs: bool) -> None:
        self._subject = subject
        self._opaque_xattr = "user.overlay.opaque" if user_xattrs else "trusted.overlay.opaque"
        self._directories: set[str] = set()
        self._names: list[tuple[str, str]] = []
        self._opaque: list[str] = []
        self._hidden: list[tuple[str, str]] = []
        self._cleared: set[str] = set()

    def read(self, entries: Iterable[Entry]) -> None:
        """Collect the whiteouts of an archive."""
        for entry in entries:
            path = clean_name(entry.name, self._subject)
            parent, _, name = path.rpartition(b"/")
            if name.startswith(WHITEOUT_PREFIX):
                hidden = hidden_name(name, self._subject)
                if hidden == OPAQUE_NAME:
                    self._opaque.append(os.fsdecode(parent))
                elif hidden is not None:
                    self._names.append((os.fsdecode(parent), os.fsdecode(hidden)))
            elif entry.kind == stat.S_IFDIR:
                self._directories.add(os.fsdecode(path))

    def copy_up(self, root_fd: int, mount_point: str) -> None:
        """Find the paths that the whiteouts hide in a mounted overlay, and copy up the whiteouts' directories.

        Raises:
            OSError: the kernel refuses.
        """
        for path in self._opaque:
            where = self._copy_up(root_fd, mount_point, path, None)
            if where is not None:
                self._cleared.add(where)
        for path, name in self._names:
            where = self._copy_up(root_fd, mount_point, path, name)
            if where is not None:
                self._hidden.append((where, name))

    def _copy_up(self, root_fd: int, mount_point: str, path: str, name: str | None) -> str | None:
        """Copy up a directory that has an entry ``name``; return its path in the upper directory, None without one."""
        fd = self._find(root_fd, mount_point, path)
        if fd is None:
            return None
        try:
            if name is not None:
                try:
                    os.stat(name, dir_fd=fd, follow_symlinks=False)
                except (FileNotFoundError, OSError) as error:
                    if error.errno not in (errno.ENOENT, errno.ENAMETOOLONG):
                        raise
                    return None
            os.chmod(f"/proc/self/fd/{fd}", stat.S_IMODE(os.fstat(fd).st_mode))
            return _location(fd, mount_point)
        finally:
            os.close(fd)

    def _find(self, root_fd: int, mount_point: str, path: str) -> int | None:
        """Open a directory of the lower layers; None if the path leads to something else.

        A directory that the layer itself defines replaces a symbolic link of a lower layer, so its whiteouts do not
        apply to the link's target.
        """
        parts = path.split("/") if path else []
        fd, where = os.open(".", _DIRECTORY, dir_fd=root_fd), ""
        for count, part in enumerate(parts, 1):
            os.close(fd)
            own = "/".join(parts[:count]) in self._directories
            found = _open_below(root_fd, f"{where}/{part}", _DIRECTORY | (os.O_NOFOLLOW if own else 0))
            if found is None:
                return None
            fd = found
            where = _location(fd, mount_point)
        return fd

    def write(self, upper: str) -> None:
        """Write the whiteouts to the upper directory while the overlay is not mounted.

        Raises:
            OSError: the file system refuses.
        """
        upper_fd = os.open(upper, _READABLE)
        try:
            for where in self._cleared:
                self._clear(upper_fd, where)
            for where, name in self._hidden:
                if where not in self._cleared:
                    _write_whiteout(upper_fd, where, name)
        finally:
            os.close(upper_fd)

    def _clear(self, upper_fd: int, where: str) -> None:
        """Make a directory opaque, and remove the directories that were copied up for other whiteouts."""
        fd = _open_inside(upper_fd, where)
        if fd is None:
            return
        try:
            mtime_ns = os.fstat(fd).st_mtime_ns
            for name in os.listdir(fd):
                remove_tree(f"/proc/self/fd/{fd}/{name}")
            os.setxattr(fd, self._opaque_xattr, b"y")
            os.utime(fd, ns=(mtime_ns, mtime_ns))
        finally:
            os.close(fd)


def _write_whiteout(upper_fd: int, where: str, name: str) -> None:
    fd = _open_inside(upper_fd, where)
    if fd is None:
        return  # hidden itself
    try:
        mtime_ns = os.fstat(fd).st_mtime_ns
        if is_whiteout(name, fd):
            return
        remove_tree(f"/proc/self/fd/{fd}/{name}")  # copied up, for another whiteout in it
        os.mknod(name, stat.S_IFCHR | 0o600, os.makedev(0, 0), dir_fd=fd)
        os.utime(fd, ns=(mtime_ns, mtime_ns))
    finally:
        os.close(fd)


def _open_inside(upper_fd: int, where: str) -> int | None:
    """Open a directory of the upper directory without following a link."""
    try:
        return syscalls.openat2(upper_fd, where or ".", _READABLE, resolve=syscalls.RESOLVE_NO_SYMLINKS)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _open_below(root_fd: int, path: str, flags: int) -> int | None:
    resolve = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS
    while True:
        try:
            return syscalls.openat2(root_fd, path, flags, resolve=resolve)
        except BlockingIOError:
            continue  # see LayerApplier._open_existing
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG):
                return None
            raise


def _location(directory_fd: int, mount_point: str) -> str:
    """Return the path of a directory from the overlay's root, "" for the root itself."""
    path = os.readlink(f"/proc/self/fd/{directory_fd}")
    return path.removeprefix(mount_point).lstrip("/")
