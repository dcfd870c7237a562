"""What every snapshot driver keeps: layers applied as the image specification says, merged by a real
overlay mount.
"""

from __future__ import annotations

import gzip
import json
import os
import stat
import subprocess
import tarfile
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pydock_core import syscalls
from pydock_core.errors import CorruptError, NotFoundError, UnavailableError, UnsupportedError
from pydock_core.oci.documents import layer_media_type
from pydock_core.oci.root_mount import RootMount
from pydock_core.runtime.rootfs import mount_root
from pydock_core.store.growing_file import Arrival
from pydock_core.store.layer_blob import LayerBlob
from pydock_core.store.snapshots.protocol import Snapshotter
from tests.support.image_store import (
    DRIVERS,
    NEEDS_ROOT,
    ROOT,
    Store,
    build_tar,
    digest,
    entry,
    is_whiteout,
    no_erofs,
    open_store,
)

pytestmark = pytest.mark.skipif(not ROOT, reason=NEEDS_ROOT)


@pytest.fixture(params=DRIVERS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param != "directory" and (reason := no_erofs(tmp_path)):
        pytest.skip(reason)
    opened = open_store(tmp_path, request.param)
    yield opened
    opened.close()


@pytest.fixture
def driver(store: Store) -> Snapshotter:
    return store.snapshotter


def apply(driver: Snapshotter, base: Path, layer: bytes, compression: str = "") -> str:
    packed = {"": bytes, "gzip": gzip.compress, "zstd": zstandard.compress}[compression](layer)
    blob = base / f"blob-{digest(packed)[7:19]}"
    blob.write_bytes(packed)
    driver.apply(digest(layer), LayerBlob(blob, layer_media_type(compression)))
    return digest(layer)


def merged(driver: Snapshotter, diff_ids: list[str], base: Path, name: str = "") -> list[str]:
    """Every path of the root file system, as the kernel shows it; files with their contents.

    A whiteout that hides nothing, in a directory that one layer alone has, is listed by readdir but cannot be
    looked up; such are left out.
    """
    upper, work, target = base / f"upper{name}", base / f"work{name}", base / f"merged{name}"
    for path in (upper, work, target):
        path.mkdir(exist_ok=True)
    return in_root(driver.mounts(diff_ids, upper, work), target, list_files)


def list_files(target: Path) -> list[str]:
    found = []
    for directory, directories, files in os.walk(target):
        for name in (*directories, *files):
            path = Path(directory, name)
            if path.is_symlink() or path.is_dir():
                found.append(str(path.relative_to(target)))
            elif path.is_file():
                found.append(f"{path.relative_to(target)}={path.read_bytes().decode()}")
    return sorted(found)


def in_root(mounts: Sequence[RootMount], target: Path, look: Callable[[Path], list[Any]]) -> list[Any]:
    """Mount a root file system in a mount namespace of a child's, and return what ``look`` sees of it."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reading)
            syscalls.unshare(syscalls.CLONE_NEWNS)
            syscalls.mount("none", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
            mount_root(mounts, target)
            with open(writing, "w", encoding="utf-8", errors="surrogateescape") as file:
                json.dump(look(target), file)
            os._exit(0)
        except BaseException:  # noqa: BLE001 - it ends the child, whose status the parent checks
            traceback.print_exc()
        finally:
            os._exit(1)
    os.close(writing)
    with open(reading, encoding="utf-8", errors="surrogateescape") as file:
        text = file.read()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    return list(json.loads(text))


# -- the life of a layer ---------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", ["", "gzip", "zstd"])
def test_a_layer_is_there_until_removed(driver: Snapshotter, tmp_path: Path, compression: str) -> None:
    layer = build_tar([entry("a", data=b"x" * 3_000_000), entry("b", data=b"yy")])
    assert not driver.has(digest(layer))
    diff_id = apply(driver, tmp_path, layer, compression)
    assert driver.has(diff_id)
    assert driver.size_bytes(diff_id) == 3_000_002
    assert driver.diff_ids() == [diff_id]
    assert apply(driver, tmp_path, layer, compression) == diff_id
    assert merged(driver, [diff_id], tmp_path)[1] == "b=yy"
    driver.remove(diff_id)
    driver.remove(diff_id)
    assert not driver.has(diff_id)
    with pytest.raises(NotFoundError, match=diff_id):
        driver.size_bytes(diff_id)
    with pytest.raises(NotFoundError, match=diff_id):
        driver.mounts([diff_id], None, None)


@pytest.mark.parametrize("compression", ["", "gzip", "zstd"])
def test_another_digest_keeps_nothing(store: Store, tmp_path: Path, compression: str) -> None:
    layer = build_tar([entry("a", data=b"x")])
    packed = {"": bytes, "gzip": gzip.compress, "zstd": zstandard.compress}[compression](layer)
    blob = tmp_path / "blob"
    blob.write_bytes(packed)
    before = store.contents()
    with pytest.raises(CorruptError, match="has the digest"):
        store.snapshotter.apply(digest(b"other"), LayerBlob(blob, layer_media_type(compression)))
    assert store.contents() == before


def test_what_is_no_layer_is_refused(store: Store, tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(b"x")
    before = store.contents()
    with pytest.raises(UnsupportedError, match="application/json"):
        store.snapshotter.apply(digest(b"x"), LayerBlob(tmp_path / "blob", "application/json"))
    assert store.contents() == before


def test_mounts_are_data(driver: Snapshotter, tmp_path: Path) -> None:
    one = apply(driver, tmp_path, build_tar([entry("a")]))
    two = apply(driver, tmp_path, build_tar([entry("b")]))
    *_, single = driver.mounts([one], None, None)
    assert (single.kind, single.options) == ("bind", ("ro",))
    *_, both = driver.mounts([one, two], None, None)
    assert both.kind == "overlay"
    assert [two[7:] in path for path in both.lower] == [True, False]
    assert both.upper == ""
    *_, writable = driver.mounts([one], tmp_path / "u", tmp_path / "w")
    assert (writable.upper, writable.work) == (str(tmp_path / "u"), str(tmp_path / "w"))
    assert merged(driver, [], tmp_path) == []


def test_the_same_layer_twice(driver: Snapshotter, tmp_path: Path) -> None:
    """Images do have it (layers that changed nothing), and overlayfs refuses a directory that it has
    already.
    """
    one = apply(driver, tmp_path, build_tar([entry("a", data=b"1"), entry(".wh.c")]))
    two = apply(
        driver, tmp_path, build_tar([entry("a", data=b"2"), entry("b", data=b"2"), entry("c", data=b"2")])
    )
    assert merged(driver, [one, two, one], tmp_path) == ["a=1", "b=2"]
    assert merged(driver, [one, one], tmp_path) == ["a=1"]


def test_progress_names_the_layer(driver: Snapshotter, tmp_path: Path) -> None:
    layer = build_tar([entry("a", data=bytes(20 << 20))])
    (tmp_path / "blob").write_bytes(layer)
    events: list[dict[str, object]] = []
    driver.apply(digest(layer), LayerBlob(tmp_path / "blob", layer_media_type("")), events.append)
    assert events
    assert events[0]["id"] == digest(layer)[7:19]
    assert events[0]["total"] == len(layer)


@pytest.mark.parametrize("compression", ["", "gzip"])
@pytest.mark.parametrize("known", [True, False])
def test_a_layer_is_applied_while_it_arrives(
    driver: Snapshotter, tmp_path: Path, compression: str, known: bool
) -> None:
    layer = build_tar([entry(f"f{number}", data=os.urandom(5 << 20)) for number in range(4)])
    packed = gzip.compress(layer, 1) if compression else layer
    path = tmp_path / "arriving"
    path.write_bytes(b"")
    arrival = Arrival()

    def download() -> None:
        with open(path, "ab", buffering=0) as file:
            for start in range(0, len(packed), 3_000_000):
                arrival.advance(file.write(packed[start : start + 3_000_000]))
        arrival.finish()

    blob = LayerBlob(
        path,
        layer_media_type(compression),
        verified=known,
        arrival=arrival,
        digest=digest(packed) if known else "",
    )
    events: list[dict[str, Any]] = []
    thread = threading.Thread(target=download)
    thread.start()
    driver.apply(digest(layer), blob, events.append)
    thread.join()
    assert driver.size_bytes(digest(layer)) == 20 << 20
    assert events


@pytest.mark.parametrize("compression", ["", "gzip"])
@pytest.mark.parametrize("known", [True, False])
def test_what_stops_arriving_is_not_kept(store: Store, tmp_path: Path, compression: str, known: bool) -> None:
    layer = build_tar([entry("f", data=os.urandom(3 << 20))])
    packed = gzip.compress(layer, 1) if compression else layer
    path = tmp_path / "arriving"
    path.write_bytes(packed[: 2 << 20])
    arrival = Arrival(2 << 20)
    blob = LayerBlob(
        path, layer_media_type(compression), verified=known, arrival=arrival, digest=digest(packed) * known
    )
    before = store.contents()
    arrival.fail(UnavailableError("the registry closed the connection"))
    with pytest.raises(UnavailableError, match="the registry closed"):
        store.snapshotter.apply(digest(layer), blob)
    assert store.contents() == before


# -- what a layer holds ----------------------------------------------------------------------------------


def test_entries_of_every_kind(driver: Snapshotter, store: Store, tmp_path: Path) -> None:
    long_name = "d/" + "n" * 200
    odd_name = "d/\udcff\udcfe"
    capability = b"\x01\x00\x00\x02\x00\x04\x00\x00" + bytes(12)
    text = capability.decode("utf-8", "surrogateescape")
    diff_id = apply(
        driver,
        tmp_path,
        build_tar(
            [
                entry("d", "dir", mode=0o2750, uid=12, gid=34, mtime=1_000_000_000),
                entry("d/setuid", data=b"x", mode=0o4755, uid=5, gid=6, mtime=1_234_567_890),
                entry(long_name, data=b"long"),
                entry(odd_name, data=b"odd"),
                entry("d/link", "link", linkname="../nowhere", uid=7, gid=8, mtime=1_100_000_000),
                entry("d/hard", "hard", linkname="d/setuid"),
                entry("d/hardlink-to-link", "hard", linkname="./d/link"),
                entry("d/null", "char", mode=0o666, devmajor=1, devminor=3),
                entry("d/disk", "block", mode=0o600, devmajor=8, devminor=1),
                entry("d/fifo", "fifo", mode=0o640),
                entry("d/xattr", data=b"", pax_headers={"SCHILY.xattr.user.note": "v"}),
                entry("d/capable", pax_headers={"SCHILY.xattr.security.capability": text}, uid=0),
                entry("d/fraction", pax_headers={"mtime": "1500000000.123456789"}),
                entry("/absolute", data=b"a"),
                entry("./dotted/../dotted/./x", data=b"d"),
                entry("implied/parents/file", data=b"i"),
            ]
        ),
    )
    tree = store.tree(diff_id)
    status = os.stat(tree / "d")
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_mtime) == (
        0o2750,
        12,
        34,
        10**9,
    )
    status = os.stat(tree / "d/setuid")
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o4755, 5, 6)
    assert (status.st_mtime, status.st_nlink) == (1_234_567_890, 2)
    assert (tree / long_name).read_bytes() == b"long"
    assert (tree / odd_name).read_bytes() == b"odd"
    status = os.lstat(tree / "d/link")
    assert (os.readlink(tree / "d/link"), status.st_uid, status.st_mtime) == ("../nowhere", 7, 1_100_000_000)
    assert os.lstat(tree / "d/hardlink-to-link").st_ino == status.st_ino
    status = os.stat(tree / "d/null")
    assert (stat.S_ISCHR(status.st_mode), status.st_rdev) == (True, os.makedev(1, 3))
    status = os.stat(tree / "d/disk")
    assert (stat.S_ISBLK(status.st_mode), status.st_rdev) == (True, os.makedev(8, 1))
    assert stat.S_ISFIFO(os.stat(tree / "d/fifo").st_mode)
    assert os.getxattr(tree / "d/xattr", "user.note") == b"v"
    assert os.getxattr(tree / "d/capable", "security.capability") == capability
    assert os.stat(tree / "d/fraction").st_mtime_ns == 1_500_000_000_123_456_789
    assert (tree / "absolute").read_bytes() == b"a"
    assert (tree / "dotted/x").read_bytes() == b"d"
    assert stat.S_IMODE(os.stat(tree / "implied/parents").st_mode) == 0o755


def test_the_roots_own_mode(driver: Snapshotter, store: Store, tmp_path: Path) -> None:
    diff_id = apply(driver, tmp_path, build_tar([entry("./", "dir", mode=0o700, uid=3, gid=4), entry("a")]))
    status = os.stat(store.tree(diff_id))
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o700, 3, 4)


@pytest.mark.parametrize("compression", ["", "gzip"])
def test_sparse_files(driver: Snapshotter, store: Store, tmp_path: Path, compression: str) -> None:
    source = tmp_path / "sparse"
    with open(source, "wb") as file:
        file.truncate(5 << 20)
        for offset in (1 << 20, 3 << 20):
            file.seek(offset)
            file.write(b"data" * 1000)
    expected = source.read_bytes()
    for number, tar_format in enumerate(("gnu", "pax")):
        name = f"{tar_format}.tar"
        subprocess.run(
            ["tar", "-C", tmp_path, f"--format={tar_format}", "-Scf", tmp_path / name, "sparse"],
            check=True,
            timeout=30,
        )
        layer = (tmp_path / name).read_bytes()
        assert len(layer) < 1 << 20, "GNU tar made no sparse archive"
        made = store.tree(apply(driver, tmp_path, layer, compression)) / "sparse"
        assert made.read_bytes() == expected, number
        if store.snapshotter.name == "directory":  # EROFS says of every file that it takes its whole size
            assert made.stat().st_blocks * 512 < 1 << 20


@pytest.mark.parametrize("tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_formats(driver: Snapshotter, store: Store, tmp_path: Path, tar_format: int) -> None:
    name = "/".join(["p" * 40] * 3)
    layer = build_tar([entry(name, data=b"x"), entry("link", "link", linkname="l" * 90)], tar_format)
    tree = store.tree(apply(driver, tmp_path, layer))
    assert (tree / name).read_bytes() == b"x"
    assert os.readlink(tree / "link") == "l" * 90


def test_later_entries_replace_earlier_ones(driver: Snapshotter, store: Store, tmp_path: Path) -> None:
    layer = build_tar(
        [
            entry("twice", data=b"first"),
            entry("twice", data=b"second"),
            entry("file-then-dir", data=b"x"),
            entry("file-then-dir", "dir"),
            entry("file-then-dir/inner", data=b"i"),
            entry("dir-then-file", "dir"),
            entry("dir-then-file/inner", data=b"i"),
            entry("dir-then-file", data=b"f"),
            entry("dir-twice", "dir", mode=0o700),
            entry("dir-twice/inner", data=b"i"),
            entry("dir-twice", "dir", mode=0o711),
            entry("real/inner", data=b"i"),
            entry("link", "link", linkname="real"),
            entry("link/through", data=b"t"),
            entry("link", "dir"),
            entry("link/own", data=b"o"),
        ]
    )
    tree = store.tree(apply(driver, tmp_path, layer))
    assert (tree / "twice").read_bytes() == b"second"
    assert (tree / "file-then-dir/inner").read_bytes() == b"i"
    assert (tree / "dir-then-file").read_bytes() == b"f"
    assert stat.S_IMODE((tree / "dir-twice").stat().st_mode) == 0o711
    assert (tree / "dir-twice/inner").exists()
    assert (tree / "real/through").read_bytes() == b"t"
    assert sorted(os.listdir(tree / "link")) == ["own"]


def test_a_directory_behind_a_dangling_link_is_made_inside(
    driver: Snapshotter, store: Store, tmp_path: Path
) -> None:
    layer = build_tar(
        [entry("var", "dir"), entry("var/run", "link", linkname="/run/deep"), entry("var/run/pid", data=b"1")]
    )
    assert (store.tree(apply(driver, tmp_path, layer)) / "run/deep/pid").read_bytes() == b"1"


def test_times_of_directories_are_set_last(driver: Snapshotter, store: Store, tmp_path: Path) -> None:
    layer = build_tar(
        [
            entry("d", "dir", mtime=1000),
            entry("d/e", "dir", mtime=2000),
            entry("d/e/f", data=b"x", mtime=3000),
        ]
    )
    tree = store.tree(apply(driver, tmp_path, layer))
    assert [os.stat(tree / path).st_mtime for path in ("d", "d/e", "d/e/f")] == [1000, 2000, 3000]


# -- whiteouts -------------------------------------------------------------------------------------------

BASE = [
    entry("keep", data=b"k"),
    entry("gone", data=b"g"),
    entry("dir", "dir"),
    entry("dir/old", data=b"o"),
    entry("dir/sub/deep", data=b"d"),
    entry("whole", "dir"),
    entry("whole/inner", data=b"i"),
]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([entry(".wh.gone")], {"keep=k", "dir/old=o", "dir/sub/deep=d", "whole/inner=i"}),
        ([entry(".wh.whole"), entry("dir/.wh.old")], {"keep=k", "gone=g", "dir/sub/deep=d"}),
        (
            [entry("dir", "dir"), entry("dir/.wh..wh..opq"), entry("dir/new", data=b"n")],
            {"keep=k", "gone=g", "dir/new=n", "whole/inner=i"},
        ),
        (
            [entry("dir/new", data=b"n"), entry("dir/.wh..wh..opq")],
            {"keep=k", "gone=g", "dir/new=n", "whole/inner=i"},
        ),
        # A whiteout hides what is below; what the same layer has under the name stays, whatever the order.
        (
            [entry(".wh.dir"), entry("dir", "dir"), entry("dir/new", data=b"n")],
            {"keep=k", "gone=g", "dir/new=n", "whole/inner=i"},
        ),
        (
            [entry("dir", "dir"), entry("dir/new", data=b"n"), entry(".wh.dir")],
            {"keep=k", "gone=g", "dir/new=n", "whole/inner=i"},
        ),
        (
            [entry(".wh.dir"), entry("dir/new", data=b"n")],
            {"keep=k", "gone=g", "dir/new=n", "whole/inner=i"},
        ),
        (
            [entry(".wh.gone"), entry("gone", data=b"again")],
            {"keep=k", "gone=again", "dir/old=o", "dir/sub/deep=d", "whole/inner=i"},
        ),
        (
            [entry("gone", data=b"again"), entry(".wh.gone")],
            {"keep=k", "gone=again", "dir/old=o", "dir/sub/deep=d", "whole/inner=i"},
        ),
        ([entry(".wh.dir"), entry("dir", data=b"file")], {"keep=k", "gone=g", "dir=file", "whole/inner=i"}),
        ([entry(".wh..wh..opq"), entry("only", data=b"1")], {"only=1"}),
        (
            [entry(".wh..wh.plnk", "dir"), entry(".wh..wh.aufs")],
            {*("keep=k", "gone=g"), "dir/old=o", "dir/sub/deep=d", "whole/inner=i"},
        ),
    ],
)
def test_the_kernel_merges_as_the_specification_says(
    driver: Snapshotter,
    tmp_path: Path,
    changes: list[tuple[tarfile.TarInfo, bytes]],
    expected: set[str],
) -> None:
    below = apply(driver, tmp_path, build_tar(BASE))
    above = apply(driver, tmp_path, build_tar(changes))
    assert {line for line in merged(driver, [below, above], tmp_path) if "=" in line} == expected


def test_a_whiteout_is_a_device(driver: Snapshotter, store: Store, tmp_path: Path) -> None:
    tree = store.tree(apply(driver, tmp_path, build_tar([entry("a/.wh.b")])))
    assert is_whiteout(tree / "a/b")


names = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map("/".join)
changes = st.lists(st.tuples(st.sampled_from(["file", "dir", "whiteout", "opaque"]), names), max_size=8)


def model(layers: list[list[tuple[str, str]]]) -> set[str]:
    """The specification in a few lines: the paths that are left, directories included."""
    state: dict[str, str] = {}
    for layer in layers:
        here: dict[str, str] = {}
        hidden: list[str] = []
        for kind, path in layer:
            parent = path.rpartition("/")[0]
            if kind == "whiteout":
                hidden.append(path)
                made = parent
            elif kind == "opaque":
                hidden.append(path + "/")
                made = path
            else:
                made = parent
            while made:
                here[made] = "dir"
                made = made.rpartition("/")[0]
            if kind in ("file", "dir"):
                if kind == "file" and here.get(path) == "dir":
                    here = {known: what for known, what in here.items() if not known.startswith(path + "/")}
                here[path] = kind
        for gone in hidden:
            inside = gone if gone.endswith("/") else gone + "/"
            state = {p: k for p, k in state.items() if p != gone and not p.startswith(inside)}
        for path, kind in here.items():
            if kind == "file" or state.get(path) == "file":
                state = {p: k for p, k in state.items() if p != path and not p.startswith(path + "/")}
        state.update(here)
    return set(state)


def consistent(layer: list[tuple[str, str]]) -> bool:
    """No entry below a file of the same layer: that is an error, and no case of merging."""
    files: set[str] = set()
    for kind, path in layer:
        inner = path + "/x" if kind == "opaque" else path
        if any(inner.startswith(file + "/") for file in files):
            return False
        if kind == "file":
            files.add(path)
        elif kind == "dir":
            files.discard(path)
    return True


@pytest.mark.parametrize("name", DRIVERS)
@given(changes.filter(consistent), changes.filter(consistent))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_merging_two_random_layers(
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    lower: list[tuple[str, str]],
    upper: list[tuple[str, str]],
) -> None:
    base = tmp_path_factory.mktemp("merge")
    if name != "directory" and (reason := no_erofs(base)):
        pytest.skip(reason)
    store = open_store(base, name)
    try:
        ids = [apply(store.snapshotter, base, build_tar(entries_of(layer))) for layer in (lower, upper)]
        found = {line.removesuffix("=") for line in merged(store.snapshotter, ids, base)}
        assert found == model([lower, upper])
    finally:
        store.close()


def entries_of(layer: list[tuple[str, str]]) -> list[tuple[tarfile.TarInfo, bytes]]:
    entries = []
    for kind, path in layer:
        parent, _, name = path.rpartition("/")
        if kind == "whiteout":
            entries.append(entry(f"{parent}/.wh.{name}" if parent else f".wh.{name}"))
        elif kind == "opaque":
            entries.append(entry(f"{path}/.wh..wh..opq"))
        else:
            entries.append(entry(path, kind))
    return entries
