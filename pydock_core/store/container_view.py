"""The file system of a container as one worker sees it: the root, and the volumes and binds below it.

It is mounted in the worker's own mount namespace, which is invisible to the container; later mounts of the container do not
affect it.  Every path is resolved by openat2(2) with RESOLVE_IN_ROOT.  No program or library of the container is
executed or loaded.  Only for a worker process that ends afterwards.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from pydock_core import syscalls
from pydock_core.errors import (
    ConflictError,
    DeniedError,
    FailedError,
    InvalidError,
    NotFoundError,
    PyDockError,
)
from pydock_core.oci.mount_source import MountSource
from pydock_core.oci.root_mount import RootMount
from pydock_core.runtime.inside import open_inside, opened_inside
from pydock_core.runtime.mount_options import parse_mounts
from pydock_core.runtime.mount_sources import mount_sources
from pydock_core.runtime.mounts import mount_plan, open_bind_source
from pydock_core.runtime.namespaces import enter_mapped
from pydock_core.runtime.process_identity import ProcessIdentity
from pydock_core.runtime.rootfs import mount_root
from pydock_core.store.copy_rules import CopyEnd, absolute, keep_spelling, names_directory, split_entry
from pydock_core.store.durable import is_full, no_space

_MAXIMUM_LINKS = 40
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY


@dataclass(frozen=True, slots=True)
class Place:
    """An entry of a container: its open parent directory (O_PATH) and its name.

    Attributes:
        name: "." if the path's spelling means a directory.
        path: the absolute path in the container, as given.
        status: status of the entry, links not followed; None if it does not exist.
    """

    directory_fd: int
    name: str
    path: str
    status: os.stat_result | None

    @property
    def is_dir(self) -> bool:
        return self.status is not None and stat.S_ISDIR(self.status.st_mode)

    @property
    def is_link(self) -> bool:
        return self.status is not None and stat.S_ISLNK(self.status.st_mode)

    def as_end(self, renamed: str = "") -> CopyEnd:
        """Return the entry as one end of a copy."""
        return CopyEnd(self.path, self.status is not None, self.is_dir, renamed)


class ContainerView:
    """A container's file system; a context that unmounts it at its end.

    Args:
        name: the container's name in errors.
        supervisor: supervisor of a running container (:class:`ProcessIdentity`, as data); None if it is not running and the
            caller holds its lock.
        rootfs: the mount point of its root.
        root_mounts: mounts of its root if it is not running (:class:`RootMount`, as data).
        sources: volumes and images to mount first if it is not running (:class:`MountSource`, as data).
        mounts: OCI entries of its volumes, binds and files, parents first.
        read_only: whether its root file system is read-only.
        uid_mappings, gid_mappings: OCI id maps of its own user namespace, whose ids are then seen; empty for none.
    """

    def __init__(
        self,
        *,
        name: str,
        supervisor: Mapping[str, Any] | None,
        rootfs: str,
        root_mounts: Sequence[Mapping[str, Any]],
        sources: Sequence[Mapping[str, Any]],
        mounts: Sequence[Mapping[str, Any]],
        read_only: bool,
        uid_mappings: Sequence[Mapping[str, Any]] = (),
        gid_mappings: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self.name = name
        self.root_fd = -1
        self._supervisor = supervisor
        self._rootfs = rootfs
        self._root_mounts = [RootMount.from_json(mount) for mount in root_mounts]
        self._sources = [MountSource.from_json(source) for source in sources]
        self._mounts = parse_mounts(mounts)
        self._read_only = read_only
        self._id_maps = (uid_mappings, gid_mappings)
        self._tree_fd = -1

    def __enter__(self) -> ContainerView:
        if self._supervisor is not None:
            self._join(self._supervisor)
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
        if self._supervisor is None:
            mount_sources(self._sources, None)
            mount_root(self._root_mounts, Path(self._rootfs))
        self.root_fd = os.open(self._rootfs, _DIRECTORY | os.O_CLOEXEC)
        for plan in self._mounts:
            source_fd = open_bind_source(plan, Path("/"))
            try:
                mount_plan(self.root_fd, plan, source_fd)
            finally:
                os.close(source_fd)
        # Reading the tree must not open a device of the container.
        flags = syscalls.MOUNT_ATTR_NODEV | syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NOEXEC
        syscalls.mount_setattr(self.root_fd, attributes_set=flags, recursive=True)
        if self._read_only:
            syscalls.mount_setattr(self.root_fd, attributes_set=syscalls.MOUNT_ATTR_RDONLY)
        if self._id_maps[0]:
            self._enter_user_namespace()
        return self

    def _enter_user_namespace(self) -> None:
        """Enter the container's id maps; the mounts end with a descriptor, because unmounting is then forbidden."""
        flags = syscalls.OPEN_TREE_CLONE | syscalls.AT_RECURSIVE
        self._tree_fd = syscalls.open_tree(syscalls.AT_FDCWD, self._rootfs, flags)
        os.close(self.root_fd)
        syscalls.umount(self._rootfs, syscalls.MNT_DETACH)
        self.root_fd = os.open(".", _DIRECTORY | os.O_CLOEXEC, dir_fd=self._tree_fd)
        enter_mapped(*self._id_maps)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.root_fd)
        if self._tree_fd >= 0:
            os.close(self._tree_fd)
            return
        # Unmounted now rather than at the process's end, because the next start mounts the writable layer.
        with contextlib.suppress(OSError):
            syscalls.umount(self._rootfs, syscalls.MNT_DETACH)

    def _join(self, supervisor: Mapping[str, Any]) -> None:
        """Enter the mount namespace where the container's supervisor has mounted the root."""
        gone = ConflictError(f"container {self.name} has ended meanwhile", "try again")
        pidfd = ProcessIdentity(**supervisor).open()
        if pidfd is None:
            raise gone
        try:
            syscalls.setns(pidfd, syscalls.CLONE_NEWNS)
        except ProcessLookupError:
            raise gone from None
        finally:
            os.close(pidfd)

    # -- paths -------------------------------------------------------------------------------------------

    def locate(self, path: str) -> Place:
        """Find an entry; links are followed except in the last component, and there too if the path names a directory.

        Raises:
            NotFoundError: its parent directory does not exist.
            InvalidError: a part of the path is not a directory.
        """
        given = absolute(path, "/")
        directory, name = (given, ".") if names_directory(given) else split_entry(given)
        try:
            directory_fd = open_inside(self.root_fd, directory, syscalls.O_PATH | os.O_DIRECTORY)
        except (FileNotFoundError, NotADirectoryError) as error:
            if name != "." or isinstance(error, NotADirectoryError):
                raise self.missing(directory, error) from error
            # A target to make, with a slash at its end.
            directory, name = split_entry(given)
            try:
                directory_fd = open_inside(self.root_fd, directory, syscalls.O_PATH | os.O_DIRECTORY)
            except OSError as failure:
                raise self.missing(directory, failure) from failure
            return Place(directory_fd, name, given, None)
        except OSError as error:
            raise self.missing(path, error) from error
        try:
            status = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
        except FileNotFoundError:
            status = None
        return Place(directory_fd, name, given, status)

    def find(self, path: str, *, follow: bool = False) -> Place:
        """Find an entry that exists.

        Args:
            follow: follow a link that is the last component, too.

        Raises:
            NotFoundError, InvalidError: see :meth:`locate`; or there is no such entry.
        """
        place = self.locate(path)
        if follow and place.is_link:
            place = self.locate(self.evaluate(path))
        if place.status is None:
            raise self.missing(path)
        return place

    def evaluate(self, path: str) -> str:
        """Return a path with all its links followed within the root; missing components are kept.

        The result is only text: its target may have changed already.

        Raises:
            InvalidError: there are too many links.
        """
        resolved: list[str] = []
        pending = [part for part in absolute(path, "/").split("/") if part not in ("", ".")]
        links = 0
        while pending:
            name = pending.pop(0)
            if name == "..":
                del resolved[-1:]
                continue
            link = self._read_link(resolved, name)
            if link is None:
                resolved.append(name)
                continue
            links += 1
            if links > _MAXIMUM_LINKS:
                raise InvalidError(f"container {self.name}: {path}: there are too many symbolic links")
            if link.startswith("/"):
                resolved.clear()
            pending[:0] = [part for part in link.split("/") if part not in ("", ".")]
        return keep_spelling("/" + "/".join(resolved), path)

    def _read_link(self, directory: Sequence[str], name: str) -> str | None:
        try:
            with opened_inside(self.root_fd, "/".join(directory)) as directory_fd:
                return os.readlink(name, dir_fd=directory_fd)
        except OSError:
            return None  # missing, or not a link

    def open_directory(self, path: str) -> int:
        """Open a directory for reading, links followed within the root.

        Raises:
            NotFoundError, InvalidError: there is none.
        """
        try:
            return open_inside(self.root_fd, path, _DIRECTORY)
        except OSError as error:
            raise self.missing(path, error) from error

    def missing(self, path: str, error: OSError | None = None) -> PyDockError:
        """Return the error of a path to a missing or wrong kind of entry."""
        if error is not None and error.errno == errno.ENOTDIR:
            return InvalidError(f"container {self.name}: {path}: not a directory", "see: dock exec … ls -l")
        if error is not None and error.errno in (errno.EAGAIN, errno.ELOOP):
            return ConflictError(f"container {self.name}: {path} is being changed", "try again")
        if error is not None and error.errno not in (errno.ENOENT,):
            return FailedError(f"container {self.name}: {path}: {error.strerror}", "see dock doctor")
        first = absolute(path, "/").split("/")[1]
        hint = (
            "what the kernel shows there is not the container's: dock exec … cat prints it"
            if first in ("proc", "sys", "dev")
            else "dock exec … ls lists what is there; file systems in memory (--tmpfs) cannot be copied"
        )
        return NotFoundError(f"could not find the file {path} in container {self.name}", hint)


@contextlib.contextmanager
def mapped_errors(subject: str) -> Iterator[None]:
    """Convert the system's errors of a copy to PyDock's.

    Raises:
        ConflictError: the target is read-only or a mount point.
        NoSpaceError, DeniedError, FailedError: by the system's error.
    """
    try:
        yield
    except OSError as error:
        at = f" ({error.filename})" if isinstance(error.filename, str) else ""
        if is_full(error):
            raise no_space(subject) from error
        if error.errno == errno.EROFS:
            raise ConflictError(
                f"cannot write {subject}: its file system is read-only", "copy to a volume that is not"
            ) from error
        if error.errno == errno.EBUSY:
            raise ConflictError(
                f"cannot replace{at} in {subject}: something is mounted there", "copy to another name"
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM):
            raise DeniedError(
                f"cannot copy {subject}{at}: {error.strerror}", "see the owners and modes"
            ) from error
        raise FailedError(f"cannot copy {subject}{at}: {error.strerror or error}", "try again") from error
