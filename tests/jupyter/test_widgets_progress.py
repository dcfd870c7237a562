"""The progress widget: what its bars show, how often they move, and how they are left."""

from __future__ import annotations

import contextvars
import threading
from typing import Any, cast

import ipywidgets
import pytest

from pydock_core.commands.context import Context
from pydock_core.commands.progress import reporting
from pydock_jupyter.widgets.progress import INTERVAL_SECONDS, ROW_LIMIT, ProgressWidget
from tests.support.commands import Output


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Progress:
    """A widget whose time the test keeps."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.shown: list[Any] = []
        self.widget = ProgressWidget(self.shown.append, self.clock)

    def event(self, status: str, identifier: str = "", current: int | None = None, total: int = 0) -> None:
        numbers = {} if current is None else {"current": current, "total": total}
        self.widget.show({"status": status, "id": identifier, **numbers})
        self.clock.now += 2 * INTERVAL_SECONDS

    def lines(self) -> list[tuple[str, int, str, str]]:
        """(name, bar, colour, text) of each line."""
        found = []
        for line in self.widget.box.children:
            name, bar, text = line.children
            found.append((name.value, bar.value, bar.bar_style, text.value))
        return found


@pytest.fixture
def progress() -> Progress:
    return Progress()


def test_a_bar_for_each_layer_and_one_for_all(progress: Progress) -> None:
    assert progress.shown == []  # what the command says first stands above it
    progress.event("Downloading", "aaa", 250_000, 1_000_000)
    assert progress.shown == [progress.widget.box]
    progress.event("Pulling fs layer", "bbb")
    assert progress.shown == [progress.widget.box]
    assert progress.lines() == [
        ("aaa", 250, "info", "Downloading 250kB of 1MB"),
        ("bbb", 0, "info", "Pulling fs layer"),
        ("total", 250, "info", "0 of 2, 250kB of 1MB"),
    ]
    progress.event("Pull complete", "aaa")
    assert progress.lines()[0] == ("aaa", 1000, "success", "Pull complete")


def test_it_moves_ten_times_a_second_and_loses_nothing(progress: Progress) -> None:
    bars: list[int] = []
    progress.event("Downloading", "aaa", 0, 1000)
    progress.widget.box.children[0].children[1].observe(lambda change: bars.append(change["new"]), "value")
    for current in range(1, 1000):
        progress.widget.show({"status": "Downloading", "id": "aaa", "current": current, "total": 1000})
        progress.clock.now += INTERVAL_SECONDS / 100
    assert 9 <= len(bars) <= 11
    progress.widget.show({"status": "Downloading", "id": "aaa", "current": 1000, "total": 1000})
    progress.widget.close(succeeded=False)
    assert bars[-1] == 1000


def test_the_end_is_a_final_state(progress: Progress) -> None:
    progress.event("Extracting", "aaa", 1, 1000)
    progress.widget.close(succeeded=True)
    assert [line[1:3] for line in progress.lines()] == [(1000, "success"), (1000, "success")]
    failed = Progress()
    failed.event("Already exists", "aaa")
    failed.event("Downloading", "bbb", 5, 1000)
    failed.widget.close(succeeded=False)
    assert [line[2] for line in failed.lines()] == ["success", "danger", "danger"]


def test_nothing_told_is_nothing_shown(progress: Progress) -> None:
    progress.widget.close(succeeded=True)
    assert progress.shown == []


def test_another_thread_shows_it_in_the_cell_that_asked() -> None:
    cell: contextvars.ContextVar[str] = contextvars.ContextVar("cell", default="none")
    token = cell.set("mine")
    shown: list[str] = []
    widget = ProgressWidget(lambda box: shown.append(cell.get()))
    cell.reset(token)
    thread = threading.Thread(target=widget.show, args=({"status": "Extracting", "id": "a", "current": 1},))
    thread.start()
    thread.join()
    assert shown == ["mine"]


def test_many_layers_and_threads(progress: Progress) -> None:
    def tell(start: int) -> None:
        for number in range(start, start + 50):
            progress.widget.show({"status": "Downloading", "id": f"layer{number}", "current": 1, "total": 2})

    threads = [threading.Thread(target=tell, args=(start,)) for start in (0, 50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    progress.widget.close(succeeded=True)
    assert len(progress.lines()) == ROW_LIMIT + 1
    assert progress.lines()[-1][3] == "100 of 100, 200B of 200B"
    assert isinstance(progress.widget.box, ipywidgets.VBox)


def test_what_is_pulled_stands_above_its_bars() -> None:
    written = Output()
    context = Context(
        engine=cast(Any, None),
        stdout=written,
        stderr=written,
        notebook=True,
        progress=lambda: ProgressWidget(lambda box: written.write("[bars]\n")),
    )
    with reporting(context, "auto", lines=True) as report:
        assert report.progress is not None
        for tag in "12":
            report.progress({"status": "Pulling from box", "id": tag})
            report.progress({"status": "Downloading", "id": "a", "current": 1, "total": 2})
            report.progress({"status": "Pull complete", "id": "a"})
            report.progress({"status": f"Digest: {tag}"})
    assert written.text.splitlines() == [
        *("1: Pulling from box", "[bars]", "Digest: 1"),
        *("2: Pulling from box", "[bars]", "Digest: 2"),
    ]
