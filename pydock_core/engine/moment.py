"""Parses the moments in Docker's options and filters."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from pydock_core.errors import InvalidError

# Go's time.ParseDuration, without units below a millisecond.
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")


def parse_moment_ns(text: str, option: str, now_ns: int) -> int:
    """Parse a moment: RFC 3339, seconds since 1970, or a duration before now ("10m"); return nanoseconds since 1970."""
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return int(float(text) * 1e9)
    if re.fullmatch(rf"(?:{_DURATION.pattern})+", text):
        units = {"ms": 1e6, "s": 1e9, "m": 6e10, "h": 3.6e12}
        return now_ns - int(sum(float(value) * units[unit] for value, unit in _DURATION.findall(text)))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidError(
            f"{option} {text}: not a time",
            "write 2026-01-31T12:00:00Z, or a duration before now: 10m",
            exit_code=125,
        ) from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return int((moment - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1)) * 1000
