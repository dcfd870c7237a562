"""Copies of an image in which root's files have another owner: the same tree with every driver, and after a kill."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pydock_core.store.snapshots.stack import chain_ids
from tests.contract.test_snapshotter_chained import BASE, load
from tests.support.image_store import DRIVERS, NEEDS_ROOT, ROOT, Store, build_tar, entry, no_erofs, open_store
from tests.support.killed import dies_at

pytestmark = pytest.mark.skipif(not ROOT, reason=NEEDS_ROOT)
OWNER = (1000, 50)
LAYERS = [
    build_tar(BASE),
    build_tar(
        [
            entry("usr", "dir", mtime=20),
            entry("usr/program", data=b"p", mode=0o6755, mtime=20),
            entry("usr/same", "hard", linkname="usr/program", mtime=20),
            entry("usr/theirs", data=b"t", uid=1000, gid=50, mtime=20),
            entry("usr/lib", "dir", mode=0o711, gid=9, mtime=9),
            entry("usr/lib/.wh.two"),
        ]
    ),
]


@pytest.fixture(params=DRIVERS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param != "directory" and (reason := no_erofs(tmp_path)):
        pytest.skip(reason)
    return open_store(tmp_path, request.param)


def copy(store: Store, ids: list[str], bottom: Path) -> Path:
    return Path(store.snapshotter.owned(ids, OWNER, str(bottom)))


def make_bottom(base: Path) -> Path:
    (base / "bottom" / "proc").mkdir(parents=True)
    return base / "bottom"


def test_root_and_the_owner_change_places(store: Store, tmp_path: Path) -> None:
    ids = load(store, LAYERS)
    tree = copy(store, ids, make_bottom(tmp_path))
    owners = {
        name: (status.st_uid, status.st_gid, oct(status.st_mode & 0o7777))
        for name in (
            ".",
            "proc",
            "usr/program",
            "usr/theirs",
            "usr/lib/one",
            "home/user",
            "lib",
            "pipe",
            "null",
        )
        for status in (os.lstat(tree / name),)
    }
    assert owners == {
        ".": (*OWNER, "0o755"),
        "proc": (*OWNER, "0o755"),
        "usr/program": (*OWNER, "0o6755"),
        "usr/theirs": (0, 0, "0o644"),
        "usr/lib/one": (3, 50, "0o4755"),
        "home/user": (0, 1001, "0o2750"),
        "lib": (*OWNER, "0o777"),
        "pipe": (*OWNER, "0o644"),
        "null": (*OWNER, "0o666"),
    }
    assert os.stat(tree / "usr/same").st_ino == os.stat(tree / "usr/program").st_ino
    assert not (tree / "usr/lib/two").exists()
    assert os.getxattr(tree / "srv", "user.kept") == b"yes"
    assert copy(store, ids, tmp_path / "bottom") == tree


def test_it_is_accounted_for_and_removed_with_its_chain(store: Store, tmp_path: Path) -> None:
    ids = load(store, LAYERS)
    before = store.snapshotter.chains()
    tree = copy(store, ids, make_bottom(tmp_path))
    chain = chain_ids(ids)[-1]
    assert sorted(store.snapshotter.chains()) == sorted({*before, chain})
    assert store.snapshotter.chain_size_bytes(chain) >= len(b"p")
    store.snapshotter.remove_chain(chain)
    assert not tree.exists()
    assert store.snapshotter.chain_size_bytes(chain) == 0


def test_a_killed_copy_is_made_anew(tmp_path: Path) -> None:
    """At every step: there is no copy, or a whole one."""
    bottom = make_bottom(tmp_path)
    step, is_done = 0, False
    while not is_done:
        store = open_store(tmp_path / str(step))
        ids = load(store, LAYERS)
        is_done = dies_at(step, lambda store=store, ids=ids: copy(store, ids, bottom))  # type: ignore[misc]
        tree = copy(store, ids, bottom)
        assert os.stat(tree / "usr/program").st_uid == OWNER[0]
        assert sum(1 for _ in tree.rglob("*")) == 25
        step += 1
    assert step > 5
