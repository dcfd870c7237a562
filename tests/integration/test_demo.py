"""The README's first commands, for real: ``make demo`` and ``make lab``."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from pydock_core.paths import StateRoot
from tests.integration.conftest import end_servers
from tests.integration.user import REPOSITORY, OrdinaryUser, ordinary_user
from tests.support.network_namespace import end, network_namespace

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


@pytest.mark.skipif(not (REPOSITORY / ".make" / "demo").exists(), reason="needs what make demo installs")
def test_make_lab_opens_the_quickstart_as_root_too(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "HOME": str(tmp_path),
        "BROWSER": "true",
        "PYDOCK_ROOT": str(tmp_path / "state"),
    }

    def read() -> tuple[bytes, str]:
        with urllib.request.urlopen("http://127.0.0.1:8888/", timeout=20) as response:
            return response.read(), response.geturl()

    with network_namespace() as inside, (tmp_path / "log").open("wb") as log:
        process = inside.start("make", "lab", cwd=REPOSITORY, stdout=log, stderr=log, env=environment)
        try:
            inside.wait_for_port(8888, process)
            page, address = inside(read)
        finally:
            end([process])
    assert b"Jupyter" in page
    assert address.endswith("/login?next=%2Flab%2Ftree%2Fquickstart.ipynb")
