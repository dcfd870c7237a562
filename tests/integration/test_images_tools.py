"""Archives that other tools made are loaded, and other tools read the store."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.image_store import NEEDS_ROOT, ROOT, Store, open_store

BUSYBOX = Path("/bin/busybox")

pytestmark = [
    pytest.mark.skipif(not ROOT, reason=NEEDS_ROOT),
    pytest.mark.skipif(not BUSYBOX.exists(), reason="needs /bin/busybox (Debian: busybox-static)"),
]


def needs(tool: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(tool) is None, reason=f"needs {tool} (Debian: {tool})")


def run(*words: object, **keywords: object) -> str:
    done = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, timeout=60, check=False, **keywords
    )  # type: ignore[call-overload]  # further keywords of subprocess.run
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return str(done.stdout)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(tmp_path / "state")
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An OCI layout with an image of two layers, made by umoci: a busybox, and a change that removes a
    file.
    """
    if shutil.which("umoci") is None:
        pytest.skip("needs umoci (Debian: umoci)")
    base = tmp_path_factory.mktemp("umoci")
    layout, bundle = base / "layout", base / "bundle"
    run("umoci", "init", "--layout", layout)
    run("umoci", "new", "--image", f"{layout}:one")
    run("umoci", "unpack", "--image", f"{layout}:one", bundle)
    root = bundle / "rootfs"
    (root / "bin").mkdir()
    shutil.copy2(BUSYBOX, root / "bin/busybox")
    os.link(root / "bin/busybox", root / "bin/hard")
    (root / "bin/sh").symlink_to("busybox")
    (root / "etc/d").mkdir(parents=True)
    (root / "etc/motd").write_text("old")
    (root / "etc/d/inner").write_text("old")
    os.chown(root / "etc/motd", 12, 34)
    run("umoci", "repack", "--image", f"{layout}:one", bundle)
    shutil.rmtree(bundle)
    run("umoci", "unpack", "--image", f"{layout}:one", bundle)
    (root / "etc/motd").unlink()
    shutil.rmtree(root / "etc/d")
    (root / "etc/new").write_text("new")
    run("umoci", "repack", "--image", f"{layout}:two", bundle)
    run("umoci", "config", "--image", f"{layout}:two", "--config.cmd", "/bin/sh", "--config.env", "A=b")
    return layout


def check(store: Store, name: str) -> None:
    """The image is the one that ``layout`` has."""
    row = store.images.resolve(name)
    lower, upper = store.images.layers(row.id)
    config = store.images.config(row.id)["config"]
    assert config["Cmd"] == ["/bin/sh"]
    assert "A=b" in config["Env"]
    tree = store.tree(lower)
    assert (tree / "bin/hard").stat().st_ino == (tree / "bin/busybox").stat().st_ino
    assert os.readlink(tree / "bin/sh") == "busybox"
    assert (os.stat(tree / "etc/motd").st_uid, os.stat(tree / "etc/motd").st_gid) == (12, 34)
    change = store.tree(upper)
    assert (change / "etc/new").read_text() == "new"
    for hidden in ("etc/motd", "etc/d"):
        assert os.lstat(change / hidden).st_rdev == 0
        assert not (change / hidden).is_dir()


@needs("skopeo")
@pytest.mark.parametrize("kind", ["docker-archive", "oci-archive"])
@pytest.mark.parametrize("packer", ["", "gzip", "zstd", "xz", "bzip2"])
def test_what_skopeo_saved(store: Store, layout: Path, tmp_path: Path, kind: str, packer: str) -> None:
    archive = tmp_path / "archive.tar"
    run("skopeo", "copy", "-q", f"oci:{layout}:two", f"{kind}:{archive}:busy:two")
    if packer:
        if shutil.which(packer) is None:
            pytest.skip(f"needs {packer}")
        with open(tmp_path / "packed", "wb") as packed:
            subprocess.run([packer, "-c", archive], stdout=packed, check=True, timeout=60)
        archive = tmp_path / "packed"
    with open(archive, "rb") as file:
        assert store.images.load(file) == ["busy:two"]
    check(store, "busy:two")


@needs("podman")
@pytest.mark.parametrize("kind", ["docker-archive", "oci-archive"])
def test_what_podman_saved(store: Store, layout: Path, tmp_path: Path, short_path: Path, kind: str) -> None:
    options = ("--root", tmp_path / "root", "--runroot", short_path, "--storage-driver", "vfs")
    run("podman", *options, "pull", "-q", f"oci:{layout}:two")
    (image,) = run("podman", *options, "images", "-q").split()
    run("podman", *options, "tag", image, "registry.invalid/busy:two")
    with subprocess.Popen(
        ["podman", *map(str, options), "save", "-q", "--format", kind, "registry.invalid/busy:two"],
        stdout=subprocess.PIPE,
    ) as saving:
        assert saving.stdout is not None
        assert store.images.load(saving.stdout) == ["registry.invalid/busy:two"]
    assert saving.returncode == 0
    check(store, "registry.invalid/busy:two")


@needs("skopeo")
def test_skopeo_reads_the_store(store: Store, layout: Path, tmp_path: Path) -> None:
    archive = tmp_path / "archive.tar"
    run("skopeo", "copy", "-q", f"oci:{layout}:two", f"oci-archive:{archive}:busy:two")
    with open(archive, "rb") as file:
        store.images.load(file)
    store.images.tag("busy:two", "registry.invalid/other/name")
    shutil.copy2(BUSYBOX, tmp_path / "busybox")
    run("tar", "-C", tmp_path, "-cf", tmp_path / "root.tar", "busybox")
    with open(tmp_path / "root.tar", "rb") as file:
        store.images.import_(file, "imported:1")
    for name in ("busy:two", "registry.invalid/other/name:latest", "imported:1"):
        seen = json.loads(run("skopeo", "inspect", f"oci:{store.root.images}:{name}"))
        row = store.images.resolve(name)
        assert seen["Digest"] == row.manifest_digest
        assert len(seen["Layers"]) == len(store.images.layers(row.id))
    copied = tmp_path / "copied"
    run("skopeo", "copy", "-q", f"oci:{store.root.images}:imported:1", f"dir:{copied}")
    assert (copied / "manifest.json").exists()


@needs("umoci")
def test_umoci_finds_the_store_whole(store: Store, layout: Path, tmp_path: Path) -> None:
    archive = tmp_path / "archive.tar"
    run("tar", "-C", layout, "-cf", archive, ".")
    with open(archive, "rb") as file:
        names = store.images.load(file)
    # umoci writes bare tags, which name no repository.
    assert all(name.startswith("sha256:") for name in names)
    assert len(names) == 2
    for number, name in enumerate(names):
        store.images.tag(name, f"umoci:{number}")
    assert sorted(run("umoci", "list", "--layout", store.root.images).split()) == ["umoci:0", "umoci:1"]
