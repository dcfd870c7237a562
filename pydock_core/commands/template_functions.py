"""The functions of ``--format``'s templates, and Go's spelling of values.  Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydock_core.commands.record import Method
from pydock_core.printable import json_text


class Nil:
    """A null field as in Go: false, empty, null in JSON, and printed by its type."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __bool__(self) -> bool:
        return False

    def __len__(self) -> int:
        return 0

    def __eq__(self, other: object) -> bool:
        return other is None or isinstance(other, Nil)

    def __hash__(self) -> int:
        return hash(None)


def _plain(value: Any) -> Any:
    """Return a value for JSON, without methods."""
    if isinstance(value, Nil):
        return None
    if isinstance(value, Mapping):
        return {key: item for key, item in value.items() if not isinstance(item, Method)}
    return value


def shown_value(value: Any) -> str:
    """Return a value in Go's spelling."""
    if value is None:
        return "<no value>"
    if isinstance(value, Nil):
        return value.text
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "map[" + " ".join(f"{key}:{shown_value(item)}" for key, item in sorted(value.items())) + "]"
    if isinstance(value, (list, tuple)):
        return "[" + " ".join(shown_value(item) for item in value) + "]"
    return str(value)


_NUMBERS: dict[str, Callable[[Any], float]] = {
    **dict.fromkeys("dxXoc", int),
    **dict.fromkeys("feEgG", float),
}
"""The verbs of printf that print numbers."""
_NUMBERS_FLAGS = str.maketrans("", "", "+# ")
"""Flags without effect on a text: "%+v" is the same as "%v"."""


def _printf(pattern: str, *values: Any) -> str:
    remaining = iter(values)

    def one(match: re.Match[str]) -> str:
        verb = match.group(2)
        if verb == "%":
            return "%"
        try:
            value = next(remaining)
        except StopIteration:
            raise ValueError(f"no value is given for {match[0]}") from None
        if verb in _NUMBERS:
            return f"%{match.group(1)}{verb}" % _NUMBERS[verb](value)
        return f"%{match.group(1).translate(_NUMBERS_FLAGS)}s" % (
            json.dumps(value) if verb == "q" else shown_value(value)
        )

    return re.sub(r"%([-+0# ]*\d*(?:\.\d+)?)([sdvqtfeEgGxXoc%])", one, pattern)


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if value is None or isinstance(value, Nil):
            return None
        if isinstance(value, Mapping):
            value = value.get(key, "")
        elif isinstance(key, int) and key >= 0:
            value = value[key]
        else:
            raise ValueError(f"no place in a list: {shown_value(key)}")
    return value


def _print(values: Sequence[Any]) -> str:
    """Return Go's fmt.Sprint: a space between two values if neither is a string."""
    parts: list[str] = []
    for before, value in zip((None, *values), values, strict=False):
        apart = parts and not isinstance(before, str) and not isinstance(value, str)
        parts.append((" " if apart else "") + shown_value(value))
    return "".join(parts)


def _slice(value: Any, *bounds: int) -> Any:
    """Return Go's ``value[low:high]`` of a string or a list; bounds outside it are an error, as in Go."""
    low, high = (*bounds, *(0, len(value))[len(bounds) :])
    if not 0 <= low <= high <= len(value):
        raise ValueError(f"{low} to {high} is out of range: the length is {len(value)}")
    return value[low:high]


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "json": lambda value: json_text(_plain(value), separators=(",", ":")),
    "upper": lambda value: str(value).upper(),
    "lower": lambda value: str(value).lower(),
    "title": lambda value: str(value).title(),
    "join": lambda values, separator: separator.join(shown_value(value) for value in values or ()),
    "split": lambda value, separator: value.split(separator),
    "len": len,
    "index": _index,
    "slice": _slice,
    "print": lambda *values: _print(values),
    "println": lambda *values: " ".join(shown_value(value) for value in values) + "\n",
    "printf": _printf,
    "truncate": lambda value, length: str(value)[:length],
    "pad": lambda value, before, after: " " * before + str(value) + " " * after,
    "eq": lambda value, *others: any(value == other for other in others),
    "ne": lambda value, other: value != other,
    "lt": lambda value, other: value < other,
    "le": lambda value, other: value <= other,
    "gt": lambda value, other: value > other,
    "ge": lambda value, other: value >= other,
    # The parser evaluates these two itself, only as far as needed.
    "and": lambda *_: None,
    "or": lambda *_: None,
    "not": lambda value: not value,
}
