"""Labels in filters: ``label=KEY``, ``label=KEY=VALUE``, and in prunes ``label!=...``.  Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from pydock_core.engine.moment import parse_moment_ns
from pydock_core.errors import InvalidError

PruneFilter = Callable[[int, Mapping[str, str]], bool]
"""Whether an object may be removed, by its creation time (nanoseconds since the epoch) and its labels."""


def has_label(labels: Mapping[str, str], text: str) -> bool:
    """Whether the labels have KEY, or KEY with the value of KEY=VALUE."""
    key, equals, value = text.partition("=")
    return key in labels and (not equals or labels[key] == value)


def parse_prune_filters(
    filters: Mapping[str, Sequence[str]], now_ns: int, keys: Sequence[str] = ("label", "label!", "until")
) -> PruneFilter:
    """Return the condition that the filters of a prune set, with Docker's meaning.

    An object needs every ``label``; one with all labels of ``label!`` stays, and one created after ``until``.

    Args:
        filters: key to values, as the Engine API has them.
        now_ns: since the epoch; ``until=24h`` counts from it.
        keys: the filters that this kind of object has.

    Raises:
        InvalidError: an unknown key, or a malformed time.
    """
    for key in filters:
        if key not in keys:
            raise InvalidError(f"--filter {key}: unknown key", f"there are {', '.join(keys)}")
    required, excluded = list(filters.get("label", ())), list(filters.get("label!", ()))
    until_ns = [parse_moment_ns(text, "--filter until", now_ns) for text in filters.get("until", ())]
    if len(until_ns) > 1:
        raise InvalidError("--filter until: given twice", "give one")

    def may_go(created_ns: int, labels: Mapping[str, str]) -> bool:
        if until_ns and created_ns > until_ns[0]:
            return False
        if not all(has_label(labels, label) for label in required):
            return False
        return not excluded or not all(has_label(labels, label) for label in excluded)

    return may_go
