"""Detaches the mounts of a container at its end."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from pydock_core import syscalls


def unmount_all(paths: Sequence[Path]) -> None:
    """Detach mounts at once, the last one first; ignore what is not mounted.

    The container's next start must not find the overlay's directories in use.
    """
    for path in reversed(paths):
        with suppress(OSError):
            syscalls.umount(str(path), syscalls.MNT_DETACH)
