"""The commands on disk space: system df, and the prunes."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import Any

from pydock_core.commands.containers import ps_record
from pydock_core.commands.context import Context
from pydock_core.commands.dialog import confirm
from pydock_core.commands.format import write_columns, write_documents, write_listing
from pydock_core.commands.images import image_records
from pydock_core.commands.values import parse_filters
from pydock_core.errors import InvalidError
from pydock_core.printable import json_text
from pydock_core.spelling import human_size

_DF_COLUMNS = (
    ("TYPE", "Type"),
    ("TOTAL", "TotalCount"),
    ("ACTIVE", "Active"),
    ("SIZE", "Size"),
    ("RECLAIMABLE", "Reclaimable"),
)
_DF_HEADERS = {field: header for header, field in _DF_COLUMNS}
_IMAGE_COLUMNS = {
    "Repository": "REPOSITORY",
    "Tag": "TAG",
    "ID": "IMAGE ID",
    "CreatedSince": "CREATED",
    "Size": "SIZE",
    "SharedSize": "SHARED SIZE",
    "UniqueSize": "UNIQUE SIZE",
    "Containers": "CONTAINERS",
}
_CONTAINER_COLUMNS = {
    "ID": "CONTAINER ID",
    "Image": "IMAGE",
    "Command": "COMMAND",
    "LocalVolumes": "LOCAL VOLUMES",
    "Size": "SIZE",
    "RunningFor": "CREATED",
    "Status": "STATUS",
    "Names": "NAMES",
}
_VOLUME_COLUMNS = {"Name": "VOLUME NAME", "Links": "LINKS", "Size": "SIZE"}
_CACHE_HEADERS = ("CACHE ID", "CACHE TYPE", "SIZE", "CREATED", "LAST USED", "USAGE", "SHARED")
_ACTIVE_STATES = ("running", "paused", "restarting")
_SURE = "Are you sure you want to continue?"


def df(context: Context, words: Namespace) -> int:
    """Show the disk usage of images, containers and volumes."""
    usage = context.engine.usage.df()
    if words.verbose:
        return _verbose(context, usage, words.format)
    write_listing(context, df_records(usage), _DF_COLUMNS, words.format, _DF_HEADERS)
    return 0


def df_records(usage: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the four rows (the rules are those of docker/cli, cli/command/formatter/disk_usage.go)."""
    images, containers, volumes = usage["Images"], usage["Containers"], usage["Volumes"]
    active = [item for item in containers if item["State"] in _ACTIVE_STATES]
    used = [item for item in volumes if item["UsageData"]["RefCount"] > 0]
    container_bytes = sum(item["SizeRw"] for item in containers)
    volume_bytes = sum(item["UsageData"]["Size"] for item in volumes)
    rows = (
        (
            "Images",
            len(images),
            sum(item["Containers"] > 0 for item in images),
            usage["LayersSize"],
            usage["ImagesReclaimable"],
        ),
        (
            "Containers",
            len(containers),
            len(active),
            container_bytes,
            container_bytes - sum(item["SizeRw"] for item in active),
        ),
        (
            "Local Volumes",
            len(volumes),
            len(used),
            volume_bytes,
            volume_bytes - sum(item["UsageData"]["Size"] for item in used),
        ),
    )
    records = [
        {
            "Type": kind,
            "TotalCount": str(count),
            "Active": str(active_count),
            "Size": human_size(size, 4),
            "Reclaimable": human_size(reclaimable, 4)
            + (f" ({reclaimable * 100 // size}%)" if size > 0 else ""),
        }
        for kind, count, active_count, size, reclaimable in rows
    ]
    cache = {"Type": "Build Cache", "TotalCount": "0", "Active": "0", "Size": "0B", "Reclaimable": "0B"}
    return [*records, cache]


def _verbose(context: Context, usage: Mapping[str, Any], template: str | None) -> int:
    is_table = template in (None, "", "table")
    images = list(image_records(usage["Images"], by_digest=False, digests=False, whole=not is_table))
    containers = [ps_record(summary, whole=not is_table) for summary in usage["Containers"]]
    volumes = [
        {
            "Name": volume["Name"],
            "Links": str(volume["UsageData"]["RefCount"]),
            "Size": human_size(volume["UsageData"]["Size"], 4),
        }
        for volume in usage["Volumes"]
    ]
    if not is_table:
        document = {"Images": images, "Containers": containers, "Volumes": volumes, "BuildCache": []}
        if template == "json":
            context.print(json_text(document, separators=(",", ":")))
        else:
            write_documents(context, [document], template)
        return 0
    sections: tuple[tuple[str, Mapping[str, str], Sequence[Mapping[str, Any]]], ...] = (
        ("Images", _IMAGE_COLUMNS, images),
        ("Containers", _CONTAINER_COLUMNS, containers),
        ("Local Volumes", _VOLUME_COLUMNS, volumes),
    )
    for title, columns, records in sections:
        context.print(f"{title} space usage:\n")
        rows = [[str(record[field]) for field in columns] for record in records]
        write_columns(context, list(columns.values()), rows)
        if title == "Images":
            kept = human_size(usage["BlobsSize"], 4)
            context.print(
                f"\nKept beside the layers (as they were pulled or loaded, for push and save): {kept}"
            )
        context.print()
    context.print("Build cache usage: 0B\n")
    write_columns(context, _CACHE_HEADERS, [])
    return 0


# -- prunes ------------------------------------------------------------------------------------------------


def image_prune(context: Context, words: Namespace) -> int:
    """Remove unused images."""
    what = (
        "all images without at least one container associated to them" if words.all else "all dangling images"
    )
    filters = parse_filters(words.filter)
    warning = f"WARNING! This will remove {what},\nand the remains of interrupted pulls.\n{_SURE}"
    if not words.force and not confirm(context, warning):
        return 0
    reclaimed = _prune_images(context, words.all, filters)
    _print_total(context, reclaimed)
    return 0


def container_prune(context: Context, words: Namespace) -> int:
    """Remove stopped containers."""
    filters = parse_filters(words.filter)
    warning = f"WARNING! This will remove all stopped containers.\n{_SURE}"
    if not words.force and not confirm(context, warning):
        return 0
    _print_total(context, _prune_containers(context, filters))
    return 0


def volume_prune(context: Context, words: Namespace) -> int:
    """Remove unused volumes."""
    filters = parse_filters(words.filter)
    if words.all:
        if "all" in filters:
            raise InvalidError("--all and --filter all exclude each other", "leave one of the two out")
        filters = {**filters, "all": ["true"]}
    kind = "local volumes" if words.all else "anonymous local volumes"
    warning = f"WARNING! This will remove {kind} not used by at least one container.\n{_SURE}"
    if words.all:
        warning = warning.replace("remove local", "remove all local")
    if not words.force and not confirm(context, warning):
        return 0
    _print_total(context, _prune_volumes(context, filters))
    return 0


def system_prune(context: Context, words: Namespace) -> int:
    """Remove stopped containers, unused images and, on request, volumes, in this order."""
    filters = parse_filters(words.filter)
    if words.volumes and "until" in filters:
        raise InvalidError('the filter "until" does not go with --volumes', "leave one of the two out")
    if not words.force and not confirm(context, _system_warning(words, filters)):
        return 0
    reclaimed = _prune_containers(context, filters)
    networks = _Listed(context, "Deleted Networks:")
    for name in context.engine.networks.prune(filters)["NetworksDeleted"]:
        networks.add(name)
    networks.end()
    if words.volumes:
        reclaimed += _prune_volumes(context, filters)
    reclaimed += _prune_images(context, words.all, filters)
    _print_total(context, reclaimed)
    return 0


def _system_warning(words: Namespace, filters: Mapping[str, Sequence[str]]) -> str:
    lines = [
        "WARNING! This will remove:",
        "  - all stopped containers",
        "  - all networks not used by at least one container",
    ]
    if words.volumes:
        lines.append("  - all anonymous volumes not used by at least one container")
    lines.append(
        "  - all images without at least one container associated to them"
        if words.all
        else "  - all dangling images"
    )
    lines.append("  - the remains of interrupted pulls")
    if filters:
        lines += ["", "  Items to be pruned will be filtered with:"]
        lines += [f"  - {key}={value}" for key, values in sorted(filters.items()) for value in values]
    return "\n".join([*lines, "", _SURE])


def _prune_images(context: Context, all_unused: bool, filters: Mapping[str, Sequence[str]]) -> int:
    listed = _Listed(context, "Deleted Images:")

    def show(event: Mapping[str, Any]) -> None:
        if "id" in event:
            listed.add(f"{event['status'].lower()}: {event['id']}")
        elif context.interactive:  # it may take long; only a person needs the message
            context.stderr.write("Freeing space ...\n")

    report = context.engine.usage.prune_images(all=all_unused, filters=filters, progress=show)
    listed.end()
    for warning in report["Warnings"]:
        context.warn(warning)
    return int(report["SpaceReclaimed"])


def _prune_containers(context: Context, filters: Mapping[str, Sequence[str]]) -> int:
    listed = _Listed(context, "Deleted Containers:")
    report = context.engine.usage.prune_containers(filters, lambda event: listed.add(event["id"]))
    listed.end()
    return int(report["SpaceReclaimed"])


def _prune_volumes(context: Context, filters: Mapping[str, Sequence[str]]) -> int:
    report = context.engine.volumes.prune(filters)
    listed = _Listed(context, "Deleted Volumes:")
    for name in report["VolumesDeleted"]:
        listed.add(name)
    listed.end()
    return int(report["SpaceReclaimed"])


class _Listed:
    """A list that is written as it grows: a title, lines, an empty line; nothing without lines."""

    def __init__(self, context: Context, title: str) -> None:
        self._context = context
        self._title = title
        self._is_open = False

    def add(self, line: str) -> None:
        if not self._is_open:
            self._context.print(self._title)
        self._is_open = True
        self._context.print(line)
        self._context.stdout.flush()

    def end(self) -> None:
        if self._is_open:
            self._context.print()


def _print_total(context: Context, size_bytes: int) -> None:
    context.print(f"Total reclaimed space: {human_size(size_bytes, 4)}")
