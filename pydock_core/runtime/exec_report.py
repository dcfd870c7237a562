"""The report pipe of an exec'd process: carries the error if its program cannot be executed.

The writer is in the container, where a process with CAP_SYS_PTRACE may take over the pipe.  So the reader accepts only
an error of a fixed form, of at most :data:`REPORT_BYTES`, and no descriptors.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress

from pydock_core.errors import FailedError, PyDockError, from_json
from pydock_core.printable import printable

REPORT_BYTES = 16 * 1024
"""The largest report; it fits into a pipe, so its writer never waits (pipe(7))."""

_TEXT_CHARACTERS = 1000  # of a message or a hint; JSON spells a character in six bytes at most
_EXIT_CODES = (None, 126, 127)
_UNREADABLE = "the process in the container ended before it executed its program"


def send(report_fd: int, error: PyDockError) -> None:
    """Write an error; ignore a reader that is gone."""
    document = error.to_json()
    for key in ("message", "hint"):
        document[key] = document[key][:_TEXT_CHARACTERS]
    with suppress(OSError):
        os.write(report_fd, json.dumps(document).encode())


def parse(data: bytes) -> PyDockError:
    """Return the error of a report, its text made safe for a terminal; FailedError if it is not a report."""
    try:
        document = json.loads(data) if len(data) <= REPORT_BYTES else None
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or document.keys() != {"code", "message", "hint", "exit_code"}:
        return FailedError(_UNREADABLE)
    texts = [document[key] for key in ("code", "message", "hint")]
    exit_code = document["exit_code"]
    is_exit_code = exit_code is None or type(exit_code) is int
    if not all(isinstance(text, str) for text in texts) or not is_exit_code or exit_code not in _EXIT_CODES:
        return FailedError(_UNREADABLE)
    code, message, hint = (printable(text[:_TEXT_CHARACTERS]) for text in texts)
    return from_json({"code": code, "message": message, "hint": hint, "exit_code": exit_code})
