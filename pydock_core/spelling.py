"""Spells and parses sizes and booleans as Docker does."""

from __future__ import annotations

_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})


def parse_boolean(text: str) -> bool | None:
    """Parse a boolean as Go does (strconv.ParseBool); return None for other text."""
    return True if text in _TRUE else False if text in _FALSE else None


def human_size(size_bytes: float, digits: int = 3) -> str:
    """Return a size in Docker's spelling, in powers of 1000: "1.24MB", "528B"; with 4 digits "1.236MB"."""
    value = float(size_bytes)
    units = ["B", "kB", "MB", "GB", "TB", "PB"]
    while value >= 1000 and len(units) > 1:
        value /= 1000
        units.pop(0)
    unit = units[0]
    return f"{value:.{digits}g}{unit}" if value < 999.5 or digits > 3 else f"{value:.0f}{unit}"
