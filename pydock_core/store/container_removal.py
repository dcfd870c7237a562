"""Removes a container's row, its directories and its anonymous volumes.

The order is the reverse of the creation: the row first, then the directories, by way of the trash.  A process that is
killed in between leaves only files without a row, which the engine's sweep removes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pydock_core.errors import NoSpaceError, PyDockError
from pydock_core.paths import StateRoot
from pydock_core.store.database import Database
from pydock_core.store.database import containers as table
from pydock_core.store.database.containers import Run
from pydock_core.store.removal_lock import take_removal_lock
from pydock_core.store.reserve import Reserve
from pydock_core.store.trees import discard
from pydock_core.store.worker import LocalWorker, Worker


class ContainerRemoval:
    """Removes stopped containers from one state root.

    Args:
        worker: removes trees, which may contain files of the user's subordinate ids.
        later: runs a removal that no caller waits for: of directories whose row is gone.
    """

    def __init__(
        self,
        root: StateRoot,
        database: Database,
        worker: Worker,
        later: Callable[[Callable[[], None]], None] = lambda action: action(),
    ) -> None:
        self._later = later
        self._root = root
        self._database = database
        self._worker = worker

    def remove(
        self, container_id: str, run: Run | None = None, *, volumes: bool, durable: bool = True
    ) -> None:
        """Remove a container: its row, its directories, and on request its anonymous volumes.

        Args:
            run: the last run, whose end may not be recorded yet; None if it never ran.
            durable: keep its row from returning after a crash of the machine (without its files, as "created").
        """
        lock_fd = take_removal_lock(self._root.trash)
        try:
            try:
                orphans = table.delete(self._database, container_id, run, durable=durable)
            except NoSpaceError:
                # Its own files may have filled the disk.  If this process is killed in between, the container appears as
                # created.
                self.remove_directories(container_id)
                orphans = table.delete(self._database, container_id, run, durable=durable)
        except BaseException:
            os.close(lock_fd)
            raise
        self._later(lambda: self._remove_files(container_id, lock_fd))
        if volumes:
            for name in orphans:
                self.remove_volume(name, durable=durable)

    def _remove_files(self, container_id: str, lock_fd: int) -> None:
        try:
            self.remove_directories(container_id)
        finally:
            os.close(lock_fd)

    def remove_volume(self, name: str, *, durable: bool = True) -> bool:
        """Remove an unused volume; see :func:`pydock_core.store.volume_removal.remove_volume`."""
        from pydock_core.store.volume_removal import remove_volume  # late: most containers have no volume

        return remove_volume(self._root, self._database, name, self.remove_tree, durable=durable)

    def remove_directories(self, container_id: str) -> None:
        """Remove the two directories of a container."""
        paths = self._root.container(container_id)
        try:
            # It contains only files of this user: no worker is needed.
            self.remove_tree(paths.run, LocalWorker())
        except PyDockError:
            if paths.run.exists():
                raise
        self._discard(paths.data)

    def remove_tree(self, path: Path, worker: Worker | None = None) -> None:
        """Remove a tree; ignore a missing one."""
        (worker or self._worker).call("pydock_core.store.trees:remove_tree", {"path": str(path)})

    def _discard(self, path: Path) -> None:
        discard(path, self._root.trash, path.name[:12], self.remove_tree)


def remove_container(
    *,
    data: str,
    run: str,
    container_id: str,
    started_at_ns: int = 0,
    finished_at_ns: int = 0,
    exit_code: int = 0,
    oom_killed: bool = False,
    fds: Sequence[int] = (),
    progress: Callable[[Mapping[str, object]], None] | None = None,
) -> None:
    """Remove a ``--rm`` container that has ended and lost its client.  A worker function.

    Args:
        data, run: the two directories of the state root.
        container_id: full.
        started_at_ns, finished_at_ns, exit_code, oom_killed: of its last run, see
            :class:`~pydock_core.store.database.containers.Run`.
        fds, progress: unused; the signature is that of all worker functions.
    """
    root = StateRoot(Path(data), Path(run))
    database = Database(root.database, Reserve(root.reserve), root.changed)
    last = Run(started_at_ns, finished_at_ns, exit_code, oom_killed)
    ContainerRemoval(root, database, LocalWorker()).remove(container_id, last, volumes=True)
