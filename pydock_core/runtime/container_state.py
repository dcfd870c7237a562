"""The embedded executor's own record of a container, which lets another process continue with it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydock_core.runtime.cgroups import ContainerCgroup, find_cgroup
from pydock_core.runtime.process_identity import ProcessIdentity
from pydock_core.runtime.record_file import read_json, write_json

_FILE = "state.json"


@dataclass(frozen=True, slots=True)
class ContainerRecord:
    """state.json: the resources of a container.

    Attributes:
        init: its first process; None while it is being created.
        bundle: absolute host path.
        namespaces: kinds that it does not share with its creator.
        cgroup: see :attr:`pydock_core.runtime.cgroups.ContainerCgroup.directories`; empty if it has none.
        has_hooks: the bundle has hooks that run after the creation.
        joins_pid: its PID namespace is another container's, and does not end with its init.
    """

    container_id: str
    bundle: str
    init: ProcessIdentity | None
    namespaces: tuple[str, ...]
    cgroup: Mapping[str, str]
    has_hooks: bool = False
    joins_pid: bool = False

    def with_init(self, init: ProcessIdentity) -> ContainerRecord:
        """Return the record with its init."""
        return replace(self, init=init)

    def find_cgroup(self) -> ContainerCgroup | None:
        """Return the container's control group; None if it has none."""
        return find_cgroup(self.cgroup) if self.cgroup else None

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON types."""
        return {
            "container_id": self.container_id,
            "bundle": self.bundle,
            "init": self.init.to_json() if self.init is not None else None,
            "namespaces": self.namespaces,
            "cgroup": dict(self.cgroup),
            "has_hooks": self.has_hooks,
            "joins_pid": self.joins_pid,
        }

    def write(self, directory: Path) -> None:
        """Write the record in one step."""
        write_json(directory / _FILE, self.to_json())

    @classmethod
    def read(cls, directory: Path) -> ContainerRecord | None:
        """Read the record; None if there is none."""
        document = read_json(directory / _FILE)
        if document is None:
            return None
        init = document["init"]
        return cls(
            container_id=document["container_id"],
            bundle=document["bundle"],
            init=ProcessIdentity(**init) if init is not None else None,
            namespaces=tuple(document["namespaces"]),
            cgroup=document["cgroup"],
            has_hooks=document["has_hooks"],
            joins_pid=document.get("joins_pid", False),
        )

    @staticmethod
    def remove(directory: Path, *others: str) -> None:
        """Remove the record and the files beside it; the record last, so that a crash leaves it to the next attempt."""
        for name in (*others, _FILE):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(directory / name)
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(directory)


def build_oci_state(record: ContainerRecord, status: str, document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state of a container for hooks (runtime.md, "State")."""
    state: dict[str, Any] = {
        "ociVersion": document.get("ociVersion", "1.0.2"),
        "id": record.container_id,
        "status": status,
        "bundle": record.bundle,
        "annotations": dict(document.get("annotations") or {}),
    }
    if record.init is not None and status != "stopped":
        state["pid"] = record.init.pid
    return state
