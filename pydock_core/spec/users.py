"""Resolves ``--user`` against the image's passwd and group files.  Pure.

The rules are those of the image specification (config.md, "User"), as implemented by Docker.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pydock_core.errors import InvalidError, NotFoundError

_HIGHEST_ID = 2**32 - 2
_LONGEST_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ResolvedUser:
    """The numeric identity of a process.

    Attributes:
        uid, gid: in the container's user namespace.
        additional_gids: the supplementary groups; ``gid`` is the first of them.
        name: the user's name in passwd; empty if it has none.
        home: the home directory; "/" if passwd does not name one.
    """

    uid: int = 0
    gid: int = 0
    additional_gids: tuple[int, ...] = (0,)
    name: str = ""
    home: str = "/"


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    uid: int
    gid: int
    home: str


def resolve_user(user: str, read: Callable[[str], bytes | None]) -> ResolvedUser:
    """Resolve ``[NAME|UID][:NAME|GID]``.

    Without a group, the user has its group of passwd and all groups that list it in group(5); with one, only that group.
    A number without a passwd entry has group 0, as in Docker.

    The primary group is among the supplementary groups, as in containerd: otherwise a process could drop it by a setgid
    program, and get around permissions that are denied to it (CVE-2022-36109).

    Args:
        user: the text; empty for root.
        read: returns the contents of a file of the image ("/etc/passwd", "/etc/group"), or None; must resolve
            the path inside the image.

    Raises:
        NotFoundError: the image does not have a name.
        InvalidError: a number is out of range, or a part is empty.
    """
    name, separator, group = user.partition(":")
    if separator and not group:
        raise InvalidError(f"user {user}: the group after the colon is missing")
    entry = _find_user(name or "0", _read_passwd(read("/etc/passwd")))
    if entry is None:
        if not _is_number(name):
            raise NotFoundError(
                f"unable to find user {name}: no matching entries in passwd file", "give its number instead"
            )
        entry = _Entry("", _check(name, user), 0, "/")
    groups = _read_group(read("/etc/group"))
    if separator:
        gid = _find_group(group, user, groups)
        return ResolvedUser(entry.uid, gid, (gid,), entry.name, entry.home)
    others = sorted({gid for _, gid, members in groups if entry.name and entry.name in members} - {entry.gid})
    return ResolvedUser(entry.uid, entry.gid, (entry.gid, *others), entry.name, entry.home)


def _find_user(name: str, entries: list[_Entry]) -> _Entry | None:
    """Find a user's entry; a name takes precedence over an equal number, and the first line over later ones."""
    for entry in entries:
        if entry.name == name:
            return entry
    if _is_number(name):
        uid = _check(name, name)
        for entry in entries:
            if entry.uid == uid:
                return entry
    if name == "0":
        return _Entry("", 0, 0, "/root")
    return None


def _find_group(name: str, user: str, groups: list[tuple[str, int, list[str]]]) -> int:
    for known, gid, _ in groups:
        if known == name:
            return gid
    if _is_number(name):
        return _check(name, user)
    raise NotFoundError(
        f"unable to find group {name}: no matching entries in group file", "give its number instead"
    )


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _check(text: str, user: str) -> int:
    number = int(text) if len(text) <= 10 else _HIGHEST_ID + 1
    if number > _HIGHEST_ID:
        raise InvalidError(f"user {user}: {text} is out of range", f"ids go from 0 to {_HIGHEST_ID}")
    return number


def _lines(data: bytes | None) -> list[list[str]]:
    # The image controls these files: any content must give an entry or nothing, never a traceback.
    text = (data or b"")[:_LONGEST_BYTES].decode("utf-8", "replace")
    return [
        line.strip().split(":") for line in text.splitlines() if line.strip() and not line.startswith("#")
    ]


def _read_passwd(data: bytes | None) -> list[_Entry]:
    entries = []
    for fields in _lines(data):
        if len(fields) >= 4 and _is_valid_id(fields[2]) and _is_valid_id(fields[3]):
            home = fields[5] if len(fields) > 5 and fields[5].startswith("/") else "/"
            entries.append(_Entry(fields[0], int(fields[2]), int(fields[3]), home))
    return entries


def _read_group(data: bytes | None) -> list[tuple[str, int, list[str]]]:
    groups = []
    for fields in _lines(data):
        if len(fields) >= 3 and _is_valid_id(fields[2]):
            members = fields[3].split(",") if len(fields) > 3 else []
            groups.append((fields[0], int(fields[2]), members))
    return groups


def _is_valid_id(text: str) -> bool:
    return _is_number(text) and len(text) <= 10 and int(text) <= _HIGHEST_ID
