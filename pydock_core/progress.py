"""The progress events of a long operation, from its steps to the displays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Required, TypedDict


class Event(TypedDict, total=False):
    """One event: a JSONMessage of the Engine API, with progressDetail flattened.

    An event with neither an id nor numbers is a plain message ("Digest: sha256:...").

    Attributes:
        status: "Downloading", "Pull complete", ...
        id: the id of the layer or object; absent for the whole operation.
        current: bytes so far in this phase.
        total: total bytes of this phase; absent if unknown.
    """

    status: Required[str]
    id: str
    current: int
    total: int


Progress = Callable[[Event], None]
"""Receives the events of one operation."""
