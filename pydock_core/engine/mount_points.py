"""The bottom layer: empty mount points (Docker's init layer).

If an image lacks these files (most do), they would be created in each container's writable layer and removed with it,
which costs time, and a commit would include them.  Docker's "init" layer serves the same purpose.
"""

from __future__ import annotations

import errno
from pathlib import Path

from pydock_core.paths import StateRoot

OWN_FILES = {"/etc/hostname": "hostname", "/etc/hosts": "hosts", "/etc/resolv.conf": "resolv.conf"}
"""Files that every container gets from the host: path in the container, and name in the container's directory."""

_DIRECTORIES = ("dev", "etc", "proc", "sys")


def make_layer(root: StateRoot) -> Path:
    """Create the layer's tree if it is missing (several processes may at once); return it."""
    base = root.cache / "mount-points"
    if base.is_dir():
        return base
    from pydock_core.store.trees import remove_tree  # late: once in a state root's life
    from pydock_core.store.workspace import open_workspace

    with open_workspace(root.temporary, "mount-points", lambda path: remove_tree(str(path))) as workspace:
        tree = workspace.path / "tree"
        for name in _DIRECTORIES:
            (tree / name).mkdir(parents=True)
        # Containers and exports show these modes: they must not depend on the umask of the first process.
        for directory in (tree, *tree.iterdir()):
            directory.chmod(0o755)
        for path in OWN_FILES:
            file = tree / path.lstrip("/")
            file.touch()
            file.chmod(0o644)
        try:
            tree.rename(base)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
            # Another process was first.
    return base
