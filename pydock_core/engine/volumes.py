"""Volumes: directories that outlive containers, named or anonymous."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from pydock_core.errors import FailedError
from pydock_core.oci.root_mount import RootMount
from pydock_core.paths import StateRoot
from pydock_core.private_files import make_directories
from pydock_core.spec.definition import CreateRequest, Definition
from pydock_core.spec.mount import Mount, read_mounts
from pydock_core.supervision.client import Zygote


def name_volumes(request: CreateRequest) -> tuple[Definition, dict[str, bool]]:
    """Give each anonymous volume a name; return the definition, and whether each volume is anonymous, by name."""
    anonymous: dict[str, str] = {}
    used: dict[str, bool] = {}
    for mount in read_mounts(request, {}):
        if mount.kind == "volume":
            name = mount.source or anonymous.setdefault(mount.target, os.urandom(32).hex())
            used[name] = not mount.source
    return Definition(request, anonymous), used


def volume_directory(root: StateRoot, name: str) -> Path:
    """Return the directory of a volume's files."""
    return root.volumes / name / "_data"


def fill_new_volumes(
    root: StateRoot, mounts: Iterable[Mount], image_mounts: Callable[[], Sequence[RootMount]]
) -> None:
    """Make the directories of a container's volumes; a new one gets the image's files at its target.

    The filled directory appears by a rename; of two simultaneous starts one wins, and both use the same directory.
    """
    from pydock_core.store.workspace import open_workspace  # late: most containers have no new volume

    worker = Zygote(root)  # for root too: a mount namespace needs a process of its own

    def remove(path: Path) -> None:
        worker.call("pydock_core.store.trees:remove_tree", {"path": str(path)})

    for mount in mounts:
        if mount.kind != "volume" or volume_directory(root, mount.source).exists():
            continue
        with open_workspace(root.temporary, "volume", remove) as workspace:
            data, point = workspace.path / "volume" / "_data", workspace.path / "root"
            make_directories(data)
            # The container sees this mode if the image has nothing there, so it is independent of the umask.
            data.chmod(0o755)
            point.mkdir(mode=0o700)
            if not mount.no_copy:
                arguments = {
                    "root_mounts": [asdict(layer) for layer in image_mounts()],
                    "mount_point": str(point),
                    "target": mount.target,
                    "volume": str(data),
                }
                # With the lock's descriptor: a worker that outlives this process keeps its directory from sweepers.
                worker.call("pydock_core.store.volumes:fill_volume", arguments, [workspace.lock_fd])
            with suppress(OSError):  # another start was first, or the look below says so
                os.rename(data.parent, root.volumes / mount.source)
        if not volume_directory(root, mount.source).is_dir():
            raise FailedError(f"cannot make volume {mount.source}", "check the free space (dock doctor)")
