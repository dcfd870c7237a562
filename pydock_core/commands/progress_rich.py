"""Bars in a terminal: one for each layer, and one line for all.  Loads rich."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pydock_core.commands.progress_board import ARRIVED, Board, Row
from pydock_core.progress import Event
from pydock_core.spelling import human_size

_ID_WIDTH = 19


class _Bar(BarColumn):
    """A bar that pulses while its total is unknown."""

    def render(self, task: Task) -> ProgressBar:
        bar = super().render(task)
        bar.pulse = task.fields["is_endless"]
        return bar


class _SpeedColumn(ProgressColumn):
    """Bytes per second, by the board: rich would count the bytes of an earlier, interrupted pull."""

    def __init__(self, board: Board) -> None:
        super().__init__()
        self._board = board

    def render(self, task: Task) -> Text:
        speed = self._board.speed(task.fields["row"])
        return Text("" if speed is None else f"{human_size(round(speed))}/s", style="progress.data.speed")


class Bars(Progress):
    """Bars on a terminal: while they move, only as many as fit are drawn; at the end all of them stay.

    Attributes:
        are_final: no bar moves any more.
    """

    are_final = False

    def make_tasks_table(self, tasks: Iterable[Task]) -> Table:
        drawn = list(tasks)
        # rich requests a first table, without tasks, before it has a console
        if drawn and not self.are_final:
            drawn = _fit(drawn, self.console.height - 1)
        return super().make_tasks_table(drawn)


def _fit(tasks: list[Task], lines: int) -> list[Task]:
    """Leave out layers that are done, then downloaded ones, then the last waiting ones."""
    overall, layers = tasks[:1], tasks[1:]
    excess = len(tasks) - max(lines, 2)
    idle = [task for task in layers if task.fields["row"].is_done]
    idle += [task for task in layers if task.fields["row"].status in ARRIVED]
    left_out = {task.id for task in idle[: max(excess, 0)]}
    layers = [task for task in layers if task.id not in left_out]
    return overall + layers[: max(lines, 2) - 1]


class RichDisplay:
    """Bars on standard error from the first event on; they stay at the end, as Docker's do.

    Attributes:
        bars: rich's own.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._board = Board()
        columns = (
            TextColumn("{task.description}", markup=False),
            _Bar(),
            TextColumn("{task.fields[sizes]}", style="progress.download", markup=False),
            _SpeedColumn(self._board),
        )
        self.bars = Bars(*columns, console=console or Console(stderr=True))
        self._overall = self.bars.add_task("total", total=None, row=None, sizes="", is_endless=False)
        self._tasks: dict[str, TaskID] = {}

    def show(self, event: Event) -> None:
        row = self._board.update(event)
        is_first = not self._tasks
        if row.name not in self._tasks:
            self._tasks[row.name] = self.bars.add_task(
                _description(row), total=1, row=row, sizes="", is_endless=False
            )
        self._put(row)
        self._put_overall()
        if is_first:
            self.bars.start()

    def close(self, *, succeeded: bool) -> None:
        if not self._tasks:
            return
        if succeeded:
            self._board.finish()
            for row in self._board.rows.values():
                self._put(row)
        self._put_overall()
        self.bars.are_final = True
        self.bars.stop()

    def _put(self, row: Row) -> None:
        self.bars.update(
            self._tasks[row.name],
            description=_description(row),
            completed=row.fraction,
            sizes=row.sizes("/"),
            is_endless=row.is_moving and not row.total,
        )

    def _put_overall(self) -> None:
        overall = self._board.overall()
        self.bars.update(
            self._overall,
            description=f"total {overall.done}/{overall.layers}",
            completed=overall.fraction,
            total=1,
            sizes=overall.sizes("/"),
        )


def _description(row: Row) -> str:
    return f"{row.name[:_ID_WIDTH]} {row.status}".strip()
