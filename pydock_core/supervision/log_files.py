"""The files of a container's log: the one being written, and the older ones that rotation keeps.

``log.json`` is being written; ``log.json.1`` is the newest of the older ones, as Docker's json-file driver names them.
Rotation only renames: a file moves from number to number, nothing is written twice, and after a crash at any step
every entry is in one file.  At most one number is vacant at any moment.
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
        file_bytes: above this a file is not appended to, unless it is empty; 0 for no limit.
        files: how many are kept, the one being written included; at least 1.
    """

    file_bytes: int = 0
    files: int = 1


def open_log(path: str) -> int:
    """Open the file that is written, for appending."""
    return os.open(path, _FLAGS, 0o600)


def rotate(path: str, files: int) -> None:
    """Make way for a new file at ``path``.  Never fails; the oldest file is gone afterwards."""
    with suppress(OSError):
        if files == 1:
            os.unlink(path)
            return
    for number in range(files - 1, 0, -1):
        with suppress(OSError):  # fewer there, or the container is being removed
            os.rename(_name(path, number - 1), _name(path, number))


def open_newer(path: Path, known: tuple[int, int] | None) -> list[BinaryIO]:
    """Open the files that are newer than a known one, oldest first.

    They are opened from the newest on.  A file moves to higher numbers only, so rotations meanwhile show one again but
    hide none; where it is seen last, those between have been seen before it.

    Args:
        known: device and inode of a file that the caller has open; all files are newer than one that is gone.
    """
    found: dict[tuple[int, int], BinaryIO] = {}
    number = vacant = 0
    while vacant < 2:
        try:
            file = open(_name(str(path), number), "rb")  # noqa: SIM115 - the caller's to close
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
    """Device and inode of an open file."""
    status = os.fstat(file.fileno())
    return status.st_dev, status.st_ino


def _name(path: str, number: int) -> str:
    return f"{path}.{number}" if number else path
