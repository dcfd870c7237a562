"""Checks the arguments of functions that users call in notebooks; reports an invalid one in one line."""

from __future__ import annotations

import operator

from pydock_core.errors import InvalidError


def check_text(value: object, what: str) -> str:
    """Return ``value`` if it is a string.

    Raises:
        InvalidError: it is something else, for example a list or a number.
    """
    if not isinstance(value, str):
        raise InvalidError(f"invalid {what}: {value!r}", f"a {what} is a string in quotes")
    return value


def check_number(value: object, what: str, least: int, most: int) -> int:
    """Return an integer, NumPy's included, as an int.

    Raises:
        InvalidError: the value is not an integer from ``least`` to ``most``.
    """
    hint = f"a {what} is an integer from {least} to {most}"
    try:
        number = operator.index(value)  # type: ignore[arg-type]  # the TypeError is the check
    except TypeError:
        raise InvalidError(f"invalid {what}: {value!r}", hint) from None
    if not least <= number <= most:
        raise InvalidError(f"invalid {what}: {number}", hint)
    return number
