"""One row of a listing: its fields, and the spelling of their values."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydock_core.spelling import human_duration

Record = Mapping[str, Any]
"""One row of a listing, by field name; a value may be a callable without arguments, called only if it is displayed."""


@dataclass(frozen=True, slots=True)
class Method:
    """A field of a record that takes an argument in a template, ``{{.Label "key"}}``, and is absent from JSON."""

    call: Callable[[str], str]


def field_value(value: Any) -> Any:
    """Return the value of a record's field, which may be a callable."""
    return value() if callable(value) else value


def describe_age(created: float) -> str:
    """Return the age of a moment (seconds since the epoch): "5 minutes ago"; "" if it is unknown (0)."""
    return f"{human_duration(time.time() - created)} ago" if created > 0 else ""


def time_of(created: float) -> str:
    """Return a moment (seconds since the epoch) in local time, in Go's format: "2026-01-31 12:00:00 +0000 UTC"."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(created))


def shorten(text: str, width: int) -> str:
    """Return at most ``width`` characters of a text, the last of them an ellipsis if it was longer."""
    return text if len(text) <= width else text[: width - 1] + "…"
