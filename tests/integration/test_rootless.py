"""All of it again as an ordinary user, and what differs there."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench.samples import busybox_archive
from tests.integration.user import SEEN_AT, OrdinaryUser, ordinary_user
from tests.support.image_store import build_config, build_docker_archive, build_tar, digest, entry
from tests.support.network_namespace import network_namespace
from tests.support.registry import registry

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("newuidmap"),
    reason="needs root, to make a user, and uidmap; an ordinary user runs the same tests directly",
)

SUITES = (
    "tests/integration/test_life.py",
    "tests/integration/test_terminal.py tests/integration/test_processes_command.py",
    "tests/integration/test_isolation_flags.py",
    "tests/integration/test_bad_input.py",
    "tests/integration/test_many.py",
    "tests/integration/test_images_commands.py",
    "tests/integration/test_commit.py tests/integration/test_export_diff.py",
    "tests/integration/test_volumes.py tests/integration/test_copy.py -k 'empty_volume or from or subpaths or image_mounts "
    "or memory or there_and_back or archives or never_run or stays or archive_mode'",
    "tests/integration/test_pause_command.py tests/integration/test_update.py "
    "tests/integration/test_events.py::test_the_end_of_a_detached_container_is_recorded_by_its_supervisor "
    "tests/integration/test_health.py::test_a_container_becomes_unhealthy_and_healthy",
    "tests/integration/test_system_check.py::test_a_healthy_root_is_clean "
    "tests/integration/test_system_check.py::test_an_ended_container_of_a_killed_client",
    "tests/integration/test_restart_policy.py::test_a_killed_supervisor_and_a_killed_keeper "
    "tests/integration/test_restart_policy.py::test_ports_and_network_come_back "
    "tests/integration/test_restart_policy.py::test_a_name_on_a_network_comes_back",
    "tests/integration/test_host_options.py tests/integration/test_keep_id.py tests/integration/test_init.py",
)
"""The words of one run of pytest each, which takes seconds to start and to end."""


@pytest.fixture(scope="module")
def user() -> Iterator[OrdinaryUser]:
    with ordinary_user("pydock-rootless") as made:
        yield made


@pytest.mark.timeout(600)
@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: " ".join(re.findall(r"(test_\w+)\.py", suite)))
def test_the_same_tests_pass_as_an_ordinary_user(user: OrdinaryUser, suite: str) -> None:
    words = shlex.split(suite)
    result = user.run(
        [user.python, "-m", "pytest", "-q", "-rpfE", *words, f"--basetemp={user.home}/base"],
        cwd=SEEN_AT,
        seconds=580,
        PYTHONPATH=str(SEEN_AT),
    )
    lines = result.stdout.splitlines()
    passed = [line for line in lines if line.startswith("PASSED ")]
    assert result.returncode == 0, "\n".join(line for line in lines if line not in passed)[-6000:]
    for word in words:
        if word.startswith("tests/"):
            assert any(line.startswith(f"PASSED {word}") for line in passed), f"{word}: nothing was tested"


def dock(user: OrdinaryUser, *words: object) -> tuple[int, str]:
    result = user.run(
        [user.python, "-m", "pydock_core", *words],
        cwd=user.home,
        seconds=120,
        PYTHONPATH=str(SEEN_AT),
        PYDOCK_ROOT=f"{user.home}/state",
    )
    return result.returncode, result.stdout


def test_the_doctor_says_what_is_lost(user: OrdinaryUser) -> None:
    code, text = dock(user, "doctor")
    assert code == 0
    assert "subordinate ids" in text
    assert "65536" in text
    assert "network" in text


@pytest.mark.skipif(not Path("/bin/busybox").exists(), reason="needs /bin/busybox (Debian: busybox-static)")
def test_a_single_id_is_kept(user: OrdinaryUser) -> None:
    """Without subordinate ids the caller is the only user of the container, and cp and commit show root."""
    busybox_archive(user.home / "busybox.tar").chmod(0o644)
    uid = user.home.stat().st_uid
    script = (
        'dock() { "$PYTHON" -m pydock_core "$@"; }; dock load -q -i busybox.tar >/dev/null; mkdir shared; '
        "words='--network none --userns keep-id'; "
        "dock run --rm $words -v ~/shared:/s busybox sh -c 'id -u; touch /s/mine; cat /proc/self/uid_map'; "
        "dock run --rm $words -u 0 busybox true; "
        "dock run --name kept $words busybox touch /bin/made; dock export kept | /usr/bin/tar tvn bin/made; dock rm kept"
    )
    result = user.run(
        ["env", "PATH=/nonexistent", "/bin/bash", "-c", script.replace("mkdir", "/bin/mkdir")],
        cwd=user.home,
        seconds=60,
        PYTHONPATH=str(SEEN_AT),
        PYDOCK_ROOT=f"{user.home}/single",
        PYTHON=str(user.python),
    )
    lines = result.stdout.splitlines()
    assert lines[0] == str(uid), result.stdout
    assert lines[1].split() == [str(uid), "0", "1"]
    assert lines[2] == "error: cannot become user 0:0: Invalid argument"
    assert "0/0" in lines[4]
    assert (user.home / "shared/mine").stat().st_uid == uid


BUSYBOX = Path("/bin/busybox")


@pytest.mark.skipif(not BUSYBOX.exists(), reason="needs /bin/busybox (Debian: busybox-static)")
def test_an_image_goes_to_a_registry_and_back(user: OrdinaryUser, tmp_path: Path) -> None:
    """What is pulled arrives through a pipe in the user namespace, and keeps its owners; devices cannot be there."""
    layer = build_tar(
        [
            entry("bin", "dir"),
            entry("bin/stat", data=BUSYBOX.read_bytes(), mode=0o755),
            entry("owned", data=b"x", uid=1000, gid=44, mode=0o640),
            entry("zero", "char", devmajor=1, devminor=5),
        ]
    )
    changes = build_tar([entry("new", data=b"n", uid=3)])
    config = build_config(digest(layer), digest(changes), Env=["PATH=/bin"])
    archive = user.home / "owned.tar"
    with network_namespace() as inside, registry(inside, tmp_path, 5000) as server:
        name = f"{server.host}/owned:1"
        archive.write_bytes(build_docker_archive(layer, changes, tags=[name], config=config))

        def stored() -> set[str]:
            blobs = user.home / "state/data/images/blobs/sha256"
            return set(os.listdir(blobs)) if blobs.exists() else set()

        def steps() -> None:
            before = stored()
            look = ("run", "--rm", "--network", "none", name, "stat", "-c", "%n %u:%g %a", "/owned", "/new")
            for words in (("load", "-q", "-i", archive), ("push", "-q", name), ("rmi", name)):
                assert dock(user, *words)[0] == 0
            assert dock(user, "pull", "-q", name) == (0, f"{name}\n")
            assert dock(user, *look) == (0, "/owned 1000:44 640\n/new 3:0 644\n")
            assert dock(user, "rmi", name)[0] == 0
            assert stored() == before

        inside(steps, timeout=120)
