"""A source of a container's mounts that has to be mounted itself, as data: pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydock_core.oci.root_mount import RootMount

BASE, PART = "base", "part"
"""The names in a source's directory of all that is mounted, and of its subpath."""


@dataclass(frozen=True, slots=True)
class MountSource:
    """A volume or an image that is mounted in the supervisor's mount namespace, and bound into the container from there.

    Attributes:
        subject: names it in errors: "volume cache".
        place: a directory of the container's bundle, which is made; what is mounted is ``place/base``.
        kind: "bind", "image", or a type of file system.
        device: the directory of a "bind", else the device as mount(8) has it.
        options: as mount(8) has them.
        root_mounts: of an "image".
        subpath: the part that the container gets, at ``place/part``: a directory or a file; empty for all.
        records: of a file system in memory that several containers share: the directory where they say so; else empty.
    """

    subject: str
    place: str
    kind: str
    device: str = ""
    options: tuple[str, ...] = ()
    root_mounts: tuple[RootMount, ...] = ()
    subpath: str = ""
    records: str = ""

    @property
    def path(self) -> str:
        """Where the container's mount begins."""
        return f"{self.place}/{PART if self.subpath else BASE}"

    def to_json(self) -> dict[str, Any]:
        """Return the source as JSON types."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        return {**fields, "root_mounts": [mount.to_json() for mount in self.root_mounts]}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> MountSource:
        """Rebuild a source from :meth:`to_json`'s document."""
        mounts = tuple(RootMount.from_json(mount) for mount in document["root_mounts"])
        return cls(**{**document, "options": tuple(document["options"]), "root_mounts": mounts})
