"""One tar, two drivers: a mounted index shows file by file what the directory driver makes, and refuses the same."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
import tarfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pydock_core.errors import PyDockError
from pydock_core.oci.documents import layer_media_type
from pydock_core.store.layer_blob import LayerBlob
from tests.support.image_store import NEEDS_ROOT, ROOT, Store, build_tar, digest, entry, no_erofs, open_store

pytestmark = pytest.mark.skipif(not ROOT, reason=NEEDS_ROOT)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Store]]:
    base = tmp_path_factory.mktemp("same")
    if reason := no_erofs(base):
        pytest.skip(reason)
    opened = open_store(base / "directory"), open_store(base / "erofs", "erofs")
    yield opened
    for store in opened:
        store.close()


def described(tree: Path) -> tuple[dict[str, dict[str, Any]], list[list[str]]]:
    """Everything that can be asked of a tree's files, and which of the names are one file."""
    files: dict[str, dict[str, Any]] = {}
    same: dict[int, list[str]] = defaultdict(list)
    waiting = [""]
    while waiting:
        name = waiting.pop()
        path = tree / name
        status = os.lstat(path) if name else os.stat(path)
        kind = stat.S_IFMT(status.st_mode)
        about: dict[str, Any] = {
            "mode": status.st_mode,
            "owner": (status.st_uid, status.st_gid),
            "mtime": status.st_mtime_ns,
            "links": status.st_nlink,
        }
        if kind != stat.S_IFDIR:
            same[status.st_ino].append(name)
            about["size"] = status.st_size
        else:
            waiting += [f"{name}/{child}".lstrip("/") for child in os.listdir(path)]
        if kind == stat.S_IFREG:
            with open(path, "rb") as file:
                about["content"] = hashlib.file_digest(file, "sha256").hexdigest()
        elif kind == stat.S_IFLNK:
            about["target"] = os.readlink(path)
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            about["device"] = status.st_rdev
        names = os.listxattr(path, follow_symlinks=not name)
        about["xattrs"] = {key: os.getxattr(path, key, follow_symlinks=not name) for key in names}
        files[name] = about
    return files, sorted(sorted(names) for names in same.values())


def outcome(store: Store, base: Path, layer: bytes) -> Any:
    """The tree that a driver makes of a layer, or the error that it refuses it with."""
    blob = base / "blob"
    blob.write_bytes(layer)
    plain = LayerBlob(blob, layer_media_type(""))
    try:
        store.snapshotter.apply(digest(layer), plain)
        store.snapshotter.prepare([digest(layer)], [plain])
        (notes,) = store.root.layers.glob(f"*/{digest(layer)[7:]}/layer.json")
        return *described(store.tree(digest(layer))), json.loads(notes.read_text())
    except PyDockError as error:
        return type(error), error.message, error.hint
    finally:
        store.snapshotter.remove(digest(layer))


def compare(stores: tuple[Store, Store], base: Path, layer: bytes) -> Any:
    """Apply a layer with both drivers; return what both made of it."""
    one, other = (outcome(store, base, layer) for store in stores)
    if isinstance(one[0], dict) and isinstance(other[0], dict):
        for tree in (one[0], other[0]):
            for about in tree.values():
                if stat.S_ISCHR(about["mode"]) and about["device"] == 0:
                    about["mtime"] = 0  # a whiteout, whose time nobody sees
    assert other == one
    return one[:2]


# -- everything that an archive can have -----------------------------------------------------------------

ACL = bytes.fromhex("0200000001000600ffffffff02000400e803000004000400ffffffff") + bytes.fromhex(
    "10000600ffffffff20000000ffffffff"
)
BASIC_ACL = bytes.fromhex("0200000001000700ffffffff04000500ffffffff20000100ffffffff")
CAPABILITY = b"\x01\x00\x00\x02\x00\x04\x00\x00" + bytes(12)


def xattr(**values: bytes) -> dict[str, str]:
    return {
        "SCHILY.xattr." + key.replace("__", "."): value.decode("utf-8", "surrogateescape")
        for key, value in values.items()
    }


def test_entries_of_every_kind(stores: tuple[Store, Store], tmp_path: Path) -> None:
    entries = [
        entry("./", "dir", mode=0o711, uid=1, gid=2, mtime=77, pax_headers=xattr(user__root=b"r")),
        entry("d", "dir", mode=0o2750, uid=12, gid=34, mtime=1_000_000_000),
        entry("d/setuid", data=b"x", mode=0o4755, uid=70000, gid=4_000_000_000, mtime=1_234_567_890),
        entry("d/" + "n" * 255, data=b"long"),
        entry("d/\udcff\udcfe", data=b"odd"),
        entry("d/link", "link", linkname="../nowhere", uid=7, gid=8, mtime=1_100_000_000),
        *(
            entry(f"d/links/{size}", "link", linkname="t" * size, mtime=1)
            for size in (1, 383, 384, 440, 448, 449, 4095)
        ),
        entry("d/hard", "hard", linkname="d/setuid"),
        entry("d/hard-to-link", "hard", linkname="d/link"),
        entry("d/null", "char", mode=0o666, devmajor=1, devminor=3),
        entry("d/disk", "block", mode=0o600, devmajor=259, devminor=1000),
        entry("d/fifo", "fifo", mode=0o640),
        entry("d/empty", mode=0o600),
        entry("d/note", data=b"n", pax_headers=xattr(user__note=b"v", user__other=b"w" * 1000)),
        entry("d/bad", data=b"n", pax_headers=xattr(unknown__x=b"v", system__x=b"v", user__=b"v")),
        entry("d/link-x", "link", linkname="x", pax_headers=xattr(user__x=b"v", trusted__x=b"v")),
        entry("d/capable", pax_headers=xattr(security__capability=CAPABILITY)),
        entry("d/incapable", pax_headers=xattr(security__capability=b"nonsense")),
        entry("d/acl", data=b"a", mode=0o640, pax_headers=xattr(system__posix_acl_access=ACL)),
        entry("d/basic-acl", data=b"a", mode=0o600, pax_headers=xattr(system__posix_acl_access=BASIC_ACL)),
        entry("d/bad-acl", data=b"a", mode=0o600, pax_headers=xattr(system__posix_acl_access=ACL[:-4])),
        entry("d/acl-dir", "dir", mode=0o750, pax_headers=xattr(system__posix_acl_default=ACL)),
        entry("d/overlay", "dir", pax_headers=xattr(trusted__overlay__redirect=b"/x", user__overlay__x=b"y")),
        entry("d/fraction", pax_headers={"mtime": "1500000000.123456789"}),
        entry("d/large", data=os.urandom(300_001)),
        entry("/absolute", data=b"a"),
        entry("./dotted/../dotted/./x", data=b"d"),
        entry("implied/parents/file", data=b"i"),
        entry("white/.wh.out"),
        entry("opaque/.wh..wh..opq"),
    ]
    files, same = compare(stores, tmp_path, build_tar(entries))
    assert files["d/acl"]["xattrs"]["system.posix_acl_access"] == ACL
    assert files["d/basic-acl"]["mode"] & 0o777 == 0o751
    assert ["d/hard", "d/setuid"] in same
    compare(stores, tmp_path, build_tar(entries[1:6], tarfile.GNU_FORMAT))


@pytest.mark.parametrize(
    "entries",
    [
        [entry("a", data=b"1"), entry("a/b", data=b"2")],
        [entry("a", "link", linkname="a"), entry("a/b", data=b"2")],
        [entry("a", "hard", linkname="a")],
        [entry("a", "hard", linkname="b")],
        [entry("d", "dir"), entry("a", "hard", linkname="d")],
        [entry("a", "hard", linkname="/")],
        [entry("../a")],
        [entry("n" * 256)],
        [entry("/".join(["p" * 200] * 25))],
        [entry("a", "link", linkname="")],
        [entry("a", "link", linkname="t" * 4096)],
        [entry(".wh.")],
        [entry("x/.wh...")],
        [entry("a", "char", devmajor=4096, devminor=1)],
        [entry("a", "block", devmajor=1, devminor=1 << 20)],
        [entry("a"), entry("a/.wh.b")],
        [entry("a"), entry("a/.wh..wh..opq")],
        [entry("a", pax_headers={"SCHILY.xattr.user." + "n" * 251: "v"})],
        *(
            [entry(f"l{n}", "link", linkname=f"l{n + 1}") for n in range(count)] + [entry("l0/x")]
            for count in (15, 20, 45)
        ),
    ],
)
def test_the_same_is_refused(
    stores: tuple[Store, Store], tmp_path: Path, entries: list[tuple[tarfile.TarInfo, bytes]]
) -> None:
    compare(stores, tmp_path, build_tar(entries))


names = st.lists(st.sampled_from(["a", "b", "c", "..", "."]), min_size=1, max_size=4).map("/".join)
kinds = st.sampled_from(["file", "dir", "link", "hard", "fifo", "char", "whiteout", "opaque"])
steps = st.lists(st.tuples(kinds, names, names, st.booleans()), max_size=10)


@pytest.mark.slow
@given(steps)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_archives(
    stores: tuple[Store, Store], tmp_path: Path, steps: list[tuple[str, str, str, bool]]
) -> None:
    entries = []
    for number, (kind, name, target, is_absolute) in enumerate(steps):
        target = "/" + target if is_absolute else target
        if kind == "whiteout":
            entries.append(entry(f"{os.path.dirname(name)}/.wh.{os.path.basename(name)}"))
        elif kind == "opaque":
            entries.append(entry(f"{name}/.wh..wh..opq"))
        elif kind in ("link", "hard"):
            entries.append(entry(name, kind, linkname=target, mtime=number + 1))
        else:
            entries.append(entry(name, kind, data=b"x" * number if kind == "file" else b"", mtime=number + 1))
    compare(stores, tmp_path, build_tar(entries))


# -- what is large ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_debian_like_tree(stores: tuple[Store, Store], tmp_path: Path) -> None:
    """What GNU tar writes of parts of this system: thousands of files, links, directories, owners, times."""
    layer = tmp_path / "layer.tar"
    subprocess.run(
        [
            "tar",
            "-C",
            "/",
            "--sort=name",
            "-cf",
            layer,
            "etc",
            "usr/share/doc",
            "usr/lib/python3",
            "usr/share/zoneinfo",
        ],
        check=True,
        timeout=60,
        stderr=subprocess.DEVNULL,
    )
    files, _ = compare(stores, tmp_path, layer.read_bytes())
    assert len(files) > 1000


@pytest.mark.slow
@pytest.mark.parametrize("driver", ["directory", "erofs"])
def test_a_hundred_thousand_entries_in_one_directory(tmp_path: Path, driver: str) -> None:
    if driver == "erofs" and (reason := no_erofs(tmp_path)):
        pytest.skip(reason)
    store = open_store(tmp_path, driver)
    names = [f"{number:x}{'n' * (number % 40)}" for number in range(100_000)]
    layer = build_tar([entry(f"many/{name}") for name in names], tarfile.USTAR_FORMAT)
    (tmp_path / "blob").write_bytes(layer)
    store.snapshotter.apply(digest(layer), LayerBlob(tmp_path / "blob", layer_media_type("")))
    tree = store.tree(digest(layer))
    assert sorted(os.listdir(tree / "many")) == sorted(names)
    for name in names[::997]:
        assert os.stat(tree / "many" / name).st_size == 0
    assert not (tree / "many" / "absent").exists()
    assert store.snapshotter.read_file([digest(layer)], f"/many/{names[4711]}") == b""
    store.snapshotter.remove(digest(layer))
    assert store.snapshotter.diff_ids() == []
    store.close()


# -- holes -----------------------------------------------------------------------------------------------


def sparse_entry(name: str, size: int, parts: list[tuple[int, bytes]]) -> tuple[tarfile.TarInfo, bytes]:
    """A sparse file (GNU's pax format 1.0), whatever its parts are aligned to."""
    numbers = [len(parts), *(number for offset, data in parts for number in (offset, len(data)))]
    table = "".join(f"{number}\n" for number in numbers).encode()
    table += bytes(-len(table) % 512)
    info, _ = entry(f"GNUSparseFile.0/{name}", mtime=5)
    info.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": name,
        "GNU.sparse.realsize": str(size),
    }
    data = table + b"".join(data for _, data in parts)
    info.size = len(data)
    return info, data


@pytest.mark.parametrize(
    ("size", "parts"),
    [
        (1 << 20, []),
        (1 << 20, [(0, b"a" * 512)]),
        (1 << 20, [(512, b"a" * 512), (4096, b"b" * 1024)]),
        ((1 << 20) + 100, [(1 << 20, b"e" * 100)]),
        (1 << 20, [(1, b"a" * 3), (5000, b"b" * 5000), (20_000, b"c")]),
        (1 << 20, [(0, b"a" * 700), (700, b"b" * 700)]),
        (5 << 30, [(4096, b"a" * 4096), ((4 << 30) + 8192, b"far" * 4096)]),
        ((5 << 30) + 3, [(4097, b"a"), ((4 << 30) + 1, b"far" * 4096)]),
    ],
)
def test_holes(
    stores: tuple[Store, Store], tmp_path: Path, size: int, parts: list[tuple[int, bytes]]
) -> None:
    layer = build_tar([sparse_entry("sparse", size, parts)])
    if size > 1 << 30:
        # Not read whole: the parts and what is around them.
        store = stores[1]
        (tmp_path / "blob").write_bytes(layer)
        store.snapshotter.apply(digest(layer), LayerBlob(tmp_path / "blob", layer_media_type("")))
        with open(store.tree(digest(layer)) / "sparse", "rb") as file:
            assert os.fstat(file.fileno()).st_size == size
            for offset, data in parts:
                file.seek(offset - 10)
                assert file.read(len(data) + 20) == bytes(10) + data + bytes(10)
            file.seek(size - 5)
            assert file.read() == bytes(5)
        return
    files, _ = compare(stores, tmp_path, layer)
    content = bytearray(size)
    for offset, data in parts:
        content[offset : offset + len(data)] = data
    assert files["sparse"]["content"] == hashlib.sha256(content).hexdigest()


def test_a_file_of_more_than_four_gigabytes(tmp_path: Path) -> None:
    """Its data in one piece; the archive itself has holes, so that nothing large is written or hashed."""
    if reason := no_erofs(tmp_path):
        pytest.skip(reason)
    size = (4 << 30) + 5
    info, _ = entry("big", mtime=3)
    info.size = size
    head = info.tobuf(tarfile.GNU_FORMAT)
    blob = tmp_path / ("0" * 64)
    with open(blob, "wb") as file:
        file.write(head)
        file.seek(len(head) + size - 5)
        file.write(b"tail!")
        file.truncate(len(head) + (size + 511) // 512 * 512 + 1024)
    store = open_store(tmp_path, "erofs")
    store.snapshotter.apply("sha256:" + blob.name, LayerBlob(blob, layer_media_type(""), verified=True))
    with open(store.tree("sha256:" + blob.name) / "big", "rb") as opened:
        assert os.fstat(opened.fileno()).st_size == size
        opened.seek(size - 8)
        assert opened.read() == b"\0\0\0tail!"
    store.close()
