"""The commands that read and write archives, and commit: load, save, import, export, commit."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from pydock_core.commands.archive_file import replaced_file
from pydock_core.commands.context import Context, Writer
from pydock_core.commands.progress import Reporter, reporting
from pydock_core.errors import FailedError, InvalidError, NoSpaceError, NotFoundError


def load(context: Context, words: Namespace) -> int:
    """Load images from an archive."""
    taken: dict[str, str] = {}
    loaded: list[str] = []
    with (
        reporting(
            context, words.progress, f"loaded {words.input or 'the archive'}", quiet=words.quiet
        ) as report,
        archive_input(context, words.input) as stream,
    ):
        try:
            loaded = context.engine.images.load(stream, report.progress, words.platform, taken.__setitem__)
        finally:  # even if the archive turns out to be broken: images that were loaded before stay
            for name in loaded or tuple(taken):
                old_id = taken.pop(name, None)
                if old_id:
                    _stream(
                        report,
                        f"The image {name} already exists, renaming the old one with ID {old_id} to empty string",
                    )
                if loaded:
                    kind = "image ID" if name.startswith("sha256:") else "image"
                    _stream(report, f"Loaded {kind}: {name}")
    return 0


def _stream(report: Reporter, line: str) -> None:
    """Report a line of the result; Docker's engine sends it as text."""
    report.result(line, stream=f"{line}\n")


def save(context: Context, words: Namespace) -> int:
    """Write images to an archive."""
    stdout_is_free = bool(words.output)
    done = f"saved {' '.join(words.IMAGE)} to {words.output}"
    with (
        reporting(context, words.progress, done, stdout_is_free=stdout_is_free) as report,
        archive_output(context, words.output) as stream,
    ):
        context.engine.images.save(words.IMAGE, stream, report.progress, words.platform)
    return 0


def import_(context: Context, words: Namespace) -> int:
    """Make an image from the tar archive of a root file system, and print its id."""
    source = getattr(words, "FILE|-")
    if "://" in source:
        raise InvalidError(
            f"cannot import from an address: {source}",
            "download it first, or pipe it in: curl … | dock import -",
        )
    reference = getattr(words, "REPOSITORY[:TAG]")
    with (
        reporting(context, words.progress, f"imported {source}") as report,
        archive_input(
            context, None if source == "-" else source, "name a file: dock import FILE, or pipe one in"
        ) as stream,
    ):
        report.result(
            context.engine.images.import_(
                stream, reference, words.change, words.message, report.progress, words.platform
            )
        )
    return 0


def export(context: Context, words: Namespace) -> int:
    """Write a container's file system to a tar archive."""
    with archive_output(context, words.output) as stream:
        context.engine.filesystems.export(words.CONTAINER, stream)
    return 0


def commit(context: Context, words: Namespace) -> int:
    """Make an image of a container's changes, and print its id."""
    with reporting(context, words.progress, f"committed {words.CONTAINER}") as report:
        report.result(
            context.engine.filesystems.commit(
                words.CONTAINER,
                getattr(words, "REPOSITORY[:TAG]"),
                author=words.author or "",
                message=words.message or "",
                changes=words.change,
                pause=words.pause,
                progress=report.progress,
            )
        )
    return 0


# -- streams -----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def archive_input(
    context: Context, name: str | None, hint: str = "give a file with -i, or pipe one in"
) -> Iterator[BinaryIO]:
    """Yield the input stream of an archive: a file or standard input.

    Args:
        hint: what to do without an archive on standard input.
    """
    if name:
        with contextlib.ExitStack() as closing:
            try:
                file = closing.enter_context(open(name, "rb"))
            except IsADirectoryError as error:
                raise InvalidError(f"archive {name}: is a directory", _pack_hint(name)) from error
            except OSError as error:
                raise NotFoundError(
                    f"archive {name}: {error.strerror}", "name a file that can be read"
                ) from error
            yield file
        return
    if context.stdin is None or (context.interactive and context.stdin.isatty()):
        raise InvalidError("there is no archive on standard input", hint)
    yield context.stdin


@contextlib.contextmanager
def archive_output(
    context: Context, name: str | None, hint: str = "write to a file with -o"
) -> Iterator[BinaryIO]:
    """Yield the stream for an archive: standard output, or a file that appears when it is complete.

    Args:
        hint: what to do where no archive can be written to standard output.
    """
    if not name:
        if context.notebook or (context.owns_process and sys.stdout.isatty()):
            where = "a cell" if context.notebook else "a terminal"
            raise InvalidError(f"cannot write an archive to {where}", hint)
        context.stdout.flush()
        if context.owns_process:  # the descriptor itself, so that the kernel copies files to it
            yield cast(BinaryIO, sys.stdout.buffer)
            sys.stdout.buffer.flush()
            return
        yield cast(BinaryIO, _WriterStream(context.stdout))
        context.stdout.flush()
        return
    target = Path(name)
    with _mapped(name):
        is_special = target.exists() and not target.is_file()
        if is_special and target.is_dir():
            raise InvalidError(f"archive {name}: is a directory", "name a file in it")
        if not is_special:
            target = target.resolve()  # the target of a link is replaced, not the link
    if is_special:  # a pipe or a device: nothing to rename
        with _mapped(name), target.open("wb") as stream:
            yield stream
        return
    with _mapped(name), replaced_file(target) as stream:
        yield stream


def _pack_hint(name: str) -> str:
    """Return a hint for archiving a directory, which may be an OCI layout."""
    if os.path.exists(os.path.join(name, "oci-layout")):
        return f"pack the OCI layout into an archive: tar -C {shlex.quote(name)} -cf - . | dock load"
    return "name a file that can be read"


@contextlib.contextmanager
def _mapped(name: str) -> Iterator[None]:
    """Map errors of the file to PyDockError; the engine's own errors pass through."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise NoSpaceError(
                f"no space left for archive {name}", "free some space, or write elsewhere"
            ) from error
        raise FailedError(
            f"archive {name}: {error.strerror or error}",
            "choose an existing directory that is writable",
        ) from error


class _WriterStream:
    """A binary stream over the front end's standard output; it is not seekable and has no descriptor."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    def write(self, data: bytes) -> int:
        self._writer.write_bytes(data)
        return len(data)

    def flush(self) -> None:
        self._writer.flush()
