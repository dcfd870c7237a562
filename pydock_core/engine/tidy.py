"""Removes containers, and what killed processes have left of them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydock_core.errors import NoSpaceError, PyDockError
from pydock_core.paths import StateRoot
from pydock_core.store.database import Database
from pydock_core.store.database import containers as table
from pydock_core.store.reserve import Reserve
from pydock_core.store.trees import discard
from pydock_core.store.worker import LocalWorker, Worker
from pydock_core.supervision.client import SupervisorClient, wait_for_exit
from pydock_core.supervision.container_status import derive_status, is_locked


class Remover:
    """Removes the files of containers that the database no longer knows.

    The order is that of making, reversed: the row first, then the directories by way of the trash.  Whoever is killed
    in between leaves only files without a row, which :meth:`sweep` finds.
    """

    def __init__(self, root: StateRoot, database: Database, worker: Worker) -> None:
        self._root = root
        self._database = database
        self._worker = worker

    def remove(self, container_id: str, *, volumes: bool, durable: bool = True) -> None:
        """Remove a container that does not run: its row, its directories, and on request its anonymous volumes.

        Args:
            durable: its row does not come back after a crash of the machine (without its files, as "created").
        """
        try:
            orphans = table.delete(self._database, container_id, durable=durable)
        except NoSpaceError:
            # Its files are what fills the disk, maybe.  Killed in between, it stays as one that never ran.
            self._remove_directories(container_id)
            orphans = table.delete(self._database, container_id, durable=durable)
        self._remove_directories(container_id)
        if volumes and orphans:
            for name in orphans:
                self._discard(self._root.volumes / name)
            table.delete_volumes(self._database, orphans)

    def remove_volume(self, name: str) -> bool:
        """Remove a volume that no container uses; return whether it was removed."""
        trash = self._root.trash / f"volume-{os.urandom(8).hex()}"

        def put_away() -> None:
            with contextlib.suppress(FileNotFoundError):  # it is made when a container starts
                os.rename(self._root.volumes / name, trash)

        if not table.delete_unused_volume(self._database, name, put_away):
            return False
        self._remove_tree(trash)
        return True

    def sweep(self) -> None:
        """Tidy up after killed processes: auto-removed containers that ended, files without a row, full trash."""
        rows = table.all_rows(self._database)
        known = {row.id for row in rows}
        for row in rows:
            if '"auto_remove": true' in row.config:
                status = derive_status(self._root.container(row.id))
                if status.status == "exited":
                    self.remove(row.id, volumes=True)
        for directory in (self._root.containers, self._root.run / "c"):
            for name in _names(directory):
                if name not in known and not self._is_new(name):
                    self._remove_orphan(name)
        for name in _names(self._root.trash):
            self._remove_tree(self._root.trash / name)

    def _is_new(self, container_id: str) -> bool:
        """Whether the container was created since the rows were read: directories come after the row."""
        try:
            table.find(self._database, container_id)
        except PyDockError:
            return False
        return True

    def _remove_orphan(self, container_id: str) -> None:
        paths = self._root.container(container_id)
        if is_locked(paths.lock_file):
            with contextlib.suppress(PyDockError):
                SupervisorClient(paths).stop(9, 0.0)
            wait_for_exit(paths)
        elif paths.run.is_dir():
            derive_status(paths)  # reaps what a killed supervisor left
        self._remove_directories(container_id)

    def _remove_directories(self, container_id: str) -> None:
        paths = self._root.container(container_id)
        self._remove_flat(paths.run)
        self._discard(paths.data)

    def _discard(self, path: Path) -> None:
        discard(path, self._root.trash, path.name[:12], self._remove_tree)

    def _remove_flat(self, path: Path) -> None:
        """Remove a run directory, which holds our own files only."""
        try:
            self._remove_tree(path, LocalWorker())
        except PyDockError:
            if path.exists():
                raise

    def _remove_tree(self, path: Path, worker: Worker | None = None) -> None:
        (worker or self._worker).call("pydock_core.store.trees:remove_tree", {"path": str(path)})


def _names(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


def tidy_container(
    *,
    data: str,
    run: str,
    container_id: str,
    fds: Sequence[int] = (),
    progress: Callable[[Mapping[str, Any]], None] | None = None,
) -> None:
    """Remove a container that ended and was to be removed then, where no client waits to do it.  A worker function.

    Args:
        data, run: the two directories of the state root.
        container_id: full.
        fds, progress: unused; the signature is that of all worker functions.
    """
    root = StateRoot(Path(data), Path(run))
    wait_for_exit(root.container(container_id))
    database = Database(root.database, Reserve(root.reserve))
    Remover(root, database, LocalWorker()).remove(container_id, volumes=True)
