"""The command cp."""

from __future__ import annotations

from argparse import Namespace

from pydock_core.commands.archives import archive_input, archive_output
from pydock_core.commands.context import Context
from pydock_core.errors import InvalidError
from pydock_core.spelling import human_size

_STREAM = "-"


def cp(context: Context, words: Namespace) -> int:
    """Copy between the host and a container."""
    source, target = words.SOURCE, words.TARGET
    from_container, to_container = split_container(source), split_container(target)
    if from_container and to_container:
        raise InvalidError(
            "copying between containers is not supported",
            f"go through the host: dock cp {source} - | dock cp - {target}",
        )
    copies = context.engine.copies
    if from_container:
        container, path = from_container
        if target == _STREAM:
            with archive_output(
                context, None, "name a file or directory in place of -, or redirect: > FILE"
            ) as stream:
                copies.read_archive(container, path, stream)
            return 0
        result = copies.copy_out(container, path, target, follow=words.follow_link, keep_owners=words.archive)
    elif to_container:
        container, path = to_container
        if source == _STREAM:
            _check_directory(context, container, path)
            with archive_input(
                context, None, "name a file or directory in place of -, or pipe an archive in"
            ) as stream:
                copies.write_archive(container, path, stream, as_user=words.archive, may_replace=False)
            return 0
        result = copies.copy_in(source, container, path, follow=words.follow_link, as_user=words.archive)
    else:
        raise InvalidError("neither path is a container's", "write CONTAINER:PATH for one of the two")
    for note in result.notes:
        context.warn(f"left out: {note}")
    if context.interactive and not words.quiet:
        context.stderr.write(f"Successfully copied {human_size(result.size_bytes, 4)} to {target}\n")
    return 0


def split_container(text: str) -> tuple[str, str] | None:
    """Split CONTAINER:PATH; None for a path of the host, which begins with a slash or a dot or has no colon."""
    container, colon, path = text.partition(":")
    if not colon or text.startswith(("/", ".")) or not container:
        return None
    return container, path


def _check_directory(context: Context, container: str, path: str) -> None:
    """Refuse an archive for a target that is not a directory, before reading it."""
    found = context.engine.copies.stat(container, path)
    if found["linkTarget"]:
        found = context.engine.copies.stat(container, found["linkTarget"])
    if not found["mode"] >> 31:
        raise InvalidError(f"{container}:{path} is not a directory", "an archive goes into a directory")
