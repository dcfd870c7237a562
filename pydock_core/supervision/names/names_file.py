"""The names of one network: a file that supervisors change and name servers read.

A supervisor adds its container when it is attached and removes it at the end; the reaper removes it for a killed
supervisor.  A writer holds the lock beside the file and replaces the file; a reader sees either the old or the new contents.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydock_core.errors import CorruptError, NotFoundError
from pydock_core.runtime.record_file import read_json, write_json

NAMES = "names.json"
_LOCK = "names.lock"


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    fd = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def publish(
    directory: Path, container_id: str, names: tuple[str, ...], address: str, address6: str = ""
) -> None:
    """Add a container to a network's names, or replace its entry.

    Args:
        directory: the network's directory.
        names: the container's names, its own first.
        address, address6: with or without prefix length; ``address6`` may be empty.

    Raises:
        NotFoundError: the network has been removed.
    """
    addresses = [text.partition("/")[0] for text in (address, address6) if text]
    try:
        with _locked(directory):
            known = read_json(directory / NAMES) or {}
            write_json(
                directory / NAMES, {**known, container_id: {"names": list(names), "addresses": addresses}}
            )
    except FileNotFoundError as error:
        raise NotFoundError("the container's network has been removed", exit_code=125) from error


def rename(directory: Path, container_id: str, names: tuple[str, ...]) -> None:
    """Change a container's names in its entry."""
    try:
        with _locked(directory):
            known = read_json(directory / NAMES) or {}
            if container_id in known:
                known[container_id]["names"] = list(names)
                write_json(directory / NAMES, known)
    except FileNotFoundError:
        return


def withdraw(directory: Path, container_id: str) -> None:
    """Remove a container from a network's names; no effect if either is missing."""
    try:
        with _locked(directory):
            known = read_json(directory / NAMES) or {}
            if known.pop(container_id, None) is not None:
                write_json(directory / NAMES, known)
    except FileNotFoundError:
        return


@dataclass(slots=True)
class CachedFile:
    """A small JSON file, read again when it has been replaced.

    Attributes:
        path: path of the file.
        document: its contents; empty if it is missing or corrupt.
    """

    path: Path
    document: Mapping[str, Any] = field(default_factory=dict)
    _seen: tuple[int, int, int] | None = None

    def refresh(self) -> bool:
        """Read the file if it has changed; return whether it has."""
        try:
            status = os.stat(self.path)
        except OSError:
            seen = None
        else:
            seen = (status.st_ino, status.st_mtime_ns, status.st_size)
        if seen == self._seen:
            return False
        self._seen = seen
        try:
            self.document = read_json(self.path) or {}
        except (CorruptError, OSError):
            self.document = {}
        return True


class NetworkNames:
    """The names of one network, for a name server's lookups.

    Args:
        network: the network's name, the last label of "web.mynet".
        directory: the network's directory.
    """

    def __init__(self, network: str, directory: Path) -> None:
        self.network = network.lower()
        self._shown = network
        self._file = CachedFile(directory / NAMES)
        self._forward: dict[str, list[str]] = {}
        self._reverse: dict[str, str] = {}

    def refresh(self) -> None:
        """Read the names again if they have changed."""
        if not self._file.refresh():
            return
        self._forward, self._reverse = {}, {}
        for entry in self._file.document.values():
            names, addresses = entry["names"], entry["addresses"]
            for name in dict.fromkeys(name.lower() for name in names):
                self._forward.setdefault(name, []).extend(addresses)
            for address in addresses if names else ():
                self._reverse[address] = f"{names[0]}.{self._shown}"

    def addresses(self, name: str) -> list[str]:
        """Return the IPv4 and IPv6 addresses of a lower-case name; empty if the name is unknown."""
        return self._forward.get(name, [])

    def name_of(self, address: str) -> str:
        """Return "NAME.NETWORK" for an address; "" if the address is unknown."""
        return self._reverse.get(address, "")
