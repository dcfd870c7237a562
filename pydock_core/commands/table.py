"""The command table: every command with its options and arguments.

Pure data.  The parser, the help, the completions and the magics are derived from it, so the same words have the same
meaning everywhere.  Docker's options that PyDock does not support yet are in ``later``, and are refused by name.
"""

from __future__ import annotations

from pydock_core.commands.command import Argument, Command, Option
from pydock_core.commands.container_commands import CONTAINER_COMMANDS
from pydock_core.commands.image_commands import IMAGE_COMMANDS
from pydock_core.commands.system_commands import SYSTEM_COMMANDS

__all__ = [
    "COMMANDS",
    "GROUPS",
    "LATER_COMMANDS",
    "LATER_SUBCOMMANDS",
    "Argument",
    "Command",
    "Option",
    "find",
]

COMMANDS: tuple[Command, ...] = (*CONTAINER_COMMANDS, *IMAGE_COMMANDS, *SYSTEM_COMMANDS)

GROUPS = {"container": "Manage containers", "image": "Manage images", "system": "Manage PyDock"}

LATER_COMMANDS = frozenset(
    (
        "build buildx builder compose cp events pause unpause "
        "stats top update volume network manifest context plugin swarm service stack node secret config checkpoint "
        "trust scout init"
    ).split()
)
"""Docker's commands that this version does not support: refused by name."""
LATER_SUBCOMMANDS = frozenset(
    {("container", word) for word in "cp pause unpause stats top update".split()}
    | {("image", word) for word in "build".split()}
    | {("system", word) for word in "events dial-stdio".split()}
)


def find(words: tuple[str, ...]) -> tuple[Command, int] | None:
    """Return the command at the beginning of ``words``, and the number of words of its name; None if there is none."""
    for length in (2, 1):
        head = words[:length]
        if len(head) < length:
            continue
        for command in COMMANDS:
            if head == command.path or head in command.aliases:
                return command, length
    return None
