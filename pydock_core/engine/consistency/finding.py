"""One contradiction in a state root: what it is, whether it may only be in progress, and how it is mended."""

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
"""The patience with a step of another process that a lock does not cover."""
LONG_SECONDS = 2.0
"""The patience with what a kernel does in its own time, or a client does when it is scheduled."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One contradiction, for a person.

    Attributes:
        kind: "container", "volume", "image", "layer", "blob", "file", "network", "mount", "control group", "database".
        name: of the object.
        problem: what contradicts what.
        remedy: what ``--repair`` does, or if it can do nothing, what a person does.
        can_mend: ``--repair`` mends it.
        state: "found", or "mended".
        error: why it could not be mended; empty if that was not tried.
    """

    kind: str
    name: str
    problem: str
    remedy: str
    can_mend: bool
    state: str = "found"
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the finding as plain data."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Contradiction:
    """What one look at a state root has found.

    Attributes:
        finding: for a person.
        mend: mends it; safe beside other processes, and harmless if another one was first.  None if nothing can.
        identity: tells it from one that looks the same a moment later (an inode, a time).
        patience_seconds: how long it has to last to be one, and not merely in progress.
    """

    finding: Finding
    mend: Callable[[], object] | None = None
    identity: object = None
    patience_seconds: float = 0.0

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for the same contradiction in two looks."""
        return self.finding.kind, self.finding.name, self.finding.problem, self.identity


def contradiction(
    kind: str,
    name: str,
    problem: str,
    remedy: str,
    mend: Callable[[], object] | None = None,
    *,
    identity: object = None,
    patience_seconds: float = BRIEF_SECONDS,
) -> Contradiction:
    """Return a contradiction."""
    finding = Finding(kind, name, problem, remedy, mend is not None)
    return Contradiction(finding, mend, identity, patience_seconds)


class Known:
    """The containers of a state root at the time of one look: rows, read first, and what they are used for.

    Attributes:
        rows: of containers, by id.
    """

    def __init__(self, root: StateRoot, database: Database) -> None:
        self._root = root
        self.rows: dict[str, ContainerRow] = {row.id: row for row in containers_sql.all_rows(database)}

    def is_at_rest(self, container_id: str) -> bool:
        """Whether no process runs, starts, ends or restarts a container, and nothing of a killed one is to be reaped."""
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
    """Return names in one line: the first few."""
    listed = sorted(names)
    more = f" and {len(listed) - 3} more" if len(listed) > 3 else ""
    return ", ".join(listed[:3]) + more
