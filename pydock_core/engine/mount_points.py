"""A layer below all others with what every container gets something mounted on.

An image that lacks these files (most do) would otherwise have them made in each container's writable layer, and removed
with it: that costs time, and they would be in what is committed.  Docker's "init" layer is there for the same reason.
"""

from __future__ import annotations

import errno
from pathlib import Path

from pydock_core.paths import StateRoot

OWN_FILES = {"/etc/hostname": "hostname", "/etc/hosts": "hosts", "/etc/resolv.conf": "resolv.conf"}
"""Files that the host gives every container: path there, and name in the container's directory."""

_DIRECTORIES = ("dev", "etc", "proc", "sys")


def make_layer(root: StateRoot) -> Path:
    """Make the layer's tree where it is missing (several processes may); return it."""
    base = root.cache / "mount-points"
    if base.is_dir():
        return base
    from pydock_core.store.trees import remove_tree  # late: once in a state root's life
    from pydock_core.store.workspace import open_workspace

    with open_workspace(root.temporary, "mount-points", lambda path: remove_tree(str(path))) as workspace:
        tree = workspace.path / "tree"
        for name in _DIRECTORIES:
            (tree / name).mkdir(parents=True)
        # The modes are said, as containers and exports show them, whatever the umask of who made them first.
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
