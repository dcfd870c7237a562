"""Removes a volume's row and files, so that a kill at any moment loses neither without the other.

The files are put aside by a rename within the transaction that forgets the row.  A process that is killed between the two
leaves a recorded volume whose files are in the trash under its name; :func:`restore_volume` puts them back.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from pydock_core.paths import StateRoot
from pydock_core.store.database import Database
from pydock_core.store.database import volumes as table
from pydock_core.store.removal_lock import hold_removal_lock

_PREFIX = "volume"
_SEPARATOR = ":"  # no volume's name has it


def remove_volume(
    root: StateRoot, database: Database, name: str, remove: Callable[[Path], None], *, durable: bool = True
) -> bool:
    """Remove a volume that no container has.

    Args:
        remove: removes a tree.
        durable: the row does not come back after a crash of the machine.

    Returns:
        whether it was removed: False if a container has it, or there is none.
    """
    aside = root.trash / _SEPARATOR.join((_PREFIX, name, secrets.token_hex(4)))

    def put_away() -> None:
        with contextlib.suppress(FileNotFoundError):  # it is made when a container starts
            os.rename(root.volumes / name, aside)

    with hold_removal_lock(root.trash):
        if not table.delete_unused(database, name, put_away, durable=durable):
            return False
        remove(aside)
    records = root.run / "v" / name
    if records.exists():  # of a file system in memory: small files of our own
        from pydock_core.store.trees import remove_tree

        remove_tree(str(records))
    return True


def volume_of(aside: Path) -> str:
    """Return the name of the volume whose files an entry of the trash is; "" for another entry."""
    prefix, _, rest = aside.name.partition(_SEPARATOR)
    return rest.rpartition(_SEPARATOR)[0] if prefix == _PREFIX else ""


def restore_volume(root: StateRoot, database: Database, aside: Path) -> bool:
    """Put a volume's files back out of the trash if the volume is still recorded.

    Args:
        aside: an entry of the trash.

    Returns:
        whether the entry is a recorded volume's, and was put back.
    """
    name = volume_of(aside)
    if not name:
        return False
    restored = False

    def put_back() -> None:
        nonlocal restored
        if not (root.volumes / name).exists():
            with contextlib.suppress(FileNotFoundError):  # another sweeper was first
                os.rename(aside, root.volumes / name)
                restored = True

    table.if_recorded(database, name, put_back)
    return restored


def restore_missing_volume(root: StateRoot, database: Database, name: str) -> None:
    """Put the files of one volume back if a killed removal has left them in the trash."""
    with contextlib.suppress(FileNotFoundError):
        for entry in os.listdir(root.trash):
            if entry.startswith(f"{_PREFIX}{_SEPARATOR}{name}{_SEPARATOR}"):
                restore_volume(root, database, root.trash / entry)
