"""The devices of this host by their qualified names, from CDI files and from drivers.

If a file describes a kind, only that file counts.  The driver of this host provides a kind without a file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from pydock_core.cdi.edit import CdiSpec, ContainerEdits
from pydock_core.cdi.name import QualifiedName
from pydock_core.cdi.spec_directory import FoundSpecs
from pydock_core.errors import ConflictError, NotFoundError, PyDockError

Derive = Callable[[], CdiSpec | None]
"""Derives the specification of a kind from this host's driver; returns None if there is no such device."""


@dataclass(frozen=True, slots=True)
class ChosenEdits:
    """Edits and the file that contains them (empty for a derived specification)."""

    origin: str
    edits: ContainerEdits


class Registry:
    """Resolves qualified names.

    Args:
        found: the CDI files.
        drivers: by kind, the function that derives its specification.
    """

    def __init__(self, found: FoundSpecs, drivers: Mapping[str, Derive]) -> None:
        self._found = found
        self._drivers = drivers
        self._derived: dict[str, CdiSpec | None] = {}

    @property
    def kinds(self) -> list[str]:
        """The kinds with a device, those of files first."""
        return list(
            dict.fromkeys(
                (
                    *(spec.kind for _, spec in self._found.specs),
                    *(kind for kind in self._drivers if self.derive(kind) is not None),
                )
            )
        )

    def is_described(self, kind: str) -> bool:
        """Whether a CDI file describes a kind."""
        return any(spec.kind == kind for _, spec in self._found.specs)

    def derive(self, kind: str) -> CdiSpec | None:
        """Return the specification that is derived from this host's driver; None if there is no device."""
        if kind not in self._derived:
            driver = self._drivers.get(kind)
            self._derived[kind] = driver() if driver is not None else None
        return self._derived[kind]

    def names(self, kind: str) -> list[str]:
        """Return the names of a kind's devices."""
        return list(dict.fromkeys(name for _, spec in self._specs(kind) for name in spec.devices))

    def choose(self, names: Iterable[QualifiedName]) -> list[ChosenEdits]:
        """Return the edits of devices, in order; a specification's own edits come once, before those of its first device.

        Raises:
            NotFoundError: no such kind, or no such device; exit code 125.
            ConflictError: two files of one directory describe it; exit code 125.
        """
        chosen: list[ChosenEdits] = []
        seen: list[CdiSpec] = []
        for name in dict.fromkeys(names):
            spec = self._find(name)
            if not any(spec is other for other in seen):
                seen.append(spec)
                chosen.append(ChosenEdits(spec.origin, spec.edits))
            chosen.append(ChosenEdits(spec.origin, spec.devices[name.name]))
        return chosen

    def _specs(self, kind: str) -> Sequence[tuple[int, CdiSpec]]:
        if self.is_described(kind):
            return [(priority, spec) for priority, spec in self._found.specs if spec.kind == kind]
        derived = self.derive(kind)
        return [(0, derived)] if derived is not None else []

    def _find(self, name: QualifiedName) -> CdiSpec:
        specs = self._specs(name.kind)
        having = [(priority, spec) for priority, spec in specs if name.name in spec.devices]
        if not having:
            raise self._missing(name, is_known=bool(specs))
        best = max(priority for priority, _ in having)
        winners = [spec for priority, spec in having if priority == best]
        if len(winners) > 1:
            raise ConflictError(
                f"CDI device {name}: both {winners[0].origin} and {winners[1].origin} describe it",
                "remove one of the two files",
                exit_code=125,
            )
        return winners[0]

    def _missing(self, name: QualifiedName, *, is_known: bool) -> PyDockError:
        if self._found.problems:
            # The device may be in one of them.
            first = self._found.problems[0]
            return NotFoundError(
                f"CDI device {name} is not there; {first.message}", first.hint, exit_code=125
            )
        if is_known:
            return NotFoundError(
                f"CDI device {name}: {name.kind} has no device {name.name}",
                f"there are {', '.join(self.names(name.kind))}",
                exit_code=125,
            )
        return NotFoundError(
            f"CDI device {name}: no CDI file and no driver of this host has the kind {name.kind}",
            f"there are {', '.join(self.kinds)}"
            if self.kinds
            else "dock doctor tells which devices this host has",
            exit_code=125,
        )
