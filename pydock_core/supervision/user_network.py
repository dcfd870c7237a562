"""The shared network namespace of an ordinary user's containers: its record, and functions to enter it.

There is one per user and state root; it contains the bridges.  A *holder* process keeps it alive; an *uplink* process in the
host's network namespace connects it to the outside (:mod:`pydock_core.network.user_holder`, :mod:`pydock_core.network.uplink`).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydock_core import syscalls
from pydock_core.errors import CorruptError, UnavailableError
from pydock_core.runtime.process_identity import ProcessIdentity
from pydock_core.runtime.record_file import read_json

FORWARDER = "192.0.0.3"
"""The name server of the namespace: it forwards to the host's servers, including one on the host's loopback."""
_DEVICES_HEADER_LINES = 2


@dataclass(frozen=True, slots=True)
class UserNetwork:
    """The processes of an existing namespace.

    Attributes:
        holder: a process in the namespace.
        uplink: the process that connects it to the outside; it may have been killed.
    """

    holder: ProcessIdentity
    uplink: ProcessIdentity

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON types."""
        return {"holder": self.holder.to_json(), "uplink": self.uplink.to_json()}

    @property
    def path(self) -> str:
        """The namespace's file, valid while its holder lives."""
        return f"/proc/{self.holder.pid}/ns/net"

    def devices(self) -> list[str]:
        """Return the names of its network devices (proc_pid_net(5)); empty if the holder has just ended."""
        try:
            text = Path(f"/proc/{self.holder.pid}/net/dev").read_text()
        except OSError:
            return []
        return [line.partition(":")[0].strip() for line in text.splitlines()[_DEVICES_HEADER_LINES:]]


def record_file(run: Path) -> Path:
    """Return the path of the record; ``run`` is the directory of a state root."""
    return run / "user-network.json"


def lock_file(run: Path) -> Path:
    """Return the lock file that starters of the namespace's processes and an ending holder lock."""
    return run / "user-network.lock"


def read(run: Path) -> UserNetwork | None:
    """Return the namespace of a state root; None if it does not exist or its holder has ended."""
    document = read_json(record_file(run))
    if document is None:
        return None
    try:
        network = UserNetwork(ProcessIdentity(**document["holder"]), ProcessIdentity(**document["uplink"]))
    except (KeyError, TypeError) as error:
        raise CorruptError(f"the record {record_file(run)} is malformed: {error}") from error
    return network if network.holder.is_running() else None


def enter(run: Path) -> None:
    """Move the calling process, root of the namespace's user namespace, into it.

    Raises:
        UnavailableError: there is none, or its holder was killed.
    """
    network = read(run)
    try:
        if network is None:
            raise FileNotFoundError
        namespace_fd = os.open(network.path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise UnavailableError(
            "the network namespace of this user's containers is gone",
            "start the container again: a new one is made",
            exit_code=125,
        ) from None
    try:
        syscalls.setns(namespace_fd, syscalls.CLONE_NEWNET)
    finally:
        os.close(namespace_fd)


def join_user_namespace(run: Path) -> bool:
    """Move the calling process, single-threaded, into the owning user namespace of the shared network; False if there is none.

    Every container on a bridge must be in it, because only its root may plug a container into a bridge.
    """
    network = read(run)
    if network is None:
        return False
    try:
        join_user_namespace_of(network.holder.pid)
    except OSError:  # the holder has just ended
        return False
    return True


def join_user_namespace_of(pid: int) -> None:
    """Move the calling process, single-threaded, into the user namespace of another process; OSError if that is gone."""
    namespace_fd = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    try:
        syscalls.setns(namespace_fd, syscalls.CLONE_NEWUSER)
    finally:
        os.close(namespace_fd)
