"""Inconsistencies of volumes and of the directories for unfinished and removed files."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pydock_core.engine.consistency.finding import Inconsistency, Known, inconsistency, inode_of, names_in
from pydock_core.engine.volume_files import make_directory, volume_directory
from pydock_core.errors import CorruptError, InvalidError, NotFoundError
from pydock_core.spec.volume import check_volume
from pydock_core.store.database import checks
from pydock_core.store.database import volumes as table
from pydock_core.store.database.volumes import NewVolume, VolumeRow
from pydock_core.store.removal_lock import is_removing
from pydock_core.store.volume_removal import restore_missing_volume, restore_volume, volume_of
from pydock_core.store.workspace import is_abandoned
from pydock_core.supervision.container_status import derive_status

if TYPE_CHECKING:
    from pydock_core.engine.state import State


class VolumeCheck:
    """Checks the volumes, the trash and the temporary files of one state root."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._root = state.root
        self._database = state.database

    def look(self, known: Known) -> Iterator[Inconsistency]:
        """Yield the current inconsistencies."""
        yield from self._aside()
        yield from self._unfinished()
        rows = {row.name: row for row in table.all_volumes(self._database)}
        for name in names_in(self._root.volumes):
            if name not in rows and not self._is_recorded(name):
                yield self._unrecorded(name)
        for row in rows.values():
            yield from self._missing(row, known)
        for container_id, name in checks.unrecorded_volumes(self._database):
            yield inconsistency(
                "volume",
                name,
                f"container {container_id[:12]} has it, but it is not recorded",
                "records it",
                partial(self._record, name, with_files=True),
            )

    def _is_recorded(self, name: str) -> bool:
        try:
            table.find(self._database, name)
        except NotFoundError:
            return False
        return True

    def _unrecorded(self, name: str) -> Inconsistency:
        path = self._root.volumes / name
        try:
            check_volume(name, "local", {}, rootless=False)
        except InvalidError:
            return inconsistency(
                "volume", name, "its name is not that of a volume", f"move {path} elsewhere by hand"
            )
        return inconsistency(
            "volume",
            name,
            "its files are there, but it is not recorded",
            "records it: its files may be needed",
            partial(self._record, name),
            identity=inode_of(path),
        )

    def _record(self, name: str, *, with_files: bool = False) -> None:
        table.create(self._database, name, NewVolume(False, {}, {}), time.time_ns())
        if with_files:
            self._make(name)

    def _missing(self, row: VolumeRow, known: Known) -> Iterator[Inconsistency]:
        """Find volumes without files that a started container uses; a container's first start makes the files."""
        if row.options or volume_directory(self._root, row.name).exists() or is_removing(self._root.trash):
            return
        for container_id in table.users(self._database, row.name):
            try:
                has_run = derive_status(self._root.container(container_id)).started_at_ns
            except CorruptError:
                continue  # it is found as a container
            if has_run and container_id in known.rows:
                yield inconsistency(
                    "volume",
                    row.name,
                    f"its files are missing, but container {known.rows[container_id].name} has used it",
                    "takes them out of the trash, or begins with an empty directory",
                    partial(self._make, row.name),
                )
                return

    def _make(self, name: str) -> None:
        restore_missing_volume(self._root, self._database, name)
        make_directory(self._root, self._database, name)

    def _aside(self) -> Iterator[Inconsistency]:
        """Find files that a killed process was about to remove."""
        if is_removing(self._root.trash):
            return
        for name in names_in(self._root.trash):
            aside = self._root.trash / name
            volume = volume_of(aside)
            if volume and self._is_recorded(volume) and not volume_directory(self._root, volume).exists():
                yield inconsistency(
                    "volume",
                    volume,
                    "its removal was interrupted: it is recorded, but its files are in the trash",
                    "puts the files back",
                    partial(restore_volume, self._root, self._database, aside),
                    identity=inode_of(aside),
                )
            else:
                yield inconsistency(
                    "file",
                    f"trash/{name}",
                    "its removal was interrupted",
                    "removes it",
                    self._state.remover.sweep,
                    identity=inode_of(aside),
                )

    def _unfinished(self) -> Iterator[Inconsistency]:
        for name in names_in(self._root.temporary):
            path: Path = self._root.temporary / name
            if is_abandoned(path):
                yield inconsistency(
                    "file",
                    f"tmp/{name}",
                    "a killed process left it unfinished",
                    "removes it",
                    self._state.image_store.sweep,
                    identity=inode_of(path),
                )
