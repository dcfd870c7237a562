"""The mounts of a container's root filesystem, as data (containerd's Mount): pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class RootMount:
    """One of the mounts of a container's root filesystem.

    Attributes:
        kind: "overlay", "bind", or "erofs": layers mounted on their own directory, ``target``, for a following mount.
        source: host path, for "bind"; of the index, for "erofs"; empty for "overlay".
        lower: lower directories of an overlay, top layer first (absolute host paths).
        upper, work: the overlay's upper and work directories; both empty for a read-only mount.
        options: further options, as in mount(8): "userxattr", "ro", ...
        devices: of "erofs": the files with the data.
        target: of "erofs": an existing directory; empty for the others, which are mounted on the root.
    """

    kind: str
    source: str = ""
    lower: tuple[str, ...] = ()
    upper: str = ""
    work: str = ""
    options: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    target: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the mount as JSON types."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> RootMount:
        """Rebuild a mount from :meth:`to_json`'s document."""
        tuples = {name: tuple(document[name]) for name in ("lower", "options", "devices")}
        return cls(**{**document, **tuples})
