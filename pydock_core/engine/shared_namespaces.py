"""The namespaces that a container shares with another one: ``--ipc`` and ``--pid container:NAME``."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from pydock_core.errors import ConflictError, InvalidError, UnsupportedError
from pydock_core.paths import StateRoot
from pydock_core.spec.definition import SHORT_ID_DIGITS, HostConfig, decode
from pydock_core.spec.host_option import JOINED, PRIVATE, is_keep_id
from pydock_core.spec.host_option import NONE as NO_SHARED_MEMORY
from pydock_core.store.database import Database
from pydock_core.store.database import containers as table
from pydock_core.supervision.container_status import derive_status


def resolve_joined(host: HostConfig, find: Callable[[str], str]) -> HostConfig:
    """Return the part of a definition with the full ids of the containers whose namespaces are joined, as in Docker.

    Args:
        find: returns the full id of a container.

    Raises:
        NotFoundError: there is no such container.
        UnsupportedError: a PID namespace cannot be joined from the container's own user namespace; exit code 125.
    """
    if host["PidMode"].startswith(JOINED) and is_keep_id(host["UsernsMode"]):
        raise UnsupportedError(
            "--pid container is refused with --userns keep-id: the container's user namespace has no rights over "
            "another container's processes",
            "leave one of the two out",
            exit_code=125,
        )
    found = {
        field: JOINED + find(host[field].removeprefix(JOINED))
        for field in ("IpcMode", "PidMode")
        if host[field].startswith(JOINED)
    }
    return cast("HostConfig", {**host, **found})


def find_shared(root: StateRoot, database: Database, host: HostConfig) -> dict[str, str]:
    """Return the record directories of the containers whose namespaces a starting container joins, by kind.

    Raises:
        NotFoundError: such a container was removed.
        ConflictError: it is not running; exit code 125.
        InvalidError: it does not share its IPC namespace; exit code 125.
    """
    shared = {}
    for kind, mode in (("ipc", host["IpcMode"]), ("pid", host["PidMode"])):
        if not mode.startswith(JOINED):
            continue
        other = table.find(database, mode.removeprefix(JOINED))
        short = other.id[:SHORT_ID_DIGITS]
        paths = root.container(other.id)
        if not derive_status(paths).is_running:
            raise ConflictError(
                f"container {short} is not running, so its {kind.upper()} namespace cannot be joined",
                f"start it: dock start {short}",
                exit_code=125,
            )
        if kind == "ipc" and decode(other.definition).host["IpcMode"] in (PRIVATE, NO_SHARED_MEMORY):
            raise InvalidError(
                f"container {short} does not share its IPC namespace",
                "make it with --ipc shareable",
                exit_code=125,
            )
        shared[kind] = str(paths.run)
    return shared
