"""Checks the arguments of the functions that a person calls in a notebook; a wrong one is told in one line."""

from __future__ import annotations

import operator

from pydock_core.errors import InvalidError


def check_text(value: object, what: str) -> str:
    """Return a text as it is.

    Raises:
        InvalidError: it is not a text (a list of names, a number).
    """
    if not isinstance(value, str):
        raise InvalidError(f"invalid {what}: {value!r}", f"a {what} is a text, in quotes")
    return value


def check_number(value: object, what: str, least: int, most: int) -> int:
    """Return a whole number (an int, or one of NumPy's) as an int.

    Raises:
        InvalidError: it is not a whole number, or not in the range, both ends included.
    """
    hint = f"a {what} is a whole number from {least} to {most}"
    try:
        number = operator.index(value)  # type: ignore[arg-type]  # whether it is one is the question
    except TypeError:
        raise InvalidError(f"invalid {what}: {value!r}", hint) from None
    if not least <= number <= most:
        raise InvalidError(f"invalid {what}: {number}", hint)
    return number
