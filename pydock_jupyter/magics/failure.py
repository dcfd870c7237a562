"""The exceptions of a ``%dock`` cell: a failed command, an interrupted command.

IPython shows both as one line, from ``_render_traceback_``: the frames are PyDock's and tell nothing about the cell.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence


class CommandError(subprocess.CalledProcessError):
    """A command exited with a code other than 0; ``%%bash`` raises the same base class.

    Args:
        words: the command's words after ``dock``.
        name: the command, "image capture".
        exit_code: 1 to 255.
        reason: the cause, "killed by SIGKILL"; empty if the exit code is all that is known.

    Attributes:
        returncode: the exit code.
        cmd: the words, "dock" first.
    """

    def __init__(self, words: Sequence[str], name: str, exit_code: int, reason: str) -> None:
        super().__init__(exit_code, ["dock", *words])
        self._line = f"dock {name}: {describe(exit_code, reason)}"

    def __str__(self) -> str:
        return self._line

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}"]


class CommandInterrupt(KeyboardInterrupt):
    """The user interrupted a command.  A ``KeyboardInterrupt``: it ends "Run All" and passes ``except Exception``.

    Args:
        name: the command.
        ending: the result of :func:`describe`; empty if the command did not finish.
    """

    def __init__(self, name: str, ending: str = "") -> None:
        super().__init__(f"dock {name} was interrupted" + (f": {ending}" if ending else ""))

    def _render_traceback_(self) -> list[str]:
        return [f"KeyboardInterrupt: {self}"]


def describe(exit_code: int, reason: str) -> str:
    """Return "exit code 137: killed by SIGKILL", or the exit code alone."""
    return f"exit code {exit_code}" + (f": {reason}" if reason else "")
