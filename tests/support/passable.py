"""Lets other users reach a temporary directory of pytest's, which is below directories of mode 0700."""

from __future__ import annotations

import tempfile
from pathlib import Path


def make_passable(path: Path) -> None:
    """Let every user enter ``path`` by name, and the directories above it as far as pytest made them."""
    top = Path(tempfile.gettempdir()).resolve()
    path = path.resolve()
    while path not in (top, path.parent):
        path.chmod(0o711)
        path = path.parent
