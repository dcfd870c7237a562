"""Removes containers and volumes, and cleans up after killed processes."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

from pydock_core.engine.recorder import last_run
from pydock_core.errors import PyDockError
from pydock_core.paths import StateRoot
from pydock_core.store.container_removal import ContainerRemoval
from pydock_core.store.database import Database
from pydock_core.store.database import containers as table
from pydock_core.store.database import networks as networks_sql
from pydock_core.store.removal_lock import hold_removal_lock
from pydock_core.store.volume_removal import restore_volume
from pydock_core.store.worker import Worker
from pydock_core.supervision.client import SupervisorClient, wait_for_exit
from pydock_core.supervision.container_status import derive_status, is_locked
from pydock_core.supervision.reaper import reap_killed


class Remover:
    """Removes containers and volumes of one state root, and the remains of killed processes."""

    def __init__(self, root: StateRoot, database: Database, worker: Worker) -> None:
        self._root = root
        self._database = database
        self._removal = ContainerRemoval(root, database, worker)
        self._quick_removal = ContainerRemoval(root, database, worker, _run_in_thread)

    def remove(self, container_id: str, *, volumes: bool, durable: bool = True) -> None:
        """Remove a stopped container; see :meth:`ContainerRemoval.remove`.

        Unless the removal is ``durable``, a thread removes the files (``--rm``).  The interpreter waits for it at exit; a
        killed process leaves the files to the next sweep.
        """
        run = last_run(reap_killed(self._root.container(container_id)))
        removal = self._removal if durable else self._quick_removal
        removal.remove(container_id, run, volumes=volumes, durable=durable)

    def remove_volume(self, name: str) -> bool:
        """Remove a volume that no container uses; return whether it was removed."""
        return self._removal.remove_volume(name)

    def sweep(self) -> None:
        """Clean up after killed processes: ended containers with ``--rm``, files without a row, the trash."""
        rows = table.all_rows(self._database)
        known = {row.id for row in rows}
        for row in rows:
            if '"AutoRemove": true' in row.definition:
                status = derive_status(self._root.container(row.id))
                if status.status == "exited":
                    self.remove(row.id, volumes=True)
        for directory in (self._root.containers, self._root.run / "c"):
            for name in _names(directory):
                if name not in known and not self._is_new(name):
                    with hold_removal_lock(self._root.trash):
                        self._remove_orphan(name)
        for name in _names(self._root.trash):
            aside = self._root.trash / name
            with hold_removal_lock(self._root.trash):
                if not restore_volume(self._root, self._database, aside):
                    self._removal.remove_tree(aside)
        if names := _names(self._root.run / "n"):
            self._sweep_networks(names)

    def _sweep_networks(self, names: list[str]) -> None:
        """Remove the bridges of networks whose rows are gone."""
        from pydock_core.engine.attachments import Attachments  # late: few roots have networks

        known = {row.id for row in networks_sql.all_rows(self._database)}
        for name in names:
            if name not in known:
                Attachments(self._root, self._database).sweep(name)

    def _is_new(self, container_id: str) -> bool:
        """Whether the container was created after the rows were read; its directories are made after its row."""
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
            reap_killed(paths)
        self._removal.remove_directories(container_id)


def _run_in_thread(action: Callable[[], None]) -> None:
    def run() -> None:
        with contextlib.suppress(PyDockError):  # the next sweep reports the failure
            action()

    threading.Thread(target=run, name="pydock-removal").start()


def _names(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []
