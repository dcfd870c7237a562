"""The ``--filter`` of events, with Docker's meaning: values of one key are alternatives (labels: all), keys must all match."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydock_core.errors import InvalidError
from pydock_core.store.database.events import Criteria

_SUBJECTS = ("container", "daemon", "network", "volume")
_OTHERS = ("config", "node", "plugin", "secret", "service")
"""Docker's keys for objects that PyDock lacks; no event matches them."""
_KEYS = ("event", "image", "label", "scope", "type", *_SUBJECTS)
_WITH_ARGUMENT = ("exec_create", "exec_start", "health_status")
"""Actions that Docker's filter matches by prefix; if one of them is given, all given values match by prefix."""


def parse_event_filters(filters: Mapping[str, Sequence[str]]) -> Criteria | None:
    """Return the conditions of filters; None if no event can match.

    Raises:
        InvalidError: an unknown key.
    """
    for key in filters:
        if key not in (*_KEYS, *_OTHERS):
            raise InvalidError(f"--filter {key}: unknown key", f"there are {', '.join(sorted(_KEYS))}")
    if any(filters.get(key) for key in _OTHERS):
        return None
    scopes = filters.get("scope", ())
    if scopes and "local" not in scopes:
        return None
    actions = filters.get("event", ())
    are_starts = any(action in _WITH_ARGUMENT for action in actions)
    return Criteria(
        types=tuple(filters.get("type", ())),
        actions=() if are_starts else tuple(actions),
        action_starts=tuple(actions) if are_starts else (),
        subjects=tuple(tuple(filters[key]) for key in _SUBJECTS if filters.get(key)),
        images=tuple(filters.get("image", ())),
        labels=tuple(_label(text) for text in filters.get("label", ())),
    )


def _label(text: str) -> tuple[str, str | None]:
    key, equals, value = text.partition("=")
    return key, value if equals else None
