"""The events of a long operation, as its steps report them and as displays receive them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Required, TypedDict


class Event(TypedDict, total=False):
    """One event: a JSONMessage of the Engine API, with its progressDetail laid flat.

    An event with neither an id nor numbers is a message of its own ("Digest: sha256:...").

    Attributes:
        status: "Downloading", "Pull complete", ...
        id: of the layer or object; absent if the event is about the whole operation.
        current: bytes so far in this phase.
        total: bytes of this phase; absent if unknown.
    """

    status: Required[str]
    id: str
    current: int
    total: int


Progress = Callable[[Event], None]
"""Receives the events of one operation."""
