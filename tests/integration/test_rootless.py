"""All of it again as an ordinary user, and what differs there."""

from __future__ import annotations

import os
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
    assert "or host, to reach other hosts" in text
    assert "--network none" in text


def test_the_doctor_says_what_is_lost(user: OrdinaryUser) -> None:
    code, text = dock(user, "doctor")
    assert code == 0
    assert "subordinate ids" in text
    assert "65536" in text
    assert "network" in text


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
