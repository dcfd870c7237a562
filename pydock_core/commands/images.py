"""The commands on images: images, rmi, load, import, tag, capture."""

from __future__ import annotations

import contextlib
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from pydock_core.commands.context import Context
from pydock_core.commands.filters import parse_filters
from pydock_core.commands.format import human_size, write_listing
from pydock_core.commands.run import for_each
from pydock_core.engine.spans import human_duration
from pydock_core.errors import InvalidError, NotFoundError

_COLUMNS = (
    ("REPOSITORY", "Repository"),
    ("TAG", "Tag"),
    ("IMAGE ID", "ID"),
    ("CREATED", "CreatedSince"),
    ("SIZE", "Size"),
)
_HEADERS = {field: header for header, field in _COLUMNS} | {"CreatedAt": "CREATED AT", "Digest": "DIGEST"}
_NONE = "<none>"


def images(context: Context, words: Namespace) -> int:
    """List images: a line for each name, and one for an image without."""
    filters = parse_filters(words.filter)
    if words.REPOSITORY:
        filters.setdefault("reference", []).append(words.REPOSITORY)
    summaries = context.engine.images.list(filters=filters, all=words.all)
    if words.quiet and not words.format:
        ids = dict.fromkeys(summary["Id"] for summary in summaries)
        for image_id in ids:
            context.print(image_id if words.no_trunc else _short(image_id))
        return 0
    records = [record for summary in summaries for record in _records(summary, whole=words.no_trunc)]
    write_listing(context, records, _COLUMNS, words.format, _HEADERS)
    return 0


def _records(summary: Mapping[str, Any], *, whole: bool) -> Iterator[dict[str, Any]]:
    for name in summary["RepoTags"] or [f"{_NONE}:{_NONE}"]:
        repository, _, tag = name.rpartition(":")
        created = time.localtime(summary["Created"])
        yield {
            "Repository": repository,
            "Tag": tag,
            "ID": summary["Id"] if whole else _short(summary["Id"]),
            "Digest": _NONE,
            "CreatedSince": f"{human_duration(time.time() - summary['Created'])} ago",
            "CreatedAt": time.strftime("%Y-%m-%d %H:%M:%S %z %Z", created),
            "Size": human_size(summary["Size"]),
            "Containers": str(summary.get("Containers", -1)),
        }


def _short(image_id: str) -> str:
    return image_id.removeprefix("sha256:")[:12]


def rmi(context: Context, words: Namespace) -> int:
    """Remove images' names, and images without one."""

    def one(name: str) -> None:
        for change in context.engine.images.remove(name, force=words.force):
            for action, subject in change.items():
                context.print(f"{action}: {subject}")

    return for_each(context, words.IMAGE, one)


def load(context: Context, words: Namespace) -> int:
    """Load images from an archive."""
    with _input(context, words.input) as stream, _progress(context, words.quiet) as progress:
        loaded = context.engine.images.load(stream, progress)
    for name in loaded:
        context.print(
            f"Loaded image: {name}" if not name.startswith("sha256:") else f"Loaded image ID: {name}"
        )
    return 0


def import_(context: Context, words: Namespace) -> int:
    """Make an image from the tar archive of a root file system, and print its id."""
    source = getattr(words, "FILE|-")
    reference = getattr(words, "REPOSITORY[:TAG]")
    with _input(context, None if source == "-" else source) as stream:
        context.print(context.engine.images.import_(stream, reference, words.change, words.message))
    return 0


def tag(context: Context, words: Namespace) -> int:
    """Give an image a further name."""
    context.engine.images.tag(words.SOURCE, words.TARGET)
    return 0


def capture(context: Context, words: Namespace) -> int:
    """Make an image of a Python environment, and print its id."""
    prefix = Path(words.prefix).absolute() if words.prefix else Path(sys.prefix)
    paths = [Path(path).absolute() for path in words.PATH]
    with _progress(context, words.quiet) as progress:
        result = context.engine.images.capture(words.tag, prefix, paths, progress)
    for note in result.notes if not words.quiet else ():
        context.stderr.write(f"note: {note}\n")
    context.print(result.image_id)
    return 0


@contextlib.contextmanager
def _input(context: Context, name: str | None) -> Iterator[BinaryIO]:
    if name:
        with contextlib.ExitStack() as closing:
            try:
                file = closing.enter_context(open(name, "rb"))
            except OSError as error:
                raise NotFoundError(
                    f"archive {name}: {error.strerror}", "name a file that can be read"
                ) from error
            yield file
        return
    if context.stdin is None or (context.interactive and context.stdin.isatty()):
        raise InvalidError("there is no archive on standard input", "give a file with -i, or pipe one in")
    yield context.stdin


@contextlib.contextmanager
def _progress(context: Context, quiet: bool) -> Iterator[Callable[[Mapping[str, Any]], None] | None]:
    """Show progress bars on a terminal; nothing elsewhere."""
    if quiet or not context.interactive:
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, Any] = {}

        def show(event: Mapping[str, Any]) -> None:
            name = str(event.get("id") or event.get("status") or "")
            text = f"{event.get('status', '')} {str(event.get('id') or '')[:19]}".strip()
            if name not in tasks:
                tasks[name] = bars.add_task(text, total=event.get("total"))
            bars.update(
                tasks[name], description=text, completed=event.get("current") or 0, total=event.get("total")
            )

        yield show
