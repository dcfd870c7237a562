"""A container's writable layer as a layer tar: overlayfs's marks, what is left out, and a tree that changes meanwhile."""

from __future__ import annotations

import io
import os
import socket
import stat
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pydock_core.errors import ConflictError, UnavailableError, UnsupportedError
from pydock_core.store import upper_tar
from pydock_core.store.upper_tar import write_upper
from tests.support.image_store import NEEDS_ROOT, ROOT, digest

pytestmark = pytest.mark.skipif(not ROOT, reason=NEEDS_ROOT)


def write(upper: Path, **keywords: Any) -> tuple[dict[str, Any], bytes]:
    """Write a layer; return what the worker says, and the tar."""
    fd = os.open(upper.parent, os.O_RDWR | os.O_TMPFILE)
    try:
        made = write_upper(str(upper), keywords.pop("user_xattrs", False), fds=[fd], **keywords)
        data = os.pread(fd, 1 << 30, 0)
    finally:
        os.close(fd)
    assert made["digest"] == digest(data)
    assert made["size_bytes"] == len(data)
    return made, data


def members(data: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data), encoding="utf-8", errors="surrogateescape") as archive:
        return {member.name: member for member in archive}


@pytest.fixture
def upper(tmp_path: Path) -> Path:
    path = tmp_path / "upper"
    path.mkdir()
    return path


def whiteout(path: Path) -> None:
    os.mknod(path, stat.S_IFCHR, os.makedev(0, 0))


def test_nothing_is_an_empty_tar(upper: Path, tmp_path: Path) -> None:
    made, data = write(upper)
    assert made["entries"] == 0
    assert data == bytes(1024)
    assert write(tmp_path / "missing")[1] == data


def test_whiteouts_and_opaque_directories(upper: Path) -> None:
    whiteout(upper / "gone")
    for name, value in (("hides", b"y"), ("marks", b"x"), ("merges", b"")):
        (upper / name).mkdir()
        if value:
            os.setxattr(upper / name, "trusted.overlay.opaque", value)
        (upper / name / "file").write_text("x")
    (upper / "marks" / "new-kind").touch()
    os.setxattr(upper / "marks" / "new-kind", "trusted.overlay.whiteout", b"")
    (upper / "another").touch()
    os.setxattr(
        upper / "another", "user.overlay.whiteout", b""
    )  # the container's own: "trusted." counts here
    found = members(write(upper)[1])
    assert list(found) == [
        "another",
        ".wh.gone",
        "hides",
        "hides/.wh..wh..opq",
        "hides/file",
        "marks",
        "marks/file",
        "marks/.wh.new-kind",
        "merges",
        "merges/file",
    ]
    # Of another name than overlayfs has here, it is the container's own.
    assert found.pop("another").pax_headers == {"SCHILY.xattr.user.overlay.whiteout": ""}
    assert not any(member.pax_headers for member in found.values())


def test_marks_of_an_ordinary_user(upper: Path) -> None:
    (upper / "hides").mkdir()
    os.setxattr(upper / "hides", "user.overlay.opaque", b"y")
    os.setxattr(upper / "hides", "user.overlay.origin", b"z")
    os.setxattr(upper / "hides", "user.mine", b"m")
    os.setxattr(
        upper / "hides", "user.overlay.overlay.opaque", b"n"
    )  # escaped: the container's own user.overlay.opaque
    found = members(write(upper, user_xattrs=True)[1])
    assert list(found) == ["hides", "hides/.wh..wh..opq"]
    assert found["hides"].pax_headers == {
        "SCHILY.xattr.user.mine": "m",
        "SCHILY.xattr.user.overlay.opaque": "n",
    }


def test_everything_that_files_have(upper: Path) -> None:
    (upper / "file").write_bytes(b"data")
    os.chown(upper / "file", 3_000_000, 7)
    os.chmod(upper / "file", 0o4755)
    os.setxattr(
        upper / "file", "security.capability", bytes.fromhex("0100000200200000000000000000000000000000")
    )
    os.setxattr(upper / "file", "trusted.overlay.origin", b"o")
    os.utime(upper / "file", ns=(0, 1_700_000_000_999_999_999))
    os.link(upper / "file", upper / "hard")
    os.symlink("a" * 200, upper / "link")
    os.mknod(upper / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mkfifo(upper / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(upper)
        try:
            listener.bind("socket")
        finally:
            os.chdir(here)
    os.close(os.open(os.fsencode(upper) + b"/\xff", os.O_CREAT))
    (upper / ".wh.mine").write_text("x")
    with open(upper / "holes", "wb") as file:
        file.truncate(1_000_000)
    made, data = write(upper)
    found = members(data)
    assert set(found) == {"file", "hard", "link", "null", "fifo", "\udcff", "holes"}
    assert (found["file"].uid, found["file"].gid, found["file"].mode) == (3_000_000, 7, 0o4755)
    assert found["file"].mtime == 1_700_000_000  # whole seconds
    assert found["file"].pax_headers.keys() == {"uid", "SCHILY.xattr.security.capability"}
    assert (found["hard"].type, found["hard"].linkname) == (tarfile.LNKTYPE, "file")
    assert found["link"].linkname == "a" * 200
    assert (found["null"].devmajor, found["null"].devminor) == (1, 3)
    assert found["holes"].size == 1_000_000
    assert made["notes"] == [
        "/.wh.mine has a name that layers use for what is removed",
        "/socket is a socket, which archives do not have",
    ]


def test_the_same_tree_gives_the_same_bytes(tmp_path: Path) -> None:
    made = []
    for order in (1, -1):
        upper = tmp_path / f"upper{order}"
        upper.mkdir()
        for name in ["b", "a", "a.b", "c", "B", "ä"][::order]:
            (upper / name).mkdir()
            (upper / name / "f").write_text(name)
        for directory, _, files in os.walk(upper, topdown=False):
            for name in files:
                os.utime(Path(directory, name), ns=(0, 0))
            os.utime(directory, ns=(0, 0))
        made.append(write(upper)[1])
    assert made[0] == made[1]


@pytest.mark.parametrize("name", ["redirect", "metacopy"])
def test_what_is_kept_elsewhere_is_refused(upper: Path, name: str) -> None:
    (upper / "moved").mkdir()
    os.setxattr(upper / "moved", f"trusted.overlay.{name}", b"/x")
    with pytest.raises(UnsupportedError, match="/moved of the container's layer"):
        write(upper)


def test_deeper_than_descriptors_are_kept(upper: Path) -> None:
    path, depth = str(upper), 200
    for _ in range(depth):
        path += "/d"
        os.mkdir(path)
        Path(path, "z").touch()
    found = members(write(upper)[1])
    assert len(found) == 2 * depth
    assert "/".join(["d"] * depth) + "/z" in found


def test_too_deep_for_any_tool(upper: Path) -> None:
    here_fd = os.open(upper, os.O_RDONLY)
    for _ in range(25):
        os.mkdir("d" * 200, dir_fd=here_fd)
        below_fd = os.open("d" * 200, os.O_RDONLY, dir_fd=here_fd)
        os.close(here_fd)
        here_fd = below_fd
    os.close(here_fd)
    with pytest.raises(
        UnsupportedError, match=r"a path has 4\d\d\d bytes, more than the 4095 .*/ddd.*\[...\].*ddd"
    ):
        write(upper)


def test_a_file_too_deep_for_any_tool(upper: Path) -> None:
    """Its directory's path is short enough, and its own is not."""
    directory_fd = os.open(upper, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("d" * 200, dir_fd=directory_fd)
        below_fd = os.open("d" * 200, os.O_RDONLY, dir_fd=directory_fd)
        os.close(directory_fd)
        directory_fd = below_fd
    os.close(os.open("last" + "f" * 200, os.O_CREAT, dir_fd=directory_fd))
    os.close(directory_fd)
    with pytest.raises(UnsupportedError, match=r"a path has 4224 bytes, .*fff"):
        write(upper)


def test_a_full_disk(upper: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (upper / "file").write_text("x")

    def full(fd: int, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(upper_tar, "write_all", full)
    with pytest.raises(UnavailableError, match="no space"):
        write(upper)


# -- a tree that changes -----------------------------------------------------------------------------------


def at_each(monkeypatch: pytest.MonkeyPatch, name: str, action: Callable[[str], None]) -> None:
    """Do something just before each opening of a directory's entry."""
    original = os.open

    def open_(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if dir_fd is not None and path == name:
            action(name)
        return original(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", open_)


def test_a_directory_that_becomes_a_link_is_not_followed(
    upper: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    (upper / "directory").mkdir()
    (upper / "file").write_text("x")

    def swap(_: str) -> None:
        os.rmdir(upper / "directory")
        os.symlink(outside, upper / "directory")

    at_each(monkeypatch, "directory", swap)
    assert set(members(write(upper)[1])) == {"file"}


def test_a_file_that_becomes_a_link_is_not_followed(
    upper: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_text("secret")
    (upper / "file").write_text("x")

    def swap(_: str) -> None:
        os.unlink(upper / "file")
        os.symlink(tmp_path / "secret", upper / "file")

    at_each(monkeypatch, "file", swap)
    made, data = write(upper)
    assert made["entries"] == 0
    assert b"secret" not in data


def test_a_file_that_becomes_a_pipe_does_not_stop_the_walk(
    upper: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (upper / "file").write_text("x")

    def swap(_: str) -> None:
        os.unlink(upper / "file")
        os.mkfifo(upper / "file")

    at_each(monkeypatch, "file", swap)
    assert write(upper)[0]["entries"] == 0


def test_a_directory_that_is_moved_away_is_an_error(
    upper: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(upper)
    for _ in range(100):
        path += "/d"
        os.mkdir(path)
    Path(path, "last").touch()
    at_each(monkeypatch, "last", lambda _: os.rename(upper / "d", tmp_path / "elsewhere"))
    with pytest.raises(ConflictError, match="was moved while it was read"):
        write(upper)


def test_swapping_all_the_time_never_leads_outside(upper: Path, tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    (secrets / "inner").mkdir(parents=True)
    (secrets / "inner" / "secret").write_text("top secret")
    for number in range(20):
        (upper / f"d{number}" / "inner").mkdir(parents=True)
        (upper / f"d{number}" / "inner" / "secret").write_text("public")
    ended = threading.Event()

    def swap() -> None:
        while not ended.is_set():
            for number in range(20):
                os.rename(upper / f"d{number}", tmp_path / "away")
                os.symlink(secrets, upper / f"d{number}")
                os.unlink(upper / f"d{number}")
                os.rename(tmp_path / "away", upper / f"d{number}")

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for _ in range(30):
            assert b"top secret" not in write(upper)[1]
    finally:
        ended.set()
        thread.join()
