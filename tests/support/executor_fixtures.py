"""Fixtures over every executor: one driver process for each kind and session, one box for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.executor_box import KINDS, Box, Driver, find_reason_to_skip, opened_box, remove_test_groups
from tests.support.passable import make_passable


@pytest.fixture(scope="session")
def drivers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Driver]]:
    """Driver processes by kind, started when first asked for."""
    running: dict[str, Driver] = {}
    yield running
    for driver in running.values():
        if not driver.has_ended:
            driver.close()
    remove_test_groups()


@pytest.fixture(params=KINDS)
def box(
    request: pytest.FixtureRequest,
    drivers: dict[str, Driver],
    tmp_path_factory: pytest.TempPathFactory,
    tmp_path: Path,
) -> Iterator[Box]:
    """Runs bundles with one executor; afterwards nothing of them may be left."""
    kind = request.param
    reason = find_reason_to_skip(kind)
    if reason:
        pytest.skip(reason)
    make_passable(tmp_path_factory.getbasetemp())
    if kind not in drivers or drivers[kind].has_ended:
        drivers[kind] = Driver(kind, tmp_path_factory.mktemp(f"driver-{kind}"))
    with opened_box(kind, drivers[kind], tmp_path) as opened:
        yield opened


def only(*kinds: str) -> pytest.MarkDecorator:
    """Run a test of ``box`` with these executors only."""
    return pytest.mark.parametrize("box", kinds, indirect=True)
