"""Stacks of layers: the kernel's view of them, one merged index, and what is read without mounting are the same."""

from __future__ import annotations

import os
import stat
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pydock_core.errors import NotFoundError
from pydock_core.oci.documents import layer_media_type
from pydock_core.store.erofs import tree
from pydock_core.store.layer_blob import LayerBlob
from pydock_core.store.snapshots import erofs_stacks
from pydock_core.store.snapshots.protocol import Snapshotter
from tests.contract.test_snapshotter import in_root
from tests.support.image_store import (
    DRIVERS,
    NEEDS_ROOT,
    ROOT,
    build_tar,
    digest,
    entry,
    no_erofs,
    open_store,
)

pytestmark = pytest.mark.skipif(not ROOT, reason=NEEDS_ROOT)
Entries = list[tuple[tarfile.TarInfo, bytes]]


def apply(driver: Snapshotter, base: Path, layer: bytes) -> str:
    (base / digest(layer)[7:]).write_bytes(layer)
    driver.apply(digest(layer), blob_of(base, digest(layer)))
    return digest(layer)


def blob_of(base: Path, diff_id: str) -> LayerBlob:
    return LayerBlob(base / diff_id[7:], layer_media_type(""))


def prepare(driver: Snapshotter, base: Path, diff_ids: list[str]) -> None:
    driver.prepare(diff_ids, [blob_of(base, diff_id) for diff_id in diff_ids])


def look(target: Path) -> list[Any]:
    """All that can be seen of a root file system; what is a directory on the way has no time of its own."""
    found: list[Any] = []
    for directory, directories, files in os.walk(target):
        for name in (*directories, *files):
            path = Path(directory, name)
            try:
                status = path.lstat()
            except FileNotFoundError:
                continue  # a whiteout that hides nothing: listed, and not there
            about: list[Any] = [status.st_mode, status.st_uid, status.st_gid]
            if stat.S_ISREG(status.st_mode):
                about += [path.read_bytes().decode(), status.st_mtime_ns]
            elif stat.S_ISLNK(status.st_mode):
                about += [os.readlink(path), status.st_mtime_ns]
            elif not stat.S_ISDIR(status.st_mode):
                about += [status.st_rdev]
            attributes = os.listxattr(path, follow_symlinks=False)
            about += [
                [key, os.getxattr(path, key, follow_symlinks=False).decode()] for key in sorted(attributes)
            ]
            found.append([str(path.relative_to(target)), about])
    return sorted(found)


def seen(driver: Snapshotter, diff_ids: list[str], base: Path) -> list[Any]:
    for name in ("upper", "work", "target"):
        (base / name).mkdir(exist_ok=True)
    return in_root(driver.mounts(diff_ids, base / "upper", base / "work"), base / "target", look)


def with_parents(entries: Entries) -> Entries:
    """Entries, each after its parents: as Docker and BuildKit write them, and so the same over any other layers."""
    found: Entries = []
    there: set[str] = set()
    for info, data in entries:
        parts = info.name.split("/")
        for count in range(1, len(parts)):
            parent = "/".join(parts[:count])
            if parent and parent not in there:
                there.add(parent)
                found.append(entry(parent, "dir"))
        found.append((info, data))
        there.add(info.name)
    return found


def make_layers(count: int) -> list[bytes]:
    """Layers that change what is below: files, directories, whiteouts, opaque directories, links, attributes."""
    layers: list[Entries] = [
        [
            entry("etc", "dir", mode=0o755, mtime=1),
            entry("etc/passwd", data=b"root:x:0:0::/:/bin/sh\n", mtime=2),
            entry("etc/old", data=b"old", mtime=2),
            entry("bin", "link", linkname="usr/bin", mtime=3),
            entry("usr/bin/sh", data=b"#!", mode=0o4755, mtime=4),
            entry("usr/bin/ash", "hard", linkname="usr/bin/sh"),
            entry("data/a", data=b"a", mtime=5),
            entry("data/sub/b", data=b"b", mtime=5),
            entry("long", "link", linkname="l" * 600, mtime=5),
        ]
    ]
    changes: list[Entries] = [
        [
            entry("etc/.wh.old"),
            entry("etc/new", data=b"new", mtime=6, pax_headers={"SCHILY.xattr.user.n": "1"}),
        ],
        [
            entry("data", "dir", mode=0o700, uid=5),
            entry("data/.wh..wh..opq"),
            entry("data/c", data=b"c", mtime=7),
        ],
        [entry("etc/passwd", "link", linkname="/data/c", mtime=8)],
        [entry("usr/bin", data=b"a file now", mtime=9)],
        [
            entry("usr/.wh.bin"),
            entry("usr/bin/true", data=b"t", mtime=10),
            entry("null", "char", devmajor=1, devminor=3),
        ],
        [entry("etc/.wh.passwd"), entry("etc/group", data=b"root:x:0:\n", mtime=11)],
    ]
    for number in range(1, count):
        layers.append(
            [
                *changes[(number - 1) % len(changes)],
                entry(f"layer{number}", data=str(number).encode(), mtime=1),
            ]
        )
    return [build_tar(with_parents(entries)) for entries in layers]


@pytest.mark.parametrize("count", [2, 7, 40])
def test_a_merged_index_shows_what_overlay_shows(tmp_path: Path, count: int) -> None:
    if reason := no_erofs(tmp_path):
        pytest.skip(reason)
    directory, indexes = open_store(tmp_path / "a"), open_store(tmp_path / "b", "erofs")
    layers = make_layers(count)
    ids = [apply(directory.snapshotter, tmp_path, layer) for layer in layers]
    assert [apply(indexes.snapshotter, tmp_path, layer) for layer in layers] == ids
    expected = seen(directory.snapshotter, ids, tmp_path)
    assert seen(indexes.snapshotter, ids, tmp_path) == expected
    assert len(indexes.snapshotter.mounts(ids, tmp_path, tmp_path)) == count + 1
    prepare(indexes.snapshotter, tmp_path, ids)
    mounts = indexes.snapshotter.mounts(ids, tmp_path / "upper", tmp_path / "work")
    assert len(mounts) == (count + 1 if count <= erofs_stacks.SEPARATE_LAYERS else 2)
    assert seen(indexes.snapshotter, ids, tmp_path) == expected
    # A further layer goes on top of what is merged.
    more = apply(indexes.snapshotter, tmp_path, build_tar([entry(".wh.data"), entry("more", data=b"m")]))
    if count > erofs_stacks.SEPARATE_LAYERS:
        assert len(indexes.snapshotter.mounts([*ids, more], tmp_path, tmp_path)) == 3
    paths = {path for path, _ in seen(indexes.snapshotter, [*ids, more], tmp_path)}
    assert "more" in paths
    assert "data" not in paths
    # Without one of its layers the merged index is of no use, and goes with it.
    indexes.snapshotter.remove(ids[1])
    with pytest.raises(NotFoundError):
        indexes.snapshotter.mounts(ids, tmp_path, tmp_path)
    assert not [name for name in os.listdir(indexes.root.layers / "erofs") if name.startswith("stack")]
    directory.close()
    indexes.close()


@pytest.mark.parametrize(("names", "is_merged"), [("the same", True), ("others", False)])
def test_what_a_layer_replaces_takes_no_memory_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: str, is_merged: bool
) -> None:
    if reason := no_erofs(tmp_path):
        pytest.skip(reason)
    store = open_store(tmp_path, "erofs")
    ids = []
    for number in range(6):  # a chown of everything, again and again
        first = 200 * number if names == "others" else 0
        files = [entry(f"file{place:04}", uid=number) for place in range(first, first + 200)]
        ids.append(apply(store.snapshotter, tmp_path, build_tar(files)))
    monkeypatch.setattr(tree, "MEMORY_LIMIT_BYTES", 2 * 200 * 250)
    prepare(store.snapshotter, tmp_path, ids)
    assert len(store.snapshotter.mounts(ids, tmp_path, tmp_path)) == (2 if is_merged else 7)
    store.close()


names = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map("/".join)
layers = st.lists(
    st.lists(st.tuples(st.sampled_from(["file", "dir", "link", "whiteout", "opaque"]), names), max_size=6),
    min_size=2,
    max_size=4,
)


@pytest.mark.slow
@given(layers)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_stacks(
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    layers: list[list[tuple[str, str]]],
) -> None:
    base = tmp_path_factory.mktemp("stack")
    if reason := no_erofs(base):
        pytest.skip(reason)
    monkeypatch.setattr(erofs_stacks, "SEPARATE_LAYERS", 1)
    stores = [open_store(base / "a"), open_store(base / "b", "erofs"), open_store(base / "c", "mixed")]
    ids: list[str] = []
    for number, layer in enumerate(layers):
        entries: Entries = [entry(f"own{number}")]  # no layer is there twice
        made: set[str] = set()
        for kind, path in layer:
            parent, _, name = path.rpartition("/")
            if any(path.startswith(other + "/") or path == other for other in made):
                continue
            if kind == "whiteout":
                entries.append(entry(f"{parent}/.wh.{name}"))
            elif kind == "opaque":
                entries.append(entry(f"{path}/.wh..wh..opq"))
            else:
                entries.append(
                    entry(path, kind, linkname="x", data=b"d" * (kind == "file"), mtime=number + 1)
                )
            if kind != "dir":
                made.add(path)
        tar = build_tar(with_parents(entries))
        for store in stores:
            apply(store.snapshotter, base, tar)
        ids.append(digest(tar))
    one, two, three = (seen(store.snapshotter, ids, base) for store in stores)
    assert two == one
    assert three == one
    prepare(stores[1].snapshotter, base, ids)
    assert len(stores[1].snapshotter.mounts(ids, base, base)) == 2
    assert seen(stores[1].snapshotter, ids, base) == one
    for store in stores:
        for path, about in one:
            if stat.S_ISREG(about[0]):
                content = store.snapshotter.read_file(ids, "/" + path)
                assert content == about[3].encode()
            elif stat.S_ISDIR(about[0]):
                assert store.snapshotter.read_file(ids, "/" + path) is None
        store.close()


@pytest.mark.parametrize("name", DRIVERS)
def test_small_files_are_read_as_the_container_would(tmp_path: Path, name: str) -> None:
    if name != "directory" and (reason := no_erofs(tmp_path)):
        pytest.skip(reason)
    store = open_store(tmp_path, name)
    driver = store.snapshotter
    below = apply(
        driver,
        tmp_path,
        build_tar(
            [
                entry("etc/passwd", data=b"below"),
                entry("etc/group", data=b"group"),
                entry("gone", data=b"g"),
                entry("opaque/in", data=b"i"),
                entry("up", "link", linkname="../../../../etc/group"),
                entry("host", "link", linkname=str(tmp_path / "host")),
                entry("loop", "link", linkname="loop"),
                entry("through", "link", linkname="/etc"),
                entry("pipe", "fifo"),
                entry("large", data=bytes((4 << 20) + 1)),
                entry("sparse-like", data=b"s" * 5000),
            ]
        ),
    )
    above = apply(
        driver,
        tmp_path,
        build_tar(
            [
                entry("etc/passwd", "link", linkname="passwd.real"),
                entry("etc/passwd.real", "link", linkname="/etc/group"),
                entry(".wh.gone"),
                entry("opaque/.wh..wh..opq"),
            ]
        ),
    )
    (tmp_path / "host").write_bytes(b"the host's own")
    ids = [below, above]
    read = driver.read_file
    assert read([below], "/etc/passwd") == b"below"
    assert read(ids, "/etc/passwd") == b"group"
    assert read(ids, "etc/../etc//group") == b"group"
    assert read(ids, "/up") == b"group"
    assert read(ids, "/through/group") == b"group"
    assert read(ids, "/sparse-like") == b"s" * 5000
    for path in (
        "/gone",
        "/opaque/in",
        "/host",
        "/loop",
        "/pipe",
        "/large",
        "/etc",
        "/",
        "/etc/group/x",
        "/nothing",
    ):
        assert read(ids, path) is None, path
    # The writable layer is on top, where it is there.
    assert read(ids, "/etc/group", tmp_path / "no-upper") == b"group"
    upper = tmp_path / "written"
    (upper / "etc").mkdir(parents=True)
    (upper / "etc/group").write_bytes(b"changed")
    assert read(ids, "/etc/passwd", upper) == b"changed"
    os.mknod(upper / "through", stat.S_IFCHR, 0)
    assert read(ids, "/through/group", upper) is None
    with pytest.raises(NotFoundError):
        read([digest(b"nothing")], "/etc/passwd")
    store.close()
