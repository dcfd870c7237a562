"""Copies of trees: what is kept, what is refused, and trees that are deeper than descriptors reach."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from pydock_core.errors import ConflictError, InvalidError
from pydock_core.store import tree_copy
from pydock_core.store.tree_copy import CopyRules, TreeCopy
from tests.support.process import count_descriptors

OWN = CopyRules(lambda uid, gid: None)


def copy(source: Path, target: Path, rules: CopyRules = OWN) -> TreeCopy:
    source_fd, target_fd = (os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in (source, target))
    try:
        made = TreeCopy(source_fd, target_fd, rules, "the copy")
        made.copy_content()
    finally:
        os.close(source_fd)
        os.close(target_fd)
    return made


@pytest.fixture
def source(tmp_path: Path) -> Path:
    made = tmp_path / "source"
    made.mkdir()
    return made


@pytest.fixture
def target(tmp_path: Path) -> Path:
    made = tmp_path / "target"
    made.mkdir()
    return made


def test_attributes_links_and_kinds(source: Path, target: Path) -> None:
    (source / "file").write_text("content")
    (source / "file").chmod(0o640)
    os.setxattr(source / "file", "user.colour", b"red")
    os.link(source / "file", source / "hard")
    (source / "link").symlink_to("/nowhere")
    os.link(source / "link", source / "link2", follow_symlinks=False)
    os.mkfifo(source / "pipe")
    (source / "dir").mkdir()
    (source / "dir" / "inside").touch()
    os.utime(source / "dir", ns=(5, 7))
    (source / "dir").chmod(0o711)
    os.utime(source / "file", ns=(1_000_000_001, 2_000_000_003))
    done = copy(source, target)
    assert (done.entries, done.size_bytes, done.notes.lines) == (7, 7, [])
    status = (target / "file").stat()
    assert (status.st_nlink, status.st_mtime_ns, stat.S_IMODE(status.st_mode)) == (2, 2_000_000_003, 0o640)
    assert status.st_ino == (target / "hard").stat().st_ino
    assert (target / "link").lstat().st_ino == (target / "link2").lstat().st_ino
    assert os.getxattr(target / "file", "user.colour") == b"red"
    assert stat.S_ISFIFO((target / "pipe").stat().st_mode)
    assert ((target / "dir").stat().st_mtime_ns, oct((target / "dir").stat().st_mode)) == (7, "0o40711")


def test_what_is_there_is_replaced_but_for_directories(source: Path, target: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("kept")
    (source / "file").write_text("new")
    (target / "file").symlink_to(outside)
    copy(source, target)
    assert (target / "file").read_text() == "new"
    assert outside.read_text() == "kept"
    (target / "file").unlink()
    (target / "file").mkdir()
    with pytest.raises(InvalidError, match="cannot overwrite directory 'file'"):
        copy(source, target)
    (source / "file").unlink()
    (source / "file").mkdir()
    (target / "file").rmdir()
    (target / "file").symlink_to(tmp_path)
    with pytest.raises(InvalidError, match="cannot overwrite non-directory 'file'"):
        copy(source, target)


def test_a_tree_that_is_deeper_than_descriptors_reach(source: Path, target: Path) -> None:
    path = source
    for number in range(200):
        path = path / "d"
        path.mkdir()
        (path / f"f{number}").write_text(str(number))
    before = count_descriptors()
    assert copy(source, target).entries == 400
    assert (target / Path(*["d"] * 200) / "f199").read_text() == "199"
    assert (target / "d" / "f0").read_text() == "0"
    assert count_descriptors() == before


def test_a_directory_that_is_moved_meanwhile(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    deep = source / Path(*["d"] * 100)
    deep.mkdir(parents=True)
    (deep / "last").touch()
    real = TreeCopy._copy_file

    def moving(self: TreeCopy, *words: object) -> None:
        real(self, *words)  # type: ignore[arg-type]  # as they come
        (source / "d").rename(tmp_path / "moved")
        (source / "d").mkdir()

    monkeypatch.setattr(tree_copy.TreeCopy, "_copy_file", moving)
    with pytest.raises(ConflictError, match="was moved while it was copied"):
        copy(source, target)


def test_what_becomes_the_callers_lends_nobody_its_rights(source: Path, target: Path) -> None:
    (source / "shell").touch()
    (source / "shell").chmod(0o6755)
    copy(source, target)
    assert oct((target / "shell").stat().st_mode) == "0o100755"
    kept = CopyRules(lambda uid, gid: (os.getuid(), os.getgid()))
    copy(source, target, kept)
    assert oct((target / "shell").stat().st_mode) == "0o106755"


def test_holes_stay(source: Path, target: Path) -> None:
    with (source / "sparse").open("wb") as file:
        file.truncate(1 << 32)
        file.seek(1 << 31)
        file.write(b"middle")
    copy(source, target)
    found = (target / "sparse").stat()
    assert found.st_size == 1 << 32
    assert found.st_blocks < 1000
    with (target / "sparse").open("rb") as file:
        file.seek(1 << 31)
        assert file.read(6) == b"middle"
