"""Saved images: what is in the archive, and that podman, skopeo, umoci and docker read it, and we what they write."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zstandard

from pydock_core.errors import CorruptError, FailedError, NotFoundError, PyDockError, UnsupportedError
from pydock_core.images.archive import load_archive
from pydock_core.store.database import images as sql
from tests.bench.samples import BUSYBOX, busybox_archive
from tests.support import docker_daemon
from tests.support.image_store import (
    NEEDS_ROOT,
    ROOT,
    Store,
    build_config,
    build_docker_archive,
    build_tar,
    digest,
    entry,
    oci_members,
    open_store,
    tar_of,
)

pytestmark = pytest.mark.skipif(not ROOT, reason=NEEDS_ROOT)

LAYERS = [build_tar([entry("lower", data=b"l" * 100_000)]), build_tar([entry("upper", data=b"u")])]
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"


def needs(tool: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(tool) is None, reason=f"needs {tool} (Debian: {tool})")


def run(*words: object) -> str:
    done = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(tmp_path / "state")
    yield opened
    opened.close()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(tmp_path / "other")
    yield opened
    opened.close()


def saved(store: Store, *references: str, **keywords: Any) -> bytes:
    buffer = io.BytesIO()
    store.images.save(references, buffer, **keywords)
    return buffer.getvalue()


def files(archive: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return {
            member.name: tar.extractfile(member).read()  # type: ignore[union-attr]  # a regular file has data
            for member in tar
            if member.isreg()
        }


def load(store: Store, archive: bytes, **keywords: Any) -> list[str]:
    return list(store.images.load(io.BytesIO(archive), **keywords))


@pytest.fixture
def two(store: Store) -> Store:
    """A store with two images that share a layer; the first has two names."""
    load(store, build_docker_archive(*LAYERS, tags=["one:1", "one:2"]))
    load(store, build_docker_archive(LAYERS[0], tags=["ghcr.io/a/two:x"]))
    return store


# -- the archive -------------------------------------------------------------------------------------------


def test_it_is_both_kinds_of_archive(two: Store) -> None:
    content = files(saved(two, "one:1", "ghcr.io/a/two:x"))
    for name, data in content.items():
        if name.startswith("blobs/"):
            assert name == f"blobs/sha256/{digest(data)[7:]}"
    assert json.loads(content["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    index = json.loads(content["index.json"])
    assert [entry["annotations"] for entry in index["manifests"]] == [
        {"io.containerd.image.name": "docker.io/library/one:1", "org.opencontainers.image.ref.name": "1"},
        {"io.containerd.image.name": "ghcr.io/a/two:x", "org.opencontainers.image.ref.name": "x"},
    ]
    for described in index["manifests"]:
        manifest = json.loads(content["blobs/" + described["digest"].replace(":", "/")])
        for blob in (manifest["config"], *manifest["layers"]):
            assert len(content["blobs/" + blob["digest"].replace(":", "/")]) == blob["size"]
    one, second = json.loads(content["manifest.json"])
    assert (one["RepoTags"], second["RepoTags"]) == (["one:1"], ["ghcr.io/a/two:x"])
    assert [content[name] for name in one["Layers"]] == LAYERS
    assert digest(content[one["Config"]]) == two.images.resolve("one:1").id
    assert json.loads(content["repositories"]) == {
        "one": {"1": digest(LAYERS[1])[7:]},
        "ghcr.io/a/two": {"x": digest(LAYERS[0])[7:]},
    }


def test_the_same_images_give_the_same_bytes(two: Store, tmp_path: Path) -> None:
    first = saved(two, "one:1", "ghcr.io/a/two:x")
    with open(tmp_path / "it.tar", "wb") as file:
        two.images.save(["one:1", "ghcr.io/a/two:x"], file)
    assert (tmp_path / "it.tar").read_bytes() == first == saved(two, "one:1", "ghcr.io/a/two:x")
    with tarfile.open(fileobj=io.BytesIO(first)) as archive:
        names = archive.getnames()
        assert {member.mtime for member in archive} == {0}
    assert names == sorted(names)
    assert len(names) == len(set(names))


def test_which_names_are_saved(two: Store) -> None:
    def names(*references: str) -> list[list[str] | None]:
        items = json.loads(files(saved(two, *references))["manifest.json"])
        return [item["RepoTags"] for item in items]

    image = two.images.resolve("one:1").id
    assert names("one:2") == [["one:2"]]
    assert names("one") == [["one:1", "one:2"]]  # a repository: all its tags
    assert names(image) == names(image[7:19]) == [None]
    assert names(image, "one:2", "one:1", "one:2") == [["one:2", "one:1"]]
    with pytest.raises(NotFoundError, match="no such image: nothing"):
        names("one:1", "nothing")
    content = files(saved(two, image))
    assert "repositories" not in content
    assert "annotations" not in json.loads(content["index.json"])["manifests"][0]


def test_what_is_saved_is_loaded_again(two: Store, other: Store) -> None:
    archive = saved(two, "one", "ghcr.io/a/two:x")
    assert load(other, archive) == ["one:1", "one:2", "ghcr.io/a/two:x"]
    assert load(other, gzip.compress(archive)) == ["one:1", "one:2", "ghcr.io/a/two:x"]
    for name in ("one:1", "ghcr.io/a/two:x"):
        assert replace(other.images.resolve(name), tagged_ns=0) == replace(
            two.images.resolve(name), tagged_ns=0
        )
        assert other.images.history(name) == two.images.history(name)
    assert saved(other, "one", "ghcr.io/a/two:x") == archive


def test_layers_stay_compressed(store: Store, other: Store) -> None:
    layers = [
        (gzip.compress(LAYERS[0], mtime=0), OCI_LAYER + "+gzip", digest(LAYERS[0])),
        (zstandard.compress(LAYERS[1]), OCI_LAYER + "+zstd", digest(LAYERS[1])),
    ]
    load(store, tar_of(oci_members(layers, "test:compressed")))
    archive = saved(store, "test:compressed")
    content = files(archive)
    (item,) = json.loads(content["manifest.json"])
    assert [content[name] for name in item["Layers"]] == [blob for blob, _, _ in layers]
    assert item["LayerSources"][digest(LAYERS[0])]["mediaType"] == OCI_LAYER + "+gzip"
    assert load(other, archive) == ["test:compressed"]
    assert other.images.resolve("test:compressed").id == store.images.resolve("test:compressed").id


# -- what goes wrong ---------------------------------------------------------------------------------------


def test_damaged_blobs_are_noticed(two: Store) -> None:
    path = two.blobs.blob_path(digest(LAYERS[1]))
    path.write_bytes(LAYERS[1][:512])
    with pytest.raises(CorruptError, match="512 bytes"):
        saved(two, "one:1")
    path.unlink()
    with pytest.raises(NotFoundError, match="is not in the store"):
        saved(two, "one:1")


@pytest.mark.parametrize("is_removed", [True, False], ids=["removed", "another manifest"])
def test_an_image_that_changes_while_it_is_looked_at(
    store: Store, other: Store, monkeypatch: pytest.MonkeyPatch, is_removed: bool
) -> None:
    """By another process, between two looks into the database: the archive is whole, or there is none."""
    plain = [(layer, OCI_LAYER, digest(layer)) for layer in LAYERS]
    packed = [(gzip.compress(layer), OCI_LAYER + "+gzip", digest(layer)) for layer in LAYERS]
    load(store, tar_of(oci_members(plain, name="one:1")))
    look = sql.layers_of

    def look_late(*words: Any) -> Any:
        monkeypatch.undo()
        if is_removed:
            store.images.remove("one:1")
        else:
            with store.image_store.adding("pull") as directory:
                image = load_archive(
                    io.BytesIO(tar_of(oci_members(packed, name="one:1"))), store.blobs, directory, "archive"
                )[0]
                store.image_store.record([image], None, are_applied=True)
        return look(*words)

    monkeypatch.setattr(sql, "layers_of", look_late)
    if is_removed:
        with pytest.raises(NotFoundError, match="no such image"):
            saved(store, "one:1")
    else:
        assert load(other, saved(store, "one:1")) == ["one:1"]


def test_a_reader_that_goes_away(two: Store) -> None:
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    with open(write_fd, "wb", buffering=0) as stream, pytest.raises(FailedError, match="went away"):
        two.images.save(["one:1"], stream)


def test_a_full_device(two: Store) -> None:
    with open("/dev/full", "wb", buffering=0) as stream, pytest.raises(PyDockError, match="no space"):
        two.images.save(["one:1"], stream)


# -- platforms ---------------------------------------------------------------------------------------------


def arm_archive() -> bytes:
    document = json.loads(build_config(digest(LAYERS[0]), Cmd=["sh"]))
    document.update(architecture="arm64", variant="v8")
    return build_docker_archive(LAYERS[0], tags=["arm:1"], config=json.dumps(document).encode())


def test_platforms_of_what_is_saved(two: Store) -> None:
    load(two, arm_archive())
    assert files(saved(two, "arm:1", platform="linux/arm64"))
    assert files(saved(two, "one:1", platform="linux/amd64"))
    with pytest.raises(PyDockError, match="image one:1 is for linux/amd64, not for linux/arm64"):
        saved(two, "arm:1", "one:1", platform="linux/arm64")
    with pytest.raises(PyDockError, match="invalid platform"):
        saved(two, "arm:1", platform="linux/arm64/v8/x")


def test_platforms_of_what_is_loaded(two: Store, other: Store) -> None:
    load(two, arm_archive())
    archive = saved(two, "arm:1", "one:1")
    with pytest.raises(UnsupportedError, match="linux/s390x"):
        load(other, archive, platform="linux/s390x")
    assert other.images.list() == []
    assert load(other, archive, platform="linux/arm64") == ["arm:1"]
    assert load(other, archive) == ["arm:1", "one:1"]


def test_the_platform_of_an_index(store: Store) -> None:
    members: dict[str, bytes] = {}
    described = []
    for architecture in ("amd64", "arm64"):
        layer = build_tar([entry(architecture, data=b"x")])
        config = json.loads(build_config(digest(layer)))
        config["architecture"] = architecture
        data = json.dumps(config).encode()
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "config": _described(data, "application/vnd.oci.image.config.v1+json"),
                "layers": [_described(layer, OCI_LAYER)],
            }
        ).encode()
        for blob in (layer, data, manifest):
            members["blobs/sha256/" + hashlib.sha256(blob).hexdigest()] = blob
        described.append(
            {
                **_described(manifest, "application/vnd.oci.image.manifest.v1+json"),
                "platform": {"os": "linux", "architecture": architecture},
            }
        )
    index = json.dumps({"schemaVersion": 2, "manifests": described}).encode()
    members["blobs/sha256/" + hashlib.sha256(index).hexdigest()] = index
    top = {
        **_described(index, "application/vnd.oci.image.index.v1+json"),
        "annotations": {"org.opencontainers.image.ref.name": "many:1"},
    }
    members["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [top]}).encode()
    members["oci-layout"] = b'{"imageLayoutVersion":"1.0.0"}'
    archive = tar_of(members)
    load(store, archive, platform="linux/arm64")
    assert store.images.inspect("many:1")["Architecture"] == "arm64"
    load(store, archive, platform="linux/amd64")
    assert store.images.inspect("many:1")["Architecture"] == "amd64"
    with pytest.raises(UnsupportedError, match="no image for linux/riscv64"):
        load(store, archive, platform="linux/riscv64")


def _described(data: bytes, media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest(data), "size": len(data)}


def test_the_platform_of_an_import(store: Store) -> None:
    store.images.import_(io.BytesIO(LAYERS[0]), "root:1", platform="linux/arm/v7")
    seen = store.images.inspect("root:1")
    assert (seen["Os"], seen["Architecture"], seen["Variant"]) == ("linux", "arm", "v7")


# -- other tools -------------------------------------------------------------------------------------------


@pytest.fixture
def busybox(store: Store, tmp_path: Path) -> Path:
    """A saved archive of busybox, with a second layer, compressed, and two names."""
    if not BUSYBOX.exists():
        pytest.skip("needs /bin/busybox (Debian: busybox-static)")
    with open(busybox_archive(tmp_path / "made.tar"), "rb") as file:
        store.images.load(file)
    lower = store.blobs.blob_path(store.images.layers(store.images.resolve("busybox").id)[0]).read_bytes()
    upper = build_tar([entry("etc", "dir"), entry("etc/new", data=b"new\n"), entry("etc/.wh.group")])
    layers = [
        (lower, OCI_LAYER, digest(lower)),
        (gzip.compress(upper, mtime=0), OCI_LAYER + "+gzip", digest(upper)),
    ]
    load(store, tar_of(oci_members(layers, "box:1", Cmd=["sh"])))
    store.images.tag("box:1", "ghcr.io/some/box:2")
    path = tmp_path / "saved.tar"
    with open(path, "wb") as file:
        store.images.save(["box:1", "ghcr.io/some/box:2"], file)
    return path


@needs("podman")
def test_podman(busybox: Path, store: Store, other: Store, tmp_path: Path, short_path: Path) -> None:
    podman = [
        "podman",
        "--root",
        tmp_path / "podman",
        "--runroot",
        short_path / "run",
        "--storage-driver",
        "vfs",
    ]
    text = run(*podman, "load", "-i", busybox)
    assert "box:1" in text
    assert "ghcr.io/some/box:2" in text
    image = store.images.resolve("box:1").id
    assert run(*podman, "image", "inspect", "--format", "{{.Id}}", "ghcr.io/some/box:2").strip() == image[7:]
    for kind in ("docker-archive", "oci-archive"):
        back = tmp_path / f"{kind}.tar"
        run(*podman, "save", "--format", kind, "-o", back, "ghcr.io/some/box:2")
        with open(back, "rb") as file:
            assert other.images.load(file) == ["ghcr.io/some/box:2"]
        assert other.images.layers(other.images.resolve("ghcr.io/some/box:2").id) == store.images.layers(
            image
        )


@needs("skopeo")
def test_skopeo(busybox: Path, store: Store, other: Store, tmp_path: Path) -> None:
    image = store.images.resolve("box:1").id
    for source in (f"docker-archive:{busybox}:box:1", f"oci-archive:{busybox}:2"):
        assert digest(run("skopeo", "inspect", "--config", "--raw", source).encode()) == image
        target = tmp_path / "copied.tar"
        run("skopeo", "copy", source, f"docker-archive:{target}:copied:1")
        with open(target, "rb") as file:
            assert other.images.load(file) == ["copied:1"]
        assert other.images.resolve("copied:1").id == image
        other.images.remove("copied:1")
        target.unlink()


@needs("umoci")
def test_umoci(busybox: Path, tmp_path: Path) -> None:
    layout, bundle = tmp_path / "layout", tmp_path / "bundle"
    layout.mkdir()
    run("tar", "-xf", busybox, "-C", layout)
    assert run("umoci", "list", "--layout", layout).split() == ["1", "2"]
    run("umoci", "unpack", "--image", f"{layout}:1", bundle)
    assert (bundle / "rootfs/etc/new").read_text() == "new\n"
    assert not (bundle / "rootfs/etc/group").exists()


@pytest.mark.skipif(bool(docker_daemon.missing()), reason=docker_daemon.missing() or "there")
def test_docker(busybox: Path, store: Store, other: Store) -> None:
    image = store.images.resolve("box:1").id
    with docker_daemon.docker_daemon() as docker:
        assert docker("load", "-i", busybox).splitlines() == [
            "Loaded image: box:1",
            "Loaded image: ghcr.io/some/box:2",
        ]
        assert docker("image", "inspect", "--format", "{{.Id}}", "box:1") == image
        script = "cat /etc/new; test -e /etc/passwd && test ! -e /etc/group && echo applied"
        assert docker("run", "--rm", "--network", "none", "box:1", "sh", "-c", script) == "new\napplied"
        docker("save", "-o", busybox, "box:1")
    with open(busybox, "rb") as file:
        assert other.images.load(file) == ["box:1"]
    assert other.images.resolve("box:1").id == image
