"""Changes the limits and the restart policy of a container that exists, running or not."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pydock_core.engine.host_support import check_cpuset
from pydock_core.errors import ConflictError, InvalidError, NotFoundError, UnsupportedError
from pydock_core.runtime.cgroups import find_container_cgroup, probe_cgroups
from pydock_core.runtime.record_file import write_json
from pydock_core.spec.builder import build_limits
from pydock_core.spec.definition import CreateRequest, HostConfig, compact, decode, encode
from pydock_core.spec.validation import check_request
from pydock_core.store.database import containers as table
from pydock_core.store.database.containers import ContainerRow
from pydock_core.supervision.client import SupervisorClient, Zygote
from pydock_core.supervision.container_status import Status, derive_status

if TYPE_CHECKING:
    from pydock_core.engine.state import State

FIELDS = (
    "BlkioWeight",
    "CpuPeriod",
    "CpuQuota",
    "CpuShares",
    "CpusetCpus",
    "CpusetMems",
    "Memory",
    "MemoryReservation",
    "MemorySwap",
    "NanoCpus",
    "PidsLimit",
    "RestartPolicy",
)
"""The fields of HostConfig that can be changed."""
_GROUPS = ("memory", "cpu", "pids", "blockIO")
_ATTEMPTS = 5


def update_container(
    state: State, reference: str, changes: Mapping[str, Any], names: Mapping[str, str] | None = None
) -> None:
    """Change a container's limits and restart policy.

    The new limits are first set in the kernel and then recorded; a changed restart policy is sent to the supervisor or keeper.
    A process that is killed in between leaves the record unchanged, and the next start uses the record.

    Args:
        reference: as in :class:`pydock_core.engine.containers.Containers`.
        changes: fields of :data:`FIELDS`; as in Docker, 0 or "" leaves a limit unchanged.
        names: the fields' names in errors.

    Raises:
        InvalidError: there is no change, or a value is malformed or contradicts another one.
        UnsupportedError: this host cannot enforce a limit.
        FailedError: the kernel refuses a limit; nothing has changed.
        ConflictError: other processes change the container at the same time.
    """
    given = {name: value for name, value in changes.items() if _is_given(name, value)}
    if unknown := set(given) - set(FIELDS):
        raise UnsupportedError(f"field {min(unknown)} cannot be updated", "leave it out")
    if not given:
        raise InvalidError("no limit and no restart policy to set", "name one, for instance -m 512m")
    for _ in range(_ATTEMPTS):
        if _update_once(state, table.find(state.database, reference), given, names):
            return
    raise ConflictError(f"container {reference} is being changed by others", "try again")


def _is_given(name: str, value: Any) -> bool:
    """Whether a value is a change, as Docker's clients send every field."""
    if name == "PidsLimit":
        return value is not None
    if name == "RestartPolicy":
        return bool(value) and bool(value.get("Name"))
    return bool(value)


def _update_once(
    state: State, row: ContainerRow, given: Mapping[str, Any], names: Mapping[str, str] | None
) -> bool:
    """Update a container; return False if another process has changed its definition in the meantime."""
    definition = decode(row.definition)
    request = _merge(definition.request, given, names)
    _require_support(given, names)
    paths = state.root.container(row.id)
    status = derive_status(paths)
    host = request["HostConfig"]
    is_limited = any(name != "RestartPolicy" for name in given)
    restore = (
        _apply(host, row, status, is_pids="PidsLimit" in given)
        if is_limited and status.is_running
        else _nothing
    )
    changed = definition._replace(request=request)
    try:
        done = table.redefine(state.database, row, encode(changed), "update")
    except BaseException:
        restore()
        raise
    if not done:
        restore()
        return False
    if is_limited and status.is_active and paths.config_file.exists():
        _rewrite_config(state, row, host)
    if "RestartPolicy" in given and status.is_active:
        Zygote(state.root).ping()
        policy = host["RestartPolicy"]
        with suppress(ConflictError):  # it has ended: the next start uses the record
            SupervisorClient(paths).set_restart_policy(policy["Name"], policy["MaximumRetryCount"])
    return True


def _merge(
    request: CreateRequest, given: Mapping[str, Any], names: Mapping[str, str] | None
) -> CreateRequest:
    """Return the checked request with the changes."""
    document = compact(request)
    return check_request({**document, "HostConfig": {**document["HostConfig"], **given}}, names)


def _require_support(given: Mapping[str, Any], names: Mapping[str, str] | None) -> None:
    """Raise UnsupportedError for a limit that this host cannot enforce, InvalidError for processors that it lacks."""
    check_cpuset(given)
    support = probe_cgroups()
    can = {
        "BlkioWeight": support.io,
        "CpuPeriod": support.cpu,
        "CpuQuota": support.cpu,
        "CpuShares": support.cpu,
        "CpusetCpus": support.cpuset,
        "CpusetMems": support.cpuset,
        "Memory": support.memory,
        "MemoryReservation": support.memory,
        "MemorySwap": support.swap,
        "NanoCpus": support.cpu,
        "PidsLimit": support.pids,
        "RestartPolicy": True,
    }
    lost = [(names or {}).get(name, name) for name in given if not can[name]]
    if lost:
        reason = support.reason or "its cgroup controller is not there"
        raise UnsupportedError(f"cannot enforce {', '.join(sorted(lost))} here: {reason}", "see dock doctor")


def _apply(host: HostConfig, row: ContainerRow, status: Status, *, is_pids: bool) -> Callable[[], None]:
    """Set the limits of a running container; return a function that restores the earlier ones.

    Args:
        is_pids: whether the limit of processes is set or lifted.
    """
    group = find_container_cgroup(status.pid, row.id)
    if group is None:
        raise UnsupportedError(
            f"container {row.name} has no control group",
            "stop it, and start it again: then it has its limits",
        )
    limits = build_limits(host, swap_limit=probe_cgroups().swap)
    if is_pids and "pids" not in limits:
        limits["pids"] = {"limit": -1}
    return group.update(limits)


def _nothing() -> None:
    """Restore nothing: the container is not running."""


def _rewrite_config(state: State, row: ContainerRow, host: HostConfig) -> None:
    """Write the limits into the bundle, which a restart by policy uses."""
    path = state.root.container(row.id).config_file
    config = json.loads(path.read_bytes())
    resources = config["linux"].get("resources") or {}
    kept = {name: value for name, value in resources.items() if name not in _GROUPS}
    config["linux"]["resources"] = kept | build_limits(host, swap_limit=probe_cgroups().swap)
    write_json(path, config)


def remove_link(state: State, link: str) -> None:
    """Remove a link of a container on the default bridge, even of a running one.

    Args:
        link: PARENT/ALIAS: the container with the link, and its name for the other one.

    Raises:
        InvalidError: the link is malformed.
        NotFoundError: the container has no such link.
    """
    parent, slash, alias = link.strip("/").partition("/")
    if not slash or not alias:
        raise InvalidError(f"invalid link {link!r}", "write CONTAINER/ALIAS")
    for _ in range(_ATTEMPTS):
        row = table.find(state.database, parent)
        definition = decode(row.definition)
        links = definition.host["Links"] or []
        kept = [text for text in links if _alias_of(text) != alias]
        if len(kept) == len(links):
            raise NotFoundError(
                f"container {parent} has no link {alias}",
                f"dock inspect -f '{{{{.HostConfig.Links}}}}' {parent} lists them",
            )
        host = {**definition.host, "Links": kept or None}
        request = cast("CreateRequest", {**definition.request, "HostConfig": host})
        if table.redefine(state.database, row, encode(definition._replace(request=request)), "update"):
            _forget_name(state.root.container(row.id).data / "hosts", alias)
            return
    raise ConflictError(f"container {parent} is being changed by others", "try again")


def _alias_of(link: str) -> str:
    name, _, alias = link.removeprefix("/").partition(":")
    return alias or name


def _forget_name(path: Path, name: str) -> None:
    """Remove the line of a linked container from /etc/hosts in place, because the file is mounted in the container."""
    with suppress(FileNotFoundError), open(path, "r+", encoding="utf-8") as stream:
        lines = stream.readlines()
        stream.seek(0)
        stream.writelines(line for line in lines if line.split()[1:2] != [name])
        stream.truncate()
