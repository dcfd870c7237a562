"""What bars show: the state of each layer, and of all together.  Pure data, for terminals and notebooks alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

DONE = (
    "Already exists",
    "Layer already exists",
    "Mounted from",
    "Pull complete",
    "Pushed",
    "Skipped foreign layer",
)
"""How the last status of a layer begins."""


@dataclass(slots=True)
class Row:
    """One layer.

    Attributes:
        name: its id, or what is done where there is none.
        status: the last one.
        current, total: bytes of the step that is going on; ``total`` 0 where it is not known.
        steps: (current, total) of every step so far, by status.
        is_done: nothing more is to come.
    """

    name: str
    status: str = ""
    current: int = 0
    total: int = 0
    steps: dict[str, tuple[int, int]] = field(default_factory=dict)
    is_done: bool = False

    @property
    def fraction(self) -> float:
        """How much of the step is done, 0 to 1."""
        if self.is_done:
            return 1.0
        return min(self.current / self.total, 1.0) if self.total else 0.0


class Board:
    """The layers, in the order in which they were first told of."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}

    def update(self, event: Mapping[str, Any]) -> Row:
        """Take an event in; return the layer that it is about."""
        status = str(event.get("status") or "")
        name = str(event.get("id") or status)
        row = self.rows.setdefault(name, Row(name))
        row.status = status if event.get("id") else ""
        if event.get("current") is not None:
            row.current, row.total = int(event["current"]), int(event.get("total") or 0)
            row.steps[status] = (row.current, row.total)
        elif row.steps and status in ("Download complete", "Verifying Checksum"):
            row.current = row.total
        row.is_done = status.startswith(DONE)
        return row

    def finish(self) -> None:
        """The whole is done, so every layer is."""
        for row in self.rows.values():
            row.is_done = True

    def overall(self) -> tuple[int, int, int, int]:
        """Return (bytes done, bytes known of, layers done, layers)."""
        current = total = done = 0
        for row in self.rows.values():
            done += row.is_done
            for step, (step_current, step_total) in row.steps.items():
                size = max(step_total, step_current)
                is_past = row.is_done or (step != row.status and row.name != step)
                current += size if is_past else step_current
                total += size
        return current, total, done, len(self.rows)
