"""Removes a volume's row and files, so that a kill at any moment loses neither without the other.

A rename moves the files away within the transaction that deletes the row.  A process that is killed between the two leaves
a recorded volume whose files are in the trash under its name; :func:`restore_volume` puts them back.
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
_SEPARATOR = ":"  # not allowed in a volume's name


def remove_volume(
    root: StateRoot, database: Database, name: str, remove: Callable[[Path], None], *, durable: bool = True
) -> bool:
    """Remove an unused volume.

    Args:
        remove: removes a tree.
        durable: keep the row from returning after a crash of the machine.

    Returns:
        Whether it was removed; False if a container uses it or it does not exist.
    """
    aside = root.trash / _SEPARATOR.join((_PREFIX, name, secrets.token_hex(4)))

    def put_away() -> None:
        with contextlib.suppress(FileNotFoundError):  # a container's first start makes it
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
    """Return the volume's name of a trash entry; "" if the entry does not belong to a volume."""
    prefix, _, rest = aside.name.partition(_SEPARATOR)
    return rest.rpartition(_SEPARATOR)[0] if prefix == _PREFIX else ""


def restore_volume(root: StateRoot, database: Database, aside: Path) -> bool:
    """Restore a volume's files from the trash if the volume is still recorded.

    Args:
        aside: an entry of the trash.

    Returns:
        Whether the entry belonged to a recorded volume and was restored.
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
    """Restore the files of one volume that a killed removal has left in the trash."""
    with contextlib.suppress(FileNotFoundError):
        for entry in os.listdir(root.trash):
            if entry.startswith(f"{_PREFIX}{_SEPARATOR}{name}{_SEPARATOR}"):
                restore_volume(root, database, root.trash / entry)
