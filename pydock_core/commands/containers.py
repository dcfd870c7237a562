"""The commands on existing containers: ps, stop, restart, kill, rm, rename, logs, wait, port, diff."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Callable, Mapping
from typing import Any

from pydock_core.commands.context import Context
from pydock_core.commands.dispatch import for_each, show_error
from pydock_core.commands.format import write_listing
from pydock_core.commands.ports import describe_ports, list_bindings
from pydock_core.commands.record import Method, describe_age, shorten, time_of
from pydock_core.commands.values import parse_filters, parse_integer, parse_seconds
from pydock_core.engine import parse_moment_ns
from pydock_core.errors import InvalidError, NotFoundError
from pydock_core.printable import printable
from pydock_core.spelling import human_size

_PS_COLUMNS = (
    ("CONTAINER ID", "ID"),
    ("IMAGE", "Image"),
    ("COMMAND", "Command"),
    ("CREATED", "RunningFor"),
    ("STATUS", "Status"),
    ("PORTS", "Ports"),
    ("NAMES", "Names"),
)
_PS_HEADERS = {field: header for header, field in _PS_COLUMNS} | {
    "CreatedAt": "CREATED AT",
    "Labels": "LABELS",
    "LocalVolumes": "LOCAL VOLUMES",
    "Mounts": "MOUNTS",
    "Networks": "NETWORKS",
    "Size": "SIZE",
    "State": "STATE",
}
_COMMAND_WIDTH = 20


def ps(context: Context, words: Namespace) -> int:
    """List containers."""
    limit = 1 if words.latest else parse_integer(words.last, "--last", -1, 1 << 30) if words.last else None
    summaries = context.engine.containers.list(
        all=words.all,
        filters=parse_filters(words.filter),
        limit=limit if limit and limit > 0 else None,
        size=words.size or ".Size" in (words.format or ""),
    )
    if words.quiet and not words.format:
        for summary in summaries:
            context.print(summary["Id"] if words.no_trunc else summary["Id"][:12])
        return 0
    records = [
        {**ps_record(summary, whole=words.no_trunc), "Label": label_of(summary["Labels"])}
        for summary in summaries
    ]
    columns = (*_PS_COLUMNS, ("SIZE", "Size")) if words.size else _PS_COLUMNS
    write_listing(context, records, columns, words.format, _PS_HEADERS)
    return 0


def ps_record(summary: Mapping[str, Any], *, whole: bool) -> dict[str, Any]:
    """Return the row of a listing for a ContainerSummary; with ``whole``, ids and commands in full."""
    command = summary["Command"] if whole else shorten(summary["Command"], _COMMAND_WIDTH)
    size, whole_size = summary.get("SizeRw", 0), summary.get("SizeRootFs", 0)
    return {
        "ID": summary["Id"] if whole else summary["Id"][:12],
        "Image": summary["Image"],
        "Command": f'"{command}"',
        "CreatedAt": time_of(summary["Created"]),
        "RunningFor": describe_age(summary["Created"]),
        "Status": summary["Status"],
        "State": summary["State"],
        "Ports": describe_ports(summary["Ports"]),
        "Names": ",".join(name.removeprefix("/") for name in summary["Names"]),
        "Labels": ",".join(f"{key}={value}" for key, value in sorted(summary["Labels"].items())),
        "LocalVolumes": str(sum(mount["Type"] == "volume" for mount in summary["Mounts"])),
        "Mounts": ",".join(mount["Source"] for mount in summary["Mounts"]),
        "Networks": ",".join(summary["NetworkSettings"]["Networks"]),
        "Size": human_size(size) + (f" (virtual {human_size(whole_size)})" if whole_size else ""),
    }


def label_of(labels: Mapping[str, str]) -> Method:
    """Return the field ``Label`` of a record: a label by its key."""
    return Method(lambda key: labels.get(key, ""))


def stop(context: Context, words: Namespace) -> int:
    """Stop containers, and print the names as given."""
    return _stop_each(context, words, context.engine.containers.stop)


def restart(context: Context, words: Namespace) -> int:
    """Stop containers and start them again."""
    return _stop_each(context, words, context.engine.containers.restart)


def _stop_each(
    context: Context, words: Namespace, action: Callable[[str, float | None, str | None], None]
) -> int:
    seconds = parse_seconds(words.timeout, "--timeout") if words.timeout else None

    def one(name: str) -> None:
        action(name, seconds, words.signal)
        context.print(name)

    return for_each(context, words.CONTAINER, one)


def kill(context: Context, words: Namespace) -> int:
    """Send a signal to containers."""

    def one(name: str) -> None:
        context.engine.containers.kill(name, words.signal)
        context.print(name)

    return for_each(context, words.CONTAINER, one)


def update(context: Context, words: Namespace) -> int:
    """Change the limits and the restart policy of containers."""
    from pydock_core.commands.create_words import (  # late: the other commands need neither
        FIELD_FLAGS,
        build_update,
    )

    changes = build_update(words)
    return _name_each(
        context, words, lambda name: context.engine.containers.update(name, changes, FIELD_FLAGS)
    )


def pause(context: Context, words: Namespace) -> int:
    """Freeze all processes of containers."""
    return _name_each(context, words, context.engine.containers.pause)


def unpause(context: Context, words: Namespace) -> int:
    """Thaw paused containers."""
    return _name_each(context, words, context.engine.containers.unpause)


def _name_each(context: Context, words: Namespace, action: Callable[[str], None]) -> int:
    """Apply an action to each container, and print the names as given."""

    def one(name: str) -> None:
        action(name)
        context.print(name)

    return for_each(context, words.CONTAINER, one)


def rm(context: Context, words: Namespace) -> int:
    """Remove containers; with -f, one that does not exist is named, but is no failure.  With -l remove links."""
    if words.link:
        return _name_each(context, words, context.engine.containers.unlink)

    def one(name: str) -> None:
        try:
            context.engine.containers.remove(name, force=words.force, volumes=words.volumes)
        except NotFoundError as error:
            if not words.force:
                raise
            show_error(error, context)
            return
        context.print(name)

    return for_each(context, words.CONTAINER, one)


def rename(context: Context, words: Namespace) -> int:
    """Give a container another name."""
    context.engine.containers.rename(words.CONTAINER, words.NAME)
    return 0


def wait(context: Context, words: Namespace) -> int:
    """Wait until containers end, and print their exit codes."""

    def one(name: str) -> None:
        context.print(str(context.engine.containers.wait(name, words.condition)))

    return for_each(context, words.CONTAINER, one)


def logs(context: Context, words: Namespace) -> int:
    """Show a container's output, on the stream to which it was written."""
    tail = None if words.tail in ("all", "-1") else parse_integer(words.tail, "--tail", 0, 1 << 40)
    now_ns = time.time_ns()
    entries = context.engine.containers.logs(
        words.CONTAINER,
        follow=words.follow,
        tail=tail,
        timestamps=words.timestamps,
        since_ns=parse_moment_ns(words.since, "--since", now_ns) if words.since else None,
        until_ns=parse_moment_ns(words.until, "--until", now_ns) if words.until else None,
        details=words.details,
    )
    for entry in entries:
        (context.stdout if entry.stream == "stdout" else context.stderr).write_bytes(entry.data)
    return 0


def diff(context: Context, words: Namespace) -> int:
    """List what a container changed in its file system: C changed, A added, D deleted."""
    for change in context.engine.filesystems.diff(words.CONTAINER):
        path = change["Path"]
        context.print(f"{'CAD'[change['Kind']]} {path if context.exact else printable(path)}")
    return 0


def port(context: Context, words: Namespace) -> int:
    """Show the published addresses of a container's ports."""
    bindings = context.engine.containers.inspect(words.CONTAINER)["NetworkSettings"]["Ports"]
    private_port = None
    if words.PORT:
        number, _, protocol = words.PORT.partition("/")
        if not number.isdigit() or protocol not in ("", "tcp", "udp"):
            raise InvalidError(f"{words.PORT!r} is not a port", "write PORT or PORT/udp")
        private_port = f"{number}/{protocol or 'tcp'}"
    lines = list(list_bindings(bindings))
    if private_port:
        lines = [line for line in lines if line[0] == private_port]
        if not lines:
            raise NotFoundError(
                f"port {private_port} of container {words.CONTAINER} is not published",
                "publish it at run with -p",
            )
    for key, address in lines:
        context.print(address if private_port else f"{key} -> {address}")
    return 0
