"""The command table's entries for PyDock itself and for several kinds of objects.  Pure data."""

from __future__ import annotations

from pydock_core.commands.command import (
    FORCE,
    PRUNE_FILTER,
    SIZE,
    Argument,
    Command,
    Option,
    document_format,
    listing_format,
)

SYSTEM_COMMANDS: tuple[Command, ...] = (
    Command(
        ("inspect",),
        "Show details of containers or images as JSON",
        "inspect:inspect",
        (document_format("{{.Id}}", "-f"), SIZE, Option(("--type",), "container or image", "TYPE")),
        (Argument("NAME", "+", complete="container"),),
    ),
    Command(
        ("doctor",),
        "Show this host's features, and how to fix missing ones",
        "system:doctor",
        (document_format("{{json .Checks}}"),),
    ),
    Command(
        ("version",), "Show the version", "system:version", (document_format("{{.Server.Version}}", "-f"),)
    ),
    Command(
        ("info",),
        "Show the state of this PyDock",
        "system:info",
        (document_format("{{.Driver}}", "-f"),),
        aliases=(("system", "info"),),
    ),
    Command(
        ("system", "df"),
        "Show the disk usage of images, containers and volumes",
        "disk:df",
        (
            listing_format("{{.Type}}: {{.Size}}"),
            Option(("-v", "--verbose"), "each image, container and volume"),
        ),
    ),
    Command(
        ("system", "prune"),
        "Remove stopped containers and unused images",
        "disk:system_prune",
        (
            Option(("-a", "--all"), "all unused images, not only those without a name"),
            PRUNE_FILTER,
            FORCE,
            Option(("--volumes",), "unused anonymous volumes, too"),
        ),
    ),
)
