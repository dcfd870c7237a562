"""The command table's entries for volumes.  Pure data."""

from __future__ import annotations

from pydock_core.commands.command import (
    FORCE,
    Argument,
    Command,
    Option,
    document_format,
    filter_option,
    listing_format,
)

_NO_SWARM = "it is for cluster volumes, which need a swarm; PyDock has none"
_CLUSTER_OPTIONS = (
    "--availability --group --limit-bytes --required-bytes --scope --secret --sharing --topology-preferred "
    "--topology-required --type"
).split()
_SOME = (Argument("VOLUME", "+", complete="volume"),)

VOLUME_COMMANDS: tuple[Command, ...] = (
    Command(
        ("volume", "create"),
        "Create a volume",
        "volumes:create",
        (
            Option(("-d", "--driver"), "the driver: local", "DRIVER", default="local"),
            Option(("--label",), "a label", "KEY[=VALUE]", many=True),
            Option(
                ("-o", "--opt"), "an option of the driver: type=tmpfs, device=…, o=…", "NAME=VALUE", many=True
            ),
        ),
        (Argument("VOLUME", "?"),),
        refused=dict.fromkeys(_CLUSTER_OPTIONS, _NO_SWARM),
    ),
    Command(
        ("volume", "ls"),
        "List volumes",
        "volumes:list_",
        (
            filter_option("dangling=true, driver=local, label=KEY, name=REGEXP"),
            listing_format("{{.Name}}: {{.Mountpoint}}"),
            Option(("-q", "--quiet"), "print names only"),
        ),
        aliases=(("volume", "list"),),
        refused={"--cluster": _NO_SWARM},
    ),
    Command(
        ("volume", "inspect"),
        "Show details of volumes as JSON",
        "inspect:inspect_volume",
        (document_format("{{.Mountpoint}}", "-f"),),
        _SOME,
    ),
    Command(
        ("volume", "rm"),
        "Remove volumes that no container has",
        "volumes:rm",
        (Option(("-f", "--force"), "ignore missing volumes"),),
        _SOME,
        aliases=(("volume", "remove"),),
    ),
    Command(
        ("volume", "prune"),
        "Remove the anonymous volumes that no container has",
        "disk:volume_prune",
        (
            Option(("-a", "--all"), "those with a name too"),
            Option(("--filter",), "only what matches: label=KEY, label!=KEY", "KEY=VALUE", many=True),
            FORCE,
        ),
    ),
    Command(
        ("volume", "update"),
        "Refused: it changes cluster volumes, which need a swarm",
        "volumes:update",
        (Option(("--availability",), "of a cluster volume", "STATE"),),
        (Argument("VOLUME", "?", complete="volume"),),
    ),
)
