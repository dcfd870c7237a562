"""Container edits: the changes to a container that a device needs.  Pure data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DeviceNodeEdit:
    """A device node.

    Attributes:
        path: path in the container.
        host_path: path on the host.
        kind: "b", "c", "u" or "p"; empty to take the host node's.
        major, minor: device numbers; zeros to take the host node's.
        mode: permission bits; None to take the host node's.
        access: the accesses that the device control group allows, out of "rwm"; may be empty.
        uid, gid: owner in the container; None for the container's user.
    """

    path: str
    host_path: str
    kind: str = ""
    major: int = 0
    minor: int = 0
    mode: int | None = None
    access: str = "rwm"
    uid: int | None = None
    gid: int | None = None


@dataclass(frozen=True, slots=True)
class MountEdit:
    """A mount: host path, path in the container, type and options of the OCI mount."""

    source: str
    target: str
    kind: str = ""
    options: tuple[str, ...] = ()

    @property
    def is_bind(self) -> bool:
        """Whether the source is a path of the host."""
        return self.kind in ("", "none", "bind") or bool({"bind", "rbind"} & set(self.options))


@dataclass(frozen=True, slots=True)
class HookEdit:
    """An OCI hook; ``step`` is createRuntime, createContainer, ..."""

    step: str
    path: str
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    timeout_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class ContainerEdits:
    """The edits of a device, of a specification, or of a whole container.

    Attributes:
        env: NAME=VALUE.
        unsupported: requested fields that PyDock does not support.
    """

    env: tuple[str, ...] = ()
    device_nodes: tuple[DeviceNodeEdit, ...] = ()
    mounts: tuple[MountEdit, ...] = ()
    hooks: tuple[HookEdit, ...] = ()
    additional_gids: tuple[int, ...] = ()
    unsupported: tuple[str, ...] = ()


def merge_edits(parts: Iterable[ContainerEdits]) -> ContainerEdits:
    """Merge edits.  If two nodes or two mounts have the same path in the container, the later one wins."""
    env: list[str] = []
    nodes: dict[str, DeviceNodeEdit] = {}
    mounts: dict[str, MountEdit] = {}
    hooks: list[HookEdit] = []
    gids: dict[int, None] = {}
    unsupported: dict[str, None] = {}
    for part in parts:
        env += part.env
        for node in part.device_nodes:
            nodes.pop(node.path, None)
            nodes[node.path] = node
        for mount in part.mounts:
            mounts.pop(mount.target, None)
            mounts[mount.target] = mount
        hooks += [hook for hook in part.hooks if hook not in hooks]
        gids |= dict.fromkeys(gid for gid in part.additional_gids if gid)  # 0 is ignored: SPEC.md
        unsupported |= dict.fromkeys(part.unsupported)
    return ContainerEdits(
        tuple(env),
        tuple(nodes.values()),
        tuple(mounts.values()),
        tuple(hooks),
        tuple(gids),
        tuple(unsupported),
    )


@dataclass(frozen=True, slots=True)
class CdiSpec:
    """A CDI specification.

    Attributes:
        kind: "vendor.com/class".
        edits: edits of every container with one of the devices.
        devices: edits by device name.
        origin: path of the file; empty if derived from the host's driver.
    """

    kind: str
    devices: dict[str, ContainerEdits]
    edits: ContainerEdits = ContainerEdits()
    origin: str = ""
