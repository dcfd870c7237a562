"""The ``--filter`` of image listings, with Docker's meaning.  Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from pydock_core import spelling
from pydock_core.engine.image_shapes import SeenImage
from pydock_core.engine.labels import has_label
from pydock_core.engine.moment import parse_moment_ns
from pydock_core.errors import InvalidError
from pydock_core.store.database.images import DigestRow, TagRow

_KEYS = ("before", "dangling", "label", "reference", "since", "until")

ImageFilter = Callable[[SeenImage], SeenImage | None]
"""Returns the image with its matching names, or None if it does not match."""


def parse_image_filters(
    filters: Mapping[str, Sequence[str]], created_ns: Callable[[str], int], now_ns: int
) -> ImageFilter:
    """Return the filter of images: all keys must match, with any value of ``reference`` and every value of the others.

    Args:
        filters: key to values, as in the Engine API.
        created_ns: returns the time of an image named by ``before`` or ``since``.
        now_ns: since the epoch; ``until=10m`` counts from it.

    Raises:
        InvalidError: an unknown key, or a malformed value.
    """
    conditions = [
        _condition(key, list(values), created_ns, now_ns)
        for key, values in filters.items()
        if key != "reference" and values
    ]
    patterns = [compile_pattern(value) for value in filters.get("reference", ())]

    def apply(seen: SeenImage) -> SeenImage | None:
        if not all(condition(seen) for condition in conditions):
            return None
        if not patterns:
            return seen
        tags = tuple(tag for tag in seen.tags if _names(tag, patterns))
        # A matching name includes its digests: images --digests NAME:TAG shows them.
        repositories = {tag.repository for tag in tags}
        digests = tuple(
            digest for digest in seen.digests if digest.repository in repositories or _names(digest, patterns)
        )
        return replace(seen, tags=tags, digests=digests) if tags or digests else None

    return apply


def _condition(
    key: str, values: Sequence[str], created_ns: Callable[[str], int], now_ns: int
) -> Callable[[SeenImage], bool]:
    if key == "dangling":
        if parse_boolean(values[-1], "dangling"):
            return lambda seen: not seen.tags
        return lambda seen: bool(seen.tags or seen.digests)
    if key == "label":
        return lambda seen: all(has_label(seen.labels, value) for value in values)
    if key in ("before", "until"):
        find = created_ns if key == "before" else _until(now_ns)
        latest_ns = min(find(value) for value in values)
        return lambda seen: seen.row.created_ns < latest_ns
    if key == "since":
        earliest_ns = max(created_ns(value) for value in values)
        return lambda seen: seen.row.created_ns > earliest_ns
    raise InvalidError(f"--filter {key}: unknown key", f"there are {', '.join(_KEYS)}")


def _until(now_ns: int) -> Callable[[str], int]:
    return lambda value: parse_moment_ns(value, "--filter until", now_ns)


def parse_boolean(text: str, key: str) -> bool:
    """Parse the value of a boolean filter."""
    value = spelling.parse_boolean(text)
    if value is None:
        raise InvalidError(f"--filter {key}={text}: neither true nor false", f"write {key}=true")
    return value


def _names(row: TagRow | DigestRow, patterns: Sequence[re.Pattern[str]]) -> bool:
    """Docker matches the pattern with the name, with and without the tag or digest (reference.FamiliarMatch)."""
    return any(pattern.fullmatch(row.reference) or pattern.fullmatch(row.repository) for pattern in patterns)


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Compile a pattern of Go's path.Match: ``*`` and ``?`` do not match a slash.

    Raises:
        InvalidError: the pattern is malformed.
    """
    parts: list[str] = []
    index = 0
    while index < len(pattern):
        char = pattern[index]
        index += 1
        if char == "*":
            parts.append("[^/]*")
        elif char == "?":
            parts.append("[^/]")
        elif char == "\\" and index < len(pattern):
            parts.append(re.escape(pattern[index]))
            index += 1
        elif char == "[":
            end = pattern.find("]", index + 1)
            if end < 0:
                raise _bad_pattern(pattern)
            inside = pattern[index:end].replace("[", r"\[").replace("&&", r"&\&").replace("||", r"|\|")
            parts.append(f"(?!/)[{inside}]")
            index = end + 1
        else:
            parts.append(re.escape(char))
    try:
        return re.compile("".join(parts))
    except re.error as error:
        raise _bad_pattern(pattern) from error


def _bad_pattern(pattern: str) -> InvalidError:
    return InvalidError(
        f"--filter reference={pattern}: malformed pattern", "write it as in reference='busy*:latest'"
    )
