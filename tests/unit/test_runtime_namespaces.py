"""Namespaces: the plan that ``linux.namespaces`` makes."""

from __future__ import annotations

import pytest

from pydock_core.errors import InvalidError, UnsupportedError
from pydock_core.runtime.namespaces import NamespacePlan


def test_namespaces_are_made_or_joined() -> None:
    plan = NamespacePlan.from_config([{"type": "pid"}, {"type": "network", "path": "/proc/1/ns/net"}])
    assert (plan.new, plan.joined) == ({"pid"}, {"network": "/proc/1/ns/net"})


def test_a_pid_namespace_cannot_be_joined() -> None:
    """Processes already in it could see init while it is set up."""
    with pytest.raises(UnsupportedError, match="joining a PID namespace") as caught:
        NamespacePlan.from_config([{"type": "pid", "path": "/proc/1/ns/pid"}])
    assert caught.value.hint == "use --runtime crun"


@pytest.mark.parametrize(
    ("kinds", "message"), [(["uts", "uts"], "uts is given twice"), (["net"], "unknown type net")]
)
def test_bad_namespaces_are_refused(kinds: list[str], message: str) -> None:
    with pytest.raises(InvalidError, match=message):
        NamespacePlan.from_config([{"type": kind} for kind in kinds])
