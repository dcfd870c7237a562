"""Parses the words of ``--filter``."""

from __future__ import annotations

from collections.abc import Iterable

from pydock_core.errors import InvalidError


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
