"""A source of a container's mounts that must itself be mounted, as data.  Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydock_core.oci.root_mount import RootMount

BASE, PART = "base", "part"
"""The names of the mount points in a source's directory: the whole source, and its subpath."""


@dataclass(frozen=True, slots=True)
class MountSource:
    """A volume or an image that is mounted in the supervisor's mount namespace, and bound into the container from there.

    Attributes:
        subject: its name in errors: "volume cache".
        place: a directory to make in the container's bundle; the source is mounted on ``place/base``.
        kind: "bind", "image", or a type of file system.
        device: the directory of a "bind", otherwise mount(8)'s device.
        options: mount(8)'s options.
        root_mounts: mounts of an "image".
        subpath: the directory or file for the container, at ``place/part``; empty for the whole source.
        records: the directory with the users of a file system in memory that several containers share; otherwise empty.
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
        """The path to bind into the container."""
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
