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
    filter_option,
    listing_format,
)

SYSTEM_COMMANDS: tuple[Command, ...] = (
    Command(
        ("inspect",),
        "Show details of containers, images, networks or volumes as JSON",
        "inspect:inspect",
        (
            document_format("{{.Id}}", "-f"),
            SIZE,
            Option(("--type",), "container, image, network or volume", "TYPE"),
        ),
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
        ("events",),
        "Show past and new events of containers, images, networks and volumes",
        "events:events",
        (
            filter_option("container=web, event=die, type=image"),
            document_format("{{.Type}} {{.Action}} {{.Actor.ID}}"),
            Option(("--since",), "from a time (RFC 3339) or a while ago (10m) on", "TIME"),
            Option(("--until",), "until a time (RFC 3339) or a while ago (10m)", "TIME"),
        ),
        aliases=(("system", "events"),),
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
        ("system", "check"),
        "Find inconsistencies in the state directory, and repair them on request",
        "system:check",
        (
            listing_format("{{.Kind}} {{.Name}}: {{.Problem}}"),
            Option(("--repair",), "repair as much as possible"),
        ),
    ),
    Command(
        ("system", "install-restart"),
        "Have the host start containers by their restart policies when it boots (systemd)",
        "system:install_restart",
        (Option(("--remove",), "remove the unit again"),),
    ),
    Command(
        ("system", "start-restart"),
        "Start the containers that their restart policies start after a boot",
        "system:start_restart",
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
