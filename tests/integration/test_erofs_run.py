"""Containers on EROFS layers: with every runtime, of many layers, mixed with directories, volumes filled from them."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pydock_core.store.snapshots.layers import VARIABLE
from tests.integration.conftest import Dock
from tests.support.image_store import build_config, build_tar, digest, entry, no_erofs, tar_of

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: EROFS is mounted by root of the host")
COUNT = 30


@pytest.fixture(scope="module")
def images(dock: Dock, archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """many:1 of thirty layers over busybox, mixed:1 of the same, every third a directory."""
    base = tmp_path_factory.mktemp("layers")
    if reason := no_erofs(base):
        pytest.skip(reason)
    with tarfile.open(archive) as opened:
        manifest = json.load(opened.extractfile("manifest.json") or io.BytesIO())
        busybox = (opened.extractfile(manifest[0]["Layers"][0]) or io.BytesIO()).read()
    for name in ("many", "mixed"):
        layers = [busybox]
        for number in range(1, COUNT):
            entries = [
                entry(f"{name}{number}", data=str(number).encode()),
                entry("top", data=str(number).encode()),
            ]
            if number > 1:
                entries.append(entry(f".wh.{name}{number - 1}"))
            if number == 5:
                entries += [
                    entry("tools/su", data=b"#!", mode=0o4755, uid=0),
                    entry("tools/null", "char", mode=0o666, devmajor=1, devminor=3),
                    entry("volume", "dir", mode=0o1777, uid=7),
                    entry("volume/file", data=b"from the image", uid=7, mtime=1000),
                ]
            layers.append(build_tar(entries))
        config = build_config(*(digest(layer) for layer in layers), Cmd=["sh"], Env=["PATH=/bin"])
        description = [
            {
                "Config": "config.json",
                "RepoTags": [f"{name}:1"],
                "Layers": [f"{number}/layer.tar" for number in range(COUNT)],
            }
        ]
        members = {f"{number}/layer.tar": layer for number, layer in enumerate(layers)}
        if name == "mixed":
            # Layers that are there already stay as they are: so first an image of some, as directories.
            some = layers[2::3]
            first = {
                **{f"{number}/layer.tar": layer for number, layer in enumerate(some)},
                "config.json": build_config(*(digest(layer) for layer in some), Cmd=["sh"]),
                "manifest.json": json.dumps(
                    [
                        {
                            "Config": "config.json",
                            "RepoTags": ["some:1"],
                            "Layers": [f"{number}/layer.tar" for number in range(len(some))],
                        }
                    ]
                ).encode(),
            }
            (base / "some.tar").write_bytes(tar_of(first))
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv(VARIABLE, "directory")
                dock("load", "-i", base / "some.tar")
        members |= {"config.json": config, "manifest.json": json.dumps(description).encode()}
        (base / f"{name}.tar").write_bytes(tar_of(members))
        dock("load", "-i", base / f"{name}.tar")
    yield
    for name in ("many:1", "mixed:1", "some:1"):
        dock("rmi", name)


@pytest.mark.usefixtures("images")
@pytest.mark.parametrize("image", ["many:1", "mixed:1"])
@pytest.mark.parametrize("runtime", ["embedded", "crun", "runc"])
def test_containers_run_on_them(dock: Dock, image: str, runtime: str) -> None:
    if runtime != "embedded" and shutil.which(runtime) is None:
        pytest.skip(f"needs {runtime}")
    name = image.partition(":")[0]
    script = (
        f"cat /top /{name}29; echo; ls -d /{name}28 2>/dev/null; stat -c %a /tools/su; echo x > /tools/null && echo null; "
        "rm /top && echo new > /top && cat /top"
    )
    out = dock.out("run", "--rm", "--runtime", runtime, image, "sh", "-c", script)
    assert out.split("\n") == ["2929", "4755", "null", "new"]


@pytest.mark.usefixtures("images")
def test_the_host_sees_no_mount(dock: Dock) -> None:
    before = Path("/proc/self/mountinfo").read_text()
    dock("run", "-d", "--name", "seen", "many:1", "sleep", "1000")
    assert Path("/proc/self/mountinfo").read_text() == before
    assert dock.out("exec", "seen", "cat", "/top") == "29"
    dock("stop", "-t", "0", "seen")
    dock("start", "seen")
    assert dock.out("exec", "seen", "cat", "/top") == "29"
    dock("rm", "-f", "seen")


@pytest.mark.usefixtures("images")
@pytest.mark.parametrize("image", ["many:1", "mixed:1"])
def test_a_volume_is_filled(dock: Dock, image: str) -> None:
    out = dock.out(
        "run",
        "--rm",
        "-v",
        "/volume",
        image,
        "sh",
        "-c",
        "cat /volume/file; stat -c ' %u %a' /volume; stat -c ' %u %a %Y' /volume/file",
    )
    assert out.split("\n") == ["from the image 7 1777", " 7 644 1000"]


@pytest.mark.usefixtures("images")
def test_info_says_which_driver_has_what(dock: Dock) -> None:
    document = json.loads(dock.out("info", "--format", "{{json .}}"))
    assert document["Driver"] == "erofs"
    status = dict(document["DriverStatus"])
    assert int(status["Layers as directories"]) == len(range(2, COUNT, 3))
    assert int(status["Layers as EROFS indexes"]) > COUNT


@pytest.mark.usefixtures("images")
def test_the_kernel_found_nothing_wrong(dock: Dock) -> None:
    before = float(Path("/proc/uptime").read_text().split()[0])
    dock("run", "--rm", "many:1", "sh", "-c", "find / -xdev -type f -exec cat {} ';' > /dev/null")
    kernel = subprocess.run(["dmesg"], capture_output=True, text=True, check=True, timeout=30).stdout
    since = [
        line
        for line in kernel.splitlines()
        if "erofs" in line and float(line.partition("]")[0].lstrip("[ ")) >= before
    ]
    assert since
    assert [line for line in since if "mounted with root" not in line] == []
