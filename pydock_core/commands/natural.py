"""The order of names in Docker's listings: numbers in names are compared as numbers.  Pure."""

from __future__ import annotations

import re

_NUMBERS = re.compile(r"([0-9]+)")


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Return a key that sorts "v2" before "v10" (github.com/fvbommel/sortorder, NaturalLess)."""
    return [
        (0, int(part), part) if part.isdecimal() else (1, 0, part) for part in _NUMBERS.split(name) if part
    ]
