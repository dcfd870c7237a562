"""Inconsistencies of containers: records, directories and rows that do not match."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from pydock_core.engine.consistency.finding import (
    LONG_SECONDS,
    Inconsistency,
    Known,
    inconsistency,
    inode_of,
    names_in,
)
from pydock_core.engine.recorder import last_run
from pydock_core.errors import CorruptError, NotFoundError
from pydock_core.paths import ContainerPaths
from pydock_core.spec.definition import Definition, decode
from pydock_core.store.database import checks
from pydock_core.store.database import containers as table
from pydock_core.store.database import images as images_sql
from pydock_core.store.database import networks as networks_sql
from pydock_core.store.database.containers import ContainerRow
from pydock_core.store.removal_lock import is_removing
from pydock_core.supervision.container_status import (
    ExitRecord,
    StateRecord,
    derive_status,
    is_locked,
    take_lock,
)
from pydock_core.supervision.reaper import reap_killed

if TYPE_CHECKING:
    from pydock_core.engine.state import State


class ContainerCheck:
    """Checks the containers of one state root."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._root = state.root
        self._database = state.database

    def look(self, known: Known) -> Iterator[Inconsistency]:
        """Yield the current inconsistencies."""
        images = {row.id for row in images_sql.all_images(self._database)}
        for row in known.rows.values():
            yield from self._look_at(row, images)
        yield from self._strangers(known)
        for network_id, container_id, address in checks.ownerless_endpoints(self._database):
            yield inconsistency(
                "network",
                network_id[:12],
                f"the address {address} is that of container {container_id[:12]}, which is gone",
                "frees the address",
                partial(networks_sql.release, self._database, network_id, container_id),
            )

    def _look_at(self, row: ContainerRow, images: set[str]) -> Iterator[Inconsistency]:
        paths = self._root.container(row.id)
        try:
            definition = decode(row.definition)
        except (ValueError, KeyError, TypeError):
            yield inconsistency(
                "container", row.name, "its definition cannot be read", f"remove it: dock rm -f {row.name}"
            )
            return
        if row.image_id not in images:
            yield inconsistency(
                "container",
                row.name,
                f"its image {row.image_id[7:19]} is not recorded",
                f"pull or load the image again, or remove the container: dock rm {row.name}",
            )
        yield from self._look_at_records(row, definition, paths)

    def _look_at_records(
        self, row: ContainerRow, definition: Definition, paths: ContainerPaths
    ) -> Iterator[Inconsistency]:
        """Compare a container's lock, its records and its socket; see the table in ARCHITECTURE.md."""
        for path, read in ((paths.state_file, StateRecord.read), (paths.exit_file, ExitRecord.read)):
            try:
                read(path)
            except (CorruptError, KeyError, TypeError):
                yield inconsistency(
                    "container",
                    row.name,
                    f"{path.name} cannot be read",
                    "removes the record",
                    partial(_drop_record, paths, path.name),
                    identity=inode_of(path),
                )
                return
        inode = inode_of(paths.state_file)
        if inode and not is_locked(paths.lock_file):
            yield inconsistency(
                "container",
                row.name,
                "its supervisor was killed, and left state.json",
                "removes what is left of it, and records the end",
                partial(self._reap, row, definition),
                identity=inode,
            )
            return
        socket = inode_of(paths.control_socket)
        if socket and not inode and not is_locked(paths.lock_file):
            yield inconsistency(
                "container",
                row.name,
                "a control socket without a supervisor",
                "removes the socket",
                partial(_drop_record, paths, paths.control_socket.name),
                identity=socket,
            )
        if definition.host["AutoRemove"] and derive_status(paths).status == "exited":
            yield inconsistency(
                "container",
                row.name,
                "it was run with --rm, and has ended, but is still there",
                "removes it with its anonymous volumes",
                partial(self._remove_ended, row),
                identity=inode_of(paths.exit_file),
                patience_seconds=LONG_SECONDS,
            )

    def _strangers(self, known: Known) -> Iterator[Inconsistency]:
        """Compare the directories with the rows."""
        names = {*names_in(self._root.containers), *names_in(self._root.run / "c")}
        for name in sorted(names - set(known.rows)):
            try:
                table.find(self._database, name)
                continue  # created after the rows were read
            except NotFoundError:
                pass
            paths = self._root.container(name)
            if is_locked(paths.lock_file):
                state = StateRecord.read(paths.state_file)
                if state is not None and state.init is not None:
                    yield inconsistency(
                        "container",
                        name[:12],
                        "it runs, but is not recorded",
                        "kills it, and removes its files",
                        self._state.remover.sweep,
                        identity=state.started_at_ns,
                        patience_seconds=LONG_SECONDS,
                    )
            elif not is_removing(self._root.trash) and (paths.data.exists() or paths.run.exists()):
                yield inconsistency(
                    "container",
                    name[:12],
                    "its files are there, but it is not recorded",
                    "removes the files",
                    self._state.remover.sweep,
                    identity=(inode_of(paths.data), inode_of(paths.run)),
                )

    def _reap(self, row: ContainerRow, definition: Definition) -> None:
        status = reap_killed(self._root.container(row.id))
        if definition.host["AutoRemove"] and status.status == "exited":
            self._state.remover.remove(row.id, volumes=True)
        else:
            self._state.recorder.run(row, last_run(status))

    def _remove_ended(self, row: ContainerRow) -> None:
        if derive_status(self._root.container(row.id)).status == "exited":
            self._state.remover.remove(row.id, volumes=True)


def _drop_record(paths: ContainerPaths, name: str) -> None:
    """Remove one file of a container that has no supervisor."""
    lock_fd = take_lock(paths.lock_file)
    if lock_fd is None:
        return  # it has been started in the meantime, and owns the file
    try:
        for directory in (paths.run, paths.data):
            (directory / name).unlink(missing_ok=True)
    finally:
        os.close(lock_fd)
