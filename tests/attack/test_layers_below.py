"""A hostile layer below a hostile layer: a link that one sets up leads the other nowhere but into the image."""

from __future__ import annotations

import io
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pydock_core import syscalls
from pydock_core.errors import CorruptError, InvalidError, UnsupportedError
from tests.attack.test_archives import ATTACKS, up
from tests.contract.test_snapshotter import in_root, list_files
from tests.support.image_store import (
    NEEDS_ROOT,
    ROOT,
    Store,
    build_docker_archive,
    build_tar,
    entry,
    no_erofs,
    open_store,
)

pytestmark = pytest.mark.skipif(not ROOT, reason=NEEDS_ROOT)
SECRET = "the host's own"


@pytest.fixture(params=["directory", "erofs"])
def layered(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Store]:
    # Hundreds of images are loaded and removed; none has to outlive the machine.
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    monkeypatch.setattr(syscalls, "syncfs", lambda fd: None)
    if request.param == "erofs" and (reason := no_erofs(tmp_path)):
        pytest.skip(reason)
    opened = open_store(tmp_path / "state", request.param)
    yield opened
    opened.close()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Path]:
    """A file of the host, with a directory beside it, compared afterwards."""
    directory = tmp_path / "host"
    (directory / "directory").mkdir(parents=True)
    file = directory / "file"
    file.write_text(SECRET)
    file.chmod(0o600)
    os.utime(file, (1000, 1000))
    before = describe(directory)
    yield file
    assert describe(directory) == before


def describe(directory: Path) -> list[Any]:
    found = []
    for path in (directory, *sorted(directory.rglob("*"))):
        status = path.lstat()
        about = (status.st_mode, status.st_uid, status.st_nlink, status.st_ino, status.st_mtime_ns)
        found.append((path.name, about, os.listxattr(path), path.read_text() if path.is_file() else ""))
    return found


def load(store: Store, *layers: list[Any]) -> list[str] | None:
    """Load an image and list what a container would see; None if it is refused.  The store is left as it was."""
    before = store.contents()
    try:
        (name,) = store.images.load(io.BytesIO(build_docker_archive(*(build_tar(layer) for layer in layers))))
    except (InvalidError, CorruptError, UnsupportedError) as error:
        assert "\n" not in error.message
        assert SECRET not in error.message
        seen = None
    else:
        base = store.root.temporary
        for directory in ("upper", "work", "merged"):
            (base / directory).mkdir()
        diff_ids = store.images.layers(store.images.resolve(name).id)
        mounts = store.snapshotter.mounts(diff_ids, base / "upper", base / "work")
        seen = in_root(mounts, base / "merged", list_files)
        for directory in ("upper", "work/work", "work", "merged"):
            (base / directory).rmdir()
        store.images.remove(name)
    store.empty_trash()
    assert store.contents() == before
    return seen


LINKS: dict[str, Callable[[Path], str]] = {
    "absolute": lambda file: str(file.parent),
    "relative": lambda file: up(file.parent),
    "root": lambda file: "/",
    "up and down": lambda file: f"../../../..{file.parent}",
    "through /proc": lambda file: "/proc/self/root" + str(file.parent),
}


@pytest.mark.parametrize("link", LINKS)
def test_a_link_below_leads_into_the_image(layered: Store, host: Path, link: str) -> None:
    target = LINKS[link](host)
    below = [
        entry("way", "link", linkname=target),
        entry("chain", "link", linkname="hop/../way"),
        entry("hop", "dir"),
        entry("secret", "link", linkname=str(host)),
    ]
    starts = itertools.cycle(("way", "chain", "hop/../chain"))
    attacks: list[Callable[[str], list[Any]]] = [
        lambda start: [entry(f"{start}/file", data=b"owned", mode=0o6777)],
        lambda start: [entry(f"{start}/directory/new", data=b"owned")],
        lambda start: [
            entry(f"{start}/directory", "dir", mode=0o777, uid=7, pax_headers={"SCHILY.xattr.user.a": "b"})
        ],
        lambda start: [entry(f"{start}/.wh.file"), entry("own/file", data=b"x")],
        lambda start: [entry(f"{start}/directory/.wh..wh..opq"), entry("own/file", data=b"x")],
        lambda start: [entry("own/secret", "hard", linkname="secret"), entry("own/secret/x", data=b"owned")],
    ]
    for attack in attacks:
        load(layered, below, attack(next(starts)))
    # What is not in the image cannot be linked to; what the host has is not.
    for name in ("file", str(host)[1:]):
        assert load(layered, below, [entry("stolen", "hard", linkname=f"{next(starts)}/{name}")]) is None
    seen = load(layered, below, [entry("secret", data=b"a file now"), entry("own/x", data=b"x")])
    assert seen is not None
    assert "secret=a file now" in seen
    assert not any(SECRET in line for line in seen)


def test_attacks_spread_over_layers(layered: Store, host: Path) -> None:
    for attack in ATTACKS.values():
        entries = attack(host)
        for split in {1, len(entries) - 1} - {0}:
            # A directory without an entry makes the upper layer one that is applied over the other.
            load(layered, entries[:split], [*entries[split:], entry("implied/file", data=b"x")])


@pytest.mark.parametrize(
    "target", ["none", "directory", "implied", "link/none", "hidden", "loop/x", "device/x", "/", "way/../.."]
)
def test_a_hard_link_to_what_is_not_a_file_below_is_refused(layered: Store, host: Path, target: str) -> None:
    below = [
        entry("directory", "dir"),
        entry("implied/x", data=b"x"),
        entry("link", "link", linkname="directory"),
        entry("loop", "link", linkname="loop"),
        entry("hidden", data=b"h"),
        entry("device", "char", devmajor=1, devminor=3),
        entry("way", "link", linkname=str(host.parent)),
    ]
    above = [entry(".wh.hidden"), entry("x", "hard", linkname=target)]
    assert load(layered, below, above) is None
    assert load(layered, below, [*above, entry("hidden/x", data=b"x")]) is None
