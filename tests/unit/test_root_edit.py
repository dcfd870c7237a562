"""Edits of a root filesystem for devices, and the loader's cache; hostile images among them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydock_core.errors import FailedError
from pydock_core.loader_cache import (
    MACHINE_FLAGS,
    CacheEntry,
    loader_key,
    merge_cache,
    parse_cache,
    parse_hwcaps,
)
from pydock_core.runtime.root_edit import (
    CACHE,
    CUDA_COMPAT,
    Link,
    Mode,
    RootEdits,
    apply_edits,
    build_hook,
    split_hooks,
)

FLAGS = MACHINE_FLAGS[os.uname().machine]
LDCONFIG = shutil.which("ldconfig") or "/sbin/ldconfig"
ENTRY = ("libcuda.so.1", "/opt/lib/libcuda.so.1", FLAGS)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An image's root beside a directory that is the host's."""
    (tmp_path / "host").mkdir()
    (tmp_path / "host" / "file").write_text("host\n")
    (tmp_path / "root" / "etc").mkdir(parents=True)
    (tmp_path / "root" / "dev").mkdir()
    return tmp_path / "root"


@pytest.fixture(autouse=True)
def the_host_is_as_it_was(tmp_path: Path) -> Iterator[None]:
    yield
    if (tmp_path / "host").exists():
        assert os.listdir(tmp_path / "host") == ["file"]
        assert (tmp_path / "host" / "file").read_text() == "host\n"


def edit(root: Path, **fields: object) -> None:
    root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    try:
        apply_edits(root_fd, RootEdits(**{"own_dev": False, **fields}))  # type: ignore[arg-type]
    finally:
        os.close(root_fd)


# -- links and modes -------------------------------------------------------------------------------------


def test_links_are_made_with_their_directories_and_replace_what_is_there(root: Path) -> None:
    links = (Link("libcuda.so.1", "/usr/lib/libcuda.so"), Link("../x", "/a/b"))
    edit(root, links=links)
    edit(root, links=links)
    assert os.readlink(root / "usr/lib/libcuda.so") == "libcuda.so.1"
    assert os.readlink(root / "a/b") == "../x"
    (root / "usr/lib/libcuda.so").unlink()
    (root / "usr/lib/libcuda.so").write_text("a stub")
    edit(root, links=(Link("other", "/usr/lib/libcuda.so"),))
    assert os.readlink(root / "usr/lib/libcuda.so") == "other"


@pytest.mark.parametrize("target", ["/../../host", "../../../host", "{host}"])
def test_a_link_of_the_image_does_not_lead_out(root: Path, target: str) -> None:
    (root / "usr").mkdir()
    (root / "usr" / "lib").symlink_to(target.format(host=root.parent / "host"))
    edit(root, links=(Link("x", "/usr/lib/libcuda.so"), Link("x", "/../../host/y")))
    assert (root / "host" / "y").is_symlink()


def test_a_directory_in_a_links_place_is_an_error(root: Path) -> None:
    (root / "usr" / "lib" / "libcuda.so").mkdir(parents=True)
    with pytest.raises(FailedError, match=r"link /usr/lib/libcuda\.so of the container"):
        edit(root, links=(Link("x", "/usr/lib/libcuda.so"),))


def test_modes_of_directories_and_files(root: Path) -> None:
    (root / "dri").mkdir(mode=0o700)
    (root / "outside").symlink_to(root.parent / "host" / "file")
    os.mkfifo(root / "fifo", 0o600)
    mode = (root.parent / "host" / "file").stat().st_mode
    edit(root, modes=tuple(Mode(path, 0o755) for path in ("/dri", "/outside", "/missing", "/fifo")))
    assert (root / "dri").stat().st_mode & 0o777 == 0o755
    assert (root / "fifo").stat().st_mode & 0o777 == 0o600
    assert (root.parent / "host" / "file").stat().st_mode == mode


# -- the loader's cache ----------------------------------------------------------------------------------


def test_the_cache_gets_the_libraries_and_keeps_the_others(root: Path) -> None:
    cache = root / CACHE.lstrip("/")
    old = [
        CacheEntry("libz.so.1", "/lib/libz.so.1", FLAGS),
        CacheEntry("libcuda.so.1", "/old/libcuda.so.1", FLAGS),
    ]
    cache.write_bytes(merge_cache(b"", old))
    (root / "etc" / "ld.so.conf.d").mkdir()
    for _ in range(2):
        edit(root, update_cache=True, folders=("/opt/lib",), libraries=(ENTRY,))
    found = {(entry.soname, entry.path) for entry in parse_cache(cache.read_bytes())}
    assert found == {("libz.so.1", "/lib/libz.so.1"), ("libcuda.so.1", "/opt/lib/libcuda.so.1")}
    assert [path.read_text() for path in (root / "etc" / "ld.so.conf.d").iterdir()] == ["/opt/lib\n"]
    assert cache.stat().st_mode & 0o777 == 0o644


def test_an_image_without_glibc_gets_no_cache(root: Path) -> None:
    edit(root, update_cache=True, folders=("/opt/lib",), libraries=(ENTRY,))
    assert not (root / "etc" / "ld.so.cache").exists()
    (root / "lib64").mkdir()
    (root / "lib64" / "ld-linux-x86-64.so.2").touch()
    edit(root, update_cache=True, folders=("/opt/lib",), libraries=(ENTRY,))
    assert len(parse_cache((root / "etc" / "ld.so.cache").read_bytes())) == 1


@pytest.mark.parametrize("kind", ["link", "link to a directory", "fifo", "garbage", "no etc"])
def test_what_an_image_puts_in_the_caches_place(root: Path, kind: str) -> None:
    (root / "lib64").mkdir()
    (root / "lib64" / "ld-linux-x86-64.so.2").touch()
    cache = root / "etc" / "ld.so.cache"
    if kind == "link":
        cache.symlink_to(root.parent / "host" / "file")
    elif kind == "link to a directory":
        (root / "etc").rmdir()
        (root / "etc").symlink_to(root.parent / "host")
    elif kind == "fifo":
        os.mkfifo(cache)
    elif kind == "garbage":
        cache.write_bytes(b"glibc-ld.so.cache1.1" + b"\xff" * 100)
    else:
        (root / "etc").rmdir()
    # Links of the image that lead out end at its own root; those in the way of the temporary file are not followed.
    if kind != "link to a directory" and kind != "no etc":
        (root / "etc" / ".ld.so.cache.pydock").symlink_to(root.parent / "host" / "file")
    edit(root, update_cache=True, folders=("/opt/lib",), libraries=(ENTRY,))
    if kind == "link to a directory":  # which is the root's own directory of that name
        cache = root / str(root.parent / "host").lstrip("/") / "ld.so.cache"
    assert [entry.path for entry in parse_cache(cache.read_bytes())] == ["/opt/lib/libcuda.so.1"]
    assert not cache.is_symlink()


def test_a_newer_driver_of_the_image_comes_first(root: Path) -> None:
    compat = root / CUDA_COMPAT.lstrip("/")
    compat.mkdir(parents=True)
    for name in ("libcuda.so.550.54.15", "libcuda.so.1", "libnvidia-nvvm.so.4", "README"):
        (compat / name).touch()
    (root / "etc" / "ld.so.cache").write_bytes(merge_cache(b"", []))

    def path_of(soname: str, host_driver: str) -> str | None:
        edit(root, update_cache=True, folders=("/opt/lib",), libraries=(ENTRY,), host_driver=host_driver)
        entries = parse_cache((root / "etc" / "ld.so.cache").read_bytes())
        return next((entry.path for entry in entries if entry.soname == soname), None)

    assert path_of("libcuda.so.1", "550.54.15") == "/opt/lib/libcuda.so.1"
    assert path_of("libcuda.so.1", "") == "/opt/lib/libcuda.so.1"
    assert path_of("libcuda.so.1", "535.104.05") == f"{CUDA_COMPAT}/libcuda.so.1"
    assert path_of("libnvidia-nvvm.so.4", "535.104.05") == f"{CUDA_COMPAT}/libnvidia-nvvm.so.4"
    assert path_of("README", "535.104.05") is None


def test_edits_survive_json_and_a_hook(tmp_path: Path) -> None:
    edits = RootEdits(
        links=(Link("a", "/b"),), modes=(Mode("/c", 0o7),), libraries=(ENTRY,), folders=("/opt/lib",)
    )
    file = tmp_path / "edits.json"
    file.write_text(json.dumps(edits.to_json()))
    other = {"path": "/bin/other"}
    hooks = {"createContainer": [build_hook("/usr/bin/python3", str(file)), other], "poststop": [other]}
    assert split_hooks(hooks) == (edits, {"createContainer": [other], "poststop": [other]})
    assert split_hooks({"createContainer": [hooks["createContainer"][0]]}) == (edits, {})


# -- the cache's format ----------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/etc/ld.so.cache").exists(), reason="needs a loader cache")
def test_the_hosts_own_cache_is_in_the_order_that_is_written_here() -> None:
    names = [entry.soname for entry in parse_cache(Path("/etc/ld.so.cache").read_bytes())]
    assert names
    assert names == sorted(names, key=loader_key, reverse=True)


@pytest.mark.skipif(not Path(LDCONFIG).exists(), reason="needs ldconfig")
def test_ldconfig_reads_what_is_written(tmp_path: Path) -> None:
    """With glibc-hwcaps, whose directories are named in an extension of the file."""
    library = next(Path("/lib").glob("*-linux-gnu/libz.so.1"), None)
    if library is None:
        pytest.skip("needs libz.so.1")
    machine = os.uname().machine
    level = {"x86_64": "x86-64-v3", "aarch64": "lse"}[machine]
    folder = tmp_path / "lib"
    (folder / "glibc-hwcaps" / level).mkdir(parents=True)
    for directory in (folder, folder / "glibc-hwcaps" / level):
        shutil.copy2(os.path.realpath(library), directory / "libz.so.1")
    configuration = tmp_path / "ld.so.conf"
    configuration.write_text(f"{folder}\n")
    original = tmp_path / "original"
    subprocess.run(
        [LDCONFIG, "-X", "-f", configuration, "-C", original], check=True, stderr=subprocess.DEVNULL
    )
    data = original.read_bytes()
    merged = tmp_path / "merged"
    merged.write_bytes(merge_cache(data, [CacheEntry(*ENTRY)]))
    assert parse_hwcaps(merged.read_bytes()) == parse_hwcaps(data)

    def shown(file: Path) -> list[str]:
        listing = subprocess.run(
            [LDCONFIG, "-p", "-C", file], capture_output=True, text=True, check=True
        ).stdout
        return [line.strip() for line in listing.splitlines() if "=>" in line]

    assert "hwcap" in "".join(shown(original))
    (own,) = set(shown(merged)) - set(shown(original))
    assert own.startswith("libcuda.so.1 (libc6")
    assert own.endswith("=> /opt/lib/libcuda.so.1")
    assert set(shown(original)) < set(shown(merged))


@given(data=st.binary(max_size=300), header=st.booleans())
def test_any_bytes_are_a_cache_or_none(data: bytes, header: bool) -> None:
    merged = merge_cache((b"glibc-ld.so.cache1.1" if header else b"") + data, [CacheEntry(*ENTRY)])
    assert ENTRY[1] in {entry.path for entry in parse_cache(merged)}


@given(names=st.lists(st.text(alphabet="ab09.-_", min_size=1, max_size=8), unique=True))
def test_what_is_merged_is_in_order(names: list[str]) -> None:
    merged = merge_cache(b"", [CacheEntry(name, f"/{name}", FLAGS) for name in names])
    found = [entry.soname for entry in parse_cache(merged)]
    assert found == sorted(names, key=loader_key, reverse=True)
