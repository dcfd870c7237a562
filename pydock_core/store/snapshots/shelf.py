"""A driver's directory of entries; each appears and disappears by one rename.

It is ``StateRoot.layers/DRIVER``, with mode 0700, because a layer contains set-user-id programs and device nodes that no
other user of the host may reach::

    HEX/            a layer, by its diff id; the driver defines its contents, except
    HEX/layer.json  {"size_bytes", "entries", "opaque_root", ...}, which is written last
    empty/          the bottom of an image without layers

A driver may have entries with other names beside them.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pydock_core.errors import CorruptError, NotFoundError
from pydock_core.oci.digest import HEX_LENGTH, digest_hex
from pydock_core.paths import StateRoot
from pydock_core.store.durable import mapped, sync
from pydock_core.store.trees import discard
from pydock_core.store.worker import Worker
from pydock_core.store.workspace import open_workspace, spread_directories

METADATA = "layer.json"
_EMPTY = "empty"
_REMOVE = "pydock_core.store.trees:remove_tree"


@dataclass(frozen=True, slots=True)
class Made:
    """An entry that is being made.

    Attributes:
        path: an empty directory, mode 0700.
        lock_fd: held by a worker, it protects the directory from sweepers even after this process has ended.
    """

    path: Path
    lock_fd: int


class Shelf:
    """The entries of one driver.

    Args:
        root: the state root, with its skeleton made.
        driver: its name.
        worker: removes trees.

    Attributes:
        base: the directory.
    """

    def __init__(self, root: StateRoot, driver: str, worker: Worker) -> None:
        self.base = root.layers / driver
        self._temporary = root.temporary
        self._trash = root.trash
        self._worker = worker
        self._known: dict[str, dict[str, Any]] = {}
        self.base.mkdir(mode=0o700, exist_ok=True)
        spread_directories(root.temporary)

    def place(self, diff_id: str) -> Path:
        """Return a layer's path, existing or not."""
        return self.base / digest_hex(diff_id)

    def has(self, diff_id: str) -> bool:
        """Whether a layer exists."""
        return self.place(diff_id).is_dir()

    def diff_ids(self) -> list[str]:
        """Return all existing layers, in no particular order."""
        return [f"sha256:{entry.name}" for entry in os.scandir(self.base) if len(entry.name) == HEX_LENGTH]

    def metadata(self, diff_id: str) -> dict[str, Any]:
        """Return a layer's layer.json.

        Raises:
            NotFoundError: the layer is missing.
            CorruptError: the file is damaged.
        """
        path = self.place(diff_id) / METADATA
        known = self._known.get(diff_id)
        if known is not None and path.exists():
            return known
        try:
            with open(path, "rb") as file:
                found = cast("dict[str, Any]", json.load(file))
        except FileNotFoundError as error:
            raise missing(diff_id) from error
        except ValueError as error:
            raise CorruptError(
                f"layer {diff_id} is damaged: {path} is not valid JSON", "remove the image and load it again"
            ) from error
        self._known[diff_id] = found
        return found

    def empty(self) -> str:
        """Return an empty directory: the bottom of an image without layers."""
        path = self.base / _EMPTY
        path.mkdir(mode=0o755, exist_ok=True)
        return str(path)

    @contextlib.contextmanager
    def making(self, place: Path, subject: str) -> Iterator[Made]:
        """Yield a directory for a new entry; at the end sync it and rename it into place, or on an error remove it.

        If another process has made the entry in the meantime, from the same bytes, that one stays.

        Args:
            place: a direct child of ``base``.
            subject: names the entry in messages.

        Raises:
            UnavailableError: the disk is full.
            FailedError: another system error.
        """
        with open_workspace(self._temporary, "layer", self._remove_tree) as workspace:
            made = workspace.path / "layer"
            with mapped(subject, "make", "see dock doctor"):
                made.mkdir(mode=0o700)
                yield Made(made, workspace.lock_fd)
                with contextlib.suppress(FileExistsError):
                    _rename(made, place)
        sync(self.base)

    def discard(self, place: Path) -> None:
        """Remove an entry atomically; ignore a missing one."""
        discard(place, self._trash, f"layer-{place.name[-HEX_LENGTH:][:12]}", self._remove_tree)

    def _remove_tree(self, path: Path) -> None:
        self._worker.call(_REMOVE, {"path": str(path)})


def missing(diff_id: str) -> NotFoundError:
    """Return the error for a missing layer."""
    return NotFoundError(f"layer {diff_id} is not in the store", "load, capture or pull the image again")


def _rename(source: Path, target: Path) -> None:
    """Rename a directory; raise FileExistsError if the target exists, which rename(2) reports as ENOTEMPTY or EEXIST."""
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno == errno.ENOTEMPTY:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from error
        raise
