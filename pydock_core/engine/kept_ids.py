"""Containers with ``--userns keep-id``: their ids, the owners of their files, and the caller's entry in passwd."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from pydock_core.errors import UnsupportedError
from pydock_core.paths import ContainerPaths
from pydock_core.spec.keep_id import KeptIds, add_group_entry, add_passwd_entry, parse_keep_id

if TYPE_CHECKING:
    from pydock_core.spec.definition import CreateRequest
    from pydock_core.supervision.client import Zygote

_FILES = {"/etc/passwd": "passwd", "/etc/group": "group"}
_GIVE = "pydock_core.store.trees:give_to"
Reader = Callable[[str], "bytes | None"]
"""Returns the content of a file of a container, or None."""


def check_keep_id(*, rootless: bool) -> None:
    """Refuse the option for root; UnsupportedError, exit code 125."""
    if not rootless:
        raise UnsupportedError(
            "--userns keep-id is refused: root's containers have no user namespace, so every id is already the host's",
            "-u UID:GID runs as a user; an ordinary user can use keep-id",
            exit_code=125,
        )


def with_default_user(request: CreateRequest) -> CreateRequest:
    """Return a request whose process runs with the caller's ids unless it names a user (podman-run(1)).

    Args:
        request: checked, and not yet merged with the image's configuration, whose user does not count.
    """
    if request["User"]:
        return request
    uid, gid = parse_keep_id(request["HostConfig"]["UsernsMode"], os.getuid(), os.getgid())
    return {**request, "User": f"{uid}:{gid}"}


def find_kept_ids(mode: str, zygote: Zygote) -> KeptIds:
    """Return the user namespace of a container.

    Args:
        mode: its UsernsMode, ``keep-id`` with or without ids.
        zygote: of the state root; its user namespace is the outer one.
    """
    uid_extents, gid_extents = zygote.ping()["ids"]
    return KeptIds.build(*parse_keep_id(mode, os.getuid(), os.getgid()), uid_extents, gid_extents)


def with_entries(read: Reader, kept: KeptIds, home: str) -> Reader:
    """Return a reader that adds the caller's entries to passwd and group."""

    def read_with_entries(path: str) -> bytes | None:
        if path not in _FILES:
            return read(path)
        text = read(path)
        return _add_entry(path, text or b"", kept, home) or text

    return read_with_entries


def _add_entry(path: str, text: bytes, kept: KeptIds, home: str) -> bytes | None:
    import grp
    import pwd

    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        user = f"user{kept.uid}"
    try:
        group = grp.getgrgid(os.getgid()).gr_name
    except KeyError:
        group = f"group{kept.gid}"
    if path == "/etc/passwd":
        return add_passwd_entry(text, kept, user, home)
    return add_group_entry(text, kept, group, user)


def prepare_files(
    paths: ContainerPaths, read: Reader, kept: KeptIds, home: str, zygote: Zygote
) -> dict[str, str]:
    """Write the container's passwd and group, if the image's lack the caller, and give the container's root its files.

    Returns:
        Host paths of the written files, by target.
    """
    written: dict[str, str] = {}
    for target, name in _FILES.items():
        path = paths.data / name
        path.unlink(missing_ok=True)  # of an earlier start; it may belong to a subordinate id
        text = _add_entry(target, read(target) or b"", kept, home)
        if text is not None:
            path.write_bytes(text)
            path.chmod(0o644)
            written[target] = str(path)
    if kept.root is not None and written:
        zygote.call(_GIVE, {"paths": list(written.values()), "owner": list(kept.root)})
    give_upper(paths, kept, zygote)
    return written


def give_upper(paths: ContainerPaths, kept: KeptIds, zygote: Zygote) -> None:
    """Give a new writable layer to the container's root."""
    if kept.root is not None and paths.upper.stat().st_uid == os.getuid():
        zygote.call(_GIVE, {"paths": [str(paths.upper)], "owner": list(kept.root)})
