"""The log driver of a container and its options, by Docker's names.  Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pydock_core.errors import InvalidError, UnsupportedError
from pydock_core.supervision.log_files import LogLimits

JSON_FILE = "json-file"
NONE = "none"
DEFAULT_OPTIONS: Mapping[str, str] = {"max-size": "10m", "max-file": "3"}
"""The values that Docker's documentation advises.  Its own default has no limit, and a container can fill the disk by
writing to its standard output."""

_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([kmgtp]?)(?:i?b)?", re.IGNORECASE)
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "p": 10**15}
_MOST_FILES = 1000


def complete_options(driver: str, options: Mapping[str, str]) -> dict[str, str]:
    """Return the options as ``inspect`` shows them, with the defaults of those that are not given."""
    return {**DEFAULT_OPTIONS, **options} if driver == JSON_FILE else {}


def parse_limits(driver: str, options: Mapping[str, str]) -> LogLimits | None:
    """Return how much of the log is kept; None for the driver "none", which keeps nothing.

    Sizes are in powers of 1000, as Docker has them here (units.FromHumanSize).

    Raises:
        UnsupportedError: a driver or an option of Docker's that is not here; exit code 125.
        InvalidError: a malformed value; exit code 125.
    """
    if driver not in (JSON_FILE, NONE):
        raise UnsupportedError(
            f"--log-driver {driver}: unknown log driver", "there are json-file and none", exit_code=125
        )
    known = DEFAULT_OPTIONS if driver == JSON_FILE else {}
    for name in options:
        if name not in known:
            raise UnsupportedError(
                f"--log-opt {name}: the log driver {driver} does not have this option",
                "json-file has max-size and max-file; none has no options",
                exit_code=125,
            )
    if driver == NONE:
        return None
    given = complete_options(driver, options)
    return LogLimits(_parse_size(given["max-size"]), _parse_count(given["max-file"]))


def _parse_size(text: str) -> int:
    if text == "-1":
        return 0
    match = _SIZE.fullmatch(text.strip())
    size = int(float(match.group(1)) * _UNITS[match.group(2).lower()]) if match else 0
    if size < 1:
        raise InvalidError(
            f"invalid --log-opt max-size={text}", "write a size, 10m, or -1 for no limit", exit_code=125
        )
    return size


def _parse_count(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text) or not 1 <= int(text) <= _MOST_FILES:
        raise InvalidError(
            f"invalid --log-opt max-file={text}", f"write a number from 1 to {_MOST_FILES}", exit_code=125
        )
    return int(text)
