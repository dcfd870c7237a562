"""Namespaces of a container: new ones, joined ones, and the id maps of a user namespace.

See namespaces(7) and user_namespaces(7).  The order matters in two places: a user namespace comes first, so that it
owns the others, and a PID namespace takes effect only for the next child.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydock_core import syscalls
from pydock_core.errors import FailedError, InvalidError, UnsupportedError

FLAGS = {
    "user": syscalls.CLONE_NEWUSER,
    "mount": syscalls.CLONE_NEWNS,
    "pid": syscalls.CLONE_NEWPID,
    "network": syscalls.CLONE_NEWNET,
    "ipc": syscalls.CLONE_NEWIPC,
    "uts": syscalls.CLONE_NEWUTS,
    "cgroup": syscalls.CLONE_NEWCGROUP,
    "time": syscalls.CLONE_NEWTIME,
}
FILES = {
    "user": "user",
    "mount": "mnt",
    "pid": "pid",
    "network": "net",
    "ipc": "ipc",
    "uts": "uts",
    "cgroup": "cgroup",
    "time": "time_for_children",
}
"""Names below /proc/PID/ns."""


@dataclass(frozen=True, slots=True)
class NamespacePlan:
    """The namespaces of a container, from ``linux.namespaces``.

    Attributes:
        new: kinds of new namespaces.
        joined: kind to path, for existing ones.
    """

    new: frozenset[str]
    joined: Mapping[str, str]

    @classmethod
    def from_config(cls, namespaces: Sequence[Mapping[str, Any]]) -> NamespacePlan:
        """Read ``linux.namespaces``.

        Raises:
            InvalidError: an unknown or repeated kind.
            UnsupportedError: a PID namespace is to be joined together with a time namespace.
        """
        new: set[str] = set()
        joined: dict[str, str] = {}
        for namespace in namespaces:
            kind = str(namespace.get("type"))
            if kind not in FLAGS:
                raise InvalidError(f"linux.namespaces: unknown type {kind}")
            if kind in new or kind in joined:
                raise InvalidError(f"linux.namespaces: {kind} is given twice")
            path = namespace.get("path")
            if path:
                joined[kind] = str(path)
            else:
                new.add(kind)
        if "pid" in joined and ("time" in new or "time" in joined):
            raise UnsupportedError(
                "linux.namespaces: joining a PID namespace with a time namespace of its own is not supported",
                "use --runtime crun",
            )
        return cls(frozenset(new), joined)

    @property
    def needs_two_steps(self) -> bool:
        """Whether an intermediate process must fork init.

        A user namespace must own a new PID namespace, so it is entered first; a time namespace applies only to the next
        child.
        """
        return (self.has("user") and not self.joins_pid) or self.has("time")

    @property
    def joins_pid(self) -> bool:
        """Whether the container has the PID namespace of another one: only its last fork enters that."""
        return "pid" in self.joined

    def has(self, kind: str) -> bool:
        """Whether the container does not share the caller's namespace of this kind."""
        return kind in self.new or kind in self.joined

    def flags_of_new(self, *without: str) -> int:
        """Return the CLONE_NEW* bits of the new namespaces, without the given kinds."""
        return sum(FLAGS[kind] for kind in self.new if kind not in without)

    def flags_of_all(self, *without: str) -> int:
        """Return the CLONE_NEW* bits of every namespace of the container, without the given kinds."""
        return sum(FLAGS[kind] for kind in (*self.new, *self.joined) if kind not in without)


def open_path(kind: str, path: str) -> int:
    """Open the namespace at ``path``; FailedError if that fails."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise FailedError(f"cannot join the {kind} namespace {path}: {error.strerror}") from error


def join_path(kind: str, path: str) -> None:
    """Join the namespace at ``path``; FailedError if that fails."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            syscalls.setns(descriptor, FLAGS[kind])
        finally:
            os.close(descriptor)
    except OSError as error:
        raise FailedError(f"cannot join the {kind} namespace {path}: {error.strerror}") from error


def write_id_maps(
    pid: int, uid_mappings: Sequence[Mapping[str, Any]], gid_mappings: Sequence[Mapping[str, Any]]
) -> None:
    """Write the id maps of a process's new user namespace, from outside of it (user_namespaces(7)).

    Raises:
        FailedError: the kernel refuses the maps.
    """
    for name, mappings in (("uid_map", uid_mappings), ("gid_map", gid_mappings)):
        lines = "".join(f"{m['containerID']} {m['hostID']} {m['size']}\n" for m in mappings)
        try:
            with open(f"/proc/{pid}/{name}", "w", encoding="utf-8") as stream:
                stream.write(lines)
        except OSError as error:
            raise FailedError(f"cannot write the {name} of the user namespace: {error.strerror}") from error


def enter_mapped(
    uid_mappings: Sequence[Mapping[str, Any]], gid_mappings: Sequence[Mapping[str, Any]]
) -> None:
    """Move this process, single-threaded, into a new user namespace with id maps; it keeps its user, under its new id.

    It has all capabilities there.  A child writes the maps, because that takes capabilities in the parent namespace.

    Raises:
        FailedError: the kernel refuses the namespace or the maps.
    """
    pid = os.getpid()
    go_fd, ready_fd = os.pipe2(os.O_CLOEXEC)
    mapper = os.fork()
    if mapper == 0:
        code = 1
        try:
            os.close(ready_fd)
            if os.read(go_fd, 1):
                write_id_maps(pid, uid_mappings, gid_mappings)
                code = 0
        finally:
            os._exit(code)
    os.close(go_fd)
    try:
        syscalls.unshare(syscalls.CLONE_NEWUSER)
        os.write(ready_fd, b"u")
    except OSError as error:
        raise FailedError(f"cannot make a user namespace: {error.strerror}") from error
    finally:
        os.close(ready_fd)
        status = os.waitpid(mapper, 0)[1]
    if status:
        raise FailedError("cannot map the container's ids", "see /etc/subuid, and `dock doctor`")


def become_root() -> None:
    """Become root of the user namespace that this process has just entered, unless root is not mapped there.

    A process has all capabilities in the namespace already, whatever its ids.
    """
    with suppress(PermissionError):  # denied if only a single id is mapped
        os.setgroups([])
    try:
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
    except OSError as error:
        if error.errno != errno.EINVAL:  # the id is not mapped (user_namespaces(7))
            raise


def map_to_parent(container_id: int, mappings: Sequence[Mapping[str, Any]]) -> int | None:
    """Translate an id of a user namespace to the parent namespace, by OCI mappings; None if it is not mapped."""
    for mapping in mappings:
        offset = container_id - int(mapping["containerID"])
        if 0 <= offset < int(mapping["size"]):
            return int(mapping["hostID"]) + offset
    return None


@cache
def is_in_user_namespace() -> bool:
    """Whether this process is in a user namespace other than the initial one; cached."""
    with open("/proc/self/uid_map", encoding="utf-8") as stream:
        return stream.read().split() != ["0", "0", "4294967295"]
