"""The blob store and workspaces: what is there is whole, and what a dead process left is swept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pydock_core.errors import CorruptError, NotFoundError
from pydock_core.oci.documents import Descriptor
from pydock_core.store.blobs import BlobStore
from pydock_core.store.trees import remove_tree
from pydock_core.store.workspace import open_workspace, spread_directories, sweep
from tests.support.image_store import digest


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    path = tmp_path / "images"
    path.mkdir()
    store = BlobStore(path)
    store.ensure()
    return store


def test_the_layout_is_an_oci_layout(blobs: BlobStore) -> None:
    assert json.loads((blobs.path / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    assert json.loads((blobs.path / "index.json").read_text())["manifests"] == []
    blobs.ensure()


def test_a_blob_is_kept_under_its_digest(blobs: BlobStore, tmp_path: Path) -> None:
    with blobs.writer(tmp_path, "new", "blob") as writer:
        writer.write(b"hello ")
        writer.write(memoryview(b"world"))
        found = blobs.put(writer, digest=digest(b"hello world"), size_bytes=11)
    assert found == digest(b"hello world")
    assert blobs.has(found)
    assert blobs.read(found, "blob") == b"hello world"
    assert blobs.digests() == [found]
    assert not (tmp_path / "new").exists()
    blobs.remove(found)
    blobs.remove(found)
    assert not blobs.has(found)


@pytest.mark.parametrize("expected", [{"digest": digest(b"other")}, {"size_bytes": 4}])
def test_what_is_not_as_promised_is_not_kept(
    blobs: BlobStore, tmp_path: Path, expected: dict[str, object]
) -> None:
    with blobs.writer(tmp_path, "new", "blob") as writer:
        writer.write(b"hello")
        with pytest.raises(CorruptError, match="manifest x"):
            blobs.put(writer, subject="manifest x", **expected)  # type: ignore[arg-type]  # one of two keywords
    assert blobs.digests() == []


def test_readers_verify(blobs: BlobStore, tmp_path: Path) -> None:
    found = blobs.put_bytes(b"{}", tmp_path, "config")
    assert blobs.put_bytes(b"{}", tmp_path, "config") == found
    blobs.blob_path(found).write_bytes(b"[]")
    with pytest.raises(CorruptError, match="config of x"):
        blobs.read(found, "config of x")
    with pytest.raises(NotFoundError, match="config of y"):
        blobs.read(digest(b"not there"), "config of y")


def test_the_index_says_what_it_is_told(blobs: BlobStore) -> None:
    entry = Descriptor("m", digest(b"x"), 1, {"org.opencontainers.image.ref.name": "a:b"})
    blobs.refresh_index(lambda: [entry])
    assert json.loads((blobs.path / "index.json").read_text())["manifests"] == [entry.to_json()]
    assert sorted(os.listdir(blobs.path)) == [".index.lock", ".lock", "blobs", "index.json", "oci-layout"]


def test_a_collector_does_not_wait_for_adders(blobs: BlobStore) -> None:
    with blobs.lock(exclusive=False) as adding, blobs.lock(exclusive=False) as beside:
        assert adding
        assert beside
        with blobs.lock(exclusive=True, wait=False) as collecting:
            assert not collecting
    with blobs.lock(exclusive=True, wait=False) as collecting:
        assert collecting


def remove(path: Path) -> None:
    remove_tree(str(path))


def test_a_workspace_is_gone_at_its_end_and_not_before(tmp_path: Path) -> None:
    with open_workspace(tmp_path, "load", remove) as workspace:
        (workspace.path / "half").write_text("x")
        assert sweep(tmp_path, remove) == 0
        assert (workspace.path / "half").exists()
    assert os.listdir(tmp_path) == []


def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    script = (
        "import os, sys, pathlib\n"
        "from pydock_core.store.workspace import open_workspace\n"
        "with open_workspace(pathlib.Path(sys.argv[1]), 'load', print) as workspace:\n"
        "    (workspace.path / 'half').write_text('x')\n"
        "    print(workspace.path, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        left = Path(process.stdout.readline().strip())
        assert sweep(tmp_path, remove) == 0
        process.kill()
    assert (left / "half").exists()
    assert sweep(tmp_path, remove) == 1
    assert os.listdir(tmp_path) == []


def test_a_worker_that_goes_on_keeps_its_directory(tmp_path: Path) -> None:
    with open_workspace(tmp_path, "layer", lambda path: None) as workspace:
        passed = os.dup(workspace.lock_fd)
    assert sweep(tmp_path, remove) == 0
    os.close(passed)
    assert sweep(tmp_path, remove) == 1


def test_what_is_no_directory_is_left(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert sweep(tmp_path, remove) == 0
    spread_directories(tmp_path)
    spread_directories(tmp_path / "missing")


def test_a_workspace_that_is_swept_is_out_of_its_makers_reach(tmp_path: Path) -> None:
    made = tmp_path / "layer-0123"
    made.mkdir()  # and its maker has not got to the lock
    reachable: list[bool] = []

    def watch(path: Path) -> None:
        reachable.append(made.exists())
        remove(path)

    assert sweep(tmp_path, watch) == 1
    assert reachable == [False]
    assert list(tmp_path.iterdir()) == []
