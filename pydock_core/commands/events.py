"""The command events."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from pydock_core.commands.context import Context
from pydock_core.commands.values import parse_filters
from pydock_core.engine import parse_moment_ns
from pydock_core.printable import json_text


def events(context: Context, words: Namespace) -> int:
    """Show past events since a time and new ones, until a time or without end."""
    write = _writer(context, words.format)
    now_ns = time.time_ns()
    stream = context.engine.events.stream(
        parse_moment_ns(words.since, "--since", now_ns) if words.since else None,
        parse_moment_ns(words.until, "--until", now_ns) if words.until else None,
        parse_filters(words.filter),
    )
    try:
        for message in stream:
            write(message)
            context.stdout.flush()  # show each event at once
    finally:
        stream.close()
    return 0


def _writer(context: Context, template: str | None) -> Callable[[Mapping[str, Any]], None]:
    """Return the formatter for ``--format``: Docker's text, json, or a template."""
    if not template:
        return lambda message: context.print(describe(message))
    if template == "json":
        return lambda message: context.print(json_text(message, separators=(",", ":")))
    from pydock_core.commands.template import Template

    compiled = Template(template, context.shown)
    return lambda message: _write_line(context, compiled.render(_record(message)))


def _write_line(context: Context, line: str) -> None:
    context.stdout.write(f"{line}\n")


def _record(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields for a template, those of Docker's events.Message."""
    return {
        "Status": message.get("status", ""),
        "ID": message.get("id", ""),
        "From": message.get("from", ""),
        "Type": message["Type"],
        "Action": message["Action"],
        "Actor": message["Actor"],
        "Scope": message["scope"],
        "Time": message["time"],
        "TimeNano": message["timeNano"],
    }


def describe(message: Mapping[str, Any]) -> str:
    """Return the line of a message: "2026-01-31T12:00:00.123456789+01:00 container start ID (image=busybox, name=web)"."""
    seconds, nanoseconds = divmod(message["timeNano"], 1_000_000_000)
    moment = datetime.fromtimestamp(seconds).astimezone()
    zone = moment.strftime("%z")
    offset = "Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:5]}"
    actor = message["Actor"]
    line = (
        f"{moment:%Y-%m-%dT%H:%M:%S}.{nanoseconds:09d}{offset} "
        f"{message['Type']} {message['Action']} {actor['ID']}"
    )
    attributes = ", ".join(f"{key}={value}" for key, value in sorted(actor["Attributes"].items()))
    return f"{line} ({attributes})" if attributes else line
