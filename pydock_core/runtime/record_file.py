"""Writes small files atomically, and reads small JSON records."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydock_core.errors import CorruptError

_HINT = "dock system check --repair removes a container's damaged record"


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write a small JSON record with :func:`write_whole`."""
    write_whole(path, json.dumps(document).encode())


def write_whole(path: Path, payload: bytes) -> None:
    """Write a small file under a temporary name, with mode 0600, and rename it.

    A reader sees either the old contents or the new ones.
    """
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        # System calls, not a text stream: in a supervisor, every layer of code copies pages.
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            written = 0
            while written < len(payload):
                written += os.write(fd, payload[written:])
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def read_file(path: str | Path) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        pieces = []
        while piece := os.read(fd, 65536):
            pieces.append(piece)
        return b"".join(pieces)
    finally:
        os.close(fd)


def read_json(path: Path) -> dict[str, Any] | None:
    """Read a small record; return None if it is missing.

    Raises:
        CorruptError: the file is not a JSON object.
    """
    try:
        document = json.loads(read_file(path))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise CorruptError(f"the record {path} is not valid JSON", _HINT) from error
    if not isinstance(document, dict):
        raise CorruptError(f"the record {path} is not a JSON object", _HINT)
    return document
