"""The namespaces that a container shares with another one: ``--ipc`` and ``--pid container:NAME``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypedDict, cast

from pydock_core.engine.bundle import find_host_name
from pydock_core.errors import ConflictError, InvalidError, UnsupportedError
from pydock_core.paths import StateRoot
from pydock_core.spec.definition import HostConfig, decode
from pydock_core.spec.host_option import HOST, JOINED, PRIVATE, is_keep_id
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


class Names(TypedDict):
    """The fields of a create request that name its UTS namespace."""

    Hostname: str
    Domainname: str


def shared_names(database: Database, container_id: str, host: HostConfig) -> Names:
    """Return the names of a container with ``--network container:NAME``: those of the other container, as in Docker.

    Args:
        container_id: full id of the other container, whose names never change.
        host: of the request.
    """
    if host["UTSMode"] == HOST:  # it shares the host's names already
        return {"Hostname": "", "Domainname": ""}
    other = decode(table.find(database, container_id).definition)
    return {
        "Hostname": find_host_name(other, container_id),
        "Domainname": other.request["Domainname"],
    }


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
        paths = root.container(other.id)
        if not derive_status(paths).is_running:
            raise ConflictError(
                f"container {other.name} is not running, so its {kind.upper()} namespace cannot be joined",
                f"start it: dock start {other.name}",
                exit_code=125,
            )
        if kind == "ipc" and decode(other.definition).host["IpcMode"] in (PRIVATE, NO_SHARED_MEMORY):
            raise InvalidError(
                f"container {other.name} does not share its IPC namespace",
                "make it with --ipc shareable",
                exit_code=125,
            )
        shared[kind] = str(paths.run)
    return shared
