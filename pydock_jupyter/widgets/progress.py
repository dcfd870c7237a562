"""Progress bars in a notebook: one for each layer, one for the total; replaced by a line of text at the end."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

import ipywidgets

from pydock_core.commands.progress_board import Board, Overall, Row
from pydock_core.progress import Event
from pydock_jupyter.widgets.rows import close_tree

INTERVAL_SECONDS = 0.1
"""The shortest time between two updates: each sends messages to every page that shows the bars."""
ROW_LIMIT = 40
"""The maximum number of layer bars; the total counts every layer."""

_RUNNING, _DONE = "info", "success"
_STEPS = 1000  # the length of a bar; sizes in bytes may exceed the integers of ipywidgets


class ProgressWidget:
    """Bars for the events of one command; a :class:`pydock_core.commands.progress.Display`.

    Args:
        show: displays the widget in the cell and returns its place.  Called with the first event, so that the widget
            appears below earlier output, and in the context of this object's creator, because events may come from
            threads that belong to no cell.
        done: the completed action, "saved env to x.tar", for the final line.
        clock: monotonic time in seconds.

    Attributes:
        box: the displayed widget; None before the first event, and closed after the end.
    """

    def __init__(
        self, show: Callable[[Any], Place], done: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._show = show
        self._done = done
        self._place: Place | None = None
        self._cell = contextvars.copy_context()
        self._clock = clock
        self._lock = threading.Lock()
        self._board = Board()
        self._bars: dict[str, _Bar] = {}
        self._overall: _Bar | None = None
        self._changed: set[str] = set()
        self._drawn_at = -INTERVAL_SECONDS
        self.box: Any = None

    def show(self, event: Event) -> None:
        """Apply an event; it is drawn now, with a later event, or at the end."""
        with self._lock:
            self._changed.add(self._board.update(event).name)
            if self.box is None or self._clock() - self._drawn_at >= INTERVAL_SECONDS:
                self._draw()

    def close(self, *, succeeded: bool) -> None:
        """Replace the bars by a line of text, which stays in a saved or exported notebook."""
        with self._lock:
            if self._place is None:
                return
            if succeeded:
                self._board.finish()
                text = ": ".join(filter(None, (self._done, self._board.summary())))
            else:
                sizes = self._board.overall().sizes(" of ")
                text = "stopped" + (f" after {sizes}" if sizes else "")
            self._cell.run(self._place.update, Line(text))
            close_tree(self.box)

    def _draw(self) -> _Bar:
        """Draw the changes; return the total's bar."""
        self._drawn_at = self._clock()
        overall = self._overall = self._overall or _Bar("total")
        for name in self._changed:
            if name not in self._bars and len(self._bars) < ROW_LIMIT:
                self._bars[name] = _Bar(name)
            if name in self._bars:
                self._bars[name].draw_row(self._board.rows[name])
        self._changed.clear()
        overall.draw_overall(self._board.overall())
        order = [name for name in self._board.rows if name in self._bars]
        boxes = (*(self._bars[name].box for name in order), overall.box)
        if self.box is None:
            self.box = ProgressBox(boxes)
            self.box.add_class("pydock-progress")
            self._place = self._cell.run(self._show, self.box)
        elif self.box.children != boxes:
            self.box.children = boxes
        return overall


class Place(Protocol):
    """The place of a displayed object (IPython's DisplayHandle)."""

    def update(self, obj: Any) -> object:
        """Display another object in this place."""
        ...


class Line:
    """A line of text, displayed verbatim."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


class ProgressBox(ipywidgets.VBox):  # type: ignore[misc]  # ipywidgets is not typed
    """The bars; their texts in a front end without widgets."""

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        bundle: dict[str, Any] = super()._repr_mimebundle_(**kwargs)
        lines = ((name.value, text.value) for name, _, text in (bar.children for bar in self.children))
        return bundle | {"text/plain": "\n".join(f"{name}: {text}" for name, text in lines)}


class _Bar:
    """A line with a name, a bar and a status."""

    def __init__(self, name: str) -> None:
        self._name = ipywidgets.Label(name[:19], layout=ipywidgets.Layout(width="12em"))
        self._bar = ipywidgets.IntProgress(
            0, 0, _STEPS, bar_style=_RUNNING, layout=ipywidgets.Layout(width="20em")
        )
        self._text = ipywidgets.Label("")
        self.box = ipywidgets.HBox([self._name, self._bar, self._text])

    def draw_row(self, row: Row) -> None:
        sizes = row.sizes(" of ") if row.current else ""
        self._draw(row.fraction, f"{row.status} {sizes}".strip(), is_done=row.is_done)

    def draw_overall(self, overall: Overall) -> None:
        parts = [f"{overall.done} of {overall.layers}", overall.sizes(" of ")]
        text = ", ".join(filter(None, parts))
        self._draw(overall.fraction, text, is_done=overall.done == overall.layers)

    def _draw(self, fraction: float, text: str, *, is_done: bool) -> None:
        self._bar.value = _STEPS if is_done else int(fraction * _STEPS)
        self._bar.bar_style = _DONE if is_done else _RUNNING
        self._text.value = text
