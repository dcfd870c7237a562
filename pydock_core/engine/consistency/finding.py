"""One inconsistency in a state root: its description, its patience and its repair."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydock_core.paths import StateRoot
from pydock_core.store.database import Database
from pydock_core.store.database import containers as containers_sql
from pydock_core.store.database.containers import ContainerRow
from pydock_core.supervision.container_status import is_locked

BRIEF_SECONDS = 0.3
"""The patience with another process's step outside a lock."""
LONG_SECONDS = 2.0
"""The patience with the kernel's clean-up, or with a client that waits to be scheduled."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One inconsistency, for the user.

    Attributes:
        kind: "container", "volume", "image", "layer", "blob", "file", "network", "mount", "control group", "database".
        name: name of the object.
        problem: description of the inconsistency.
        remedy: the action of ``--repair``, or the user's action if there is none.
        can_repair: whether ``--repair`` repairs it.
        state: "found" or "repaired".
        error: reason why the repair failed; empty if it was not tried.
    """

    kind: str
    name: str
    problem: str
    remedy: str
    can_repair: bool
    state: str = "found"
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the finding as plain data."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Inconsistency:
    """One result of a check of a state root.

    Attributes:
        finding: the description for the user.
        repair: repairs it; safe beside other processes, and without effect if another one was first.  None without a repair.
        identity: distinguishes it from a later result of the same form (an inode, a time).
        patience_seconds: time that it has to last to exclude work in progress.
    """

    finding: Finding
    repair: Callable[[], object] | None = None
    identity: object = None
    patience_seconds: float = 0.0

    @property
    def key(self) -> tuple[object, ...]:
        """A key that is equal for the same inconsistency in two checks."""
        return self.finding.kind, self.finding.name, self.finding.problem, self.identity


def inconsistency(
    kind: str,
    name: str,
    problem: str,
    remedy: str,
    repair: Callable[[], object] | None = None,
    *,
    identity: object = None,
    patience_seconds: float = BRIEF_SECONDS,
) -> Inconsistency:
    """Return an inconsistency."""
    finding = Finding(kind, name, problem, remedy, repair is not None)
    return Inconsistency(finding, repair, identity, patience_seconds)


class Known:
    """The containers of a state root at the time of one check.

    Attributes:
        rows: rows of containers by id, read first.
    """

    def __init__(self, root: StateRoot, database: Database) -> None:
        self._root = root
        self.rows: dict[str, ContainerRow] = {row.id: row for row in containers_sql.all_rows(database)}

    def is_at_rest(self, container_id: str) -> bool:
        """Whether no process runs, starts, ends or restarts a container, and no killed one is to be reaped."""
        paths = self._root.container(container_id)
        return not is_locked(paths.lock_file) and not paths.state_file.exists()


def names_in(directory: Path) -> list[str]:
    """Return the names in a directory, in order; none if it is missing."""
    try:
        return sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []


def inode_of(path: Path) -> int:
    """Return a file's inode; 0 if it is missing."""
    try:
        return os.stat(path, follow_symlinks=False).st_ino
    except OSError:
        return 0


def short(names: Iterable[str]) -> str:
    """Return the first few names in one line."""
    listed = sorted(names)
    more = f" and {len(listed) - 3} more" if len(listed) > 3 else ""
    return ", ".join(listed[:3]) + more
