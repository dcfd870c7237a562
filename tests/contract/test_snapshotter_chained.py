"""Layers that depend on those below: every driver shows what containerd makes, which applies over the layers below."""

from __future__ import annotations

import gzip
import io
import json
import os
import stat
import tarfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pydock_core import syscalls
from pydock_core.errors import InvalidError, NotFoundError
from pydock_core.oci.documents import layer_media_type
from pydock_core.store.layer_blob import LayerBlob
from pydock_core.store.snapshots.stack import chain_ids
from tests.contract.test_snapshotter import in_root
from tests.contract.test_snapshotter_stack import with_parents
from tests.support.containerd_unpack import Containerd, containerd, missing
from tests.support.image_store import (
    DRIVERS,
    NEEDS_ROOT,
    ROOT,
    Store,
    build_docker_archive,
    build_tar,
    digest,
    entry,
    no_erofs,
    open_store,
)

pytestmark = pytest.mark.skipif(not ROOT, reason=NEEDS_ROOT)
Entries = list[tuple[tarfile.TarInfo, bytes]]

BASE: Entries = [
    entry("tmp", "dir", mode=0o1777, mtime=3),
    entry("root", "dir", mode=0o700, mtime=4),
    entry("home", "dir", mtime=5),
    entry("home/user", "dir", mode=0o2750, uid=1000, gid=1001, mtime=6),
    entry("srv", "dir", mode=0o750, uid=7, mtime=7, pax_headers={"SCHILY.xattr.user.kept": "yes"}),
    entry("srv/old", data=b"old", mtime=7),
    entry("usr", "dir", mtime=8),
    entry("usr/lib", "dir", mode=0o711, gid=9, mtime=9),
    entry("usr/lib/one", data=b"one", mode=0o4755, uid=3, mtime=10),
    entry("usr/lib/two", data=b"two", mtime=10),
    entry("usr/lib/sub", "dir", mode=0o700, mtime=10),
    entry("usr/lib/sub/three", data=b"three", mtime=10),
    entry("lib", "link", linkname="usr/lib", mtime=11),
    entry("absolute", "link", linkname="/usr/lib", mtime=11),
    entry("first", "link", linkname="second", mtime=11),
    entry("second", "link", linkname="./home/../third", mtime=11),
    entry("third", "link", linkname="srv", mtime=11),
    entry("up", "link", linkname="../../../../../../../../srv", mtime=11),
    entry("top", "link", linkname="/", mtime=11),
    entry("dangling", "link", linkname="var/made/here", mtime=11),
    entry("null", "char", devmajor=1, devminor=3, mode=0o666, mtime=12),
    entry("pipe", "fifo", mtime=12),
]
CASES: dict[str, list[Entries]] = {
    "no directory entries, as Bazel and kaniko write": [
        BASE,
        [
            entry("tmp/x", data=b"x", mtime=20),
            entry("root/.profile", data=b"p", mtime=20),
            entry("home/user/main", data=b"m", uid=1000, mtime=20),
            entry("home/app/main", data=b"m", uid=1000, mtime=20),
            entry("srv/data", data=b"d", mtime=20),
            entry("opt/new/deep/file", data=b"f", mtime=20),
            entry("usr/lib/two", data=b"changed", mtime=20),
        ],
        [entry("opt/new/second", data=b"s", mtime=21), entry("usr/lib/sub/more", data=b"m", mtime=21)],
    ],
    "a parent that is a link below": [
        BASE,
        [
            entry("lib/x", data=b"x", mtime=20),
            entry("absolute/sub/y", data=b"y", mtime=20),
            entry("first/through", data=b"t", mtime=20),
            entry("up/z", data=b"z", mtime=20),
            entry("top/top/w", data=b"w", mtime=20),
            entry("dangling/v", data=b"v", mtime=20),
            entry("lib/new", "dir", mode=0o700, mtime=20),
            entry("lib/new/u", "link", linkname="../two", mtime=20),
        ],
    ],
    "hard links to files below": [
        BASE,
        [
            entry("hard", "hard", linkname="usr/lib/one", mode=0o4755, uid=3, mtime=10),
            entry("tmp/hard-to-link", "hard", linkname="lib", mtime=11),
            entry("tmp/through", "hard", linkname="first/old", mtime=7),
            entry("tmp/null", "hard", linkname="/null", mode=0o666, mtime=12),
            entry("lib/pipe", "hard", linkname="pipe", mtime=12),
            entry("usr/lib/again", "hard", linkname="./hard", mode=0o4755, uid=3, mtime=10),
        ],
        [entry("hard", data=b"changed", mtime=21)],
        [entry("last", "hard", linkname="lib/sub/three", mtime=10)],
    ],
    "whiteouts where the parent is implied": [
        BASE,
        [
            entry("lib/.wh.two"),
            entry("srv/.wh..wh..opq"),
            entry("srv/new", data=b"n", mtime=20),
            entry("home/.wh.user"),
            entry("home/user/fresh", data=b"f", mtime=20),
            entry("first/.wh.absent"),
            entry("usr/.wh.absent"),
            entry("none/.wh.absent"),
        ],
    ],
    "whiteouts through links and in each other": [
        BASE,
        [
            entry("absolute/.wh.sub"),
            entry("usr/lib/sub/.wh.three"),
            entry("third/.wh..wh..opq"),
            entry("top/.wh.pipe"),
            entry("tmp/file", data=b"f", mtime=20),
        ],
        [entry("usr/lib/sub/three", data=b"back", mtime=21)],
    ],
    "a link below is hidden, and its name a directory": [
        BASE,
        [entry(".wh.lib"), entry("lib/x", data=b"x", mtime=20), entry("tmp/y", data=b"y", mtime=20)],
        [entry("lib/z", data=b"z", mtime=21), entry("usr/lib/w", data=b"w", mtime=21)],
    ],
    "a directory of its own in the place of a link below": [
        BASE,
        [
            entry("lib", "dir", mode=0o750, mtime=20),
            entry("lib/.wh..wh..opq"),
            entry("lib/x", data=b"x", mtime=20),
            entry("absolute", "dir", mtime=20),
            entry("absolute/.wh.one"),
            entry("tmp/y", data=b"y", mtime=20),
        ],
    ],
    "files and directories change places": [
        BASE,
        [
            entry("usr/lib/sub", data=b"a file", mtime=20),
            entry("usr/lib/one", "dir", mode=0o700, mtime=20),
            entry("usr/lib/one/x", data=b"x", mtime=20),
            entry("home", "link", linkname="tmp", mtime=20),
            entry("home/y", data=b"y", mtime=20),
        ],
        [entry("usr/lib/sub", "dir", mtime=21), entry("home/z", data=b"z", mtime=21)],
    ],
    "an opaque root": [
        BASE,
        [entry(".wh..wh..opq"), entry("usr/lib/only", data=b"o", mtime=20)],
        [entry("usr/lib/x", "hard", linkname="usr/lib/only", mtime=20)],
    ],
    "thirty layers": [
        BASE,
        *(
            [
                entry(f"lib/file{number}", data=b"%d" % number, mtime=20),
                entry(f"home/user/link{number}", "hard", linkname=f"lib/file{number - 1}", mtime=20),
            ]
            if number
            else [entry("lib/file0", data=b"0", mtime=20)]
            for number in range(29)
        ),
    ],
    "some layers need it, others do not": [
        BASE,
        [entry("usr", "dir", mode=0o711, mtime=20), entry("usr/a", data=b"a", mtime=20)],
        [entry("usr/b", data=b"b", mtime=21)],
        [entry("usr", "dir", mode=0o700, mtime=22), entry("usr/c", data=b"c", mtime=22)],
        [entry("top-level", data=b"t", mtime=23)],
        [entry("usr/d", data=b"d", mtime=24)],
    ],
}


def look(target: Path) -> list[Any]:
    """Every entry, and which names are one file.

    Directories have no time: containerd leaves them what they get.  Its snapshots keep the links of regular files only,
    and overlayfs counts a name of a lower layer that is hidden.
    """
    found: list[Any] = []
    same: dict[tuple[int, int], list[str]] = defaultdict(list)
    for directory, directories, files in os.walk(target):
        for name in (*directories, *files):
            path = Path(directory, name)
            try:
                status = path.lstat()
            except FileNotFoundError:
                continue  # a whiteout that hides nothing: listed, and not there
            shown = str(path.relative_to(target))
            about: list[Any] = [oct(status.st_mode), status.st_uid, status.st_gid]
            if not stat.S_ISDIR(status.st_mode):
                about += [status.st_mtime_ns, status.st_rdev]
            if stat.S_ISREG(status.st_mode):
                about.append(path.read_text())
                same[status.st_dev, status.st_ino].append(shown)
            elif stat.S_ISLNK(status.st_mode):
                about.append(os.readlink(path))
            attributes = os.listxattr(path, follow_symlinks=False)
            about += [[key, os.getxattr(path, key, follow_symlinks=False).hex()] for key in attributes]
            found.append([shown, about])
    return [sorted(found), sorted(sorted(names) for names in same.values() if len(names) > 1)]


def load(store: Store, layers: list[bytes], compressed: bool = False) -> list[str]:
    """Apply the layers of an image and prepare it, as recording it does."""
    blobs = []
    for layer in layers:
        data = gzip.compress(layer) if compressed else layer
        path = store.root.data / f"blob-{digest(data)[7:]}"
        path.write_bytes(data)
        blobs.append(LayerBlob(path, layer_media_type("gzip" if compressed else "")))
        store.snapshotter.apply(digest(layer), blobs[-1])
    ids = [digest(layer) for layer in layers]
    store.snapshotter.prepare(ids, blobs)
    return ids


def seen(store: Store, ids: list[str], base: Path) -> list[Any]:
    for name in ("upper", "work", "target"):
        (base / name).mkdir(exist_ok=True)
    return in_root(store.snapshotter.mounts(ids, base / "upper", base / "work"), base / "target", look)


def real_tree(daemon: Containerd, layers: list[bytes]) -> list[Any]:
    chain_id = chain_ids([digest(layer) for layer in layers])[-1]
    return look(daemon.unpack(build_docker_archive(*layers, tags=[f"t{chain_id[7:]}:1"]), chain_id))


@pytest.fixture(scope="module")
def real() -> Iterator[Containerd]:
    if reason := missing():
        pytest.skip(reason)
    with containerd() as daemon:
        yield daemon


@pytest.fixture(params=DRIVERS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param != "directory" and (reason := no_erofs(tmp_path)):
        pytest.skip(reason)
    opened = open_store(tmp_path, request.param)
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def nothing_has_to_outlive_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of layers are made; bringing each to disk would take most of the tests' time."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    monkeypatch.setattr(syscalls, "syncfs", lambda fd: None)


@pytest.mark.parametrize("case", CASES)
def test_what_containerd_makes(store: Store, real: Containerd, tmp_path: Path, case: str) -> None:
    layers = [build_tar(entries) for entries in CASES[case]]
    ids = load(store, layers, compressed="whiteouts" in case)
    expected = real_tree(real, layers)
    assert seen(store, ids, tmp_path) == expected
    for path, about in expected[0]:
        if stat.S_ISREG(int(about[0], 8)):
            assert store.snapshotter.read_file(ids, f"/{path}") == about[5].encode(), path


names = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map("/".join)
steps = st.tuples(st.sampled_from(["file", "dir", "link", "hard", "whiteout", "opaque"]), names, names)
BELOW = st.lists(steps, min_size=2, max_size=6)
ABOVE = st.lists(steps, min_size=1, max_size=4)


def random_layer(number: int, steps: list[tuple[str, str, str]]) -> bytes:
    entries: Entries = [entry(f"own{number}")]  # no layer is there twice
    for kind, path, target in steps:
        parent, _, name = path.rpartition("/")
        if kind == "whiteout":
            entries.append(entry(f"{parent}/.wh.{name}".lstrip("/")))
        elif kind == "opaque":
            entries.append(entry(f"{path}/.wh..wh..opq"))
        else:
            entries.append(entry(path, kind, linkname=target, data=b"d" * (kind == "file"), mtime=1))
    return build_tar(entries)


@given(BELOW, ABOVE, ABOVE)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_all_drivers_make_the_same(
    tmp_path_factory: pytest.TempPathFactory,
    below: list[tuple[str, str, str]],
    middle: list[tuple[str, str, str]],
    above: list[tuple[str, str, str]],
) -> None:
    base = tmp_path_factory.mktemp("chained")
    if reason := no_erofs(base):
        pytest.skip(reason)
    layers = [random_layer(number, layer) for number, layer in enumerate((below, middle, above))]
    outcomes = []
    for driver in DRIVERS:
        store = open_store(base / driver, driver)
        try:
            outcomes.append(seen(store, load(store, layers), base / driver))
        except InvalidError as error:
            outcomes.append([error.message])
        store.close()
    assert outcomes[1] == outcomes[0]
    assert outcomes[2] == outcomes[0]


def test_one_layer_over_two_others(store: Store, tmp_path: Path) -> None:
    """The layer itself stays as it is; each chain has its own form of it, and loses it with its last image."""
    shared = build_tar(
        [entry("data/new/file", data=b"n", mtime=20), entry("link", "hard", linkname="data/a")]
    )
    bases = [
        build_tar([entry("data", "dir", mode=mode, uid=uid, mtime=uid), entry("data/a", data=b"%d" % uid)])
        for mode, uid in ((0o700, 1), (0o1777, 2))
    ]
    tops = [build_tar([entry("top", data=b"%d" % number)]) for number in range(2)]
    empty = store.contents()
    archives = {
        "one:1": build_docker_archive(bases[0], shared, tags=["one:1"]),
        "two:1": build_docker_archive(bases[1], shared, tags=["two:1"]),
        "three:1": build_docker_archive(bases[0], shared, tops[0], tags=["three:1"]),
    }
    for archive in archives.values():
        store.images.load(io.BytesIO(archive))
    assert len(store.snapshotter.chains()) == 2
    assert {store.snapshotter.chain_size_bytes(chain) for chain in store.snapshotter.chains()} == {2}
    for (base, mode), uid in zip(((bases[0], 0o700), (bases[1], 0o1777)), (1, 2), strict=True):
        mounts = store.snapshotter.mounts([digest(base), digest(shared)], None, None)
        (tmp_path / "target").mkdir(exist_ok=True)
        content, owner, implied = in_root(mounts, tmp_path / "target", look_at_data)
        assert content == str(uid)
        assert owner == [0o40000 | mode, uid, 0, uid * 10**9]
        assert implied == [0o40755, 0, 0, 0]
    # By itself, the layer has neither.
    (tree,) = store.root.layers.glob(f"*/{digest(shared)[7:]}")
    notes = json.loads((tree / "layer.json").read_text())
    assert (notes["implied_parents"], notes["unresolved_links"]) == (2, 1)
    # What is saved is what was loaded.
    for name, archive in archives.items():
        saved, again = io.BytesIO(), io.BytesIO()
        store.images.save([name], saved)
        store.images.load(io.BytesIO(archive))
        store.images.save([name], again)
        assert saved.getvalue() == again.getvalue()
        assert digest(shared)[7:] in saved.getvalue().decode("latin-1")
    store.images.remove("one:1")
    assert len(store.snapshotter.chains()) == 2  # three:1 has the same chain
    store.images.remove("two:1")
    (left,) = store.snapshotter.chains()
    assert left == chain_ids([digest(bases[0]), digest(shared)])[-1]
    store.images.remove("three:1")
    assert store.snapshotter.chains() == []
    store.empty_trash()
    assert store.contents() == empty


def look_at_data(target: Path) -> list[Any]:
    found: list[Any] = [(target / "link").read_text()]
    for name in ("data", "data/new"):
        status = os.stat(target / name)
        found.append([status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns])
    return found


def test_a_file_below_in_the_place_of_a_parent(store: Store, tmp_path: Path) -> None:
    """containerd's native snapshotter refuses it, its overlay snapshotter and Docker show the directory."""
    layers = [[entry("a", data=b"file"), entry("b", "link", linkname="a")], [entry("b/x", data=b"x")]]
    ids = load(store, [build_tar(layer) for layer in layers])
    assert [path for path, _ in seen(store, ids, tmp_path)[0]] == ["a", "a/x", "b"]


def test_a_deep_directory_below_in_the_place_of_a_file(store: Store, tmp_path: Path) -> None:
    layers = [[entry("d/" * 150 + "x", data=b"x")], [entry("d", data=b"file"), entry("new/x", data=b"x")]]
    ids = load(store, [build_tar(layer) for layer in layers])
    assert [path for path, _ in seen(store, ids, tmp_path)[0]] == ["d", "new", "new/x"]


def test_layers_with_their_parents_are_applied_once(store: Store, tmp_path: Path) -> None:
    layers = [build_tar(with_parents(entries)) for case in list(CASES)[:1] for entries in CASES[case]]
    load(store, layers)
    assert store.snapshotter.chains() == []


def test_a_layer_of_an_earlier_version_stays_as_it_was(store: Store, tmp_path: Path) -> None:
    layers = [build_tar([entry("d", "dir", mode=0o700, uid=5)]), build_tar([entry("d/x", data=b"x")])]
    for layer in layers:
        load(store, [layer])
        (notes,) = store.root.layers.glob(f"*/{digest(layer)[7:]}/layer.json")
        known = json.loads(notes.read_text())
        notes.write_text(json.dumps({key: known[key] for key in ("size_bytes", "entries", "opaque_root")}))
    store.close()
    again = open_store(tmp_path, store.snapshotter.name)
    ids = load(again, layers)
    assert again.snapshotter.chains() == []
    assert seen(again, ids, tmp_path)[0][0] == ["d", ["0o40755", 0, 0]]
    again.close()


def test_a_layer_whose_links_were_not_resolved_is_not_mounted(store: Store, tmp_path: Path) -> None:
    layers = [build_tar([entry("a", data=b"a")]), build_tar([entry("b", "hard", linkname="a")])]
    ids = load(store, layers)
    store.snapshotter.remove_chain(chain_ids(ids)[-1])
    with pytest.raises(NotFoundError, match="not in the store"):
        store.snapshotter.mounts(ids, None, None)
