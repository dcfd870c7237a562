"""Parsers of option values: sizes, times, numbers, filters.  Each names the option in its error."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pydock_core import spelling
from pydock_core.errors import InvalidError

_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def parse_bytes(text: str, option: str) -> int:
    """Parse a size in bytes: "512m", "2g", "1.5GiB"; units are powers of 1024, as in Docker's ``-m``."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([bkmgt]?)(?:i?b)?", text.strip().lower())
    if not match:
        raise _bad(f"{option} {text}: not a size", "write a number with b, k, m or g: 512m")
    return int(float(match.group(1)) * _UNITS[match.group(2)])


def parse_integer(text: str, option: str, low: int, high: int) -> int:
    """Parse a whole number from ``low`` to ``high``."""
    try:
        value = int(text)
    except ValueError:
        raise _bad(f"{option} {text}: not a whole number", spelling.spell_range(low, high)) from None
    if not low <= value <= high:
        raise _bad(f"{option} {text}: out of range", spelling.spell_range(low, high))
    return value


def parse_float(text: str, option: str) -> float:
    """Parse a finite number."""
    try:
        value = float(text)
    except ValueError:
        raise _bad(f"{option} {text}: not a number", "write a number: 1.5") from None
    if value != value or value in (float("inf"), float("-inf")):
        raise _bad(f"{option} {text}: not a number", "write a number: 1.5")
    return value


def parse_seconds(text: str, option: str) -> float:
    """Parse a time in seconds; every negative one is -1, which waits forever."""
    return max(parse_float(text, option), -1.0)


def parse_duration_ns(text: str, option: str) -> int:
    """Parse a time span: "30s", "1m30s"; return nanoseconds."""
    value = spelling.parse_duration_ns(text)
    if value is None:
        raise _bad(f"{option} {text}: not a time", "write a number with ms, s, m or h: 30s, 1m30s")
    return value


def parse_boolean(text: str, option: str) -> bool:
    """Parse true or false, as Go does."""
    value = spelling.parse_boolean(text)
    if value is None:
        raise _bad(f"{option} {text}: neither true nor false", "write true or false")
    return value


def parse_csv(text: str, option: str) -> list[str]:
    """Split a line of comma-separated values as Go's encoding/csv does: a field in double quotes may contain commas."""
    if not text:
        raise _bad(f"{option}: the value is empty", f"give one, or leave {option} out")
    fields: list[str] = []
    rest: str | None = text
    while rest is not None:
        match = re.match(r'"((?:[^"\n]|"")*)"(?=,|$)|([^",\n]*)(?=,|$)', rest)
        if match is None:
            raise _bad(
                f"{option} {text}: not comma-separated values", "put a value with commas into double quotes"
            )
        fields.append(match[2] if match[1] is None else match[1].replace('""', '"'))
        rest = rest[match.end() + 1 :] if match.end() < len(rest) else None
    return fields


def parse_pair(text: str, option: str) -> tuple[str, str]:
    """Split KEY=VALUE."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise _bad(f"{option} {text}: malformed", f"write {option} NAME=VALUE")
    return key, value


def parse_filters(words: Iterable[str]) -> dict[str, list[str]]:
    """Collect KEY=VALUE words by key; the values are as typed.

    Raises:
        InvalidError: a word has no equals sign.
    """
    filters: dict[str, list[str]] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise InvalidError(f"--filter {word}: malformed", "write --filter KEY=VALUE")
        filters.setdefault(key.strip().lower(), []).append(value.strip())
    return filters


def _bad(message: str, hint: str) -> InvalidError:
    return InvalidError(message, hint, exit_code=125)
