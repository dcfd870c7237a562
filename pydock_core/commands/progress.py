"""How a command shows its progress: as lines of text, as JSON, as bars in a terminal, or as the front end likes it.

Events are JSONMessage dictionaries of the Engine API: {"status", "id", "current", "total"}.  One without an id and
without numbers is a line of its own ("Digest: sha256:...").
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from pydock_core.errors import InvalidError, PyDockError
from pydock_core.printable import json_text

if TYPE_CHECKING:
    from pydock_core.commands.context import Context

MODES = ("auto", "plain", "json", "quiet")
Event = Mapping[str, Any]


class Display(Protocol):
    """Shows events; called from any thread."""

    def show(self, event: Event) -> None:
        """Show an event."""
        ...

    def close(self, *, succeeded: bool) -> None:
        """Leave a final state; no event comes afterwards."""
        ...


DisplayFactory = Callable[[str], Display | None]
"""Makes a front end's own display; None where it cannot have one now.  Called with what is left to read at the end."""


class Reporter:
    """What a command tells while it works and when it is done.

    Attributes:
        progress: takes the engine's events; None where nobody wants them.
        is_quiet: only the result is wanted.
    """

    def __init__(self, context: Context, display: Display | None, *, as_json: bool, is_quiet: bool) -> None:
        self._context = context
        self._as_json = as_json
        self._results: list[tuple[str, dict[str, object]]] = []
        self.is_quiet = is_quiet
        self.progress: Callable[[Event], None] | None = display.show if display else None

    def result(self, text: str, **fields: object) -> None:
        """Note a line of the result, written when the progress is done; in JSON as ``fields``, else as a status."""
        self._results.append((text, fields))

    def flush(self) -> None:
        """Write the results; no display is in their way any more."""
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
    """Show a command's progress as ``--progress`` asks for.

    Args:
        mode: the option's value: auto, plain, json, quiet.
        done: what the command has done at its end, "saved env to x.tar"; a notebook shows it in place of the bars.
        quiet: the option ``-q``.
        lines: without a terminal, auto is plain text (Docker's pull and push); otherwise it is nothing.
        stdout_is_free: False where the result itself, an archive, goes to standard output.

    Raises:
        InvalidError: there is no such mode, or JSON would be mixed with the archive.
        what the block raises; in JSON the last line says it too.
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
    shown = Once(display)
    reporter = Reporter(context, shown.display, as_json=as_json, is_quiet=is_quiet)
    try:
        yield reporter
    except BaseException as error:
        shown.close(succeeded=False)
        reporter.flush()
        if as_json:
            message = error.line if isinstance(error, PyDockError) else str(error) or type(error).__name__
            write_json(context, {"error": message, "errorDetail": {"message": message}})
        raise
    shown.close(succeeded=True)
    reporter.flush()


class Once:
    """A display that is closed once, and shows nothing afterwards: a last event may come from a slow thread."""

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
        return JsonDisplay(context)  # -q is about text; whoever asks for JSON wants the events
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
    """Whether an event is a line of its own, and no state of a layer."""
    return not event.get("id") and event.get("current") is None


def is_heading(event: Event) -> bool:
    """Whether an event says what is done, and is no state of a layer: its id is a tag ("latest: Pulling from x")."""
    return str(event.get("status", "")).startswith("Pulling from")


def line_of(event: Event) -> str:
    """Return an event as Docker prints it: "latest: Pulling from library/busybox"."""
    identifier = str(event.get("id") or "")
    return (f"{identifier}: " if identifier else "") + str(event.get("status", ""))


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
        key = (str(event.get("id") or ""), str(event.get("status") or ""))
        if not is_line(event) and not is_heading(event):
            if key in self._shown:
                return
            self._shown.add(key)
        self._writer.write(line_of(event) + "\n")
        self._writer.flush()

    def close(self, *, succeeded: bool) -> None:
        """Everything is written."""


class JsonDisplay:
    """One JSONMessage per line on standard output, as the Engine API streams them."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def show(self, event: Event) -> None:
        message = dict(event)
        numbers = {key: message.pop(key) for key in ("current", "total") if message.get(key) is not None}
        if numbers:
            message["progressDetail"] = numbers
        write_json(self._context, message)

    def close(self, *, succeeded: bool) -> None:
        """Everything is written."""


class LineSplitter:
    """Bars for the layers, and the lines of their own as text.

    Args:
        display: shows the bars.
        again: where the lines are on the same terminal or in the same cell, makes the bars for what comes after a line:
            those above it are done by then, and stay.
        to_stdout: where the lines go; else to standard error.
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
