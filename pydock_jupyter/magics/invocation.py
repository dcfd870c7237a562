"""One run of ``%dock``: the magic's options, and the outcome."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass, field

DEBUG = ("--debug", "-D")
NO_RAISE = "--no-raise"
OPTIONS = (DEBUG[0], NO_RAISE)
"""The magic's options, which precede the command, in the spelling that completion offers."""


@dataclass(slots=True)
class Invocation:
    """One command in a cell.

    Attributes:
        raises: raise after a failure; ``--no-raise`` clears it.
        debug: show tracebacks.
        words: the command's words, without the magic's options.
        exit_code: the command's exit code; that of an interrupt until the command has ended.
        has_ended: the command has ended and set ``exit_code``.
        reason: the cause of the end, if the exit code does not tell it.
        was_interrupted: the user interrupted the command.
    """

    raises: bool = True
    debug: bool = False
    words: tuple[str, ...] = field(default=())
    exit_code: int = 128 + signal.SIGINT
    has_ended: bool = False
    reason: str = ""
    was_interrupted: bool = False

    def apply_options(self, words: Sequence[str]) -> list[str]:
        """Apply the magic's leading options; return the command's words."""
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
        """The name of the command, "image capture"; the first word if the command is unknown."""
        from pydock_core.commands.table import find

        found = find(self.words)
        return found[0].name if found else " ".join(self.words[:1])

    @property
    def note(self) -> str:
        """A line below the cell for an outcome that raises no exception; may be empty."""
        from pydock_jupyter.magics.failure import describe

        if self.was_interrupted or (self.exit_code and self.raises):
            return ""
        if self.exit_code:
            return describe(self.exit_code, self.reason)
        return f"note: {self.reason}" if self.reason else ""

    def check(self) -> None:
        """Raise the exception of the outcome, if it has one.

        Raises:
            CommandInterrupt: the user interrupted the command; takes precedence over its exit code.
            CommandError: the command failed and ``raises`` is set.
        """
        if not self.was_interrupted and not (self.exit_code and self.raises):
            return
        from pydock_jupyter.magics.failure import CommandError, CommandInterrupt, describe

        if self.was_interrupted:
            ending = describe(self.exit_code, self.reason) if self.has_ended else ""
            raise CommandInterrupt(self.name, ending)
        raise CommandError(self.words, self.name, self.exit_code, self.reason)
