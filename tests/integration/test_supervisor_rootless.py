"""The process model as an ordinary user: with subordinate ids, without, and where the host allows nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

from tests.integration.user import SEEN_AT, OrdinaryUser, ordinary_user

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("newuidmap"),
    reason="needs root, to make a user, and uidmap; an ordinary user runs the same tests directly",
)

RUN_ONE = """
import json, os, sys
from pathlib import Path
from pydock_core.errors import PyDockError
from pydock_core.paths import StateRoot
from pydock_core.supervision.client import Streams, Zygote
from tests.support.supervised import Box, end_server, leftovers, make_lower, read_frames
base = Path(sys.argv[1])
root = StateRoot(base / "data", base / "run")
root.ensure()
try:
    facts = Zygote(root).ping()
except PyDockError as error:
    print(json.dumps(error.to_json()))
    sys.exit()
box = Box(root, make_lower(base / "lower"), ["sh", "-c", "id -u; readlink /proc/self/exe; exit 3"])
with box.launch(Streams()) as launch:
    output = read_frames(launch.attachment)
    launch.attachment.close()
    end = launch.wait(30)
end_server(facts["pid"])
print(json.dumps([facts["mapping"], output.get(1, b"").decode(), end.exit_code, any(leftovers(root).values())]))
"""


@pytest.fixture(scope="module")
def user() -> Iterator[OrdinaryUser]:
    with ordinary_user("pydock-process") as made:
        yield made


@pytest.mark.timeout(300)
@pytest.mark.parametrize("suite", ["tests/integration/test_supervisor.py", "tests/crash/test_processes.py"])
def test_the_same_tests_pass(user: OrdinaryUser, suite: str) -> None:
    words = [user.python, "-m", "pytest", "-q", suite, f"--basetemp={user.home}/base"]
    result = user.run(words, cwd=SEEN_AT, seconds=290, PYTHONPATH=str(SEEN_AT))
    assert result.returncode == 0, result.stdout[-6000:]
    assert " passed" in result.stdout


def run_one(user: OrdinaryUser, name: str, *before: str) -> str:
    """Run the program above on a state root of its own; ``before`` is a command that executes the rest."""
    words = [*before, user.python, "-c", RUN_ONE, user.home / name]
    result = user.run(words, cwd=user.home, seconds=60, PYTHONPATH=str(SEEN_AT))
    assert result.returncode == 0, result.stdout
    return result.stdout.strip().splitlines()[-1]


def test_with_subordinate_ids(user: OrdinaryUser) -> None:
    assert run_one(user, "full") == '["full", "0\\n/bin/busybox\\n", 3, false]'


def test_without_subordinate_ids_the_users_own_id_will_do(user: OrdinaryUser) -> None:
    # Where newuidmap is not found, nothing can map more than one id: the same as having none.
    hidden = ["env", "PATH=/nonexistent"]
    assert run_one(user, "single", *hidden) == '["single", "0\\n/bin/busybox\\n", 3, false]'


def test_a_host_without_user_namespaces_is_told(user: OrdinaryUser) -> None:
    # A user namespace in which no further one may be made stands for such a host (user_namespaces(7), max_*).
    inside = ["unshare", "--user", "--map-user=1000", "--keep-caps", "sh", "-c"]
    script = (
        'echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv --ambient-caps -all --inh-caps -all "$@"'
    )
    text = run_one(user, "forbidden", *inside, script, "sh")
    assert '"code": "unsupported"' in text
    assert "this host does not allow user namespaces" in text
    assert "dock doctor" in text


def test_root_without_its_rights_is_told(user: OrdinaryUser) -> None:
    powerless = [
        "unshare",
        "--user",
        "--map-root-user",
        "setpriv",
        "--bounding-set",
        "-all",
        "--inh-caps",
        "-all",
    ]
    text = run_one(user, "powerless", *powerless)
    assert '"code": "unsupported"' in text
    assert "cannot make namespaces, although this process is root" in text
