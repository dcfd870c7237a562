"""Reads files of the host below a root directory, which tests can replace."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HostTree:
    """The host's file system; paths are absolute, as on the host."""

    root: str = ""

    def at(self, path: str) -> str:
        """Return the real path of a path."""
        return self.root + path

    def exists(self, path: str) -> bool:
        """Whether a path exists; links are followed."""
        return os.path.exists(self.at(path))

    def resolve(self, path: str) -> str:
        """Return a path without links."""
        return os.path.realpath(self.at(path)).removeprefix(os.path.realpath(self.root) if self.root else "")

    def read(self, path: str) -> str:
        """Return a file's text; empty if it cannot be read."""
        return self.read_bytes(path).decode("utf-8", "replace")

    def read_bytes(self, path: str) -> bytes:
        """Return a file's contents; empty if it cannot be read."""
        try:
            with open(self.at(path), "rb") as file:
                return file.read()
        except OSError:
            return b""

    def list(self, path: str) -> list[str]:
        """Return the sorted names in a directory; none if it cannot be read."""
        try:
            return sorted(os.listdir(self.at(path)))
        except OSError:
            return []
