"""Another user of the host who has a hand in the state directory, or above it."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pydock_core.errors import DeniedError
from pydock_core.paths import StateRoot
from pydock_core.private_files import make_private
from tests.bench.samples import BUSYBOX, busybox_archive
from tests.integration.conftest import end_servers

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to act as two users")

MALLORY = 54321
CALLER = 54322
REPOSITORY = Path(__file__).resolve().parents[2]


def owned(path: Path, uid: int = MALLORY, mode: int = 0o755) -> Path:
    path.mkdir()
    os.chown(path, uid, uid)
    path.chmod(mode)
    return path


def link(path: Path, target: Path, uid: int) -> None:
    path.symlink_to(target)
    os.lchown(path, uid, uid)


@contextmanager
def acting_as(uid: int) -> Iterator[None]:
    os.setegid(uid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@pytest.fixture
def base(tmp_path: Path) -> Iterator[Path]:
    """A directory that all may enter, in a sticky one: the test's own has a parent of mode 0700."""
    made = Path("/tmp") / f"pydock-attack-{os.getpid()}"
    made.mkdir(mode=0o755)
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def dock(root: Path, *words: str, umask: int = 0o022) -> tuple[int, str]:
    result = subprocess.run(
        [sys.executable, "-m", "pydock_core", *words],
        env={**os.environ, "PYDOCK_ROOT": str(root)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
        umask=umask,
    )
    return result.returncode, result.stdout


def snapshot(path: Path) -> dict[str, tuple[int, int, int]]:
    found = {}
    for entry in sorted([path, *path.rglob("*")]):
        status = os.lstat(entry)
        found[str(entry)] = (status.st_mode, status.st_uid, status.st_mtime_ns)
    return found


def test_root_leaves_another_users_state_directory_alone(base: Path) -> None:
    """PYDOCK_ROOT in the environment of a sudo: blobs went through the user's link to a place of the host."""
    victim = base / "victim"
    victim.mkdir()
    (victim / "kept").write_text("kept")
    root = owned(base / "mallory")
    data = owned(root / "data")
    link(owned(data / "images") / "blobs", victim, MALLORY)
    owned(root / "run")
    before = snapshot(base)
    for words in (("images",), ("ps",), ("info",), ("run", "busybox"), ("pull", "-q", "nowhere.invalid/x")):
        code, text = dock(root, *words)
        assert code != 0
        assert (
            f"state directory {root}/data: {root} belongs to user {MALLORY}, who can change where it leads"
            in text
        )
        assert "hint: set PYDOCK_ROOT to a directory of your own" in text
        assert "Traceback" not in text
    code, text = dock(root, "doctor")
    assert code != 0
    assert f"belongs to user {MALLORY}" in text
    assert snapshot(base) == before


@pytest.mark.parametrize(("uid", "mode"), [(MALLORY, 0o755), (0, 0o1777)], ids=["theirs", "sticky"])
def test_no_server_starts_in_another_users_directory(base: Path, uid: int, mode: int) -> None:
    """The program's server starts after the command, which may have been refused: its lock went through a link."""
    victim = base / "victim"
    victim.mkdir()
    root = base / "state"
    root.mkdir()
    link(owned(root / "run", uid, mode) / "program.lock", victim / "nologin", MALLORY)
    before = snapshot(base)
    done = subprocess.run(
        [sys.executable, "-I", "-c", "from pydock_core.program_server import start_quietly; start_quietly()"],
        env={**os.environ, "PYDOCK_ROOT": str(root)},
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=True,
    )
    assert snapshot(base) == before
    assert f"state directory {root}/run" in done.stderr


def test_every_step_of_the_way_is_looked_at(base: Path) -> None:
    safe = base / "safe"
    safe.mkdir()
    sticky = base / "sticky"
    sticky.mkdir()
    sticky.chmod(0o1777)
    owned(sticky / "squatted")
    link(sticky / "link", safe, MALLORY)
    link(base / "their-link", safe, MALLORY)
    link(base / "over-there", base / "their-link", 0)
    owned(base / "open", 0, 0o777)
    owned(base / "group", 0, 0o775)
    os.chown(base / "group", 0, MALLORY)
    owned(base / "theirs")
    (base / "theirs" / "inner").mkdir()
    listed = owned(base / "listed", 0, 0o775)
    # acl(5) in the kernel's form: u::rwx, u:MALLORY:rwx, g::r-x, mask::rwx, o::r-x.
    entries = [(1, 7, -1), (2, 7, MALLORY), (4, 5, -1), (16, 7, -1), (32, 5, -1)]
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
    os.setxattr(listed, "system.posix_acl_access", acl)
    before = snapshot(base)
    for way in (
        "sticky/squatted",
        "sticky/squatted/new",
        "sticky/link",
        "their-link/new",
        "over-there/new",
        "open/new",
        "open",
        "group/new",
        "group",
        "theirs",
        "theirs/inner/new",
        "listed/new",
    ):
        with pytest.raises(DeniedError, match=r"state directory .* (belongs to user 54321|other users)"):
            make_private(base / way)
    assert snapshot(base) == before


@pytest.mark.parametrize(
    ("user_gid", "group", "others", "is_taken"),
    [
        (100, ("users", []), [], True),  # Jupyter's docker-stacks
        (100, ("users", ["caller"]), [("root", 0, 100)], True),
        (100, ("users", []), [("mallory", MALLORY, 100)], False),
        (100, ("users", ["mallory"]), [], False),
        (100, None, [], True),  # Kubernetes' fsGroup, in no database
        (100, None, [("mallory", MALLORY, 100)], False),
        (CALLER, ("users", []), [], False),  # not a group of the caller's
    ],
)
def test_a_group_that_is_the_caller_alone(
    base: Path,
    monkeypatch: pytest.MonkeyPatch,
    user_gid: int,
    group: tuple[str, list[str]] | None,
    others: list[tuple[str, int, int]],
    is_taken: bool,
) -> None:
    def account(name: str, uid: int, gid: int) -> pwd.struct_passwd:
        return pwd.struct_passwd((name, "x", uid, gid, "", "/", "/bin/sh"))

    def find_group(gid: int) -> grp.struct_group:
        if group is None:
            raise KeyError
        return grp.struct_group((group[0], "x", gid, group[1]))

    caller = account("caller", CALLER, user_gid)
    monkeypatch.setattr(pwd, "getpwall", lambda: [caller, *(account(*other) for other in others)])
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: caller)
    monkeypatch.setattr(grp, "getgrgid", find_group)
    monkeypatch.setattr(os, "getgroups", lambda: [user_gid])
    home = owned(base / "home", CALLER, 0o775)
    os.chown(home, CALLER, 100)
    with acting_as(CALLER):
        if is_taken:
            make_private(home / "state")
        else:
            with pytest.raises(DeniedError, match="other users"):
                make_private(home / "state")
    assert (home / "state").exists() == is_taken


def test_ways_that_nobody_else_can_change_are_taken(base: Path) -> None:
    sticky = base / "sticky"
    sticky.mkdir()
    sticky.chmod(0o1777)
    link(base / "mine", sticky, 0)
    own = base / "own"
    own.mkdir()
    own.chmod(0o775)  # the caller's group, and nobody else in it
    for way in ("mine/deep/down", "sticky/mine/../other", "own"):
        make_private(base / way)
        assert stat.S_IMODE((base / way).stat().st_mode) == 0o700
    home = owned(base / "home", CALLER, 0o755)
    with acting_as(CALLER):
        make_private(home / ".local" / "share" / "pydock")
        with pytest.raises(DeniedError, match="belongs to root"):
            make_private(own.parent)
    assert stat.S_IMODE((home / ".local").stat().st_mode) == 0o700


@pytest.mark.skipif(not BUSYBOX.exists(), reason="needs /bin/busybox (Debian: busybox-static)")
@pytest.mark.parametrize("snapshotter", ["", "directory"])
def test_all_state_is_private_whatever_the_umask(
    snapshotter: str, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wide for a container to see: the roots of its file systems, and its three files in /etc."""
    monkeypatch.setenv("PYDOCK_SNAPSHOTTER", snapshotter)
    root = base / "state"
    for path in (root, root / "data"):
        path.mkdir(mode=0o755)
        path.chmod(0o755)
    database = root / "data" / "pydock.db"
    database.touch()
    database.chmod(0o644)
    assert dock(root, "load", "-q", "-i", str(busybox_archive(tmp_path / "busybox.tar")), umask=0)[0] == 0
    code, text = dock(
        root, "run", "--network=none", "--name=one", "-v=vol:/v", "busybox", "echo", "hi", umask=0
    )
    assert (code, text) == (0, "hi\n")
    assert dock(root, "commit", "one", "two", umask=0)[0] == 0
    seen_inside = {"upper", "_data", "hosts", "hostname", "resolv.conf", "mount-points", "tree", "fs"}
    wide = []
    for folder, folders, files in os.walk(root / "data"):
        folders[:] = [name for name in folders if name not in seen_inside]
        wide += [
            f"{folder}/{name}"
            for name in [*folders, *files]
            if name not in seen_inside and stat.S_IMODE(os.lstat(f"{folder}/{name}").st_mode) & 0o077
        ]
    wide += [
        str(path)
        for path in (root / "run").rglob("*")
        if not path.is_symlink() and path.stat().st_mode & 0o077
    ]
    assert stat.S_IMODE((root / "data").stat().st_mode) == 0o700
    assert not wide
    assert dock(root, "rm", "-f", "one")[0] == 0
    end_servers(StateRoot(root / "data", root / "run"))
