"""Mounts the sources of a container's mounts, in the caller's mount namespace: volumes with options, images, subpaths.

Running containers with a volume in memory (``type=tmpfs``) share one file system.  Each container's supervisor is recorded
in the directory ``records``; a later start clones the mount out of the mount namespace of a living supervisor.  The file
system goes with its last container, and no extra process keeps it alive.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from pydock_core import syscalls
from pydock_core.errors import FailedError, NotFoundError, PyDockError
from pydock_core.oci.mount_source import BASE, PART, MountSource
from pydock_core.runtime.inside import opened_inside
from pydock_core.runtime.mount_options import parse_mount
from pydock_core.runtime.mounts import make_filesystem, open_bind_source
from pydock_core.runtime.process_identity import ProcessIdentity
from pydock_core.runtime.record_file import read_json, write_json
from pydock_core.runtime.rootfs import mount_root

_EXIT_CODE = 125


def mount_sources(sources: Iterable[MountSource], holder_pid: int | None) -> None:
    """Mount sources at their mount points.

    Args:
        sources: sources in any order.
        holder_pid: the owner of this mount namespace, which stays with the container; None for a process that only
            reads.

    Raises:
        NotFoundError: the source or its subpath does not exist.
        FailedError: the kernel refuses.
    """
    for source in sources:
        try:
            _mount(source, holder_pid)
        except FileNotFoundError as error:
            raise NotFoundError(
                f"{source.subject}: {source.subpath or source.device} does not exist in it"
                if source.subpath
                else f"{source.subject} cannot be mounted: {source.device} does not exist",
                "make it first, or correct the path",
                exit_code=_EXIT_CODE,
            ) from error
        except OSError as error:
            subject = f" ({error.filename})" if isinstance(error.filename, str) else ""
            raise FailedError(
                f"{source.subject} cannot be mounted: {error.strerror}{subject}",
                "see the options of the volume: dock volume inspect",
                exit_code=_EXIT_CODE,
            ) from error
        except PyDockError as error:
            error.exit_code = _EXIT_CODE
            raise


def _mount(source: MountSource, holder_pid: int | None) -> None:
    base = Path(source.place) / BASE
    base.mkdir(mode=0o700, parents=True, exist_ok=True)
    if source.kind == "image":
        mount_root(source.root_mounts, base)
    else:
        mount_fd = _shared(source, holder_pid) if source.records else _make(source)
        try:
            _attach(mount_fd, str(base))
        finally:
            os.close(mount_fd)
    if source.subpath:
        _bind_part(source, base)


def _make(source: MountSource) -> int:
    """Return a detached mount of the source's file system."""
    entry = {"destination": f"/{source.subject}", "type": source.kind, "source": source.device}
    if source.kind == "bind":
        os.stat(source.device)  # the error that names the volume
        words = ["rbind", *(word for word in source.options if word not in ("bind", "rbind"))]
        return open_bind_source(parse_mount({**entry, "options": words}), Path("/"))
    return make_filesystem(parse_mount({**entry, "options": list(source.options)}))


def _attach(mount_fd: int, target: str) -> None:
    target_fd = os.open(target, syscalls.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        syscalls.move_mount(mount_fd, target_fd)
    finally:
        os.close(target_fd)


def _bind_part(source: MountSource, base: Path) -> None:
    """Bind the subpath, resolved within the source, because a container may have made links there."""
    part = Path(source.place) / PART
    base_fd = os.open(base, syscalls.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with opened_inside(base_fd, source.subpath) as found_fd:
            flags = syscalls.OPEN_TREE_CLONE | syscalls.AT_EMPTY_PATH | syscalls.AT_RECURSIVE
            tree_fd = syscalls.open_tree(found_fd, "", flags)
            try:
                _make_point(part, is_directory=stat.S_ISDIR(os.fstat(tree_fd).st_mode))
                _attach(tree_fd, str(part))
            finally:
                os.close(tree_fd)
    finally:
        os.close(base_fd)


def _make_point(point: Path, *, is_directory: bool) -> None:
    """Make a mount point of the right kind; an earlier run may have left another kind."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISDIR(os.lstat(point).st_mode) == is_directory:
            return
        point.unlink() if is_directory else point.rmdir()
    if is_directory:
        point.mkdir(mode=0o700)
    else:
        point.touch(mode=0o600)


# -- shared between containers ---------------------------------------------------------------------------


def _shared(source: MountSource, holder_pid: int | None) -> int:
    """Return a detached mount of this volume's file system in a running container, or of a new one."""
    records = Path(source.records)
    records.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock_fd = os.open(records / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX)
        mount_fd = None
        for record in sorted(records.glob("*.json")):
            mount_fd = _clone(record)
            if mount_fd is not None:
                break
        if mount_fd is None:
            mount_fd = _make(source)
        if holder_pid is not None:
            holder = ProcessIdentity.of(holder_pid)
            document = {"holder": holder.to_json(), "path": f"{source.place}/{BASE}"}
            write_json(records / f"{holder_pid}.json", document)
        return mount_fd
    finally:
        os.close(lock_fd)


def _clone(record: Path) -> int | None:
    """Clone the mount of a recorded supervisor; if the mount is gone, remove the record and return None."""
    document = read_json(record)
    try:
        pidfd = ProcessIdentity(**document["holder"]).open() if document else None
    except (KeyError, TypeError):
        pidfd = None
    if document is None or pidfd is None:
        record.unlink(missing_ok=True)
        return None
    own_fd = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        syscalls.setns(pidfd, syscalls.CLONE_NEWNS)
        try:
            base = str(document["path"])
            # It must be a mount point, not the empty directory left after the supervisor has unmounted it.
            if os.stat(base).st_dev == os.stat(os.path.dirname(base)).st_dev:
                return None
            return syscalls.open_tree(syscalls.AT_FDCWD, base, syscalls.OPEN_TREE_CLONE)
        finally:
            syscalls.setns(own_fd, syscalls.CLONE_NEWNS)
            os.chdir("/")
    except OSError:
        return None  # the supervisor is ending
    finally:
        os.close(own_fd)
        os.close(pidfd)
