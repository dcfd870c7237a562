"""Measures the reading of many events."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from pydock_core.engine import Engine
from pydock_core.paths import StateRoot
from pydock_core.store.database import events
from pydock_core.store.database.events import Event

COUNT = 100_000
FIRST_NS = 1_700_000_000 * 10**9
_ACTIONS = ("create", "start", "die", "destroy")


def fill(base: Path) -> Engine:
    """Return an engine with 100,000 events of 25,000 containers, a nanosecond after each other."""
    engine = Engine(StateRoot(base / "data", base / "run"))
    with engine.state.database.transaction() as connection:
        for number in range(COUNT):
            attributes = {
                "image": "jupyter/base-notebook:latest",
                "maintainer": "Jupyter Project <jupyter@googlegroups.com>",
                "name": f"name{number // 4}",
            }
            actor = f"{number // 4:064x}"
            event = Event("container", _ACTIONS[number % 4], actor, attributes, FIRST_NS + number)
            events.record(connection, event)
    return engine


def readings(engine: Engine) -> dict[str, Callable[[], int]]:
    """Return what is measured: each action reads events and returns how many."""

    def read(since_ns: int, filters: dict[str, list[str]]) -> int:
        return sum(1 for _ in engine.events.stream(since_ns, time.time_ns(), filters))

    return {
        "events --since, the last 1,000 of 100,000": lambda: read(FIRST_NS + COUNT - 1000, {}),
        "events --since --filter container=NAME, of 100,000": lambda: read(
            FIRST_NS, {"container": ["name12345"]}
        ),
    }
