"""Joins other containers' namespaces (``--ipc``, ``--pid``, ``--network container:NAME``), and the mounts that belong to them.

The other container is found by its records at each run, so that a restart joins again.  Its namespaces are opened through
its first process, whose identity is verified before and after.  The mount that belongs to a namespace (/proc, /dev/shm) is
cloned out of the other container's mount namespace: a mount of proc would need a process in its PID namespace, which the
other container could trace.
"""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydock_core import syscalls
from pydock_core.errors import ConflictError, FailedError
from pydock_core.paths import ContainerPaths
from pydock_core.runtime.namespaces import FILES
from pydock_core.supervision.container_status import StateRecord

_MOUNTS: Mapping[str, tuple[str, int]] = {
    "ipc": ("dev/shm", syscalls.TMPFS_MAGIC),
    "pid": ("proc", syscalls.PROC_SUPER_MAGIC),
}
"""By kind of namespace: path of its mount in the other container, and the type that it must have (statfs(2))."""
_FLAGS = syscalls.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


def bind_shared(shared: Mapping[str, str], paths: ContainerPaths) -> list[Path]:
    """Bind the namespaces of other containers, and their mounts, on files and directories of a container's bundle.

    The caller is single-threaded, and has a mount namespace of its own.

    Args:
        shared: the directory of the other container's records (:attr:`ContainerPaths.run`), by kind: "ipc", "pid".
        paths: of the container that joins.

    Returns:
        The mount points.

    Raises:
        ConflictError: the other container is not running; exit code 125.
        FailedError: it has replaced the mount.
    """
    points: list[Path] = []
    for kind, directory in shared.items():
        with _opened_init(Path(directory), kind) as (pid, pidfd):
            namespace_fd = _open_namespace(pid, pidfd, Path(directory), kind)
            try:
                target = paths.shared_namespace(kind)
                target.touch(mode=0o600)
                syscalls.mount(f"/proc/self/fd/{namespace_fd}", str(target), "", syscalls.MS_BIND)
                points.append(target)
            finally:
                os.close(namespace_fd)
            points.append(_bind_mount(pidfd, kind, paths, Path(directory).name))
            if kind == "pid":
                _check_proc(points[-1], points[-2], Path(directory).name)
    return points


def open_shared(directory: Path, kind: str) -> int:
    """Open a namespace of another container.

    Args:
        directory: of the other container's records.
        kind: of the namespace: "ipc", "pid", "network".

    Raises:
        ConflictError: the other container is not running; exit code 125.
    """
    with _opened_init(directory, kind) as (pid, pidfd):
        return _open_namespace(pid, pidfd, directory, kind)


def _open_namespace(pid: int, pidfd: int, directory: Path, kind: str) -> int:
    namespace_fd = os.open(f"/proc/{pid}/ns/{FILES[kind]}", os.O_RDONLY | os.O_CLOEXEC)
    if _has_ended(pidfd):  # the number may be another process's by now
        os.close(namespace_fd)
        raise _not_running(directory, kind)
    return namespace_fd


@contextlib.contextmanager
def _opened_init(directory: Path, kind: str) -> Iterator[tuple[int, int]]:
    state = StateRecord.read(directory / "state.json")
    pidfd = state.init.open() if state is not None and state.init is not None else None
    if state is None or state.init is None or pidfd is None:
        raise _not_running(directory, kind)
    try:
        yield state.init.pid, pidfd
    except (ProcessLookupError, FileNotFoundError):
        raise _not_running(directory, kind) from None
    finally:
        os.close(pidfd)


def _has_ended(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def _not_running(directory: Path, kind: str) -> ConflictError:
    name = directory.name[:12]
    what = "network" if kind == "network" else f"{kind.upper()} namespace"
    return ConflictError(
        f"container {name} is not running, so its {what} cannot be joined",
        f"start it: dock start {name}",
        exit_code=125,
    )


def _bind_mount(pidfd: int, kind: str, paths: ContainerPaths, name: str) -> Path:
    """Clone the mount that belongs to a namespace out of another container, and attach it in the bundle."""
    path, magic = _MOUNTS[kind]
    replaced = FailedError(
        f"container {name[:12]} has no /{path} of its own, so its {kind.upper()} namespace cannot be joined",
        "it has replaced or unmounted it; restart it",
        exit_code=125,
    )
    own_fd = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        syscalls.setns(pidfd, syscalls.CLONE_NEWNS)
        try:
            resolve = syscalls.RESOLVE_NO_SYMLINKS | syscalls.RESOLVE_NO_MAGICLINKS
            root_fd = os.open("/", _FLAGS)
            try:
                found_fd = syscalls.openat2(root_fd, path, _FLAGS, resolve=resolve)
            finally:
                os.close(root_fd)
            try:
                if syscalls.filesystem_magic(found_fd) != magic:
                    raise replaced
                flags = syscalls.OPEN_TREE_CLONE | syscalls.AT_EMPTY_PATH
                tree_fd = syscalls.open_tree(found_fd, "", flags)
            finally:
                os.close(found_fd)
        finally:
            syscalls.setns(own_fd, syscalls.CLONE_NEWNS)
            os.chdir("/")
    except OSError as error:
        raise replaced from error
    finally:
        os.close(own_fd)
    point = paths.shared_mount(kind)
    try:
        point.mkdir(mode=0o700, exist_ok=True)
        target_fd = os.open(point, _FLAGS)
        try:
            syscalls.move_mount(tree_fd, target_fd)
        finally:
            os.close(target_fd)
    finally:
        os.close(tree_fd)
    return point


def _check_proc(proc: Path, namespace: Path, name: str) -> None:
    """Check that a mount of proc belongs to a PID namespace: a container could have mounted another one."""
    with contextlib.suppress(OSError):
        if os.stat(proc / "1/ns/pid").st_ino == os.stat(namespace).st_ino:
            return
    raise FailedError(
        f"/proc of container {name[:12]} is not that of its PID namespace, so the namespace cannot be joined",
        "the container has replaced it; restart it",
        exit_code=125,
    )
