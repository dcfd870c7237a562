"""The use cases of volumes: create, list, inspect, remove and prune."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydock_core.engine.image_filters import parse_boolean
from pydock_core.engine.labels import has_label, parse_prune_filters
from pydock_core.engine.volume_files import make_directory, volume_directory
from pydock_core.errors import ConflictError, InvalidError, NotFoundError
from pydock_core.oci.timestamp import format_timestamp
from pydock_core.spec.volume import ANONYMOUS_LABEL, check_volume
from pydock_core.store.database import volumes as table
from pydock_core.store.database.containers import names_of
from pydock_core.store.database.events import Event
from pydock_core.store.database.volumes import NewVolume, VolumeRow

if TYPE_CHECKING:
    from pydock_core.engine.state import State

Documents = list[dict[str, Any]]
_FILTERS = ("dangling", "driver", "label", "name")


class Volumes:
    """Volumes of one state root.

    A volume is a row of the database; its files are in ``volumes/NAME/_data`` once it has been used.  Safe to use from
    several threads and processes at once.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._root = state.root
        self._database = state.database

    def create(
        self,
        name: str | None = None,
        *,
        driver: str = "local",
        labels: Mapping[str, str] | None = None,
        options: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Create a volume; as in Docker, an existing one is unchanged.

        Args:
            name: random by default; such a volume is anonymous.
            driver: "local", the only one.
            labels: the volume's labels.
            options: the driver's options ``type``, ``device`` and ``o``, as in mount(8).

        Returns:
            Volume of the Engine API.

        Raises:
            InvalidError: the name, an option or a combination of options is malformed.
            UnsupportedError: another driver is requested, or this user cannot mount the volume.
        """
        self._state.sweep_once()
        volume = NewVolume(not name or ANONYMOUS_LABEL in (labels or {}), labels or {}, options or {})
        name = name or os.urandom(32).hex()
        check_volume(name, driver, volume.options, rootless=os.geteuid() != 0)
        row = table.create(self._database, name, volume, time.time_ns())
        if not row.options:
            make_directory(self._root, self._database, name)
        return build_volume(row, str(volume_directory(self._root, name)))

    def list(self, filters: Mapping[str, Sequence[str]] | None = None) -> list[dict[str, Any]]:
        """Return volumes by name, as Volume of the Engine API.

        Args:
            filters: dangling, driver, label, name (a regular expression).

        Raises:
            InvalidError: an unknown filter, or a malformed one.
        """
        matches = _parse_filters(filters or {})
        return [self._build(row) for row in table.all_volumes(self._database) if matches(row)]

    def inspect(self, name: str) -> dict[str, Any]:
        """Return one volume, as Volume of the Engine API; NotFoundError if there is none."""
        return self._build(table.find(self._database, name))

    def remove(self, name: str, *, force: bool = False) -> None:
        """Remove a volume with its files.

        Args:
            force: ignore a missing volume.

        Raises:
            NotFoundError: the volume does not exist.
            ConflictError: a container uses it.
        """
        self._state.sweep_once()
        if self._state.remover.remove_volume(name):
            return
        users = table.users(self._database, name)
        if users:
            names = names_of(self._database, users)
            raise ConflictError(
                f"volume {name} cannot be removed: it is in use by container {', '.join(names)}",
                f"remove its containers first: dock rm -f {' '.join(names)}",
            )
        if not force:
            table.find(self._database, name)

    def prune(self, filters: Mapping[str, Sequence[str]] | None = None) -> dict[str, Any]:
        """Remove unused anonymous volumes.

        Args:
            filters: label, label!; ``all=true`` to include named volumes.

        Returns:
            VolumePruneResponse of the Engine API: VolumesDeleted and SpaceReclaimed.

        Raises:
            InvalidError: an unknown filter.
        """
        self._state.sweep_once()
        remaining = dict(filters or {})
        with_names = any(parse_boolean(value, "all") for value in remaining.pop("all", ()))
        may_go = parse_prune_filters(remaining, time.time_ns(), ("label", "label!"))
        going = [
            row
            for row in table.all_volumes(self._database)
            if not row.users
            and (row.anonymous or with_names)
            and may_go(row.created_ns, shown_labels(row) or {})
        ]
        deleted, reclaimed_bytes = [], 0
        for row, size in zip(going, self.sizes(going), strict=True):
            if self._state.remover.remove_volume(row.name):
                deleted.append(row.name)
                reclaimed_bytes += size
        self._state.recorder.note(Event("volume", "prune", "", {"reclaimed": str(reclaimed_bytes)}))
        return {"VolumesDeleted": deleted, "SpaceReclaimed": reclaimed_bytes}

    def usage(self) -> Documents:
        """Return volumes with their sizes and the number of containers that use them (UsageData)."""
        rows = table.all_volumes(self._database)
        return [
            {**self._build(row), "UsageData": {"Size": size, "RefCount": row.users}}
            for row, size in zip(rows, self.sizes(rows), strict=True)
        ]

    def sizes(self, rows: Sequence[VolumeRow]) -> Sequence[int]:
        """Return the size in bytes of each volume's files."""
        paths = [str(volume_directory(self._root, row.name)) for row in rows]
        sizes = self._state.worker.call("pydock_core.store.trees:tree_sizes", {"paths": paths})
        return [int(size) for size in sizes]

    def exists(self, name: str) -> bool:
        """Whether there is a volume of this name."""
        try:
            table.find(self._database, name)
        except NotFoundError:
            return False
        return True

    def _build(self, row: VolumeRow) -> dict[str, Any]:
        return build_volume(row, str(volume_directory(self._root, row.name)))


def shown_labels(row: VolumeRow) -> dict[str, str] | None:
    """Return a volume's labels with Docker's label of anonymous volumes; None if empty, as in Docker."""
    return ({ANONYMOUS_LABEL: ""} if row.anonymous else {}) | row.labels or None


def build_volume(row: VolumeRow, directory: str) -> dict[str, Any]:
    """Return Volume of the Engine API."""
    return {
        "CreatedAt": format_timestamp(row.created_ns // 1_000_000_000 * 1_000_000_000),
        "Driver": "local",
        "Labels": shown_labels(row),
        "Mountpoint": directory,
        "Name": row.name,
        "Options": row.options or None,
        "Scope": "local",
    }


def _parse_filters(filters: Mapping[str, Sequence[str]]) -> Callable[[VolumeRow], bool]:
    for key in filters:
        if key not in _FILTERS:
            raise InvalidError(f"--filter {key}: unknown key", f"there are {', '.join(_FILTERS)}")
    dangling = {parse_boolean(value, "dangling") for value in filters.get("dangling", ())}
    if len(dangling) > 1:
        raise InvalidError("--filter dangling: both true and false", "give one")
    drivers, labels = filters.get("driver"), filters.get("label", ())
    patterns = [_pattern(value) for value in filters.get("name", ())]

    def matches(row: VolumeRow) -> bool:
        return (
            (not dangling or (row.users == 0) in dangling)
            and (drivers is None or "local" in drivers)
            and all(has_label(shown_labels(row) or {}, label) for label in labels)
            and (not patterns or any(pattern.search(row.name) for pattern in patterns))
        )

    return matches


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise InvalidError(
            f"--filter name={text}: {error}", "a name is matched as a regular expression"
        ) from error
