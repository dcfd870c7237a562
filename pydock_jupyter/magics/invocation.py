"""One run of ``%dock``: the magic's own options, and how the run ended."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass, field

DEBUG = ("--debug", "-D")
NO_RAISE = "--no-raise"
OPTIONS = (DEBUG[0], NO_RAISE)
"""The magic's own options, which stand before the command, as they are completed."""


@dataclass(slots=True)
class Invocation:
    """One command in a cell.

    Attributes:
        raises: a failure raises; ``--no-raise`` clears it.
        debug: tracebacks are shown.
        words: the command's words, without the magic's options.
        exit_code: of the command; that of an interrupt until it has ended.
        has_ended: the command came to its end, and the exit code is its own.
        reason: why it ended, where the exit code does not tell.
        was_interrupted: a person interrupted it.
    """

    raises: bool = True
    debug: bool = False
    words: tuple[str, ...] = field(default=())
    exit_code: int = 128 + signal.SIGINT
    has_ended: bool = False
    reason: str = ""
    was_interrupted: bool = False

    def take(self, words: Sequence[str]) -> list[str]:
        """Take the magic's own options in; return the command's words, which follow them."""
        rest = list(words)
        while rest and rest[0] in (*DEBUG, NO_RAISE):
            if rest.pop(0) == NO_RAISE:
                self.raises = False
            else:
                self.debug = True
        self.words = tuple(rest)
        return rest

    @property
    def name(self) -> str:
        """The command that the words name, "image capture"; the first word if there is no such command."""
        from pydock_core.commands.table import find

        found = find(self.words)
        return found[0].name if found else " ".join(self.words[:1])

    @property
    def note(self) -> str:
        """A line below the cell, for what no exception tells; "" without one."""
        from pydock_jupyter.magics.failure import describe

        if self.was_interrupted or (self.exit_code and self.raises):
            return ""
        if self.exit_code:
            return describe(self.exit_code, self.reason)
        return f"note: {self.reason}" if self.reason else ""

    def check(self) -> None:
        """Raise what the cell is to end with.

        Raises:
            CommandInterrupt: a person interrupted the command, whatever its exit code is.
            CommandError: it failed, and ``raises`` is set.
        """
        if not self.was_interrupted and not (self.exit_code and self.raises):
            return
        from pydock_jupyter.magics.failure import CommandError, CommandInterrupt, describe

        if self.was_interrupted:
            ending = describe(self.exit_code, self.reason) if self.has_ended else ""
            raise CommandInterrupt(self.name, ending)
        raise CommandError(self.words, self.name, self.exit_code, self.reason)
