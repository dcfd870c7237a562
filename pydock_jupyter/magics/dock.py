"""The ``%dock`` and ``%%dock`` magics: run a command with the cell's streams."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

from IPython.core.magic import Magics, line_cell_magic, magics_class, needs_local_scope, no_var_expand
from traitlets import Bool

from pydock_core.errors import InvalidError, PyDockError
from pydock_jupyter.display.streams import CellWriter
from pydock_jupyter.magics.invocation import Invocation
from pydock_jupyter.magics.words import expand_names, split_words

if TYPE_CHECKING:
    from pydock_core.commands.progress_board import Display
    from pydock_core.engine import EngineProtocol

EXIT_CODE_NAME = "_exit_code"
"""The variable that holds the last command's exit code, as after IPython's ``!command``."""

_READS_STDIN = frozenset({("load",), ("import",), ("login",)})


@magics_class
class DockMagics(Magics):  # type: ignore[misc]  # IPython is not typed
    """``%dock COMMAND …`` runs any command of the ``dock`` program in a cell; ``%dock --help`` lists them."""

    raise_on_error = Bool(
        True,
        help="Raise subprocess.CalledProcessError when a command fails, as %%bash does. If False, or with"
        " %dock --no-raise, the exit code is printed below the cell and the notebook goes on.",
    ).tag(config=True)

    def __init__(self, shell: Any) -> None:
        super().__init__(shell)
        self._engine: EngineProtocol | None = None
        self._engine_lock = threading.Lock()

    def engine(self) -> EngineProtocol:
        """Return the kernel's engine, created on first use."""
        with self._engine_lock:
            if self._engine is None:
                from pydock_core.engine import Engine

                self._engine = Engine()
            return self._engine

    @no_var_expand  # type: ignore[untyped-decorator]  # IPython is not typed
    @needs_local_scope  # type: ignore[untyped-decorator]  # IPython is not typed
    @line_cell_magic  # type: ignore[untyped-decorator]  # IPython is not typed
    def dock(self, line: str, cell: str | None = None, local_ns: dict[str, Any] | None = None) -> None:
        """Run a dock command: ``%dock run -d IMAGE``, ``%dock ps``, ``%dock --help``.

        As a cell magic, the body of the cell is the command's standard input:

            %%dock run IMAGE python -
            print("in the container")

        ``{expression}`` and ``$name`` expand to values of the notebook; ``$(pwd)``, ``~`` and environment variables
        expand as in a shell.  Output appears while the command runs.  Interrupting the cell sends Ctrl-C, and stops a
        container that ignores it.

        A failing command raises subprocess.CalledProcessError, which stops a notebook.  ``%dock --no-raise COMMAND …``
        does not raise, nor does any command after ``%config DockMagics.raise_on_error = False``.  ``_exit_code`` is
        set in either case.
        """
        stdout, stderr = CellWriter(sys.stdout), CellWriter(sys.stderr)
        invocation = Invocation(raises=bool(self.raise_on_error))
        try:
            namespace = {**self.shell.user_ns, **(local_ns or {})}
            self._run(invocation, expand_names(line, namespace), cell, stdout, stderr)
            if invocation.note:
                stderr.write(f"{invocation.note}\n")
        except KeyboardInterrupt:
            invocation.was_interrupted = True
        finally:
            stdout.close()
            stderr.close()
            self.shell.user_ns[EXIT_CODE_NAME] = invocation.exit_code
        invocation.check()

    def _run(
        self, invocation: Invocation, line: str, cell: str | None, stdout: CellWriter, stderr: CellWriter
    ) -> None:
        from pydock_core.commands.context import Context
        from pydock_core.commands.dispatch import run_command, show_error

        context = Context(
            engine=self.engine(),
            stdout=stdout,
            stderr=stderr,
            notebook=True,
            table=show_table,
            progress=make_progress,
        )
        try:
            words = invocation.apply_options(split_words(line, os.environ, os.getcwd()))
            context.debug = invocation.debug
            if cell is not None:
                words = with_standard_input(words)
                context.stdin = BytesIO(cell.encode())
            invocation.exit_code = int(run_command(words, context))
            invocation.has_ended = True
        except PyDockError as error:
            show_error(error, context)
            invocation.exit_code = 125 if error.exit_code is None else error.exit_code
        finally:
            invocation.reason = context.ending
            invocation.was_interrupted = context.was_interrupted


def with_standard_input(words: Sequence[str]) -> list[str]:
    """Return the words of a command that reads the cell's body; adds ``-i`` if the command has it.

    Raises:
        InvalidError: the command does not read standard input.
    """
    from pydock_core.commands.table import find

    found = find(tuple(words))
    if found is None:
        return list(words)  # the parser reports it
    command, length = found
    if any("--interactive" in option.flags for option in command.options):
        return [*words[:length], "--interactive", *words[length:]]
    if command.path in _READS_STDIN:
        return list(words)
    raise InvalidError(
        f"%%dock {command.name}: the command does not read input, but the cell has a body",
        f"use %dock {command.name} …, and move the body to another cell",
        exit_code=125,
    )


def make_progress(done: str) -> Display | None:
    """Return progress bars that leave the text ``done``; None in a terminal or without ipywidgets."""
    from IPython import get_ipython

    if getattr(get_ipython(), "kernel", None) is None:
        return None  # an IPython terminal: text
    try:
        from pydock_jupyter.widgets.progress import ProgressWidget
    except ImportError:
        return None
    from IPython.display import display

    return ProgressWidget(lambda widget: display(widget, display_id=True), done)


def show_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Display a table below the cell."""
    from IPython.display import display

    from pydock_jupyter.display.tables import Table

    display(Table.of(headers, rows))
