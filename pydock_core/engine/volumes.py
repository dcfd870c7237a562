"""Volumes: directories that outlive containers, named or anonymous."""

from __future__ import annotations

import secrets
from dataclasses import replace
from pathlib import Path

from pydock_core.engine.config import ContainerConfig
from pydock_core.paths import StateRoot


def name_volumes(definition: ContainerConfig) -> tuple[ContainerConfig, dict[str, bool]]:
    """Give each anonymous volume a name; return the definition, and of each volume whether it is anonymous.  Pure but for chance."""
    used: dict[str, bool] = {}
    mounts = []
    for mount in definition.mounts:
        if mount.kind != "volume":
            mounts.append(mount)
            continue
        name = mount.source or secrets.token_hex(32)
        used[name] = not mount.source
        mounts.append(replace(mount, source=name))
    return replace(definition, mounts=tuple(mounts)), used


def volume_directory(root: StateRoot, name: str) -> Path:
    """Where a volume's files are."""
    return root.volumes / name / "_data"
