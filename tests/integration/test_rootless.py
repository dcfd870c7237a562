"""All of it again as an ordinary user, and what differs there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

from tests.bench.samples import busybox_archive
from tests.integration.user import SEEN_AT, OrdinaryUser, ordinary_user

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("newuidmap"),
    reason="needs root, to make a user, and uidmap; an ordinary user runs the same tests directly",
)

SUITES = (
    "tests/integration/test_life.py",
    "tests/integration/test_terminal.py",
    "tests/integration/test_isolation_flags.py",
    "tests/integration/test_bad_input.py",
    "tests/integration/test_many.py",
    "tests/integration/test_images_commands.py",
    "tests/integration/test_commit.py",
    "tests/integration/test_export_diff.py",
)


@pytest.fixture(scope="module")
def user() -> Iterator[OrdinaryUser]:
    with ordinary_user("pydock-rootless") as made:
        yield made


@pytest.mark.timeout(600)
@pytest.mark.parametrize("suite", SUITES)
def test_the_same_tests_pass_as_an_ordinary_user(user: OrdinaryUser, suite: str) -> None:
    result = user.run(
        [user.python, "-m", "pytest", "-q", suite, f"--basetemp={user.home}/base"],
        cwd=SEEN_AT,
        seconds=580,
        PYTHONPATH=str(SEEN_AT),
    )
    assert result.returncode == 0, result.stdout[-6000:]
    assert " passed" in result.stdout


def dock(user: OrdinaryUser, *words: object) -> tuple[int, str]:
    result = user.run(
        [user.python, "-m", "pydock_core", *words],
        cwd=user.home,
        seconds=120,
        PYTHONPATH=str(SEEN_AT),
        PYDOCK_ROOT=f"{user.home}/state",
    )
    return result.returncode, result.stdout


def test_a_bridge_is_refused_with_the_way_out(user: OrdinaryUser) -> None:
    archive = busybox_archive(user.home / "busybox.tar")
    assert dock(user, "load", "-q", "-i", archive)[0] == 0
    code, text = dock(user, "run", "--network", "bridge", "busybox", "true")
    assert code == 125
    assert "error: --network bridge needs root" in text
    assert "--network none" in text


def test_the_doctor_says_what_is_lost(user: OrdinaryUser) -> None:
    code, text = dock(user, "doctor")
    assert code == 0
    assert "subordinate ids" in text
    assert "65536" in text
    assert "network" in text
