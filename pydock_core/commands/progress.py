"""The display of a command's progress: plain lines, JSON, bars in a terminal, or the front end's own."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

from pydock_core.commands.context import Context
from pydock_core.commands.progress_board import Display
from pydock_core.errors import InvalidError, PyDockError
from pydock_core.printable import json_text
from pydock_core.progress import Event, Progress

MODES = ("auto", "plain", "json", "quiet")
_NUMBERS: tuple[Literal["current"], Literal["total"]] = ("current", "total")


class Reporter:
    """The output of a command: its progress, and its results at the end.

    Attributes:
        progress: receives the engine's events; None if they are not displayed.
        is_quiet: only the result is displayed.
    """

    def __init__(self, context: Context, display: Display | None, *, as_json: bool, is_quiet: bool) -> None:
        self._context = context
        self._as_json = as_json
        self._results: list[tuple[str, dict[str, object]]] = []
        self.is_quiet = is_quiet
        self.progress: Progress | None = display.show if display else None

    def result(self, text: str, **fields: object) -> None:
        """Add a line to the result; in JSON it is ``fields``, or without them a status."""
        self._results.append((text, fields))

    def flush(self) -> None:
        """Write the results, once no display is active."""
        for text, fields in self._results:
            if self._as_json:
                write_json(self._context, fields or {"status": text})
            else:
                self._context.print(text)
        self._results.clear()


@contextlib.contextmanager
def reporting(
    context: Context,
    mode: str,
    done: str,
    *,
    quiet: bool = False,
    lines: bool = False,
    stdout_is_free: bool = True,
) -> Iterator[Reporter]:
    """Display a command's progress by the option ``--progress``.

    Args:
        mode: the option's value: auto, plain, json, quiet.
        done: the completed action, "saved env to x.tar"; a notebook shows it in place of the bars.
        quiet: the option ``-q``.
        lines: without a terminal, auto means plain text (Docker's pull and push); else nothing.
        stdout_is_free: False if the result itself, an archive, goes to standard output.

    Raises:
        InvalidError: there is no such mode, or JSON would be mixed with the archive.
        the block's exception, which in JSON is the last line, too.
    """
    if mode not in MODES:
        raise InvalidError(f"--progress {mode}: no such kind", f"there are {', '.join(MODES)}", exit_code=125)
    as_json = mode == "json"
    if as_json and not stdout_is_free:
        raise InvalidError(
            "--progress json would be mixed with the archive on standard output", "write to a file with -o"
        )
    is_quiet = quiet or mode == "quiet"
    display = _choose(context, mode, done, is_quiet=is_quiet, lines=lines, stdout_is_free=stdout_is_free)
    once = Once(display)
    reporter = Reporter(context, once.display, as_json=as_json, is_quiet=is_quiet)
    try:
        yield reporter
    except BaseException as error:
        once.close(succeeded=False)
        reporter.flush()
        if as_json:
            message = error.line if isinstance(error, PyDockError) else str(error) or type(error).__name__
            write_json(context, {"error": message, "errorDetail": {"message": message}})
        raise
    once.close(succeeded=True)
    reporter.flush()


class Once:
    """A display that is closed once and ignores later events, which may come from a slow thread."""

    def __init__(self, display: Display | None) -> None:
        self._display = display
        self._lock = threading.Lock()
        self.display: Display | None = self if display else None

    def show(self, event: Event) -> None:
        with self._lock:
            if self._display is not None:
                self._display.show(event)

    def close(self, *, succeeded: bool) -> None:
        with self._lock:
            display, self._display = self._display, None
        if display is not None:
            display.close(succeeded=succeeded)


def _choose(
    context: Context, mode: str, done: str, *, is_quiet: bool, lines: bool, stdout_is_free: bool
) -> Display | None:
    if mode == "json":
        return JsonDisplay(context)  # -q concerns text; JSON includes the events
    if is_quiet:
        return None
    if mode == "plain":
        return PlainDisplay(context, to_stdout=stdout_is_free)
    make = context.progress
    if make is not None and (made := make(done)) is not None:
        return LineSplitter(context, made, again=lambda: make(done) or made, to_stdout=stdout_is_free)
    if context.owns_process and sys.stderr.isatty() and (context.interactive or not lines):
        from pydock_core.commands.progress_rich import RichDisplay  # late: rich takes long to load

        return LineSplitter(context, RichDisplay(), again=RichDisplay, to_stdout=stdout_is_free)
    return PlainDisplay(context, to_stdout=stdout_is_free) if lines else None


def is_line(event: Event) -> bool:
    """Whether an event is a message of its own, not a layer's state."""
    return not event.get("id") and event.get("current") is None


def is_heading(event: Event) -> bool:
    """Whether an event is a heading with a tag as its id ("latest: Pulling from x"), not a layer's state."""
    return event["status"].startswith("Pulling from")


def line_of(event: Event) -> str:
    """Return an event as Docker prints it: "latest: Pulling from library/busybox"."""
    identifier = event.get("id")
    return f"{identifier}: {event['status']}" if identifier else event["status"]


def write_json(context: Context, message: Mapping[str, Any]) -> None:
    """Write one JSONMessage as a line."""
    context.stdout.write(json_text(message, separators=(",", ":")) + "\n")
    context.stdout.flush()


class PlainDisplay:
    """Docker's output without a terminal: each status of each layer once, no numbers."""

    def __init__(self, context: Context, *, to_stdout: bool = True) -> None:
        self._writer = context.stdout if to_stdout else context.stderr
        self._shown: set[tuple[str, str]] = set()

    def show(self, event: Event) -> None:
        key = (event.get("id", ""), event["status"])
        if not is_line(event) and not is_heading(event):
            if key in self._shown:
                return
            self._shown.add(key)
        self._writer.write(line_of(event) + "\n")
        self._writer.flush()

    def close(self, *, succeeded: bool) -> None:
        """Do nothing: everything is written."""


class JsonDisplay:
    """One JSONMessage per line on standard output, as the Engine API streams them."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def show(self, event: Event) -> None:
        numbers = {key: event[key] for key in _NUMBERS if event.get(key) is not None}
        message = {key: value for key, value in event.items() if key not in _NUMBERS}
        write_json(self._context, message | ({"progressDetail": numbers} if numbers else {}))

    def close(self, *, succeeded: bool) -> None:
        """Do nothing: everything is written."""


class LineSplitter:
    """Bars for the layers' states, and lines of text for messages.

    Args:
        display: shows the bars.
        again: makes new bars after a line on the same terminal or in the same cell: the bars above the line are complete
            by then, and stay.
        to_stdout: write the lines to standard output, else to standard error.
    """

    def __init__(
        self,
        context: Context,
        display: Display,
        *,
        again: Callable[[], Display] | None = None,
        to_stdout: bool = True,
    ) -> None:
        self._writer = context.stdout if to_stdout else context.stderr
        self._display = display
        self._again = again
        self._has_bars = False

    def show(self, event: Event) -> None:
        if not is_line(event) and not is_heading(event):
            self._has_bars = True
            self._display.show(event)
            return
        if self._again is not None and self._has_bars:
            self._display.close(succeeded=True)
            self._display, self._has_bars = self._again(), False
        self._writer.write(line_of(event) + "\n")
        self._writer.flush()

    def close(self, *, succeeded: bool) -> None:
        self._display.close(succeeded=succeeded)
