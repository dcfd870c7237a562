"""The commands on local images: images, history, tag, rmi, capture."""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydock_core.commands.context import Context
from pydock_core.commands.dispatch import for_each
from pydock_core.commands.format import write_columns, write_listing
from pydock_core.commands.progress import reporting
from pydock_core.commands.record import describe_age, shorten, time_of
from pydock_core.commands.values import parse_filters
from pydock_core.errors import InvalidError
from pydock_core.printable import printable
from pydock_core.spelling import human_size

if TYPE_CHECKING:
    from pydock_core.engine import SeenImage

NONE = "<none>"
UNKNOWN = "N/A"
_COLUMNS = (
    ("REPOSITORY", "Repository"),
    ("TAG", "Tag"),
    ("IMAGE ID", "ID"),
    ("CREATED", "CreatedSince"),
    ("SIZE", "Size"),
)
_DIGEST_COLUMNS = (*_COLUMNS[:2], ("DIGEST", "Digest"), *_COLUMNS[2:])
IMAGE_HEADERS = {field: header for header, field in _DIGEST_COLUMNS} | {
    "CreatedAt": "CREATED AT",
    "SharedSize": "SHARED SIZE",
    "UniqueSize": "UNIQUE SIZE",
    "VirtualSize": "SIZE",
    "Containers": "CONTAINERS",
}
_HISTORY_COLUMNS = (
    ("IMAGE", "ID"),
    ("CREATED", "CreatedSince"),
    ("CREATED BY", "CreatedBy"),
    ("SIZE", "Size"),
    ("COMMENT", "Comment"),
)
_HISTORY_HEADERS = {field: header for header, field in _HISTORY_COLUMNS} | {"CreatedAt": "CREATED AT"}
_CREATED_BY_WIDTH = 45


def images(context: Context, words: Namespace) -> int:
    """List images: a line for each name (with --digests, for each digest of it), and one for an image without."""
    filters = parse_filters(words.filter)
    if reference := getattr(words, "REPOSITORY[:TAG]"):
        filters.setdefault("reference", []).append(reference)
    if words.tree:
        return _tree(context, words, filters)
    summaries = context.engine.images.list(filters=filters, all=words.all)
    template = words.format
    by_digest = words.digests or (template is not None and "{{" in template and ".Digest" in template)
    records = list(image_records(summaries, by_digest=by_digest, digests=words.digests, whole=words.no_trunc))
    if words.quiet and template in (None, "", "table"):
        for record in records:
            context.print(record["ID"])
        return 0
    columns = _DIGEST_COLUMNS if words.digests else _COLUMNS
    write_listing(context, records, columns, template, IMAGE_HEADERS)
    return 0


def image_records(
    summaries: Iterable[Mapping[str, Any]], *, by_digest: bool, digests: bool, whole: bool
) -> Iterator[dict[str, Any]]:
    """Yield the rows of a listing (the rules are those of docker/cli, cli/command/formatter/image.go).

    Args:
        by_digest: a row for each digest of a name.
        digests: a row for each digest without a name, too; otherwise one for the repository.
        whole: ids in full.
    """
    for summary in summaries:
        for repository, tag, digest in _names(summary, by_digest=by_digest, digests=digests):
            shared = summary["SharedSize"]
            yield {
                "Repository": repository,
                "Tag": tag,
                "Digest": digest,
                "ID": summary["Id"] if whole else short(summary["Id"]),
                "CreatedSince": describe_age(summary["Created"]) or UNKNOWN,
                "CreatedAt": time_of(summary["Created"]),
                "Size": human_size(summary["Size"]),
                "VirtualSize": human_size(summary["Size"], 4),
                "SharedSize": UNKNOWN if shared < 0 else human_size(shared, 4),
                "UniqueSize": UNKNOWN if shared < 0 else human_size(summary["Size"] - shared, 4),
                "Containers": str(summary["Containers"]),
            }


def _names(summary: Mapping[str, Any], *, by_digest: bool, digests: bool) -> Iterator[tuple[str, str, str]]:
    """Yield (repository, tag, digest) of each row of an image."""
    of_repository: dict[str, list[str]] = {}
    for name in summary["RepoDigests"]:
        repository, _, digest = name.partition("@")
        of_repository.setdefault(repository, []).append(digest)
    tagged = set()
    for name in summary["RepoTags"]:
        repository, _, tag = name.rpartition(":")
        tagged.add(repository)
        for digest in (of_repository.get(repository) if by_digest else None) or [NONE]:
            yield repository, tag, digest
    for repository, values in of_repository.items():
        if repository not in tagged:
            for digest in values if digests else [NONE]:
                yield repository, NONE, digest
    if not summary["RepoTags"] and not summary["RepoDigests"]:
        yield NONE, NONE, NONE


def short(image_id: str) -> str:
    """Return the 12 digits of an id that Docker shows; "<missing>" stays."""
    return image_id.removeprefix("sha256:")[:12]


def _tree(context: Context, words: Namespace, filters: Mapping[str, list[str]]) -> int:
    for name, value in (
        ("--quiet", words.quiet),
        ("--no-trunc", words.no_trunc),
        ("--digests", words.digests),
        ("--format", words.format),
    ):
        if value:
            raise InvalidError(f"{name} and --tree contradict each other", "leave one of the two out")
    rows = []
    for summary in context.engine.images.list(filters=filters, all=words.all):
        content = context.engine.images.content_bytes(summary["Id"])
        sizes = [human_size(summary["Size"] + content), human_size(content)]
        names = summary["RepoTags"] or summary["RepoDigests"] or ["<untagged>"]
        used = "U" if summary["Containers"] else ""
        rows.append([" ".join(names), short(summary["Id"]), *sizes, used])
        platform = str(context.engine.images.platform(summary["Id"]))
        rows.append([f"└─ {platform}", short(summary["Id"]), *sizes, used])
    write_columns(context, ["IMAGE", "ID", "DISK USAGE", "CONTENT SIZE", "IN USE"], rows)
    return 0


def history(context: Context, words: Namespace) -> int:
    """Show the steps of an image's creation, the newest first."""
    if words.platform:
        context.engine.images.require_platform(words.IMAGE, words.platform)
    steps = context.engine.images.history(words.IMAGE)
    records = [_history_record(step, human=words.human, whole=words.no_trunc) for step in steps]
    if words.quiet and words.format in (None, "", "table"):
        for record in records:
            context.print(record["ID"])
        return 0
    columns = _HISTORY_COLUMNS
    if not words.human:
        columns = (columns[0], ("CREATED AT", "CreatedAt"), *columns[2:])
    write_listing(context, records, columns, words.format, _HISTORY_HEADERS)
    return 0


def _history_record(step: Mapping[str, Any], *, human: bool, whole: bool) -> dict[str, Any]:
    created = step["Created"]
    created_at = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(created)) if created else ""
    if created_at.endswith("+0000"):
        created_at = created_at[:-5] + "Z"
    elif created_at:
        created_at = f"{created_at[:-2]}:{created_at[-2:]}"
    created_by = step["CreatedBy"].replace("\t", " ")
    return {
        "ID": step["Id"] if whole else short(step["Id"]),
        "CreatedAt": created_at,
        "CreatedSince": (describe_age(created) or UNKNOWN) if human else created_at,
        "CreatedBy": created_by if whole else shorten(created_by, _CREATED_BY_WIDTH),
        "Size": human_size(step["Size"]) if human else str(step["Size"]),
        "Comment": step["Comment"],
    }


def rmi(context: Context, words: Namespace) -> int:
    """Remove images' names, and images without one."""

    images = context.engine.images

    def one(name: str) -> None:
        for platform in words.platform:
            images.require_platform(name, platform)
        row = images.resolve(name)
        changes = images.remove(name, force=words.force)
        for change in changes:
            for action, subject in change.items():
                context.print(f"{action}: {subject}")
        if not any("Deleted" in change for change in changes):
            _note_what_stays(context, images.see(row))

    return for_each(context, words.IMAGE, one)


def _note_what_stays(context: Context, seen: SeenImage) -> None:
    """Report that an image without names stays, because containers use it."""
    if seen.containers and not seen.tags and not seen.digests:
        users = f"{seen.containers} container{'s' if seen.containers > 1 else ''}"
        context.stderr.write(
            f"note: image {short(seen.row.id)} now has no name. It is kept while {users} "
            f"{'use' if seen.containers > 1 else 'uses'} it; then dock image prune removes it\n"
        )


def tag(context: Context, words: Namespace) -> int:
    """Give an image another name."""
    context.engine.images.tag(words.SOURCE, words.TARGET)
    return 0


def capture(context: Context, words: Namespace) -> int:
    """Make an image of a Python environment, and print its id."""
    prefix = Path(words.prefix).absolute() if words.prefix else Path(sys.prefix)
    paths = [Path(path).absolute() for path in words.PATH]
    with reporting(context, words.progress, f"captured {prefix}", quiet=words.quiet) as report:
        result = context.engine.images.capture(words.tag, prefix, paths, report.progress)
        report.result(result.image_id)
    for note in result.notes if not report.is_quiet else ():
        context.stderr.write(f"note: {printable(note)}\n")
    return 0
