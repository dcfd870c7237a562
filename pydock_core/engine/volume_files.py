"""The files of volumes: their names, their directories, and copies of the image's files for empty volumes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydock_core.errors import FailedError, NotFoundError
from pydock_core.oci.root_mount import RootMount
from pydock_core.paths import StateRoot
from pydock_core.private_files import make_directories
from pydock_core.spec.definition import CreateRequest, Definition
from pydock_core.spec.mount import Mount, read_mounts
from pydock_core.store.database import Database
from pydock_core.store.database.containers import Uses
from pydock_core.store.database.volumes import NewVolume, if_recorded
from pydock_core.store.worker import LocalWorker, Worker
from pydock_core.supervision.client import Zygote

if TYPE_CHECKING:
    from pydock_core.store.workspace import Workspace

_DATA = "_data"
_FILL = "fill"
"""The directory beside a volume's files with the image's files to move there."""
_DIRECTORY_MODE = 0o755
"""The mode of a new volume, regardless of the umask."""


def no_image(reference: str) -> str:
    """Refuse image mounts, for a request without any."""
    raise AssertionError(f"image mount {reference}")


def name_volumes(
    request: CreateRequest,
    inherited: Sequence[Mapping[str, Any]] = (),
    find_image: Callable[[str], str] = no_image,
) -> tuple[Definition, Uses]:
    """Give each anonymous volume a name and each mounted image its id.

    Args:
        inherited: the mounts of VolumesFrom.
        find_image: returns the id of an image.

    Returns:
        The definition, and the objects that the container uses.
    """
    chosen: dict[str, str] = {}
    volumes: dict[str, NewVolume] = {}
    unnamed: set[str] = set()
    targets: dict[str, list[tuple[str, bool]]] = {}
    images: set[str] = set()
    for mount in read_mounts(request, {}, inherited):
        if mount.kind == "image":
            chosen[mount.target] = find_image(mount.source)
            images.add(chosen[mount.target])
        elif mount.kind == "volume":
            name = mount.source or chosen.setdefault(mount.target, os.urandom(32).hex())
            is_new = NewVolume(not mount.source, dict(mount.labels), dict(mount.volume_options))
            volumes.setdefault(name, is_new)
            targets.setdefault(name, []).append((mount.target, not mount.read_only))
            if mount.unnamed:
                unnamed.add(name)
    definition = Definition(request, chosen, [dict(mount) for mount in inherited])
    return definition, Uses(volumes, frozenset(unnamed), targets, frozenset(images))


def volume_directory(root: StateRoot, name: str) -> Path:
    """Return the directory of a volume's files."""
    return root.volumes / name / _DATA


def make_directory(root: StateRoot, database: Database, name: str) -> None:
    """Make the directory of a volume's files by a rename if it is missing.

    Raises:
        FailedError: it cannot be made.
        NotFoundError: the volume has been removed.
    """
    if volume_directory(root, name).exists():
        return
    with _opened_workspace(root, LocalWorker()) as workspace:
        _place_new(root, database, name, _make_data(workspace.path / "volume"))


def fill_volumes(
    root: StateRoot,
    database: Database,
    mounts: Iterable[Mount],
    image_mounts: Callable[[], Sequence[RootMount]],
    *,
    is_first_start: bool,
) -> None:
    """Make the missing directories of a container's volumes, and at its first start fill empty volumes.

    A volume gets the image's files at its target, as in Docker.  A rename puts the filled directory of a new volume in place.
    The files for an existing empty volume are renamed to a directory beside it (``fill``) and then moved one by one; the
    next process to find them there continues.  So a kill loses no file, and running containers see the files.

    Args:
        mounts: the container's mounts; those other than plain volumes are skipped.
        image_mounts: returns the mounts of the image's file system, read-only.
        is_first_start: whether the container has never been started.
    """
    for mount in mounts:
        if mount.kind != "volume":
            continue
        directory = volume_directory(root, mount.source)
        if not directory.exists():
            _make_filled(root, database, mount, image_mounts)
        elif (directory.parent / _FILL).exists():
            _settle(root, mount.source)
        elif is_first_start and not mount.no_copy and not mount.subpath and _may_be_empty(directory):
            _fill_empty(root, mount, image_mounts)


def _make_filled(
    root: StateRoot, database: Database, mount: Mount, image_mounts: Callable[[], Sequence[RootMount]]
) -> None:
    from pydock_core.store.volume_removal import (
        restore_missing_volume,
    )  # late: few containers have a new volume

    restore_missing_volume(root, database, mount.source)
    if volume_directory(root, mount.source).exists():
        return
    with _opened_workspace(root, Zygote(root)) as workspace:
        data = _make_data(workspace.path / "volume")
        if not mount.no_copy and not mount.subpath:
            _copy_image(root, workspace, mount, data, image_mounts)
        _place_new(root, database, mount.source, data)


def _fill_empty(root: StateRoot, mount: Mount, image_mounts: Callable[[], Sequence[RootMount]]) -> None:
    with _opened_workspace(root, Zygote(root)) as workspace:
        data = _make_data(workspace.path / _FILL)
        if _copy_image(root, workspace, mount, data, image_mounts):
            with suppress(OSError):  # another start was first
                os.rename(data.parent, root.volumes / mount.source / _FILL)
    if (root.volumes / mount.source / _FILL).exists():
        _settle(root, mount.source)


def _settle(root: StateRoot, name: str) -> None:
    """Move the files beside a volume into it if it is empty or half filled."""
    directory = root.volumes / name
    arguments = {"fill": str(directory / _FILL), "source": _DATA, "volume": str(directory / _DATA)}
    Zygote(root).call("pydock_core.store.volumes:settle_volume", arguments)


def _may_be_empty(directory: Path) -> bool:
    try:
        with os.scandir(directory) as entries:
            return next(entries, None) is None
    except PermissionError:  # a subordinate id owns it, so a container has used it
        return False


def _make_data(parent: Path) -> Path:
    data = parent / _DATA
    make_directories(data)
    data.chmod(_DIRECTORY_MODE)
    return data


def _place_new(root: StateRoot, database: Database, name: str, data: Path) -> None:
    """Rename a new volume into place; of two concurrent starts one wins, and both use its volume."""

    def place() -> None:
        with suppress(OSError):  # another start was first, or the check below fails
            os.rename(data.parent, root.volumes / name)

    if not if_recorded(database, name, place):
        raise NotFoundError(
            f"no such volume: {name}", "it was removed just now; create it again", exit_code=125
        )
    if not volume_directory(root, name).is_dir():
        raise FailedError(f"volume {name} could not be made", "check the free space (dock doctor)")


def _copy_image(
    root: StateRoot,
    workspace: Workspace,
    mount: Mount,
    data: Path,
    image_mounts: Callable[[], Sequence[RootMount]],
) -> bool:
    """Copy the image's files at a mount's target; return whether there are any."""
    point = workspace.path / "root"
    point.mkdir(mode=0o700)
    arguments = {
        "root_mounts": [asdict(layer) for layer in image_mounts()],
        "mount_point": str(point),
        "target": mount.target,
        "volume": str(data),
    }
    # For root too: only a separate process may make a mount namespace.  With the lock's descriptor, a worker that
    # outlives this process protects its directory from sweepers.
    worker = Zygote(root)
    return bool(worker.call("pydock_core.store.volumes:fill_volume", arguments, [workspace.lock_fd]))


@contextmanager
def _opened_workspace(root: StateRoot, worker: Worker) -> Iterator[Workspace]:
    from pydock_core.store.workspace import open_workspace  # late: most containers have no new volume

    def remove(path: Path) -> None:
        worker.call("pydock_core.store.trees:remove_tree", {"path": str(path)})

    with open_workspace(root.temporary, "volume", remove) as workspace:
        yield workspace
