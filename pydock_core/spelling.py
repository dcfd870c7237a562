"""Spells sizes and durations, and parses booleans, as Docker does."""

from __future__ import annotations

import re

_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})


def parse_boolean(text: str) -> bool | None:
    """Parse a boolean as Go does (strconv.ParseBool); return None for other text."""
    return True if text in _TRUE else False if text in _FALSE else None


_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ns|us|µs|ms|s|m|h))+")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_UNITS_NS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}


def parse_duration_ns(text: str) -> int | None:
    """Parse a time span in Go's format: "1m30s", "0"; return nanoseconds, or None for other text."""
    if text == "0":
        return 0
    if not _DURATION.fullmatch(text):
        return None
    return sum(int(float(number) * _UNITS_NS[unit]) for number, unit in _DURATION_PART.findall(text))


def spell_range(low: int, high: int) -> str:
    """Return the hint for a whole number; a bound of 2**30 or more is not worth naming."""
    if high < 1 << 30:
        return f"give {low} to {high}"
    return "write a whole number" if low <= -(1 << 30) else f"give {low} or more"


def binary_size(size_bytes: float) -> str:
    """Return a size in Docker's spelling, in powers of 1024: "1.952GiB", "0B" (go-units, BytesSize)."""
    value = float(size_bytes)
    units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]
    while value >= 1024 and len(units) > 1:
        value /= 1024
        units.pop(0)
    return f"{value:.4g}{units[0]}"


def human_size(size_bytes: float, digits: int = 3) -> str:
    """Return a size in Docker's spelling, in powers of 1000: "1.24MB", "528B"; with 4 digits "1.236MB"."""
    value = float(size_bytes)
    units = ["B", "kB", "MB", "GB", "TB", "PB"]
    while value >= 1000 and len(units) > 1:
        value /= 1000
        units.pop(0)
    unit = units[0]
    return f"{value:.{digits}g}{unit}" if value < 999.5 or digits > 3 else f"{value:.0f}{unit}"


def human_duration(seconds: float) -> str:
    """Return a time span as Docker words it: "5 seconds", "About a minute", "3 weeks"."""
    if seconds < 1:
        return "Less than a second"
    if seconds < 60:
        return f"{int(seconds)} second" + ("s" if int(seconds) != 1 else "")
    if (minutes := int(seconds / 60)) < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    if (hours := int(seconds / 3600 + 0.5)) < 48:
        return "About an hour" if hours == 1 else f"{hours} hours"
    if hours < 24 * 7 * 2:
        return f"{hours // 24} days"
    if hours < 24 * 30 * 2:
        return f"{hours // 24 // 7} weeks"
    if hours < 24 * 365 * 2:
        return f"{hours // 24 // 30} months"
    return f"{hours // 24 // 365} years"
