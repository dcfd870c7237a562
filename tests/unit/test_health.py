"""The states of a health check, its intervals, and its merge with an image's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydock_core.spec.health import build_health_plan, merge_health
from pydock_core.spec.merge import merge
from pydock_core.spec.validation import check_request
from pydock_core.supervision.health_plan import HEALTHY, STARTING, UNHEALTHY, Health, HealthPlan, ProbeResult

PLAN = HealthPlan(("true",), start_period_seconds=10, retries=2)


def after(health: Health, code: int, seconds: float, plan: HealthPlan = PLAN) -> Health:
    moment = int(seconds * 1e9)
    return health.after(ProbeResult(code, "", moment, moment), plan, 0)


def test_failures_in_the_start_period_do_not_count_until_the_first_success() -> None:
    health = after(after(Health(), 1, 1), 1, 2)
    assert (health.status, health.failing_streak) == (STARTING, 0)
    health = after(health, 0, 3)
    assert health.status == HEALTHY
    health = after(after(health, 1, 4), 1, 5)
    assert (health.status, health.failing_streak) == (UNHEALTHY, 2)


def test_failures_after_the_start_period_count() -> None:
    assert after(after(Health(), 1, 11), -1, 12).status == UNHEALTHY
    assert after(after(Health(), 1, 11), 0, 12).failing_streak == 0


def test_intervals() -> None:
    assert Health().interval_seconds(PLAN, 9) == 5
    assert Health().interval_seconds(PLAN, 10) == 30
    assert Health(HEALTHY).interval_seconds(PLAN, 1) == 30


@given(
    codes=st.lists(st.integers(-1, 255), max_size=30), seconds=st.floats(0, 100), retries=st.integers(1, 5)
)
def test_the_log_is_bounded_and_the_record_survives(codes: list[int], seconds: float, retries: int) -> None:
    health = Health()
    for code in codes:
        health = after(health, code, seconds, PLAN.with_values({"retries": retries}))
        assert (health.failing_streak == 0) or code != 0
    assert len(health.log) == min(len(codes), 5)
    assert health.status == UNHEALTHY or health.failing_streak < retries


def test_the_record(tmp_path: Path) -> None:
    health = after(Health(), 3, 20)
    health.write(tmp_path / "health.json")
    assert Health.read(tmp_path / "health.json") == health
    assert Health.read(tmp_path / "none") == Health()


IMAGE = {"Test": ["CMD", "image"], "Interval": 5 * 10**9, "Retries": 7}


@pytest.mark.parametrize(
    ("asked", "image", "merged"),
    [
        (None, None, None),
        (None, IMAGE, IMAGE),
        ({"Test": ["NONE"]}, IMAGE, {**IMAGE, "Test": ["NONE"]}),
        ({"Interval": 1}, IMAGE, {**IMAGE, "Interval": 1}),
        ({"Test": ["CMD", "own"]}, None, {"Test": ["CMD", "own"]}),
    ],
)
def test_merge(asked: Any, image: Any, merged: Any) -> None:
    assert merge_health(asked, image) == merged


@pytest.mark.parametrize(
    ("test", "shell", "words"),
    [
        (["CMD", "a", "b"], None, ("a", "b")),
        (["CMD-SHELL", "a b"], None, ("/bin/sh", "-c", "a b")),
        (["CMD-SHELL", "a b"], ["/bin/bash", "-ec"], ("/bin/bash", "-ec", "a b")),
    ],
)
def test_the_words_of_a_probe(test: list[str], shell: list[str] | None, words: tuple[str, ...]) -> None:
    image = {"Shell": shell, "Healthcheck": {"Test": test}}
    plan = build_health_plan(merge(check_request({"Image": "i", "Cmd": ["x"]}), image, "none"))
    assert plan is not None
    assert plan.words == words
    assert HealthPlan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize("test", [["NONE"], []])
def test_no_probe(test: list[str]) -> None:
    request = check_request({"Image": "i", "Cmd": ["x"], "Healthcheck": {"Test": test, "Retries": 1}})
    assert build_health_plan(merge(request, {}, "none")) is None
