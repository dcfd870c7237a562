"""The part of the command table that is about PyDock itself, or about more than one kind of thing.  Pure data."""

from __future__ import annotations

from pydock_core.commands.command import (
    FORMAT,
    INSPECT_FORMAT,
    Argument,
    Command,
    Option,
)

SYSTEM_COMMANDS: tuple[Command, ...] = (
    Command(
        ("inspect",),
        "Show all there is to know of containers or images, as JSON",
        "inspect:inspect",
        (INSPECT_FORMAT, Option(("--type",), "container or image", "TYPE")),
        (Argument("NAME", "+", complete="container"),),
        later=("-s", "--size"),
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
)
