"""The command table: every command with its options and arguments.

Pure data.  The parser, the help, the completions and the magics are derived from it, so the same words have the same
meaning everywhere.  Docker's options that PyDock does not support yet are in ``later``, and are refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydock_core.commands.command import Argument, Command, Option
from pydock_core.commands.container_commands import CONTAINER_COMMANDS
from pydock_core.commands.image_commands import IMAGE_COMMANDS
from pydock_core.commands.network_commands import NETWORK_COMMANDS
from pydock_core.commands.system_commands import SYSTEM_COMMANDS
from pydock_core.commands.volume_commands import VOLUME_COMMANDS

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

COMMANDS: tuple[Command, ...] = (
    *CONTAINER_COMMANDS,
    *IMAGE_COMMANDS,
    *NETWORK_COMMANDS,
    *VOLUME_COMMANDS,
    *SYSTEM_COMMANDS,
)

GROUPS = {
    "container": "Manage containers",
    "image": "Manage images",
    "network": "Manage networks",
    "system": "Manage PyDock",
    "volume": "Manage volumes",
}

_BUILD = (
    "change a container, and keep it: dock commit NAME IMAGE; "
    "dock image capture makes an image of this Python environment"
)
_SEVERAL = (
    "start each container with dock run -d; on one network (dock network create) they find each other by name"
)
_ONE_HOST = "PyDock runs containers on this host alone: dock run -d --restart always IMAGE keeps one running"
_FILES = "give a container files by a mount, read-only: dock run -v FILE:/run/secrets/NAME:ro IMAGE"
_NO_DAEMON = "there is no daemon to connect to: set PYDOCK_ROOT to use another state directory"
LATER_COMMANDS = {
    "build": _BUILD,
    "buildx": _BUILD,
    "builder": _BUILD,
    "checkpoint": "dock pause freezes a container, and dock commit keeps its files",
    "compose": _SEVERAL,
    "config": _FILES,
    "context": _NO_DAEMON,
    "init": _BUILD,
    "manifest": "dock image inspect shows an image; dock pull --platform chooses one of several platforms",
    "node": _ONE_HOST,
    "plugin": "volumes have the driver local, networks the drivers bridge, host and none",
    "scout": "dock image save writes an archive that a scanner reads",
    "secret": _FILES,
    "service": _ONE_HOST,
    "stack": _SEVERAL,
    "swarm": _ONE_HOST,
    "trust": "name an image by its digest, which is verified: dock pull NAME@sha256:…",
}
"""Docker's commands that this version does not support and refuses by name, each with an alternative."""
LATER_SUBCOMMANDS: Mapping[tuple[str, ...], str] = {
    ("image", "build"): _BUILD,
    ("system", "dial-stdio"): _NO_DAEMON,
}


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
