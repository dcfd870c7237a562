"""The files of a container's log: the current one, and the older ones that rotation keeps.

``log.json`` is the current file; ``log.json.1`` is the newest of the older ones, as Docker's json-file driver names them.
Rotation only renames: nothing is written twice, and after a crash at any step every entry is in exactly one file.  At
most one number is vacant at any moment.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


@dataclass(frozen=True, slots=True)
class LogLimits:
    """The limits of a log.

    Attributes:
        file_bytes: the largest size of a file, unless a single entry is larger; 0 for no limit.
        files: the number of files, including the current one; at least 1.
    """

    file_bytes: int = 0
    files: int = 1


def open_log(path: str) -> int:
    """Open the current file for appending."""
    return os.open(path, _FLAGS, 0o600)


def rotate(path: str, files: int) -> None:
    """Free the name ``path`` for a new file, and drop the oldest file; never fails."""
    with suppress(OSError):
        if files == 1:
            os.unlink(path)
            return
    for number in range(files - 1, 0, -1):
        with suppress(OSError):  # fewer there, or the container is being removed
            os.rename(_name(path, number - 1), _name(path, number))


def open_newer(path: Path, known: tuple[int, int] | None) -> list[BinaryIO]:
    """Open the files that are newer than a known one; return them oldest first.

    Files are opened from the newest on.  A file only moves to higher numbers, so a concurrent rotation may show a file
    twice but hides none.

    Args:
        known: device and inode of a file that the caller has open.  If that file has been dropped, all files are newer.
    """
    found: dict[tuple[int, int], BinaryIO] = {}
    number = vacant = 0
    while vacant < 2:
        try:
            file = open(_name(str(path), number), "rb")  # noqa: SIM115 - the caller closes it
        except FileNotFoundError:
            vacant += 1
        else:
            vacant = 0
            identity = file_identity(file)
            if identity == known:
                file.close()
                break
            seen_before = found.pop(identity, None)
            if seen_before is not None:
                seen_before.close()
            found[identity] = file
        number += 1
    return list(found.values())[::-1]


def file_identity(file: BinaryIO) -> tuple[int, int]:
    """Return the device and inode of an open file."""
    status = os.fstat(file.fileno())
    return status.st_dev, status.st_ino


def _name(path: str, number: int) -> str:
    return f"{path}.{number}" if number else path
