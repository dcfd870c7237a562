"""The model behind bars: the state of each layer, and of all together; terminal and notebook display it.

A pulled layer is downloaded and extracted at the same time, but displayed in one phase at a time: "Downloading" until it
is complete, and only then "Extracting".
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from pydock_core.progress import Event
from pydock_core.spelling import human_size

DONE = (
    "Already exists",
    "Layer already exists",
    "Mounted from",
    "Pull complete",
    "Pushed",
    "Skipped foreign layer",
)
"""The beginnings of a layer's last status."""
ARRIVED = ("Verifying Checksum", "Download complete")
"""The statuses of a completely downloaded layer."""

_RATE_SECONDS = 10.0
"""The time over which a speed is averaged, about as in Docker and rich."""
_RATE_STEP_SECONDS = 0.25
"""The least time for a speed, as events come in bursts."""


class Display(Protocol):
    """A display of events; called from any thread."""

    def show(self, event: Event) -> None:
        """Display an event."""
        ...

    def close(self, *, succeeded: bool) -> None:
        """Leave a final state; no event comes afterwards."""
        ...


DisplayFactory = Callable[[str], Display | None]
"""Makes a front end's own display, for a completed action's text; None if it cannot have one now."""


class Rate:
    """The speed at which a number grows."""

    def __init__(self) -> None:
        # A tuple, replaced as a whole: another thread draws a terminal's bars.
        self._samples: tuple[tuple[float, int], ...] = ()

    def add(self, now: float, number: int) -> None:
        """Add a sample; the first one is the start, and so is one below the last."""
        if self._samples and number < self._samples[-1][1]:
            self._samples = ()
        kept = [sample for sample in self._samples if now - sample[0] <= _RATE_SECONDS]
        if len(kept) >= 2 and now - kept[-2][0] < _RATE_STEP_SECONDS:
            kept.pop()
        self._samples = (*kept, (now, number))

    def per_second(self, now: float) -> float | None:
        """Return the speed; None if there are too few samples, or no recent one."""
        samples = self._samples
        if len(samples) < 2 or now - samples[-1][0] > _RATE_SECONDS:
            return None
        elapsed = max(now, samples[-1][0]) - samples[0][0]
        return (samples[-1][1] - samples[0][1]) / elapsed if elapsed >= _RATE_STEP_SECONDS else None


@dataclass(slots=True)
class Row:
    """One layer.

    Attributes:
        name: its id, or the operation's status if there is none.
        status: the displayed one.
        current, total: bytes of the displayed phase; ``total`` is 0 if unknown.
        moved, size: the most bytes transferred so far, and all bytes to transfer; ``size`` is 0 if unknown or none.
        rate: of the transfer.
        is_coming: the layer is being downloaded; its extraction is not displayed yet.
        is_moving: this phase counts bytes.
        is_done: no more events are expected.
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
        """The completed part of the phase, 0 to 1."""
        if self.is_done or self.status in ARRIVED:
            return 1.0
        return min(self.current / self.total, 1.0) if self.total else 0.0

    def sizes(self, separator: str) -> str:
        """Return the bytes of the phase: "1.2MB/5MB"; "" if it counts none."""
        return _sizes(self.current, self.total, separator) if self.is_moving else ""


class Overall(NamedTuple):
    """All layers together.

    Attributes:
        moved, size: bytes transferred, and to transfer.
        done, layers: complete layers, and all.
    """

    moved: int
    size: int
    done: int
    layers: int

    @property
    def fraction(self) -> float:
        """The completed part, 0 to 1: of the bytes, or of the layers if no size is known."""
        if self.size:
            return self.moved / self.size
        return self.done / self.layers if self.layers else 0.0

    def sizes(self, separator: str) -> str:
        """Return the bytes: "1.2MB/5MB"; "" if no size is known."""
        return _sizes(self.moved, self.size, separator) if self.size else ""


def _sizes(current: int, total: int, separator: str) -> str:
    return human_size(current) + (f"{separator}{human_size(total)}" if total else "")


class Board:
    """The layers, in the order of their first events.

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

    def update(self, event: Event) -> Row:
        """Apply an event; return its layer."""
        status = event["status"]
        name = event.get("id") or status
        row = self.rows.setdefault(name, Row(name))
        label = status if event.get("id") else ""
        current, total = event.get("current"), event.get("total") or 0
        if status.startswith(DONE):
            _end(row, label)
        elif status == "Extracting":
            if not row.is_coming and not row.is_done:
                self._extract(row, label, current or 0, total)
        elif current is not None:
            self._move(row, label, current, total)
            row.is_coming = status == "Downloading"
        elif status in ARRIVED:
            row.status, row.is_coming, row.is_moving, row.moved = label, False, False, row.size
        elif not (row.is_coming and row.moved):  # "Waiting" for its extraction
            row.size = max(row.size, total)
            row.status, row.is_done, row.is_moving = label, False, False
            if status != "Waiting":
                # A layer whose blob exists is not downloaded.
                row.is_coming = status == "Pulling fs layer" and row.size > 0
        return row

    def _move(self, row: Row, label: str, current: int, total: int) -> None:
        """Apply a step of a transfer.  Its first number counts bytes of an earlier, interrupted pull."""
        if row.is_moving and current > row.current:
            self._fresh_bytes += current - row.current
        row.status, row.current, row.total = label, current, total
        row.is_moving, row.is_done = True, False
        row.moved = max(row.moved, current)
        row.size = max(row.size, total)
        now = self._clock()
        row.rate.add(now, current)
        self.rate.add(now, self._fresh_bytes)

    @staticmethod
    def _extract(row: Row, label: str, current: int, total: int) -> None:
        """Apply a step of an extraction.  A transferred layer has no total: the event's is the compressed size."""
        is_first = row.status != label
        is_wrong = bool(row.size) or current > total or (not is_first and not row.total and bool(row.current))
        row.status, row.current, row.total = label, current, 0 if is_wrong else total
        row.is_moving, row.is_done = True, False

    def finish(self) -> None:
        """Mark every layer as done."""
        for row in self.rows.values():
            _end(row, row.status)

    def speed(self, row: Row | None = None) -> float | None:
        """Return the bytes per second of a layer's transfer, or of all; None if there is none."""
        if row is None:
            # Over a copy: another thread draws a terminal's bars, while a layer may be added.
            is_moving = any(one.moved < one.size for one in list(self.rows.values()))
            return self.rate.per_second(self._clock()) if is_moving else None
        is_moving = row.is_moving and not row.is_done and row.status != "Extracting"
        return row.rate.per_second(self._clock()) if is_moving else None

    def overall(self) -> Overall:
        """Return the state of all layers together.

        Only layers of known size count in bytes; one that turns out to exist at its destination has none.
        """
        rows = self.rows.values()
        moved = sum(min(row.moved, row.size) for row in rows)
        return Overall(moved, sum(row.size for row in rows), sum(row.is_done for row in rows), len(rows))

    def summary(self) -> str:
        """Return the number of layers and their bytes: "5 layers, 270MB"; "" if nothing is known."""
        # An event without an id is about the whole, whose size counts rather than the layers'.
        whole = [row for row in self.rows.values() if not row.status]
        layers = len(self.rows) - len(whole)
        size_bytes = sum(row.size or row.total or row.current for row in whole or self.rows.values())
        parts = [f"{layers} layer{'s' if layers > 1 else ''}"] if layers else []
        return ", ".join(parts + ([human_size(size_bytes)] if size_bytes else []))


def _end(row: Row, label: str) -> None:
    if not row.moved and not row.is_moving:
        row.size = 0  # it existed, or another process fetched it
    row.status, row.moved = label, row.size
    row.is_done, row.is_coming, row.is_moving = True, False, False
