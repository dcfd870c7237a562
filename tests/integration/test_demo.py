"""The README's first command, for real: ``make demo``."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pydock_core.paths import StateRoot
from tests.integration.conftest import end_servers
from tests.integration.user import REPOSITORY, OrdinaryUser, ordinary_user

LAST_WORDS = "ran from beginning to end"


def test_the_quickstart_notebook_runs(tmp_path: Path) -> None:
    state = tmp_path / "state"
    notebook = tmp_path / "quickstart.ipynb"
    shutil.copy(REPOSITORY / "notebooks" / "quickstart.ipynb", notebook)
    result = subprocess.run(
        [sys.executable, REPOSITORY / "notebooks" / "execute.py", notebook],
        capture_output=True,
        text=True,
        timeout=170,
        env={**os.environ, "PYDOCK_ROOT": str(state)},
        check=False,
    )
    end_servers(StateRoot(state / "data", state / "run"))
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert LAST_WORDS in result.stdout
    assert "rate-0.3" in result.stdout
    assert not list((state / "data" / "containers").iterdir())


@pytest.fixture
def user() -> Iterator[OrdinaryUser]:
    with ordinary_user("pydock-demo") as made:
        yield made


@pytest.mark.skipif(
    os.geteuid() != 0 or not (REPOSITORY / ".git").exists(),
    reason="needs root, to make a user, and a git checkout",
)
@pytest.mark.timeout(900)
def test_make_demo_in_a_fresh_clone_with_an_empty_home_as_an_ordinary_user(user: OrdinaryUser) -> None:
    clone = user.home / "pydock"
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", REPOSITORY, clone], check=True, timeout=60)
    subprocess.run(["chown", "-R", f"{user.name}:", clone], check=True)
    result = user.run(["make", "demo"], cwd=clone, seconds=880)
    assert result.returncode == 0, result.stdout[-6000:]
    assert LAST_WORDS in result.stdout
    assert "no newuidmap" not in result.stdout
    assert "make lab" in result.stdout
