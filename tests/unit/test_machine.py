"""The look at the machine before and after a run."""

from __future__ import annotations

from tests.support.machine import describe_changes, read_state


def test_what_came_and_what_went_is_told() -> None:
    before = read_state()
    after = {
        **before,
        "user": before["user"] - {"root"} | {"left"},
        "process": before["process"] | {"1 2 pydock"},
    }
    assert describe_changes(before, before) == []
    assert describe_changes(before, after) == [
        "user left behind: left",
        "user gone: root",
        "process left behind: 1 2 pydock",
    ]
