"""Runs all checks of a state root, waits for work in progress, and repairs the findings on request."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from pydock_core.engine.consistency.container_check import ContainerCheck
from pydock_core.engine.consistency.finding import Finding, Inconsistency, Known, inconsistency
from pydock_core.engine.consistency.host_check import HostCheck
from pydock_core.engine.consistency.image_check import ImageCheck
from pydock_core.engine.consistency.volume_check import VolumeCheck
from pydock_core.errors import PyDockError
from pydock_core.store.database import checks

if TYPE_CHECKING:
    from pydock_core.engine.state import State

_INTERVAL_SECONDS = 0.1
_Key = tuple[object, ...]


class Consistency:
    """The checks of one state root.

    A check may see another process's unfinished work.  A finding is therefore checked again until it has lasted longer than
    such work can (each kind has its patience).  Objects whose lock shows work in progress are skipped.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._containers = ContainerCheck(state)
        self._volumes = VolumeCheck(state)
        self._images = ImageCheck(state)
        self._host = HostCheck(state)

    def check(self, *, repair: bool = False) -> list[Finding]:
        """Return the inconsistencies; see :meth:`pydock_core.engine.system.System.check`."""
        lasting = self._lasting()
        if not repair or not lasting:
            return [found.finding for found in lasting.values()]
        errors: dict[_Key, str] = {}
        done: list[object] = []
        for key, found in lasting.items():
            if found.repair is None or found.repair in done:
                continue
            done.append(found.repair)
            try:
                found.repair()
            except PyDockError as error:
                errors[key] = error.message
            except OSError as error:
                errors[key] = f"{error.filename or found.finding.name}: {error.strerror}"
        left = self._lasting()
        repaired = [replace(lasting[key].finding, state="repaired") for key in lasting if key not in left]
        return repaired + [replace(left[key].finding, error=errors.get(key, "")) for key in left]

    def _lasting(self) -> dict[_Key, Inconsistency]:
        """Repeat the checks until every finding has lasted for its patience."""
        lasting = {found.key: found for found in self._look()}
        began = time.monotonic()
        while lasting:
            past = time.monotonic() - began
            if all(past >= found.patience_seconds for found in lasting.values()):
                break
            time.sleep(_INTERVAL_SECONDS)  # no event reports the end of another process's work
            present = {found.key for found in self._look()}
            lasting = {key: found for key, found in lasting.items() if key in present}
        return lasting

    def _look(self) -> Iterator[Inconsistency]:
        if damage := checks.damage(self._state.database):
            yield inconsistency(
                "database",
                self._state.root.database.name,
                damage,
                f"copy {self._state.root.database} aside, and restore it from a backup",
            )
        known = Known(self._state.root, self._state.database)
        yield from self._containers.look(known)
        yield from self._volumes.look(known)
        yield from self._images.look()
        yield from self._host.look(known)
