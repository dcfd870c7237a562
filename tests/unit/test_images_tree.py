"""The parts of a capture: host trees, ELF headers, the loader's cache, and what is left out of an
environment.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydock_core.errors import InvalidError, NotFoundError
from pydock_core.images.capture.elf import LibraryFinder, configured_directories, read_elf
from pydock_core.images.capture.host_tree import HostTree
from pydock_core.images.capture.python_environment import (
    EnvironmentCollector,
    check_paths,
    probe_environment,
    skip_secrets,
)
from pydock_core.loader_cache import CacheEntry, build_cache, parse_cache
from pydock_core.store.blobs import BlobWriter


def write(tree: HostTree, layer: int, base: Path) -> tuple[str, list[tarfile.TarInfo]]:
    path = base / f"layer-{os.urandom(4).hex()}"
    with BlobWriter(path, "layer") as writer:
        tree.write_layer(layer, writer, lambda _: None)
    with tarfile.open(path, encoding="utf-8", errors="surrogateescape") as archive:
        return writer.digest, archive.getmembers()


@pytest.fixture
def host(tmp_path: Path) -> Path:
    base = Path(os.path.realpath(tmp_path)) / "host"
    (base / "usr/bin").mkdir(parents=True)
    (base / "usr/bin/tool-1").write_bytes(b"#!x")
    (base / "usr/bin/tool-1").chmod(0o4755)
    (base / "usr/bin/tool").symlink_to("../../alternatives/tool")
    (base / "alternatives").mkdir()
    (base / "alternatives/tool").symlink_to(base / "usr/bin/tool-1")
    (base / "bin").symlink_to("usr/bin")
    return base


def test_every_link_on_the_way_is_taken_along(host: Path, tmp_path: Path) -> None:
    tree = HostTree()
    assert tree.add(f"{host}/bin/tool", 0) == f"{host}/usr/bin/tool-1"
    found = {
        path.removeprefix(str(host)): item for path, item in tree.items.items() if path.startswith(str(host))
    }
    assert found["/bin"].target == "usr/bin"
    assert found["/usr/bin/tool"].target == "../../alternatives/tool"
    assert found["/alternatives/tool"].target == f"{host}/usr/bin/tool-1"
    assert found["/usr/bin/tool-1"].mode == 0o755, "the set-user-id bit is dropped"
    assert tree.binaries == [f"{host}/usr/bin/tool-1"]
    _, members = write(tree, 0, tmp_path)
    assert {(member.uid, member.gid) for member in members} == {(0, 0)}
    names = [member.name for member in members]
    assert names == sorted(names)
    assert len(names) == len(set(names))


def test_what_leads_nowhere(host: Path) -> None:
    tree = HostTree()
    (host / "loop").symlink_to("loop")
    (host / "dangling").symlink_to("nothing")
    assert tree.add(f"{host}/loop", 0) is None
    assert tree.add(f"{host}/dangling", 0) is None
    assert tree.add(f"{host}/missing/x", 0) is None
    assert tree.add("/../../..", 0) == "/"
    assert not [path for path, item in tree.items.items() if item.source]


def test_the_same_tree_gives_the_same_layer(host: Path, tmp_path: Path) -> None:
    digests = set()
    for _ in range(2):
        tree = HostTree()
        tree.add_tree(str(host), 0)
        digests.add(write(tree, 0, tmp_path)[0])
    assert len(digests) == 1
    (host / "usr/bin/tool-1").write_bytes(b"#!y")
    tree = HostTree()
    tree.add_tree(str(host), 0)
    assert write(tree, 0, tmp_path)[0] not in digests


def test_layers_hold_their_own_and_the_directories_on_the_way(host: Path, tmp_path: Path) -> None:
    tree = HostTree()
    tree.put_directory("/tmp", 0, 0o1777)
    tree.put_file("/tmp/a", 0, b"a")
    tree.put_file("/tmp/b", 1, b"bb")
    tree.put_file("/tmp/b", 0, b"ignored: there already")
    tree.put_link("/tmp/c", 1, "b")
    lower, upper = write(tree, 0, tmp_path)[1], write(tree, 1, tmp_path)[1]
    assert [(m.name, m.mode) for m in lower] == [("tmp", 0o1777), ("tmp/a", 0o644)]
    assert [(m.name, m.mode, m.size) for m in upper] == [
        ("tmp", 0o1777, 0),
        ("tmp/b", 0o644, 2),
        ("tmp/c", 0o777, 0),
    ]


def test_hard_links_sockets_and_odd_names(tmp_path: Path) -> None:
    base = Path(os.path.realpath(tmp_path)) / "tree"
    base.mkdir()
    (base / "one").write_bytes(b"x" * 5000)
    os.link(base / "one", base / "two")
    os.mkfifo(base / "pipe")
    (base / os.fsdecode(b"odd-\xff")).write_bytes(b"o")
    tree = HostTree()
    tree.add_tree(str(base), 0)
    members = {os.path.basename(m.name): m for m in write(tree, 0, tmp_path)[1]}
    assert "pipe" not in members
    assert members["one"].size == 5000
    assert members["two"].islnk()
    assert members["two"].linkname == f"{base}/one"[1:]
    assert "odd-\udcff" in members


def test_unreadable_files_are_left_out_with_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = Path(os.path.realpath(tmp_path)) / "tree"
    (base / "closed").mkdir(parents=True)
    (base / "open").write_text("x")
    for number in range(20):
        (base / f"secret{number}").write_text("x")
    real_open = os.open

    def refuse(path: str, *rest: int, **keywords: int) -> int:
        if "secret" in str(path):
            raise PermissionError(13, "Permission denied", path)
        return real_open(path, *rest, **keywords)

    tree = HostTree()
    tree.add_tree(str(base), 0)
    monkeypatch.setattr(os, "open", refuse)
    _, members = write(tree, 0, tmp_path)
    monkeypatch.undo()
    assert not [member for member in members if "secret" in member.name]
    assert len([note for note in tree.notes if "cannot be read" in note]) == 11
    assert str(base / "secret0") in tree.notes[0]


# -- ELF -------------------------------------------------------------------------------------------------


def test_reads_what_a_program_needs() -> None:
    shell = os.path.realpath("/bin/sh")
    elf = read_elf("/bin/sh")
    assert elf is not None
    assert elf.path == shell
    assert os.path.exists(elf.interpreter)
    assert any(name.startswith("libc.") for name in elf.needed)
    assert read_elf(__file__) is None
    assert read_elf("/nowhere") is None


def test_damaged_elf_files_are_none(tmp_path: Path) -> None:
    data = Path(os.path.realpath("/bin/sh")).read_bytes()
    for number, part in enumerate(
        (data[:4], data[:40], data[:200], data[:64] + bytes(4000), b"\x7fELF" + b"\xff" * 500)
    ):
        path = tmp_path / str(number)
        path.write_bytes(part)
        read_elf(str(path))
    assert read_elf(str(tmp_path / "0")) is None


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc to make libraries with RPATH and RUNPATH")
def test_libraries_are_found_as_the_loader_finds_them(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "x.c").write_text("int x(void) { return 1; }\n")
    (tmp_path / "main.c").write_text("int x(void); int main(void) { return x() - 1; }\n")

    def compile(*words: object) -> None:
        subprocess.run(["gcc", *map(str, words)], check=True, cwd=tmp_path, timeout=60)

    compile("-shared", "-fPIC", "-Wl,-soname,libx.so.1", "-o", "lib/libx.so.1", "x.c")
    for flag in ("--enable-new-dtags", "--disable-new-dtags"):
        compile("-o", "main", "main.c", "lib/libx.so.1", f"-Wl,{flag},-rpath,$ORIGIN/lib")
        elf = read_elf(str(tmp_path / "main"))
        assert elf is not None
        assert elf.search == ("$ORIGIN/lib",)
        assert LibraryFinder({}, []).find("libx.so.1", elf) == os.path.realpath(tmp_path / "lib/libx.so.1")
        assert LibraryFinder({}, []).find("liby.so.1", elf) is None
        assert subprocess.run([tmp_path / "main"], check=False).returncode == 0
    # One of another architecture is passed over.
    (tmp_path / "other").mkdir()
    foreign = bytearray((tmp_path / "lib/libx.so.1").read_bytes())
    foreign[18:20] = struct.pack("<H", 40)
    (tmp_path / "other/libx.so.1").write_bytes(foreign)
    assert elf is not None
    finder = LibraryFinder({"libx.so.1": [str(tmp_path / "other/libx.so.1")]}, [str(tmp_path / "lib")])
    plain = type(elf)(elf.path, elf.architecture, elf.interpreter, elf.needed, ())
    assert finder.find("libx.so.1", plain) == str(tmp_path / "lib/libx.so.1")


def test_ld_so_conf_and_its_includes(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "conf").write_text("include d/*.conf\n/first # comment\nhwcap 1 x\n")
    (tmp_path / "d/a.conf").write_text("/a\n")
    (tmp_path / "d/loop.conf").write_text(f"include {tmp_path}/conf\n/b\n")
    assert set(configured_directories(str(tmp_path / "conf"))) == {"/a", "/b", "/first"}
    assert configured_directories(str(tmp_path / "missing")) == []


names = st.text(
    st.characters(min_codepoint=33, max_codepoint=0x2000, exclude_categories=["Cs"]), min_size=1, max_size=20
)
entries = st.lists(
    st.builds(
        CacheEntry, names, names, st.integers(0, 2**31 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**61)
    )
)


@given(entries)
def test_the_loaders_cache_round_trip(items: list[CacheEntry]) -> None:
    assert parse_cache(build_cache(items, lambda _: True)) == items
    kept = [item for item in items if "a" in item.path]
    assert parse_cache(build_cache(items, lambda path: "a" in path)) == kept


@given(st.binary(max_size=200))
def test_damaged_caches(noise: bytes) -> None:
    parse_cache(noise)
    parse_cache(b"glibc-ld.so.cache1.1" + noise)


@pytest.mark.skipif(not os.path.exists("/etc/ld.so.cache"), reason="needs glibc's /etc/ld.so.cache")
def test_ldconfig_reads_what_is_written(tmp_path: Path) -> None:
    items = parse_cache(Path("/etc/ld.so.cache").read_bytes())
    (tmp_path / "cache").write_bytes(build_cache(items, lambda path: "libc" in path))
    listed = subprocess.run(
        ["/sbin/ldconfig", "-C", tmp_path / "cache", "-p"], capture_output=True, text=True, check=True
    ).stdout.splitlines()[1:]
    assert listed
    assert all("libc" in line.partition("=>")[2] for line in listed if "=>" in line)


# -- environments ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with a package, an editable project, and things that must not be captured."""
    base = Path(os.path.realpath(tmp_path_factory.mktemp("environment")))
    venv = base / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True, timeout=60)
    (site,) = venv.glob("lib/python*/site-packages")
    (site / "pkg/__pycache__").mkdir(parents=True)
    (site / "pkg/__init__.py").write_text("")
    tag = sys.implementation.cache_tag
    for name in (f"__init__.{tag}.pyc", "__init__.cpython-27.pyc", f"__init__.{tag}.pyc.140"):
        (site / "pkg/__pycache__" / name).write_bytes(b"")
    (venv / "pip.conf").write_text("[global]\nindex-url = https://user:password@host.invalid/\n")
    project = base / "project"
    for path in (
        "src/proj/__init__.py",
        ".git/config",
        ".env",
        "node_modules/x/y",
        "venv2/pyvenv.cfg",
        "venv2/x",
    ):
        (project / path).parent.mkdir(parents=True, exist_ok=True)
        (project / path).write_text("")
    (site / "__editable__.pth").write_text(f"{project}/src\n")
    (site / "other.pth").write_text(f"{os.path.expanduser('~')}\n")
    (site / "proj-1.dist-info").mkdir()
    (site / "proj-1.dist-info/direct_url.json").write_text(
        f'{{"dir_info": {{"editable": true}}, "url": "file://{project}"}}'
    )
    (site / "bad-1.dist-info").mkdir()
    (site / "bad-1.dist-info/direct_url.json").write_text("[]")
    return base


def test_an_environment_is_collected(environment: Path) -> None:
    venv, project = environment / "venv", environment / "project"
    probed = probe_environment(venv)
    assert probed.prefix == str(venv)
    assert probed.is_virtual
    assert probed.has_own_prefix
    tree = HostTree()
    EnvironmentCollector(probed, tree, 1, 2).collect()
    site = probed.site_directories[0]
    tag = sys.implementation.cache_tag
    assert f"{site}/pkg/__init__.py" in tree
    assert f"{site}/pkg/__pycache__/__init__.{tag}.pyc" in tree
    assert f"{site}/pkg/__pycache__/__init__.cpython-27.pyc" not in tree
    assert f"{site}/pkg/__pycache__/__init__.{tag}.pyc.140" not in tree
    assert f"{venv}/bin/python3" in tree
    assert f"{venv}/pip.conf" not in tree
    assert os.path.realpath(sys.executable) in tree
    assert tree.items[os.path.realpath(sys.executable)].layer == 1
    assert any(path.endswith("/os.py") for path in tree.items)
    assert not any("/test/test_" in path for path in tree.items)
    assert f"{project}/src/proj/__init__.py" in tree
    for left_out in (".git", ".env", "node_modules", "venv2"):
        assert f"{project}/{left_out}" not in tree
    assert [note for note in tree.notes if "home directory" in note]


def test_no_environment(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="not a Python environment"):
        probe_environment(tmp_path)


def test_paths_to_take_along(tmp_path: Path) -> None:
    check_paths([str(tmp_path)])
    for path in ("relative", "/", "/proc", f"{tmp_path}/../../../../../../../.."):
        with pytest.raises(InvalidError):
            check_paths([path])
    with pytest.raises(NotFoundError):
        check_paths([f"{tmp_path}/missing"])


def test_secrets_in_a_directory_are_left_out(tmp_path: Path) -> None:
    base = Path(os.path.realpath(tmp_path)) / "data"
    (base / ".ssh").mkdir(parents=True)
    (base / ".ssh/id_ed25519").write_text("x")
    (base / ".netrc").write_text("x")
    (base / "table.csv").write_text("x")
    tree = HostTree()
    tree.add_tree(str(base), 3, skip_secrets(tree.notes))
    assert f"{base}/table.csv" in tree
    assert f"{base}/.netrc" not in tree
    assert f"{base}/.ssh" not in tree
    assert len(tree.notes) == 2
