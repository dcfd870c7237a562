"""The part of the command table that is about PyDock itself, or about more than one kind of thing.  Pure data."""

from __future__ import annotations

from pydock_core.commands.command import (
    FORCE,
    FORMAT,
    INSPECT_FORMAT,
    PRUNE_FILTER,
    SIZE,
    Argument,
    Command,
    Option,
)

SYSTEM_COMMANDS: tuple[Command, ...] = (
    Command(
        ("inspect",),
        "Show all there is to know of containers or images, as JSON",
        "inspect:inspect",
        (INSPECT_FORMAT, SIZE, Option(("--type",), "container or image", "TYPE")),
        (Argument("NAME", "+", complete="container"),),
    ),
    Command(
        ("doctor",),
        "Show what this host offers and lacks, and how to mend it",
        "system:doctor",
        (FORMAT,),
    ),
    Command(("version",), "Show the version", "system:version", (FORMAT,)),
    Command(
        ("info",), "Show the state of this PyDock", "system:info", (FORMAT,), aliases=(("system", "info"),)
    ),
    Command(
        ("system", "df"),
        "Show how much of the disk images, containers and volumes take",
        "disk:df",
        (FORMAT, Option(("-v", "--verbose"), "each image, container and volume")),
    ),
    Command(
        ("system", "prune"),
        "Remove stopped containers, and images that nothing uses",
        "disk:system_prune",
        (
            Option(("-a", "--all"), "all images that no container uses, not only those without a name"),
            PRUNE_FILTER,
            FORCE,
            Option(("--volumes",), "anonymous volumes that no container has, too"),
        ),
    ),
)
