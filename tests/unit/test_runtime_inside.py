"""Paths inside a root filesystem that somebody hostile made."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydock_core.errors import InvalidError
from pydock_core.runtime.inside import find_executable, make_inside, open_inside


@pytest.fixture
def root(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    directory = tmp_path / "root"
    directory.mkdir()
    root_fd = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    yield directory, root_fd
    os.close(root_fd)


def made(root_fd: int, path: str, *, directory: bool = True, follow: bool = True) -> str:
    descriptor = make_inside(root_fd, path, directory=directory, follow=follow)
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def test_missing_directories_are_made(root: tuple[Path, int]) -> None:
    directory, root_fd = root
    assert made(root_fd, "/a/b/c") == str(directory / "a/b/c")
    assert made(root_fd, "/a/f", directory=False) == str(directory / "a/f")
    assert (directory / "a/f").is_file()
    assert made(root_fd, "/") == str(directory)


def test_links_and_dots_stay_inside(root: tuple[Path, int]) -> None:
    directory, root_fd = root
    outside = directory.parent / "outside"
    outside.mkdir()
    (directory / "absolute").symlink_to(outside)
    (directory / "relative").symlink_to("../../../../../../../../../" + str(outside))
    (directory / "loop").symlink_to("loop")
    expected = str(directory) + str(outside)
    assert made(root_fd, "/absolute/x") == f"{expected}/x"
    assert made(root_fd, "/relative/y") == f"{expected}/y"
    assert made(root_fd, f"/../../..{outside}/z") == f"{expected}/z"
    assert list(outside.iterdir()) == []
    with pytest.raises((InvalidError, OSError)):
        made(root_fd, "/loop/x")


def test_a_link_into_nowhere_is_followed_inside(root: tuple[Path, int]) -> None:
    directory, root_fd = root
    (directory / "run").symlink_to("/var/run")
    assert made(root_fd, "/run/lock") == str(directory / "var/run/lock")


def test_a_file_on_the_way_is_an_error(root: tuple[Path, int]) -> None:
    directory, root_fd = root
    (directory / "file").write_text("")
    with pytest.raises(InvalidError, match="/file/x"):
        made(root_fd, "/file/x")


def test_links_can_be_refused(root: tuple[Path, int]) -> None:
    directory, root_fd = root
    (directory / "proc").symlink_to("/elsewhere")
    with pytest.raises((InvalidError, OSError)):
        made(root_fd, "/proc", follow=False)
    assert not (directory / "elsewhere").exists()


names = st.sampled_from(["a", "b", "..", ".", "link", "up", "file"])


@given(parts=st.lists(names, max_size=8))
@settings(max_examples=200, deadline=None)
def test_no_path_leads_out(parts: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    base = tmp_path_factory.getbasetemp() / "hostile"
    directory = base / "root"
    if not directory.exists():
        directory.mkdir(parents=True)
        (directory / "link").symlink_to("/a/../../b")
        (directory / "up").symlink_to("../../..")
        (directory / "file").write_text("")
    root_fd = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    try:
        place = made(root_fd, "/" + "/".join(parts))
    except (InvalidError, OSError):
        place = str(directory)
    finally:
        os.close(root_fd)
    assert Path(place).is_relative_to(directory)
    assert [path.name for path in base.iterdir()] == ["root"]


def test_magic_links_are_refused() -> None:
    root_fd = os.open("/", os.O_PATH | os.O_DIRECTORY)
    try:
        with pytest.raises(OSError, match="symbolic links"):
            open_inside(root_fd, f"/proc/{os.getpid()}/root/etc")
    finally:
        os.close(root_fd)


def test_executables(root: tuple[Path, int]) -> None:
    directory, root_fd = root
    (directory / "bin").mkdir()
    for name, mode in (("good", 0o755), ("plain", 0o644)):
        (directory / "bin" / name).write_text("")
        (directory / "bin" / name).chmod(mode)

    def find(command: str) -> int:
        return find_executable(root_fd, command, "/none:/bin", "/bin")

    assert [find(name) for name in ("good", "/bin/good", "./good")] == [0, 0, 0]
    assert [find(name) for name in ("plain", "/bin/plain", "/bin")] == [126, 126, 126]
    assert [find(name) for name in ("missing", "/missing", "/bin/good/x")] == [127, 127, 127]
