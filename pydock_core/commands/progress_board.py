"""What bars show: the state of each layer, and of all together.  No terminal, no notebook: for both alike.

A layer that is pulled is downloaded and extracted at the same time, but shown in one phase at a time: "Downloading" until
all of it is here, and only then "Extracting".
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydock_core.sizes import human_size

DONE = (
    "Already exists",
    "Layer already exists",
    "Mounted from",
    "Pull complete",
    "Pushed",
    "Skipped foreign layer",
)
"""How the last status of a layer begins."""
ARRIVED = ("Verifying Checksum", "Download complete")
"""What a layer is said to be once all of it is here."""

_RATE_SECONDS = 10.0
"""A speed is that of so long; Docker and rich have about the same."""
_RATE_STEP_SECONDS = 0.25
"""A shorter time tells no speed: events come in bursts."""


class Rate:
    """How fast a number grows."""

    def __init__(self) -> None:
        # A tuple, replaced whole: a terminal's bars are drawn by another thread.
        self._samples: tuple[tuple[float, int], ...] = ()

    def add(self, now: float, number: int) -> None:
        """Note the number; the first is where it starts, and so is one that is less than the last."""
        if self._samples and number < self._samples[-1][1]:
            self._samples = ()
        kept = [sample for sample in self._samples if now - sample[0] <= _RATE_SECONDS]
        if len(kept) >= 2 and now - kept[-2][0] < _RATE_STEP_SECONDS:
            kept.pop()
        self._samples = (*kept, (now, number))

    def per_second(self, now: float) -> float | None:
        """Return the speed; None where too little is known, or nothing has come for long."""
        samples = self._samples
        if len(samples) < 2 or now - samples[-1][0] > _RATE_SECONDS:
            return None
        elapsed = max(now, samples[-1][0]) - samples[0][0]
        return (samples[-1][1] - samples[0][1]) / elapsed if elapsed >= _RATE_STEP_SECONDS else None


@dataclass(slots=True)
class Row:
    """One layer.

    Attributes:
        name: its id, or what is done where there is none.
        status: what is shown of it.
        current, total: bytes of the phase that is shown; ``total`` 0 where it is not known.
        moved, size: bytes that were transferred at most, and are to be; ``size`` 0 where it is not known, or nothing is.
        rate: of the transfer.
        is_coming: it is being downloaded; what is extracted of it meanwhile is not shown.
        is_moving: bytes are counted in this phase.
        is_done: nothing more is to come.
    """

    name: str
    status: str = ""
    current: int = 0
    total: int = 0
    moved: int = 0
    size: int = 0
    rate: Rate = field(default_factory=Rate)
    is_coming: bool = False
    is_moving: bool = False
    is_done: bool = False

    @property
    def fraction(self) -> float:
        """How much of the phase is done, 0 to 1."""
        if self.is_done or self.status in ARRIVED:
            return 1.0
        return min(self.current / self.total, 1.0) if self.total else 0.0


class Board:
    """The layers, in the order in which they were first told of.

    Args:
        clock: seconds, monotonic.

    Attributes:
        rows: by name.
        rate: of all transfers together.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.rows: dict[str, Row] = {}
        self.rate = Rate()
        self._clock = clock
        self._fresh_bytes = 0

    def update(self, event: Mapping[str, Any]) -> Row:
        """Take an event in; return the layer that it is about."""
        status = str(event.get("status") or "")
        name = str(event.get("id") or status)
        row = self.rows.setdefault(name, Row(name))
        shown = status if event.get("id") else ""
        has_numbers = event.get("current") is not None
        if status.startswith(DONE):
            _end(row, shown)
        elif status == "Extracting":
            if not row.is_coming and not row.is_done:
                self._extract(row, shown, int(event.get("current") or 0), int(event.get("total") or 0))
        elif has_numbers:
            self._move(row, shown, int(event["current"]), int(event.get("total") or 0))
            row.is_coming = status == "Downloading"
        elif status in ARRIVED:
            row.status, row.is_coming, row.is_moving, row.moved = shown, False, False, row.size
        elif not (row.is_coming and row.moved):  # "Waiting": for the layer's turn to be extracted
            row.size = max(row.size, int(event.get("total") or 0))
            row.status, row.is_done, row.is_moving = shown, False, False
            if status != "Waiting":
                # Of a layer whose blob is here nothing is to come.
                row.is_coming = status == "Pulling fs layer" and row.size > 0
        return row

    def _move(self, row: Row, shown: str, current: int, total: int) -> None:
        """Take in a step of a transfer.  Its first number is what was there before: an interrupted pull goes on."""
        if row.is_moving and current > row.current:
            self._fresh_bytes += current - row.current
        row.status, row.current, row.total = shown, current, total
        row.is_moving, row.is_done = True, False
        row.moved = max(row.moved, current)
        row.size = max(row.size, total)
        now = self._clock()
        row.rate.add(now, current)
        self.rate.add(now, self._fresh_bytes)

    @staticmethod
    def _extract(row: Row, shown: str, current: int, total: int) -> None:
        """Take in a step of an extraction.  Of a layer that was transferred the total is the compressed size: no total."""
        is_first = row.status != shown
        is_wrong = bool(row.size) or current > total or (not is_first and not row.total and bool(row.current))
        row.status, row.current, row.total = shown, current, 0 if is_wrong else total
        row.is_moving, row.is_done = True, False

    def finish(self) -> None:
        """The whole is done, so every layer is."""
        for row in self.rows.values():
            _end(row, row.status)

    def speed(self, row: Row | None = None) -> float | None:
        """Return the bytes per second of a layer's transfer, or of all; None where none is going on."""
        if row is None:
            # Of a copy: a terminal's bars are drawn by another thread, while a layer may come.
            is_moving = any(one.moved < one.size for one in list(self.rows.values()))
            return self.rate.per_second(self._clock()) if is_moving else None
        is_moving = row.is_moving and not row.is_done and row.status != "Extracting"
        return row.rate.per_second(self._clock()) if is_moving else None

    def overall(self) -> tuple[int, int, int, int]:
        """Return (bytes transferred, bytes to transfer, layers done, layers).

        Only layers whose size is known count in bytes, from the beginning where that tells of it; one that turns out to
        be where it should go has none.
        """
        rows = self.rows.values()
        moved = sum(min(row.moved, row.size) for row in rows)
        return moved, sum(row.size for row in rows), sum(row.is_done for row in rows), len(rows)

    def summary(self) -> str:
        """Return how many layers there were, and of how many bytes: "5 layers, 270MB"; "" if nothing is known."""
        # What has no id is about the whole, and says more than the layers that are made of it.
        whole = [row for row in self.rows.values() if not row.status]
        layers = len(self.rows) - len(whole)
        size_bytes = sum(row.size or row.current for row in whole or self.rows.values())
        parts = [f"{layers} layer{'s' if layers > 1 else ''}"] if layers else []
        return ", ".join(parts + ([human_size(size_bytes)] if size_bytes else []))


def _end(row: Row, shown: str) -> None:
    if not row.moved and not row.is_moving:
        row.size = 0  # it was there already, or another process has fetched it
    row.status, row.moved = shown, row.size
    row.is_done, row.is_coming, row.is_moving = True, False, False
