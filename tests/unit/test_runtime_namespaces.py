"""Namespaces: the plan that ``linux.namespaces`` makes."""

from __future__ import annotations

import pytest

from pydock_core.errors import InvalidError, UnsupportedError
from pydock_core.runtime.namespaces import NamespacePlan


def test_namespaces_are_made_or_joined() -> None:
    plan = NamespacePlan.from_config([{"type": "pid"}, {"type": "network", "path": "/proc/1/ns/net"}])
    assert (plan.new, plan.joined) == ({"pid"}, {"network": "/proc/1/ns/net"})


def test_a_joined_pid_namespace_needs_no_fork_before_the_start() -> None:
    """Init is not in it while it is set up, even with a user namespace, which must own a new one."""
    joined = {"type": "pid", "path": "/proc/1/ns/pid"}
    for others in ([], [{"type": "user"}]):
        plan = NamespacePlan.from_config([joined, *others])
        assert plan.joins_pid
        assert not plan.needs_two_steps
    assert NamespacePlan.from_config([{"type": "pid"}, {"type": "user"}]).needs_two_steps
    with pytest.raises(UnsupportedError, match="with a time namespace") as caught:
        NamespacePlan.from_config([joined, {"type": "time"}])
    assert caught.value.hint == "use --runtime crun"


@pytest.mark.parametrize(
    ("kinds", "message"), [(["uts", "uts"], "uts is given twice"), (["net"], "unknown type net")]
)
def test_bad_namespaces_are_refused(kinds: list[str], message: str) -> None:
    with pytest.raises(InvalidError, match=message):
        NamespacePlan.from_config([{"type": kind} for kind in kinds])
