"""The program ``dock``."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Sequence

from pydock_core.commands.context import Context
from pydock_core.commands.dispatch import run_command, show_error
from pydock_core.errors import FailedError, PyDockError

_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""Errors of a redirected standard output; the store and archives report their own errors."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code; ``--debug`` before the command shows tracebacks."""
    try:
        return _run(argv)
    except KeyboardInterrupt:
        # A further interrupt ends the program at once and without a traceback, while Python shuts down.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        return 128 + signal.SIGINT


def _run(argv: Sequence[str] | None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    debug = False
    while words and words[0] in ("--debug", "-D"):
        debug = True
        words.pop(0)
    if words and words[0] in ("--version", "-v"):
        words = ["version", "--format", "PyDock version {{.Version}}"]
    from pydock_core.engine import Engine

    context = Context(
        engine=Engine(),
        stdin=getattr(sys.stdin, "buffer", None),
        interactive=_is_terminal(),
        owns_process=True,
        exact=sys.stdout is None or not sys.stdout.isatty(),
        debug=debug,
    )
    try:
        code = run_command(words, context)
        sys.stdout.flush()
        return code
    except PyDockError as error:
        show_error(error, context)
        return 1 if error.exit_code is None else error.exit_code
    except Exception as error:  # noqa: BLE001 - the last resort: a person sees a line, not a traceback
        if isinstance(error, BrokenPipeError):  # the reader (head, less) has gone
            _close_output()
            return 128 + signal.SIGPIPE
        if isinstance(error, OSError) and error.errno in _UNWRITABLE and error.filename is None:
            _close_output()
            failure = FailedError(f"the output cannot be written: {error.strerror}", "write it elsewhere")
            show_error(failure, context)
            return 1
        failure = FailedError(
            f"PyDock has a defect: {type(error).__name__}: {str(error) or 'no message'}".replace("\n", " "),
            "please report it, with what dock --debug shows",
        )
        failure.__cause__ = error
        show_error(failure, context)
        return 1


def _close_output() -> None:
    """Close standard output, so that the interpreter does not write to it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _is_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty() and sys.stdout is not None and sys.stdout.isatty()
