"""Labels in filters: ``label=KEY``, ``label=KEY=VALUE``, and in prunes ``label!=...``.  Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from pydock_core.engine.moment import parse_moment_ns
from pydock_core.errors import InvalidError

PruneFilter = Callable[[int, Mapping[str, str]], bool]
"""Whether a thing may go, by when it was made (nanoseconds since the epoch) and its labels."""


def has_label(labels: Mapping[str, str], wanted: str) -> bool:
    """Whether there is the label KEY, or the label KEY with the value of KEY=VALUE."""
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)


def parse_prune_filters(
    filters: Mapping[str, Sequence[str]], now_ns: int, keys: Sequence[str] = ("label", "label!", "until")
) -> PruneFilter:
    """Return what the filters of a prune ask of a thing, with Docker's meaning.

    Every ``label`` must be there; a thing that has all labels of ``label!`` stays, and what was made after ``until``.

    Args:
        filters: key to values, as the Engine API has them.
        now_ns: since the epoch; ``until=24h`` counts from it.
        keys: the filters that there are for the kind of thing.

    Raises:
        InvalidError: an unknown key, or a malformed time.
    """
    for key in filters:
        if key not in keys:
            raise InvalidError(f"--filter {key}: unknown key", f"there are {', '.join(keys)}")
    wanted, unwanted = list(filters.get("label", ())), list(filters.get("label!", ()))
    until_ns = [parse_moment_ns(text, "--filter until", now_ns) for text in filters.get("until", ())]
    if len(until_ns) > 1:
        raise InvalidError("--filter until: given twice", "give one")

    def may_go(created_ns: int, labels: Mapping[str, str]) -> bool:
        if until_ns and created_ns > until_ns[0]:
            return False
        if not all(has_label(labels, label) for label in wanted):
            return False
        return not unwanted or not all(has_label(labels, label) for label in unwanted)

    return may_go
