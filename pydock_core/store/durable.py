"""Files and names that are on disk when a function returns."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from pydock_core.private_files import open_private


def sync(path: Path) -> None:
    """Bring a file, or the names in a directory, to disk."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write a new file, on disk when it returns."""
    with open(path, "w", encoding="utf-8", opener=open_private) as file:
        json.dump(document, file)
        file.flush()
        os.fsync(file.fileno())
