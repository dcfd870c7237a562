"""Parses the mount options of an OCI ``mounts`` entry into arguments of the kernel's mount calls.  Pure.

The words are those of the runtime specification (config.md, "Linux mount options") and of mount(8).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydock_core import syscalls
from pydock_core.errors import InvalidError, UnsupportedError

_ATIME = syscalls.MOUNT_ATTR__ATIME
# option: (attributes to set, attributes to clear)
_ATTRIBUTES: dict[str, tuple[int, int]] = {
    "ro": (syscalls.MOUNT_ATTR_RDONLY, 0),
    "rw": (0, syscalls.MOUNT_ATTR_RDONLY),
    "nosuid": (syscalls.MOUNT_ATTR_NOSUID, 0),
    "suid": (0, syscalls.MOUNT_ATTR_NOSUID),
    "nodev": (syscalls.MOUNT_ATTR_NODEV, 0),
    "dev": (0, syscalls.MOUNT_ATTR_NODEV),
    "noexec": (syscalls.MOUNT_ATTR_NOEXEC, 0),
    "exec": (0, syscalls.MOUNT_ATTR_NOEXEC),
    "nodiratime": (syscalls.MOUNT_ATTR_NODIRATIME, 0),
    "diratime": (0, syscalls.MOUNT_ATTR_NODIRATIME),
    "relatime": (syscalls.MOUNT_ATTR_RELATIME, _ATIME),
    "norelatime": (syscalls.MOUNT_ATTR_STRICTATIME, _ATIME),
    "noatime": (syscalls.MOUNT_ATTR_NOATIME, _ATIME),
    "atime": (syscalls.MOUNT_ATTR_RELATIME, _ATIME),
    "strictatime": (syscalls.MOUNT_ATTR_STRICTATIME, _ATIME),
    "nostrictatime": (syscalls.MOUNT_ATTR_RELATIME, _ATIME),
    "nosymfollow": (syscalls.MOUNT_ATTR_NOSYMFOLLOW, 0),
    "symfollow": (0, syscalls.MOUNT_ATTR_NOSYMFOLLOW),
}
PROPAGATION: dict[str, tuple[int, bool]] = {
    "private": (syscalls.MS_PRIVATE, False),
    "rprivate": (syscalls.MS_PRIVATE, True),
    "slave": (syscalls.MS_SLAVE, False),
    "rslave": (syscalls.MS_SLAVE, True),
    "shared": (syscalls.MS_SHARED, False),
    "rshared": (syscalls.MS_SHARED, True),
    "unbindable": (syscalls.MS_UNBINDABLE, False),
    "runbindable": (syscalls.MS_UNBINDABLE, True),
}
_SUPERBLOCK_FLAGS = frozenset({"sync", "async", "dirsync", "lazytime", "nolazytime", "mand", "nomand"})
_WITHOUT_EFFECT = frozenset({"defaults", "silent", "loud"})
_REFUSED = {
    "idmap": "give the files the right owner instead",
    "ridmap": "give the files the right owner instead",
    "tmpcopyup": "copy the files into the mount after the start",
    "remount": "give the options to the first mount",
}


@dataclass(frozen=True, slots=True)
class MountPlan:
    """One mount of a container.

    Attributes:
        destination: absolute path in the container.
        kind: filesystem type; "bind" for both sorts of bind mount.
        source: host path or device; may be relative to the bundle.
        recursive_bind: the source's submounts come along (rbind).
        attributes_set, attributes_clear: MOUNT_ATTR_* of the mount itself.
        tree_set, tree_clear: the same for the mount and all mounts below it (rro and similar options).
        propagation: pairs of MS_* and whether it is recursive, in the given order.
        data: parameters of the filesystem; the value is None for a parameter without one.
    """

    destination: str
    kind: str
    source: str
    recursive_bind: bool
    attributes_set: int
    attributes_clear: int
    tree_set: int
    tree_clear: int
    propagation: tuple[tuple[int, bool], ...]
    data: tuple[tuple[str, str | None], ...]

    @property
    def is_bind(self) -> bool:
        return self.kind == "bind"


def parse_mount(entry: Mapping[str, Any]) -> MountPlan:
    """Read an OCI ``mounts`` entry.

    Raises:
        InvalidError: the destination is not absolute, or a bind mount has a filesystem option.
        UnsupportedError: an option is not supported; the message names it.
    """
    destination = str(entry.get("destination") or "")
    if not destination.startswith("/"):
        raise InvalidError(f"mount target {destination or '(none)'} is not an absolute path in the container")
    if entry.get("uidMappings") or entry.get("gidMappings"):
        raise UnsupportedError(f"mount {destination}: id-mapped mounts are not supported", _REFUSED["idmap"])
    kind = str(entry.get("type") or "")
    options: list[str] = list(entry.get("options") or ())
    if kind == "none" or "bind" in options or "rbind" in options:
        kind = "bind"
    if not kind:
        raise InvalidError(f"mount {destination} has no type")
    once, tree = _Attributes(), _Attributes()
    propagation: list[tuple[int, bool]] = []
    data: list[tuple[str, str | None]] = []
    for option in options:
        if option in ("bind", "rbind") or option in _WITHOUT_EFFECT:
            continue
        if option in _REFUSED:
            raise UnsupportedError(f"mount {destination}: option {option} is not supported", _REFUSED[option])
        if option in PROPAGATION:
            propagation.append(PROPAGATION[option])
        elif option in _ATTRIBUTES:
            once.add(option)
        elif option.startswith("r") and option[1:] in _ATTRIBUTES:
            tree.add(option[1:])
        elif option in _SUPERBLOCK_FLAGS:
            data.append((option, None))
        else:
            key, separator, value = option.partition("=")
            data.append((key, value if separator else None))
    if kind == "bind" and data:
        raise InvalidError(f"mount {destination}: a bind mount has no option {data[0][0]}")
    return MountPlan(
        destination=destination,
        kind=kind,
        source=str(entry.get("source") or ""),
        recursive_bind="rbind" in options,
        attributes_set=once.set,
        attributes_clear=once.clear,
        tree_set=tree.set,
        tree_clear=tree.clear,
        propagation=tuple(propagation),
        data=tuple(data),
    )


def parse_mounts(entries: Iterable[Mapping[str, Any]]) -> list[MountPlan]:
    """Read the ``mounts`` of a configuration, in their order, which is the order of mounting."""
    return [parse_mount(entry) for entry in entries]


class _Attributes:
    """Attributes collected from option words; the last of contradicting ones wins."""

    def __init__(self) -> None:
        self.set = 0
        self.clear = 0

    def add(self, option: str) -> None:
        to_set, to_clear = _ATTRIBUTES[option]
        self.set = self.set & ~to_clear | to_set
        # The kernel requires the whole multi-bit field to be cleared when one of its values is set.
        self.clear = (self.clear & ~to_set) | to_clear
