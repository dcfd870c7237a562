"""The commands for volumes."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from pydock_core.commands.context import Context
from pydock_core.commands.dispatch import show_error
from pydock_core.commands.format import write_listing
from pydock_core.commands.natural import natural_key
from pydock_core.commands.record import Method
from pydock_core.commands.values import parse_filters, parse_pair
from pydock_core.errors import PyDockError, UnsupportedError

_COLUMNS = (("DRIVER", "Driver"), ("VOLUME NAME", "Name"))
_HEADERS = {
    "Name": "VOLUME NAME",
    "Driver": "DRIVER",
    "Scope": "SCOPE",
    "Mountpoint": "MOUNTPOINT",
    "Labels": "LABELS",
    "Links": "LINKS",
    "Size": "SIZE",
    "Availability": "AVAILABILITY",
    "Group": "GROUP",
    "Status": "STATUS",
}
_UNKNOWN = "N/A"
"""Docker's word for unmeasured values of a listing, and for the fields of cluster volumes."""


def create(context: Context, words: Namespace) -> int:
    """Create a volume and print its name."""
    labels = {key: value for key, _, value in (text.partition("=") for text in words.label)}
    options = dict(parse_pair(text, "--opt") for text in words.opt)
    volume = context.engine.volumes.create(words.VOLUME, driver=words.driver, labels=labels, options=options)
    context.print(volume["Name"])
    return 0


def list_(context: Context, words: Namespace) -> int:
    """List volumes."""
    volumes = context.engine.volumes.list(parse_filters(words.filter))
    records = [volume_record(volume) for volume in sorted(volumes, key=lambda one: natural_key(one["Name"]))]
    if words.quiet and words.format in (None, "", "table"):
        for record in records:
            context.print(record["Name"])
        return 0
    write_listing(context, records, _COLUMNS, words.format, _HEADERS)
    return 0


def volume_record(volume: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a listing (docker/cli, cli/command/formatter/volume.go)."""
    labels: Mapping[str, str] = volume["Labels"] or {}
    return {
        "Name": volume["Name"],
        "Driver": volume["Driver"],
        "Scope": volume["Scope"],
        "Mountpoint": volume["Mountpoint"],
        "Labels": ",".join(f"{key}={labels[key]}" for key in sorted(labels)),
        "Links": _UNKNOWN,
        "Size": _UNKNOWN,
        "Availability": _UNKNOWN,
        "Group": _UNKNOWN,
        "Status": _UNKNOWN,
        "Label": Method(lambda key: labels.get(key, "")),
    }


def rm(context: Context, words: Namespace) -> int:
    """Remove volumes, and print the name of each."""
    code = 0
    for name in words.VOLUME:
        try:
            context.engine.volumes.remove(name, force=words.force)
            context.print(name)
        except PyDockError as error:
            show_error(error, context)
            code = 1
    return code


def update(context: Context, words: Namespace) -> int:
    """Refuse: the command is for cluster volumes."""
    raise UnsupportedError(
        "volume update changes cluster volumes, which need a swarm; PyDock has none",
        "a local volume's labels and options are set when it is created: dock volume create --label",
        exit_code=1,
    )
