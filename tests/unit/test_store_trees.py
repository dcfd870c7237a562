"""Removing trees: deep ones, closed ones, and never what a link leads to."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from pydock_core.errors import DeniedError, FailedError
from pydock_core.store.trees import remove_tree
from pydock_core.store.worker import LocalWorker


def test_links_are_removed_and_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("x")
    tree = tmp_path / "tree"
    (tree / "a").mkdir(parents=True)
    (tree / "a" / "link").symlink_to(outside)
    (tree / "file").write_text("x")
    remove_tree(str(tree))
    assert not tree.exists()
    assert (outside / "kept").read_text() == "x"
    remove_tree(str(tree))


def test_a_link_in_place_of_the_tree(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("x")
    (tmp_path / "link").symlink_to(outside)
    remove_tree(str(tmp_path / "link"))
    assert not os.path.lexists(tmp_path / "link")
    assert (outside / "kept").exists()


def test_deeper_than_paths_and_recursion_allow(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    fd = os.open(tree, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("deep", dir_fd=fd)
        inner = os.open("deep", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)
    remove_tree(str(tree))
    assert not tree.exists()


def test_closed_directories(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "b" / "file").write_text("x")
    for path in (tree / "a" / "b", tree / "a", tree):
        path.chmod(0)
    remove_tree(str(tree))
    assert not tree.exists()


def test_several_at_once(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for number in range(200):
        (tree / str(number % 20) / str(number)).mkdir(parents=True)
    errors: list[BaseException] = []

    def run() -> None:
        try:
            remove_tree(str(tree))
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert not tree.exists()


def test_a_failure_names_the_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()

    def busy(*_: object, **__: object) -> None:
        raise OSError(16, os.strerror(16))

    monkeypatch.setattr(os, "rmdir", busy)
    with pytest.raises(FailedError, match=f"{tree}.*busy"):
        remove_tree(str(tree))


def test_a_worker_runs_what_is_allowed_and_nothing_else(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    LocalWorker().call("pydock_core.store.trees:remove_tree", {"path": str(tree)})
    assert not tree.exists()
    assert stat.S_ISDIR(os.stat(tmp_path).st_mode)
    with pytest.raises(DeniedError, match="os:system"):
        LocalWorker().call("os:system", {"command": "true"})


def test_a_lock_that_appears_just_before_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweeper that looks at a workspace opens its lock, and makes it where its owner has just removed it."""
    tree = tmp_path / "tree"
    tree.mkdir()
    rmdir = os.rmdir
    looks = iter(["lock", "lock"])

    def watched(path: str, **keywords: int) -> None:
        for name in looks:
            (tree / name).touch()
            break
        rmdir(path, **keywords)

    monkeypatch.setattr(os, "rmdir", watched)
    remove_tree(str(tree))
    assert not tree.exists()
