"""How sizes in bytes are spelled."""

from __future__ import annotations


def human_size(size_bytes: float, digits: int = 3) -> str:
    """Return a size as Docker shows it, in powers of 1000: "1.24MB", "528B"; with 4 digits "1.236MB"."""
    value = float(size_bytes)
    units = ["B", "kB", "MB", "GB", "TB", "PB"]
    while value >= 1000 and len(units) > 1:
        value /= 1000
        units.pop(0)
    unit = units[0]
    return f"{value:.{digits}g}{unit}" if value < 999.5 or digits > 3 else f"{value:.0f}{unit}"
