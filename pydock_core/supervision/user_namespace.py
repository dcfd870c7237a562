"""Makes the user namespace of a rootless zygote, in which the user is root and has its subordinate ids.

See subuid(5), newuidmap(1) and user_namespaces(7).  Without subordinate ids, or without the tools that map them, only the
user's own id is mapped.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from pydock_core import syscalls
from pydock_core.errors import FailedError, UnsupportedError

FULL = "full"
SINGLE = "single"
ROOT = "root"

Range = tuple[int, int]
"""First subordinate id, number of ids."""


def parse_subordinate_ids(text: str, names: Sequence[str]) -> list[Range]:
    """Return a user's ranges in the text of /etc/subuid or /etc/subgid, by name or by number."""
    ranges = []
    for line in text.splitlines():
        fields = line.strip().split(":")
        if len(fields) == 3 and fields[0] in names and fields[1].isdigit() and fields[2].isdigit():
            ranges.append((int(fields[1]), int(fields[2])))
    return [item for item in ranges if item[1] > 0]


def build_mapping(own_id: int, ranges: Sequence[Range]) -> list[tuple[int, int, int]]:
    """Return lines of a uid_map or gid_map (inside, outside, count): 0 is the user, 1 and up the subordinate ids."""
    lines = [(0, own_id, 1)]
    inside = 1
    for first, count in ranges:
        lines.append((inside, first, count))
        inside += count
    return lines


def subordinate_ids(path: Path) -> list[Range]:
    """Return this user's ranges in /etc/subuid or /etc/subgid; empty if there are none."""
    import pwd  # late: the directory service may be slow, and root never asks it

    names = [str(os.getuid())]
    with suppress(
        KeyError
    ):  # a user id without a name (a cluster's container) may still have ranges by number
        names.append(pwd.getpwuid(os.getuid()).pw_name)
    try:
        return parse_subordinate_ids(path.read_text(), names)
    except OSError:
        return []


def enter(mapper: socket.socket) -> str:
    """Move the calling process, single-threaded, into a new user and mount namespace; return FULL or SINGLE.

    ``mapper`` is connected to a process outside that runs :func:`serve_mapping` for this one.

    Raises:
        UnsupportedError: the host does not allow it.
        FailedError: mapping failed half-way.
    """
    uid, gid = os.geteuid(), os.getegid()
    try:
        syscalls.unshare(syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWNS)
    except OSError as error:
        raise unsupported(error) from error
    mapper.sendall(b"u")
    answer = mapper.recv(4096)
    if answer == b"f":
        return FULL
    if answer != b"s":
        raise FailedError(f"cannot map subordinate ids: {answer[1:].decode(errors='replace')}")
    try:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    except OSError as error:
        raise unsupported(error) from error
    return SINGLE


def own_mapping() -> str:
    """Return the id mapping of the calling process's user namespace: FULL, or SINGLE for the user's own id alone."""
    return FULL if sum(read_extents("uid")) > 1 else SINGLE


def read_extents(kind: str) -> list[int]:
    """Return the sizes of the extents in the map of ids, "uid" or "gid", of the calling process's user namespace."""
    return [int(line.split()[2]) for line in Path(f"/proc/self/{kind}_map").read_text().splitlines()]


def unsupported(error: OSError) -> UnsupportedError:
    """Return the error for a host that forbids user namespaces."""
    return UnsupportedError(
        f"this host does not allow user namespaces to an ordinary user ({error.strerror})",
        hint="`dock doctor` says what forbids them and how to allow them",
        exit_code=125,
    )


def serve_mapping(connection: socket.socket, pid: int) -> None:
    """Wait until process ``pid`` is in its user namespace, then map its ids from outside with newuidmap and newgidmap."""
    import shutil
    import subprocess

    if connection.recv(1) != b"u":
        return
    uids, gids = subordinate_ids(Path("/etc/subuid")), subordinate_ids(Path("/etc/subgid"))
    tools = shutil.which("newuidmap"), shutil.which("newgidmap")
    if not (uids and gids and tools[0] and tools[1]):
        connection.sendall(b"s")
        return
    for position, (tool, own_id, ranges) in enumerate(
        ((tools[0], os.geteuid(), uids), (tools[1], os.getegid(), gids))
    ):
        numbers = [str(number) for line in build_mapping(own_id, ranges) for number in line]
        outcome = subprocess.run([tool, str(pid), *numbers], capture_output=True, check=False)
        if outcome.returncode != 0:
            # Nothing is mapped yet after the first: the user's own id will do.  After that there is no way
            # back.
            connection.sendall(b"s" if position == 0 else b"e" + outcome.stderr.strip()[:1000])
            return
    connection.sendall(b"f")
