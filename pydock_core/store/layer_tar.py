"""Extracts a layer's tar into a directory in overlayfs's form; no entry can escape it.

The rules are those of :mod:`pydock_core.store.layer_rules`.  openat2(2) with RESOLVE_IN_ROOT resolves every directory from
the layer's root, and every last component is created with O_EXCL or a similar flag, which does not follow links.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import OrderedDict
from collections.abc import Callable
from functools import partial

from pydock_core import syscalls
from pydock_core.errors import InvalidError, PyDockError
from pydock_core.store.layer_rules import (
    HOSTILE,
    LINK_DEPTH,
    OPAQUE_NAME,
    OVERLAY_XATTR,
    WHITEOUT_PREFIX,
    Applied,
    clean_name,
    hidden_name,
    map_error,
)
from pydock_core.store.tar_reader import Entry, TarReader
from pydock_core.store.trees import remove_tree

_OPEN_DIRECTORIES = 64
_FILE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
ESCAPE = "overlay."
"""After overlayfs's prefix, marks the rest as the name of an attribute of the file: Linux 6.7 and newer show
user.overlay.overlay.x as user.overlay.x (Documentation/filesystems/overlayfs.rst, "Nesting overlayfs mounts"); older
kernels neither show nor obey it."""
_USER_OVERLAY_XATTR = b"user.overlay."
_PROGRESS_BYTES = 8 << 20


class LayerApplier:
    """Applies one layer to one directory.

    Args:
        root_fd: the empty directory, opened for reading.
        user_xattrs: mark opaque directories with "user.overlay.opaque", for overlay mounts with ``userxattr``, as in a
            user namespace; otherwise with "trusted.overlay.opaque".
        squash_owners: make root the owner of everything, in a user namespace that has no other id.
        subject: names the layer in errors.
        progress: called with the number of bytes written so far, every few megabytes.
    """

    def __init__(
        self,
        root_fd: int,
        *,
        user_xattrs: bool,
        subject: str,
        squash_owners: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self._root_fd = root_fd
        self._user_xattrs = user_xattrs
        self._opaque_xattr = "user.overlay.opaque" if user_xattrs else "trusted.overlay.opaque"
        self._squash_owners = squash_owners
        self._subject = subject
        self._progress = progress
        self._reported = 0
        self._parents: OrderedDict[str, int] = OrderedDict()
        # Done last: making entries changes the times of their directory, and an entry may still be replaced.
        self._times: dict[str, int] = {}
        self._opaque: set[str] = set()
        self._whiteouts: set[str] = set()
        self._implied: set[str] = set()
        self._applied = Applied()

    def apply(self, reader: TarReader) -> Applied:
        """Apply every entry.

        Raises:
            CorruptError: the archive is damaged or truncated.
            InvalidError: an entry leads out of the layer, or contradicts another.
            UnavailableError: the disk is full.
            UnsupportedError: an owner is not mapped in this user namespace.
        """
        try:
            for entry in reader:
                self._applied.entries += 1
                try:
                    self._apply_entry(entry, reader)
                except OSError as error:
                    raise self._mapped(entry, error) from error
            self._finish()
        finally:
            self._forget_parents()
        return self._applied

    # -- one entry ---------------------------------------------------------------------------------------

    def _apply_entry(self, entry: Entry, reader: TarReader) -> None:
        raw = clean_name(entry.name, self._subject)
        path = os.fsdecode(raw)
        if not path:
            if entry.kind == stat.S_IFDIR:
                self._set_directory("", ".", self._root_fd, entry)
            return
        parent = path.rpartition("/")[0]
        last = raw[raw.rfind(b"/") + 1 :]
        if last.startswith(WHITEOUT_PREFIX):
            hidden = hidden_name(last, self._subject)
            if hidden == OPAQUE_NAME:
                self._make_opaque(parent)
            elif hidden is not None:
                self._applied.whiteouts += 1
                self._hide(parent, os.fsdecode(hidden))
            return
        self._apply_named(entry, path, reader)

    def _apply_named(self, entry: Entry, path: str, reader: TarReader) -> None:
        """Make an entry at a path, replacing an existing one."""
        parent, _, name = path.rpartition("/")
        parent_fd = self._parent(parent)
        if entry.kind == stat.S_IFDIR:
            self._make_directory(path, name, parent_fd, entry)
            return
        try:
            self._make(entry, name, parent_fd, reader)
        except FileExistsError:
            self._remove(path, name, parent_fd)
            self._make(entry, name, self._parent(parent), reader)

    def _make(self, entry: Entry, name: str, parent_fd: int, reader: TarReader) -> None:
        kind = entry.kind
        if kind == stat.S_IFREG:
            self._make_file(entry, name, parent_fd, reader)
        elif kind == stat.S_IFLNK:
            os.symlink(entry.link, name, dir_fd=parent_fd)
            self._set_metadata(name, parent_fd, entry)
        elif kind == 0:
            self._make_hard_link(entry, name, parent_fd)
        else:
            device = os.makedev(*entry.device) if kind != stat.S_IFIFO else 0
            try:
                os.mknod(name, kind | 0o600, device, dir_fd=parent_fd)
            except PermissionError:
                if kind == stat.S_IFIFO:
                    raise
                self._applied.skipped_devices += 1
                return
            self._set_metadata(name, parent_fd, entry)

    def _make_file(self, entry: Entry, name: str, parent_fd: int, reader: TarReader) -> None:
        fd = os.open(name, _FILE_FLAGS, 0o600, dir_fd=parent_fd)
        try:
            if entry.size_bytes:
                reader.copy(entry, fd)
            os.fchown(fd, *self._owner(entry))
            # After the owner: a change of owner clears set-user-id bits and file capabilities.
            os.fchmod(fd, entry.mode)
            for key, value in entry.xattrs:
                self._set_xattr(fd, key, value)
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(fd)
        self._applied.size_bytes += entry.size_bytes
        if self._progress and self._applied.size_bytes - self._reported >= _PROGRESS_BYTES:
            self._reported = self._applied.size_bytes
            self._progress(self._reported)

    def _make_hard_link(self, entry: Entry, name: str, parent_fd: int) -> None:
        target = os.fsdecode(clean_name(entry.link, self._subject, entry.name))
        target_parent, _, target_name = target.rpartition("/")
        if not target_name:
            raise InvalidError(f"{self._subject}: hard link {entry.text!r} leads to a directory", HOSTILE)
        # parent_fd must stay open while the cache gives out another one.
        kept_fd = os.dup(parent_fd)
        try:
            target_fd = self._open_existing(target_parent)
            if target_fd is None:
                raise FileNotFoundError(errno.ENOENT, "No such file or directory", target)
            try:
                mode = os.stat(target_name, dir_fd=target_fd, follow_symlinks=False).st_mode
                if stat.S_ISDIR(mode):
                    raise InvalidError(
                        f"{self._subject}: hard link {entry.text!r} leads to a directory", HOSTILE
                    )
                if is_whiteout(target_name, target_fd):  # overlayfs treats it as a missing name
                    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), target)
                os.link(target_name, name, src_dir_fd=target_fd, dst_dir_fd=kept_fd, follow_symlinks=False)
            finally:
                os.close(target_fd)
        except FileNotFoundError:
            self._leave_link(entry)
        finally:
            os.close(kept_fd)

    def _leave_link(self, entry: Entry) -> None:
        """Count a hard link to a missing file, which a lower layer may have."""
        self._applied.unresolved_links += 1

    def _make_directory(self, path: str, name: str, parent_fd: int, entry: Entry) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=parent_fd)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(name, dir_fd=parent_fd, follow_symlinks=False).st_mode):
                self._remove(path, name, parent_fd)
                parent_fd = self._parent(path.rpartition("/")[0])
                os.mkdir(name, 0o700, dir_fd=parent_fd)
        self._set_directory(path, name, parent_fd, entry)

    def _set_directory(self, path: str, name: str, parent_fd: int, entry: Entry) -> None:
        fd = os.open(name, _DIRECTORY_FLAGS, dir_fd=parent_fd)
        try:
            os.fchown(fd, *self._owner(entry))
            os.fchmod(fd, entry.mode)
            for key, value in entry.xattrs:
                self._set_xattr(fd, key, value)
        finally:
            os.close(fd)
        self._times[path] = entry.mtime_ns
        self._implied.discard(path)

    def _set_metadata(self, name: str, parent_fd: int, entry: Entry) -> None:
        os.chown(name, *self._owner(entry), dir_fd=parent_fd, follow_symlinks=False)
        if entry.kind != stat.S_IFLNK:
            os.chmod(name, entry.mode, dir_fd=parent_fd)
        for key, value in entry.xattrs:
            self._set_xattr(f"/proc/self/fd/{parent_fd}/{name}", key, value)
        os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=parent_fd, follow_symlinks=False)

    def _owner(self, entry: Entry) -> tuple[int, int]:
        return (0, 0) if self._squash_owners else (entry.uid, entry.gid)

    def _set_xattr(self, target: int | str, key: bytes, value: bytes) -> None:
        if key.startswith(OVERLAY_XATTR):
            return
        if self._user_xattrs and key.startswith(_USER_OVERLAY_XATTR):
            key = _USER_OVERLAY_XATTR + ESCAPE.encode() + key.removeprefix(_USER_OVERLAY_XATTR)
        try:
            if isinstance(target, int):
                os.setxattr(target, key, value)
            else:
                os.setxattr(target, key, value, follow_symlinks=False)
        except OSError as error:
            # As in Docker: an attribute that the file system does not support does not make an image unusable.
            if error.errno not in (errno.ENOTSUP, errno.EPERM, errno.EINVAL):
                raise
            self._applied.skipped_xattrs += 1

    # -- whiteouts ---------------------------------------------------------------------------------------

    def _hide(self, parent: str, hidden: str) -> None:
        path = f"{parent}/{hidden}" if parent else hidden
        parent_fd = self._parent(parent)
        try:
            os.mknod(hidden, stat.S_IFCHR | 0o600, os.makedev(0, 0), dir_fd=parent_fd)
        except FileExistsError:
            # The layer itself has the name; a whiteout hides only names of lower layers.
            self._opaque.add(path)
            return
        self._whiteouts.add(path)

    def _make_opaque(self, path: str) -> None:
        self._parent(path)
        self._opaque.add(path)
        self._applied.whiteouts += 1
        if not path:
            self._applied.opaque_root = True

    # -- directories -------------------------------------------------------------------------------------

    def _parent(self, path: str) -> int:
        """Return a descriptor (O_PATH) of the directory ``path``; create it if it is missing."""
        if not path:
            return self._root_fd
        fd = self._parents.get(path)
        if fd is not None:
            self._parents.move_to_end(path)
            return fd
        fd = self._open_existing(path)
        if fd is None:
            self._make_parents(path, 0)
            fd = self._open_existing(path)
            if fd is None:
                raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
        self._enter(fd)
        if len(self._parents) >= _OPEN_DIRECTORIES:
            os.close(self._parents.popitem(last=False)[1])
        self._parents[path] = fd
        return fd

    def _enter(self, directory_fd: int) -> None:
        """Record a directory before an entry is made in it."""

    def _open_existing(self, path: str) -> int | None:
        """Return a new descriptor of a directory, or None if it, or a directory on the way, is missing."""
        flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
        while True:
            try:
                return syscalls.openat2(
                    self._root_fd,
                    path or ".",
                    flags,
                    resolve=syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS,
                )
            except (FileNotFoundError, NotADirectoryError):
                return None
            except BlockingIOError:
                continue  # EAGAIN (openat2(2)): a concurrent rename made the result of ".." uncertain; retry

    def _make_parents(self, path: str, depth: int) -> None:
        """Make the missing directories of ``path``, mode 0755, root's; follows links within the layer."""
        if depth > LINK_DEPTH:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        parts = [part for part in path.split("/") if part and part != "."]
        for count in range(1, len(parts) + 1):
            prefix = "/".join(parts[:count])
            fd = self._open_existing(prefix)
            if fd is not None:
                os.close(fd)
                continue
            parent = "/".join(parts[: count - 1])
            parent_fd = self._open_existing(parent)
            if parent_fd is None:
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), prefix)
            try:
                self._enter(parent_fd)
                self._make_parent(prefix, parts[count - 1], parent, parent_fd, depth)
            finally:
                os.close(parent_fd)

    def _make_parent(self, prefix: str, name: str, parent: str, parent_fd: int, depth: int) -> None:
        opaque = False
        try:
            os.mkdir(name, 0o755, dir_fd=parent_fd)
        except FileExistsError:
            if prefix in self._whiteouts and is_whiteout(name, parent_fd):
                os.unlink(name, dir_fd=parent_fd)
                self._whiteouts.discard(prefix)
                os.mkdir(name, 0o755, dir_fd=parent_fd)
                opaque = True
            elif stat.S_ISLNK(os.stat(name, dir_fd=parent_fd, follow_symlinks=False).st_mode):
                # The target of a link is missing in this layer: make it, within the root.
                target = os.readlink(name, dir_fd=parent_fd)
                self._make_parents(target if target.startswith("/") else f"{parent}/{target}", depth + 1)
                return
            else:
                self._replace_parent(prefix, name, parent_fd)
        fd = os.open(name, _DIRECTORY_FLAGS, dir_fd=parent_fd)
        try:
            os.fchmod(fd, 0o755)
            os.fchown(fd, 0, 0)
            if opaque:
                os.setxattr(fd, self._opaque_xattr, b"y")
        finally:
            os.close(fd)
        self._implied.add(prefix)
        self._times[prefix] = 0  # no entry sets a time, and a layer must be the same everywhere

    def _replace_parent(self, prefix: str, name: str, parent_fd: int) -> None:
        """Replace a file by a directory; refuse an archive that would replace a file of its own."""
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), prefix)

    def _remove(self, path: str, name: str, parent_fd: int) -> None:
        """Remove the path that an entry replaces.  A directory that replaces a whiteout becomes opaque."""
        mode = os.stat(name, dir_fd=parent_fd, follow_symlinks=False).st_mode
        if stat.S_ISDIR(mode):
            self._remove_directory(name, parent_fd)
        else:
            os.unlink(name, dir_fd=parent_fd)
        if path in self._whiteouts:
            self._whiteouts.discard(path)
            self._opaque.add(path)
        if stat.S_ISDIR(mode) or stat.S_ISLNK(mode):
            # Descriptors in the cache may lead through it.
            self._forget_parents()
            prefix = path + "/"
            for known in [known for known in self._times if known == path or known.startswith(prefix)]:
                del self._times[known]

    def _remove_directory(self, name: str, parent_fd: int) -> None:
        remove_tree(f"/proc/self/fd/{parent_fd}/{name}")

    def _forget_parents(self) -> None:
        for fd in self._parents.values():
            os.close(fd)
        self._parents.clear()

    # -- the end -----------------------------------------------------------------------------------------

    def _finish(self) -> None:
        self._times.setdefault("", 0)
        self._applied.implied_parents = len(self._implied)
        try:
            for path in self._whiteouts:
                self._restore_whiteout(path)
            for path in self._opaque:
                # If the name is no longer a directory, lower layers' entries below it are hidden anyway.
                self._finish_directory(path, lambda at: os.setxattr(at, self._opaque_xattr, b"y"))
            for path, mtime_ns in self._times.items():
                self._finish_directory(path, partial(os.utime, ns=(mtime_ns, mtime_ns)))
        except OSError as error:
            raise self._mapped(None, error) from error

    def _finish_directory(self, path: str, change: Callable[[str], object]) -> None:
        fd = self._open_existing(path)
        if fd is not None:
            try:
                change(f"/proc/self/fd/{fd}")
            finally:
                os.close(fd)

    def _restore_whiteout(self, path: str) -> None:
        """Restore a whiteout that was removed with a directory which the layer replaced and then defined again."""
        parent, _, name = path.rpartition("/")
        fd = self._open_existing(parent)
        if fd is not None:
            try:
                os.mknod(name, stat.S_IFCHR | 0o600, os.makedev(0, 0), dir_fd=fd)
            except FileExistsError:
                pass
            finally:
                os.close(fd)

    def _mapped(self, entry: Entry | None, error: OSError) -> PyDockError:
        if entry is None:
            return map_error(error, self._subject)
        return map_error(error, self._subject, entry.text, (entry.uid, entry.gid))


def is_whiteout(name: str, directory_fd: int) -> bool:
    """Whether a directory has a whiteout under a name."""
    try:
        status = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0
