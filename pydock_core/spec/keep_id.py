"""``--userns keep-id``: the id maps of a container in which the calling user keeps its ids (podman-run(1)).  Pure.

The *outer* ids are those of the user's own user namespace, in which 0 is the user and 1 and up are the subordinate ids.
The container's namespace is nested in it.  The kept id maps to outer 0, and the container's root, whose place that was, to
another outer id; every other id maps to itself.  So a volume shows the same owners with and without keep-id, except for the
two that change places.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

from pydock_core.errors import InvalidError

_HIGHEST_ID = 2**32 - 2
_HINT = "write keep-id, or keep-id:uid=N,gid=N"


def parse_keep_id(mode: str, uid: int, gid: int) -> tuple[int, int]:
    """Return the user and group id that the caller has in the container.

    Args:
        mode: ``keep-id`` or ``keep-id:uid=N,gid=N``, either id optional.
        uid, gid: the caller's ids on the host, the defaults.

    Raises:
        InvalidError: the text is malformed; exit code 125.
    """
    chosen = {"uid": uid, "gid": gid}
    options = mode.partition(":")[2]
    for option in options.split(",") if ":" in mode else ():
        name, _, value = option.partition("=")
        if name not in chosen:
            raise _invalid(mode, f"{option!r} is not a setting")
        if not re.fullmatch("[0-9]{1,10}", value) or int(value) > _HIGHEST_ID:
            raise _invalid(mode, f"{name} {value!r} is not an id from 0 to {_HIGHEST_ID}")
        chosen[name] = int(value)
    return chosen["uid"], chosen["gid"]


def _invalid(mode: str, reason: str) -> InvalidError:
    return InvalidError(f"invalid --userns {mode}: {reason}", _HINT, exit_code=125)


def root_place(kept: int, count: int) -> int | None:
    """Return the outer id of the container's root; None if only the kept id is mapped.

    Args:
        kept: the id in the container that maps to outer 0.
        count: number of outer ids: 0 to ``count`` - 1.
    """
    if count == 1:
        return None if kept else 0
    return min(kept, count - 1)


def build_id_map(kept: int, extents: Sequence[int]) -> list[dict[str, int]]:
    """Build an OCI id map, from ids of the container to outer ids.

    If ``kept`` is beyond the outer ids, the last of them is the root's.

    Args:
        kept: the id in the container that maps to outer 0.
        extents: sizes of the extents of the outer namespace's own map, in order: no line may cross a border between two
            (user_namespaces(7)).
    """
    root = root_place(kept, sum(extents))
    lines = [(kept, 0, 1)]
    if root:
        lines.append((0, root, 1))
    if root is not None:
        # All other ids map to themselves.
        borders = {1, root, root + 1, *accumulate(extents)}
        lines += [
            (low, low, high - low) for low, high in pairwise(sorted(borders)) if low and low != (root or None)
        ]
    return [{"containerID": inside, "hostID": outside, "size": size} for inside, outside, size in lines]


@dataclass(frozen=True, slots=True)
class KeptIds:
    """The user namespace of a container with ``keep-id``.

    Attributes:
        uid, gid: the caller's ids in the container.
        uid_mappings, gid_mappings: OCI id maps, to outer ids.
        root: outer ids of the container's root; None if they are 0, or not mapped, so that files need no other owner.
    """

    uid: int
    gid: int
    uid_mappings: tuple[Mapping[str, Any], ...]
    gid_mappings: tuple[Mapping[str, Any], ...]
    root: tuple[int, int] | None

    @classmethod
    def build(cls, uid: int, gid: int, uid_extents: Sequence[int], gid_extents: Sequence[int]) -> KeptIds:
        """Return the namespace for a caller's ids in the container, and the outer extents; see :func:`build_id_map`."""
        root = (root_place(uid, sum(uid_extents)) or 0, root_place(gid, sum(gid_extents)) or 0)
        return cls(
            uid,
            gid,
            tuple(build_id_map(uid, uid_extents)),
            tuple(build_id_map(gid, gid_extents)),
            root if any(root) else None,
        )


def add_passwd_entry(text: bytes, kept: KeptIds, name: str, home: str) -> bytes | None:
    """Return an image's passwd(5) with an entry for the caller; None if its user id has one."""
    if _has_id(text, kept.uid):
        return None
    entry = f"{name}:*:{kept.uid}:{kept.gid}:{name}:{home}:/bin/sh\n"
    return _with_line(text, entry)


def add_group_entry(text: bytes, kept: KeptIds, name: str, user: str) -> bytes | None:
    """Return an image's group(5) with an entry for the caller's group; None if its group id has one."""
    if _has_id(text, kept.gid):
        return None
    return _with_line(text, f"{name}:x:{kept.gid}:{user}\n")


def _has_id(text: bytes, number: int) -> bool:
    found = (line.split(b":") for line in text.splitlines())
    return any(len(fields) > 2 and fields[2].strip() == b"%d" % number for fields in found)


def _with_line(text: bytes, line: str) -> bytes:
    return text + (b"" if not text or text.endswith(b"\n") else b"\n") + line.encode()
