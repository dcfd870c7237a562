"""The progress widget: what its bars show, how often they move, and how they are left."""

from __future__ import annotations

import contextvars
import threading
from typing import Any, cast

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
        self.widget = ProgressWidget(self.show, "saved x to y.tar", self.clock)

    def show(self, box: Any) -> Progress:
        """Display something: as IPython's display, which returns the place of it."""
        self.shown.append(box)
        return self

    def update(self, shown: Any) -> None:
        """Display something else in its place."""
        self.shown.append(shown)

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
    progress.clock.now += 2 * INTERVAL_SECONDS
    assert 9 <= len(bars) <= 11
    progress.event("Downloading", "aaa", 1000, 1000)
    assert bars[-1] == 1000


def test_at_the_end_a_line_of_text_is_in_the_place_of_the_bars(progress: Progress) -> None:
    progress.event("Extracting", "aaa", 1, 1000)
    bars = progress.widget.box
    progress.widget.close(succeeded=True)
    assert repr(progress.shown[-1]) == "saved x to y.tar: 1 layer, 1kB"
    assert bars.comm is None
    assert all(part.comm is None for bar in bars.children for part in (bar, *bar.children))
    whole = Progress()
    whole.event("Committing", "", 270_000_000)
    whole.event("Extracting", "aaa", 5, 1000)
    whole.widget.close(succeeded=True)
    assert repr(whole.shown[-1]) == "saved x to y.tar: 1 layer, 270MB"
    failed = Progress()
    failed.event("Already exists", "aaa")
    failed.event("Downloading", "bbb", 5, 1000)
    failed.widget.close(succeeded=False)
    assert repr(failed.shown[-1]) == "stopped after 5B of 1kB"


def test_without_widgets_the_bars_are_text(progress: Progress) -> None:
    progress.event("Downloading", "aaa", 250_000, 1_000_000)
    bundle = progress.widget.box._repr_mimebundle_()
    assert bundle["text/plain"] == "aaa: Downloading 250kB of 1MB\ntotal: 0 of 1, 250kB of 1MB"
    assert "application/vnd.jupyter.widget-view+json" in bundle


def test_nothing_told_is_nothing_shown(progress: Progress) -> None:
    progress.widget.close(succeeded=True)
    assert progress.shown == []


def test_another_thread_shows_it_in_the_cell_that_asked() -> None:
    cell: contextvars.ContextVar[str] = contextvars.ContextVar("cell", default="none")
    token = cell.set("mine")
    shown: list[str] = []
    progress = Progress()

    def show(box: Any) -> Progress:
        shown.append(cell.get())
        return progress

    widget = ProgressWidget(show, "done")
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
    progress.clock.now += 2 * INTERVAL_SECONDS
    progress.event("Downloading", "layer0", 2, 2)
    assert len(progress.lines()) == ROW_LIMIT + 1
    progress.widget.close(succeeded=True)
    assert repr(progress.shown[-1]) == "saved x to y.tar: 100 layers, 200B"


def test_what_is_pulled_stands_above_its_bars() -> None:
    written = Output()

    class Below:
        """The place of the bars."""

        def update(self, shown: Any) -> None:
            written.write(f"[{shown!r}]\n")

    def show(box: Any) -> Below:
        written.write("[bars]\n")
        return Below()

    context = Context(
        engine=cast(Any, None),
        stdout=written,
        stderr=written,
        notebook=True,
        progress=lambda done: ProgressWidget(show, done),
    )
    with reporting(context, "auto", "pulled", lines=True) as report:
        assert report.progress is not None
        for tag in "12":
            report.progress({"status": "Pulling from box", "id": tag})
            report.progress({"status": "Downloading", "id": "a", "current": 1, "total": 2})
            report.progress({"status": "Pull complete", "id": "a"})
            report.progress({"status": f"Digest: {tag}"})
    assert written.text.splitlines() == [
        *("1: Pulling from box", "[bars]", "[pulled: 1 layer, 2B]", "Digest: 1"),
        *("2: Pulling from box", "[bars]", "[pulled: 1 layer, 2B]", "Digest: 2"),
    ]
