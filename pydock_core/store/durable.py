"""Writes files and names durably, and maps the errors of a disk."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydock_core.errors import FailedError, NoSpaceError
from pydock_core.private_files import open_private


def sync(path: Path) -> None:
    """Sync a file, or the names in a directory, to disk."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write a new file and sync it."""
    with open(path, "w", encoding="utf-8", opener=open_private) as file:
        json.dump(document, file)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def mapped(
    subject: str, verb: str = "store", hint: str = "check the state directory (dock doctor)"
) -> Iterator[None]:
    """Map a file system's errors to PyDockError.

    Args:
        subject: the object of the verb, for messages.
        verb: the failed action, for messages: "write".
        hint: for errors other than a full disk.

    Raises:
        NoSpaceError: the disk, or the user's quota, is full.
        FailedError: another system error.
    """
    try:
        yield
    except OSError as error:
        if is_full(error):
            raise no_space(subject) from error
        raise FailedError(f"cannot {verb} {subject}: {error.strerror or error}", hint) from error


def is_full(error: OSError) -> bool:
    """Whether an error means that the disk, or the user's quota, is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def no_space(subject: str) -> NoSpaceError:
    """Return the error of a full disk; ``subject`` could not be written."""
    return NoSpaceError(
        f"no space left on the disk for {subject}", "free some space (dock rmi, dock rm), try again"
    )
