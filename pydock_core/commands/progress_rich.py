"""Bars in a terminal: one for each layer, and one line for all.  Loads rich."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

from pydock_core.commands.progress import Event
from pydock_core.commands.progress_board import Board, Row

_ID_WIDTH = 19


class RichDisplay:
    """Bars on standard error from the first event on; they stay when all is done, as Docker's do."""

    def __init__(self, console: Console | None = None) -> None:
        self._board = Board()
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
        )
        self._bars = Progress(*columns, console=console or Console(stderr=True))
        self._overall = self._bars.add_task("total", total=None)
        self._tasks: dict[str, TaskID] = {}

    def show(self, event: Event) -> None:
        if not self._tasks:
            self._bars.start()
        row = self._board.update(event)
        if row.name not in self._tasks:
            self._tasks[row.name] = self._bars.add_task(row.name, total=None)
        self._put(row)
        self._put_overall()

    def close(self, *, succeeded: bool) -> None:
        if not self._tasks:
            return
        if succeeded:
            self._board.finish()
            for row in self._board.rows.values():
                self._put(row)
        self._put_overall()
        self._bars.stop()

    def _put(self, row: Row) -> None:
        total = row.total or (max(row.current, 1) if row.is_done else None)
        self._bars.update(
            self._tasks[row.name],
            description=f"{row.name[:_ID_WIDTH]} {row.status}".strip(),
            completed=total if row.is_done and total else row.current,
            total=total,
        )

    def _put_overall(self) -> None:
        current, total, done, count = self._board.overall()
        self._bars.update(
            self._overall,
            description=f"total {done}/{count}",
            completed=current if total else done,
            total=total or count or None,
        )
