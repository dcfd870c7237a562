"""Mounting of root filesystems from data."""

from __future__ import annotations

import ast
import os
from pathlib import Path

import pytest

from pydock_core import syscalls
from pydock_core.errors import NotFoundError, PyDockError
from pydock_core.oci.root_mount import RootMount
from pydock_core.runtime import rootfs
from pydock_core.runtime.rootfs import build_overlay_options, mount_root
from pydock_core.store.erofs.writer import build_index
from tests.support.image_store import build_tar, entry, no_erofs

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


def in_mount_namespace(tmp_path: Path, work: str) -> str:
    """Run Python statements in a child with a mount namespace of its own; return what they leave in ``out``."""
    result = tmp_path / "result"
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            syscalls.unshare(syscalls.CLONE_NEWNS)
            syscalls.mount("none", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
            names: dict[str, object] = {
                "Path": Path,
                "RootMount": RootMount,
                "mount_root": mount_root,
                "rootfs": rootfs,
                "os": os,
                "PyDockError": PyDockError,
                "base": tmp_path,
            }
            exec(work, names)
            result.write_text(str(names["out"]))
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    return result.read_text()


def make_layers(tmp_path: Path, count: int, prefix: str = "layer") -> list[str]:
    layers = []
    for number in range(count):
        layer = tmp_path / "layers" / f"{prefix}{number}"
        layer.mkdir(parents=True)
        (layer / f"file{number}").write_text(str(number))
        (layer / "top").write_text(str(number))
        layers.append(str(layer))
    for name in ("target", "upper", "work"):
        (tmp_path / name).mkdir(exist_ok=True)
    return layers


OVERLAY = """
lower = tuple(sorted(str(p) for p in (base / "layers").iterdir()))
mount_root([RootMount("overlay", lower=lower, upper=str(base / "upper"), work=str(base / "work"))], base / "target")
(base / "target" / "new").write_text("x")
names = sorted(os.listdir(base / "target"))
out = (len(names), (base / "target" / "top").read_text())
"""


@needs_root
@pytest.mark.parametrize("count", [1, 3, 60])
def test_layers_are_stacked_top_first(tmp_path: Path, count: int) -> None:
    make_layers(tmp_path, count)
    assert in_mount_namespace(tmp_path, OVERLAY) == str((count + 2, "0"))
    assert (tmp_path / "upper" / "new").read_text() == "x"
    assert os.listdir(tmp_path / "target") == []


@needs_root
@pytest.mark.parametrize("prefix", ["layer", "with,comma:colon\\back", "long" * 50])
def test_the_old_way_of_mounting(tmp_path: Path, prefix: str) -> None:
    make_layers(tmp_path, 3, prefix)
    old = """
def refuse(*arguments):
    raise OSError(22, "no lowerdir+")
rootfs._open_overlay = refuse
"""
    assert in_mount_namespace(tmp_path, old + OVERLAY) == str((5, "0"))


@needs_root
def test_more_layers_than_overlayfs_stacks(tmp_path: Path) -> None:
    make_layers(tmp_path, 1)
    work = """
lower = (str(base / "layers" / "layer0"),) * 501
try:
    mount_root([RootMount("overlay", lower=lower)], base / "target")
except PyDockError as error:
    out = error.message
"""
    assert "more than the 500 that overlayfs stacks" in in_mount_namespace(tmp_path, work)


@needs_root
def test_long_paths(tmp_path: Path) -> None:
    make_layers(tmp_path / ("d" * 200) / ("e" * 200), 2)
    work = OVERLAY.replace("base /", "deep /")
    script = f'deep = base / ("d" * 200) / ("e" * 200)\n{work}'
    assert in_mount_namespace(tmp_path, script) == str((4, "0"))


@needs_root
def test_a_read_only_root(tmp_path: Path) -> None:
    make_layers(tmp_path, 2)
    work = """
lower = tuple(sorted(str(p) for p in (base / "layers").iterdir()))
mount_root([RootMount("overlay", lower=lower, options=("ro",))], base / "target")
try:
    (base / "target" / "new").write_text("x")
except OSError as error:
    out = error.errno
"""
    assert in_mount_namespace(tmp_path, work) == "30"


@needs_root
def test_a_bind(tmp_path: Path) -> None:
    make_layers(tmp_path, 1)
    work = """
source = str(base / "layers" / "layer0")
mount_root([RootMount("bind", source, options=("ro",))], base / "target")
try:
    (base / "target" / "new").write_text("x")
except OSError as error:
    out = error.errno, (base / "target" / "top").read_text()
"""
    assert in_mount_namespace(tmp_path, work) == "(30, '0')"


@needs_root
def test_a_missing_layer_is_named_and_nothing_stays_mounted(tmp_path: Path) -> None:
    (layer,) = make_layers(tmp_path, 1)
    missing = str(tmp_path / "gone")
    with pytest.raises(NotFoundError, match="gone"):
        mount_root(
            [RootMount("bind", layer), RootMount("overlay", lower=(layer, missing), options=("ro",))],
            tmp_path / "target",
        )
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


INDEXES = """
mounts = [
    RootMount("erofs", str(base / f"{n}/index"), devices=(str(base / f"{n}/tar"),), target=str(base / f"{n}/fs"))
    for n in (1, 0)
]
lower = tuple(mount.target for mount in mounts) + tuple(str(p) for p in (base / "layers").iterdir())
overlay = RootMount("overlay", lower=lower, upper=str(base / "upper"), work=str(base / "work"))
"""
MOUNTED = """
mount_root([*mounts, overlay], base / "target")
names = sorted(os.listdir(base / "target"))
out = names, (base / "target" / "same").read_text()
"""


def make_indexes(tmp_path: Path) -> None:
    if reason := no_erofs(tmp_path):
        pytest.skip(reason)
    make_layers(tmp_path, 1)
    for number in range(2):
        base = tmp_path / str(number)
        (base / "fs").mkdir(parents=True)
        data = str(number).encode()
        (base / "tar").write_bytes(build_tar([entry(f"erofs{number}", data=data), entry("same", data=data)]))
        with open(base / "tar", "rb") as tar, open(base / "index", "wb") as index:
            build_index(tar, index.fileno(), "layer x")


@needs_root
@pytest.mark.parametrize("kernel", ["new", "before 6.15", "before 6.5"])
def test_indexes_are_mounted_below_an_overlay(tmp_path: Path, kernel: str) -> None:
    make_indexes(tmp_path)
    older = """
original = rootfs._open_overlay
def refuse(mount, attributes, layers):
    if kernel == "before 6.5" or any(layers.place(path) != path for path in mount.lower):
        raise OSError(22, "not by descriptor")
    return original(mount, attributes, layers)
rootfs._open_overlay = refuse
"""
    script = "" if kernel == "new" else f"kernel = {kernel!r}\n{older}"
    names, same = ast.literal_eval(in_mount_namespace(tmp_path, script + INDEXES + MOUNTED))
    assert names == ["erofs0", "erofs1", "file0", "same", "top"]
    assert same == "1"
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


@needs_root
def test_one_index_alone(tmp_path: Path) -> None:
    make_indexes(tmp_path)
    work = (
        INDEXES
        + """
mount_root([mounts[0], RootMount("bind", mounts[0].target, options=("ro",))], base / "target")
try:
    (base / "target" / "new").write_text("x")
except OSError as error:
    out = error.errno, (base / "target" / "same").read_text()
"""
    )
    assert in_mount_namespace(tmp_path, work) == "(30, '1')"


@needs_root
@pytest.mark.parametrize(
    ("damage", "kind"),
    [
        ("tar", "NotFoundError"),
        ("index", "NotFoundError"),
        ("upper", "NotFoundError"),
        ("zeros", "UnsupportedError"),
    ],
)
def test_what_is_wrong_with_an_index_is_said(tmp_path: Path, damage: str, kind: str) -> None:
    make_indexes(tmp_path)
    if damage == "upper":
        (tmp_path / "upper").rmdir()
    elif damage == "zeros":
        (tmp_path / "0/index").write_bytes(bytes(8192))
    else:
        (tmp_path / "0" / damage).unlink()
    work = (
        INDEXES
        + """
before = len(os.listdir("/proc/self/fd")), Path("/proc/self/mountinfo").read_text()
try:
    mount_root([*mounts, overlay], base / "target")
except PyDockError as error:
    out = type(error).__name__, "\\n" in error.message, bool(error.hint)
assert before == (len(os.listdir("/proc/self/fd")), Path("/proc/self/mountinfo").read_text())
"""
    )
    assert in_mount_namespace(tmp_path, work) == str((kind, False, True))


def test_option_text_is_escaped() -> None:
    mount = RootMount("overlay", lower=("/a:b", "/c,d"), upper="/u:1", work="/w", options=("userxattr", "ro"))
    assert build_overlay_options(mount) == "lowerdir=/a\\:b:/c\\,d,upperdir=/u:1,workdir=/w,userxattr"
