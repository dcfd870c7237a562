"""What a ``%dock`` cell raises: the command failed, or a person interrupted it.

Both are shown as one line, for which IPython asks ``_render_traceback_``: the frames are PyDock's own and say
nothing about the cell.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence


class CommandError(subprocess.CalledProcessError):
    """A command ended with an exit code other than 0, as ``%%bash`` raises it.

    Args:
        words: the command's words after ``dock``.
        name: the command, "image capture".
        exit_code: 1 to 255.
        reason: why it ended, "killed by SIGKILL"; "" if the exit code tells all.

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
    """A person interrupted a command; a ``KeyboardInterrupt`` so that "Run All" and ``except Exception`` stop.

    Args:
        name: the command.
        ending: how it ended, from :func:`describe`; "" if it was broken off.
    """

    def __init__(self, name: str, ending: str = "") -> None:
        super().__init__(f"dock {name} was interrupted" + (f": {ending}" if ending else ""))

    def _render_traceback_(self) -> list[str]:
        return [f"KeyboardInterrupt: {self}"]


def describe(exit_code: int, reason: str) -> str:
    """Return "exit code 137: killed by SIGKILL", or the exit code alone."""
    return f"exit code {exit_code}" + (f": {reason}" if reason else "")
