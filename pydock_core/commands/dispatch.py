"""Runs a command line: parses it, calls the handler, and reports an error as one line, a hint and an exit code."""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Callable, Sequence

from pydock_core.commands.context import Context
from pydock_core.commands.parser import Help, parse
from pydock_core.errors import PyDockError
from pydock_core.printable import printable


def run_command(argv: Sequence[str], context: Context) -> int:
    """Run one command.

    Args:
        argv: the words after the program's name.
        context: the engine and the streams.

    Returns:
        The exit code: 0; the container's own for run, start -a, attach and exec; 125 if PyDock refused or failed
        before anything ran; 126 or 127 if the command cannot be executed or was not found; 1 for other errors.

    Raises:
        KeyboardInterrupt: a person interrupted a command that was not attached to a container.
    """
    try:
        parsed = parse(argv)
        if isinstance(parsed, Help):
            context.stdout.write(parsed.text)
            return 0
        module_name, _, function = parsed.command.handler.partition(":")
        module = importlib.import_module(f"pydock_core.commands.{module_name}")
        code: int = getattr(module, function)(context, parsed.words)
        return code
    except PyDockError as error:
        show_error(error, context)
        return 1 if error.exit_code is None else error.exit_code


def for_each(context: Context, names: Sequence[str], action: Callable[[str], object]) -> int:
    """Call ``action`` for each name, and show errors without stopping; return 1 if there was an error, else 0."""
    code = 0
    for name in names:
        try:
            action(name)
        except PyDockError as error:
            show_error(error, context)
            code = 1 if error.exit_code is None else error.exit_code
    return code


def show_error(error: PyDockError, context: Context) -> None:
    """Write an error: one line, and its hint if it has one."""
    if context.debug:
        context.stderr.write("".join(traceback.format_exception(error)))
    context.stderr.write(f"error: {printable(error.line)}\n")
    if error.hint:
        context.stderr.write(f"hint: {printable(error.hint)}\n")
