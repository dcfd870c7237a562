"""Layers of both drivers in one store: which driver takes a new layer, and what becomes of the others'."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pydock_core.errors import CorruptError, InvalidError, UnsupportedError
from pydock_core.oci.documents import layer_media_type
from pydock_core.paths import StateRoot
from pydock_core.store.erofs.tree import ONE_TREE
from pydock_core.store.layer_blob import LayerBlob
from pydock_core.store.snapshots import probe
from pydock_core.store.snapshots.erofs import ErofsSnapshotter
from pydock_core.store.snapshots.layers import VARIABLE, open_layers
from pydock_core.store.worker import LocalWorker
from tests.contract.test_snapshotter import apply, merged
from tests.contract.test_snapshotter_same import sparse_entry
from tests.support.image_store import NEEDS_ROOT, ROOT, build_tar, digest, entry, no_erofs

pytestmark = pytest.mark.skipif(not ROOT, reason=NEEDS_ROOT)
REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StateRoot]:
    if reason := no_erofs(tmp_path):
        pytest.skip(reason)
    monkeypatch.delenv(VARIABLE, raising=False)
    state_root = StateRoot(tmp_path / "data", tmp_path / "run")
    state_root.ensure()
    yield state_root
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


def held(root: StateRoot) -> dict[str, int]:
    return {
        name: sum(len(entry) == 64 for entry in os.listdir(root.layers / name))
        for name in ("directory", "erofs")
        if (root.layers / name).is_dir()
    }


@pytest.mark.parametrize("compression", ["", "gzip"])
def test_who_waits_for_the_turn_to_make_an_index_may_give_up(
    root: StateRoot, tmp_path: Path, compression: str
) -> None:
    """A pull that is cancelled waits for the index that is made, and for no other."""

    class GivenUp(Exception):
        """Another layer has failed."""

    def give_up(event: dict[str, object]) -> None:
        if ONE_TREE.locked():
            raise GivenUp

    layer = build_tar([entry("a", data=b"x")])
    (tmp_path / "blob").write_bytes(gzip.compress(layer) if compression else layer)
    blob = LayerBlob(
        tmp_path / "blob", layer_media_type(compression), verified=True, digest=digest(layer), paired=True
    )
    driver = open_layers(root, LocalWorker())
    with pytest.raises(GivenUp):
        driver.apply(digest(layer), blob, give_up)
    assert not ONE_TREE.locked()
    assert not driver.has(digest(layer))
    assert not list(root.temporary.iterdir())
    driver.apply(digest(layer), blob)


def test_the_best_driver_is_taken_or_the_one_that_is_asked_for(
    root: StateRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = open_layers(root, LocalWorker())
    assert driver.name == "erofs"
    one = apply(driver, tmp_path, build_tar([entry("one", data=b"1")]))
    assert held(root) == {"directory": 0, "erofs": 1}
    monkeypatch.setenv(VARIABLE, "directory")
    driver = open_layers(root, LocalWorker())
    assert driver.name == "directory"
    two = apply(driver, tmp_path, build_tar([entry("two", data=b"2")]))
    assert apply(driver, tmp_path, build_tar([entry("one", data=b"1")])) == one
    assert held(root) == {"directory": 1, "erofs": 1}
    assert merged(driver, [one, two], tmp_path) == ["one=1", "two=2"]
    assert sorted(driver.diff_ids()) == sorted([one, two])
    assert [driver.size_bytes(layer) for layer in (one, two)] == [1, 1]
    assert dict(driver.status()) == {
        "Driver of new layers": "directory",
        "Layers as directories": "1",
        "Layers as EROFS indexes": "1",
    }
    driver.remove(one)
    driver.remove(two)
    assert driver.diff_ids() == []
    monkeypatch.setenv(VARIABLE, "btrfs")
    with pytest.raises(InvalidError, match="btrfs"):
        open_layers(root, LocalWorker())


def test_the_kernel_is_asked_once_a_boot(root: StateRoot, monkeypatch: pytest.MonkeyPatch) -> None:
    assert probe.probe_erofs(root) == ""
    monkeypatch.setattr(probe, "_try", lambda directory: "asked again")
    assert probe.probe_erofs(root) == ""
    kept = root.cache / "erofs.json"
    document = json.loads(kept.read_text())
    kept.write_text(json.dumps({**document, "key": "another boot"}))
    assert probe.probe_erofs(root) == "asked again"
    kept.write_text("nonsense")
    assert probe.probe_erofs(root) == "asked again"
    assert os.listdir(root.temporary) == []


def test_without_erofs_its_layers_become_directories(
    root: StateRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = open_layers(root, LocalWorker())
    ids = [
        apply(driver, tmp_path, build_tar([entry(f"f{n}", data=b"x"), entry("top", data=str(n).encode())]))
        for n in range(6)
    ]
    driver.prepare(ids, [LayerBlob(tmp_path / f"blob-{layer[7:19]}", layer_media_type("")) for layer in ids])
    assert len(driver.mounts(ids, tmp_path, tmp_path)) == 2
    # As after a boot with an older kernel.
    monkeypatch.setattr(probe, "probe_erofs", lambda root: "this kernel is too old")
    driver = open_layers(root, LocalWorker())
    assert driver.name == "directory"
    assert ("EROFS", "this kernel is too old") in driver.status()
    assert merged(driver, ids, tmp_path) == [*(f"f{n}=x" for n in range(6)), "top=5"]
    assert {mount.kind for mount in driver.mounts(ids, tmp_path, tmp_path)} == {"overlay"}
    assert held(root) == {"directory": 6, "erofs": 6}
    assert driver.read_file(ids, "/top") == b"5"
    with pytest.raises(UnsupportedError, match="too old") as raised:
        open_layers(root, LocalWorker(), "erofs")
    assert VARIABLE in raised.value.hint
    for layer in ids:
        driver.remove(layer)
    assert held(root) == {"directory": 0, "erofs": 0}


def test_what_an_index_cannot_say_becomes_a_directory(root: StateRoot, tmp_path: Path) -> None:
    # Files with as many holes as one may have each, more than all may have together.
    parts = [(0, b"a" * 512), ((1 << 29) - 512, b"b" * 512)]
    layer = build_tar([sparse_entry(f"s{number}", 1 << 29, parts) for number in range(10)])
    path = tmp_path / "blob"
    path.write_bytes(layer)
    blob = LayerBlob(path, layer_media_type(""))
    with pytest.raises(UnsupportedError, match="and holes for an index"):
        ErofsSnapshotter(root, LocalWorker()).apply(digest(layer), blob)
    driver = open_layers(root, LocalWorker())
    driver.apply(digest(layer), blob)
    assert held(root) == {"directory": 1, "erofs": 0}


def test_damage_is_not_tried_again(root: StateRoot, tmp_path: Path) -> None:
    path = tmp_path / "blob"
    path.write_bytes(b"\xff" * 2000)
    with pytest.raises(CorruptError):
        open_layers(root, LocalWorker()).apply(digest(b"\xff" * 2000), LayerBlob(path, layer_media_type("")))
    assert held(root) == {"directory": 0, "erofs": 0}
    assert os.listdir(root.temporary) == []


WORKER = """
import sys
from pathlib import Path
from pydock_core.oci.documents import layer_media_type
from pydock_core.paths import StateRoot
from pydock_core.store.layer_blob import LayerBlob
from pydock_core.store.snapshots import erofs
from pydock_core.store.snapshots.layers import open_layers
from pydock_core.store.worker import LocalWorker
base = Path(sys.argv[1])
made = erofs._make
def noted(*words):
    print("made", flush=True)
    made(*words)
erofs._make = noted
driver = open_layers(StateRoot(base / "data", base / "run"), LocalWorker())
print("ready", flush=True)
sys.stdin.readline()
driver.apply(sys.argv[2], LayerBlob(base / "blob", layer_media_type("")))
"""


def test_several_processes_share_the_work(root: StateRoot, tmp_path: Path) -> None:
    layer = build_tar([entry(f"f{number}", data=b"x" * 1000) for number in range(3000)])
    (tmp_path / "blob").write_bytes(layer)
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, tmp_path, digest(layer)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        )
        for _ in range(3)
    ]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    outputs = []
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("\n")
        worker.stdin.flush()
    for worker in workers:
        outputs.append(worker.communicate(timeout=60)[0])
        assert worker.returncode == 0
    assert sorted(outputs) == ["", "", "made\n"]


def test_threads_share_the_work(root: StateRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = open_layers(root, LocalWorker())
    layer = build_tar([entry(f"f{number}", data=b"x" * 1000) for number in range(3000)])
    path = tmp_path / "blob"
    path.write_bytes(layer)
    made = []
    original = ErofsSnapshotter.apply

    def noted(self: ErofsSnapshotter, diff_id: str, blob: LayerBlob, progress: object = None) -> int:
        made.append(diff_id)
        return original(self, diff_id, blob)

    monkeypatch.setattr(ErofsSnapshotter, "apply", noted)
    threads = [
        threading.Thread(target=driver.apply, args=(digest(layer), LayerBlob(path, layer_media_type(""))))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [digest(layer)]
