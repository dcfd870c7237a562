"""Opens a root file system for one worker: mounted in a private mount namespace, or a running container's.

The functions that open a root are only for a worker process, which ends afterwards, and with it the namespace.
:func:`mount_privately` is for any process.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydock_core import syscalls
from pydock_core.errors import ConflictError
from pydock_core.oci.root_mount import RootMount
from pydock_core.runtime.process_identity import ProcessIdentity
from pydock_core.runtime.rootfs import mount_root

_Result = TypeVar("_Result")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def open_private_root(root_mounts: Sequence[Mapping[str, Any]], mount_point: str) -> int:
    """Mount a file system in a private mount namespace; return a descriptor of its root, for reading.

    Args:
        root_mounts: as data (:class:`RootMount`).
        mount_point: an empty directory.

    Raises:
        NotFoundError, UnsupportedError, FailedError: see :func:`mount_root`.
        OSError: the mount namespace cannot be made.
    """
    mounts = [RootMount.from_json(mount) for mount in root_mounts]
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
    mount_root(mounts, Path(mount_point))
    return os.open(mount_point, _DIRECTORY)


def mount_privately(job: Callable[[Callable[[], None]], _Result]) -> _Result:
    """Run a job that mounts something, in a thread with a mount namespace of its own, and return its result.

    A mount namespace belongs to a thread (unshare(2)), so this process and the host see none of the mounts, and they
    end with the thread.

    Args:
        job: receives a function that it calls regularly, which raises if the caller has been interrupted.
    """
    thread = _Mounting(job)
    thread.start()
    try:
        thread.join()
    except BaseException:
        thread.given_up.set()
        thread.join()
        raise
    return thread.result()


class _Mounting(threading.Thread, Generic[_Result]):
    def __init__(self, job: Callable[[Callable[[], None]], _Result]) -> None:
        super().__init__(name="mounting", daemon=True)
        self.given_up = threading.Event()
        self._job = job
        self._results: list[_Result] = []
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            syscalls.unshare(syscalls.CLONE_NEWNS)
            syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
            self._results.append(self._job(self._check))
        except BaseException as error:  # noqa: BLE001  # raised in the thread that waits for this one
            self._error = error

    def _check(self) -> None:
        if self.given_up.is_set():
            raise InterruptedError("the job was given up")

    def result(self) -> _Result:
        if self._error is not None:
            raise self._error
        return self._results[0]


def open_running_root(supervisor: Mapping[str, Any], rootfs: str) -> int:
    """Return a descriptor of a running container's root, as its supervisor has mounted it.

    Only the root's own mount is cloned, without the mounts in the container (volumes, /proc, /dev, /etc/hosts), so nothing
    below the descriptor leads out of it.

    Args:
        supervisor: its :class:`ProcessIdentity`, as data.
        rootfs: the supervisor's mount point of the root.

    Raises:
        ConflictError: the container has ended.
        OSError: its mount namespace cannot be joined.
    """
    pidfd = ProcessIdentity(**supervisor).open()
    if pidfd is None:
        raise ConflictError("the container has just ended", "try again")
    try:
        syscalls.setns(pidfd, syscalls.CLONE_NEWNS)
    except ProcessLookupError:
        raise ConflictError("the container has just ended", "try again") from None
    finally:
        os.close(pidfd)
    tree_fd = syscalls.open_tree(syscalls.AT_FDCWD, rootfs, syscalls.OPEN_TREE_CLONE)
    try:
        return os.open(".", _DIRECTORY, dir_fd=tree_fd)
    finally:
        os.close(tree_fd)
