"""A layer below all others with what every container gets something mounted on.

An image that lacks these files (most do) would otherwise have them made in each container's writable layer, and removed
with it: that costs time, and they would be in what is committed.  Docker's "init" layer is there for the same reason.
"""

from __future__ import annotations

from contextlib import suppress
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
    import tempfile  # late: once in a state root's life

    with tempfile.TemporaryDirectory(dir=root.temporary) as scratch:
        tree = Path(scratch, "tree")
        for name in _DIRECTORIES:
            (tree / name).mkdir(parents=True)
        for path in OWN_FILES:
            (tree / path.lstrip("/")).touch()
        for directory in (tree, *tree.iterdir()):
            directory.chmod(0o755)
        with suppress(FileExistsError):  # another process was first
            tree.rename(base)
    return base
