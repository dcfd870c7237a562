"""The doctor, and a host that lacks something."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pydock_core import host
from pydock_core.host import Check, examine
from pydock_core.paths import StateRoot
from pydock_core.runtime.cgroups import CgroupSupport
from tests.bench.samples import busybox_archive
from tests.integration.user import SEEN_AT, OrdinaryUser, ordinary_user

needs_user = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("newuidmap"), reason="needs root, to make a user, and uidmap"
)


def test_every_lack_has_a_cost_and_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    monkeypatch.setattr(host, "_read", lambda _: None)
    checks = examine(StateRoot(tmp_path / "data", tmp_path / "run"))
    assert {check.name for check in checks if check.state != "ok"} >= {
        "network" if os.geteuid() == 0 else "subordinate ids",
        "seccomp",
    }
    for check in checks:
        assert isinstance(check, Check)
        assert check.found
        assert (check.state == "ok") == (not check.cost) == (not check.remedy)


@pytest.mark.parametrize(
    ("texts", "first"),
    [
        (("", ""), 100000),
        (("root:0:1000\n", ""), 100000),
        (("one:100000:65536\n", "two:165536:65536\n# x:y\n"), 231072),
        (("one:4294901760:65535\ntwo:100000:1000\n", ""), 101000),
        (("all:1:4294967294\n", ""), None),
    ],
)
def test_subordinate_ids_that_nobody_has_are_named(texts: tuple[str, str], first: int | None) -> None:
    assert host._free_range(host._taken_ranges(texts)) == first


def test_the_remedy_names_them(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"/etc/subuid": "other:100000:65536", "/etc/subgid": None}
    monkeypatch.setattr(host, "_read", files.get)
    assert (
        host._subordinate_remedy("me")
        == "sudo usermod --add-subuids 165536-231071 --add-subgids 165536-231071 me"
    )


@pytest.mark.parametrize(
    ("support", "found"),
    [
        (
            CgroupSupport(1, False, reason="x"),
            "version 1: only root can use it, so there are no limits of memory, cpu, pids",
        ),
        (
            CgroupSupport(2, False, reason="no control group is delegated to this user"),
            "version 2: no control group is delegated to this user, so there are no limits of memory, cpu, pids",
        ),
        (
            CgroupSupport(2, True, memory=True, pids=True, reason="unavailable controllers: cpu"),
            "version 2, without cpu: unavailable controllers: cpu",
        ),
    ],
)
def test_lost_limits_have_a_reason(
    monkeypatch: pytest.MonkeyPatch, support: CgroupSupport, found: str
) -> None:
    monkeypatch.setattr("pydock_core.runtime.cgroups.probe_cgroups", lambda: support)
    assert host._cgroups(rootless=True).found == found


def test_nothing_is_made(tmp_path: Path) -> None:
    examine(StateRoot(tmp_path / "data", tmp_path / "run"))
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def user() -> Iterator[OrdinaryUser]:
    with ordinary_user("pydock-doctor") as made:
        yield made


WITHOUT_USER_NAMESPACES = (
    "unshare",
    "--user",
    "--map-user=1234",
    "--keep-caps",
    "sh",
    "-c",
    'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"',
    "sh",
)
"""Runs a command as a user who may make no further user namespace: in one that forbids it, as an ordinary user of it."""


def dock(user: OrdinaryUser, *words: object, inside: tuple[str, ...] = ()) -> tuple[int, list[str]]:
    result = user.run(
        [*inside, user.python, "-m", "pydock_core", *words],
        cwd=user.home,
        seconds=120,
        PYTHONPATH=str(SEEN_AT),
        PYDOCK_ROOT=f"{user.home}/state",
    )
    return result.returncode, result.stdout.strip().splitlines()


@needs_user
def test_a_host_without_user_namespaces(user: OrdinaryUser) -> None:
    archive = busybox_archive(user.home / "busybox.tar")
    code, lines = dock(user, "load", "-q", "-i", archive, inside=WITHOUT_USER_NAMESPACES)
    assert code != 0
    assert len(lines) == 2
    assert "user namespaces" in lines[0]
    assert "dock doctor" in lines[1]
    assert dock(user, "images", "-q") == (0, [])
    code, lines = dock(user, "doctor", "--format", "json", inside=WITHOUT_USER_NAMESPACES)
    found = {check["name"]: check for check in json.loads(lines[0])["Checks"]}
    assert code == 1
    assert found["user namespaces"]["state"] == "missing"
    assert found["user namespaces"]["remedy"] == "sudo sysctl -w user.max_user_namespaces=15000"
    assert dock(user, "load", "-q", "-i", archive) == (0, ["Loaded image: busybox:latest"])
    assert dock(user, "run", "--rm", "busybox", "echo", "runs") == (0, ["runs"])


@needs_user
def test_a_user_without_subordinate_ids_runs_with_one(user: OrdinaryUser) -> None:
    texts = {path: Path(path).read_text() for path in ("/etc/subuid", "/etc/subgid")}
    try:
        for path, text in texts.items():
            Path(path).write_text("".join(f"{line}\n" for line in text.splitlines() if user.name not in line))
        code, lines = dock(user, "doctor")
        assert code == 0
        assert any("usermod --add-subuids" in line for line in lines)
    finally:
        for path, text in texts.items():
            Path(path).write_text(text)
