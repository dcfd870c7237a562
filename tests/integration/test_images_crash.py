"""Killed at every step, and many at once: the store stays whole, and the next command tidies up."""

from __future__ import annotations

import io
import itertools
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.image_store import (
    NEEDS_ROOT,
    ROOT,
    Store,
    build_config,
    build_docker_archive,
    build_tar,
    digest,
    entry,
    no_erofs,
    open_store,
)
from tests.support.killed import dies_at

pytestmark = pytest.mark.skipif(not ROOT, reason=NEEDS_ROOT)

REPOSITORY = Path(__file__).resolve().parents[2]
# The last one leaves a directory out, and so is applied once more, over the layers below it.
PATHS = [*(f"f{number}" for number in range(6)), "implied/f6"]
LAYERS = [build_tar([entry(path, data=bytes([number]) * 3000)]) for number, path in enumerate(PATHS)]

# More than are mounted one by one, so that an index of them all is made too.
ALL = [LAYERS[0], LAYERS[1], LAYERS[3], LAYERS[4], LAYERS[5], LAYERS[6]]


def run(script: str, *words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )


def check_whole(store: Store) -> None:
    """Every image that is listed has all its blobs and layers, each with the right content."""
    for image in store.images.list():
        row = store.images.resolve(image["Id"])
        assert digest(store.blobs.read(row.manifest_digest, "manifest")) == row.manifest_digest
        for diff_id in store.images.layers(row.id):
            assert store.snapshotter.has(diff_id)
            assert store.snapshotter.size_bytes(diff_id) == 3000
            assert len(list(store.tree(diff_id).iterdir())) == 1
        content = store.snapshotter.read_file(store.images.layers(row.id), "/implied/f6")
        assert content in (None, bytes([6]) * 3000)


@pytest.mark.parametrize("action", ["load", "remove"])
@pytest.mark.parametrize("driver", ["directory", "erofs"])
def test_killed_at_every_step(tmp_path: Path, action: str, driver: str) -> None:
    if driver == "erofs" and (reason := no_erofs(tmp_path)):
        pytest.skip(reason)
    archive = tmp_path / "archive"
    archive.write_bytes(build_docker_archive(*ALL, tags=["killed:1"]))
    other = build_docker_archive(LAYERS[1], LAYERS[2], tags=["other:1"])
    base = tmp_path / "state"

    def act() -> None:
        store = open_store(base, driver)
        if action == "load":
            with open(archive, "rb") as stream:
                store.images.load(stream)
        else:
            store.images.remove("killed:1")

    # What the store looks like with and without the image, each reached without a kill.
    store = open_store(base, driver)
    store.images.load(io.BytesIO(other))
    without = store.contents()
    store.images.load(io.BytesIO(archive.read_bytes()))
    with_it = store.contents()
    store.images.remove("killed:1")
    assert store.contents() == without
    for steps in itertools.count():
        if action == "remove":
            store.images.load(io.BytesIO(archive.read_bytes()))
        store.close()  # a fork inherits no open database
        if dies_at(steps, act):
            break
        store = open_store(base, driver)
        check_whole(store)
        # Any command that changes images tidies up; names are those of one state or the other.
        store.images.load(io.BytesIO(other))
        store.empty_trash()
        listed = {name for image in store.images.list() for name in image["RepoTags"]}
        assert listed in ({"other:1"}, {"other:1", "killed:1"})
        assert store.contents() == (with_it if "killed:1" in listed else without)
        if "killed:1" in listed:
            store.images.remove("killed:1")
            assert store.contents() == without
    assert steps > 20


BUSY = """
import io, random, sys
from pathlib import Path
from pydock_core.errors import ConflictError, NotFoundError
from tests.support.image_store import open_store
base, seed = Path(sys.argv[1]), int(sys.argv[2])
choose = random.Random(seed)
archives = [path.read_bytes() for path in sorted(base.glob("archive-*"))]
store = open_store(base / "state", sys.argv[3])
for _ in range(12):
    number = choose.randrange(len(archives))
    if choose.random() < 0.6:
        store.images.load(io.BytesIO(archives[number]))
    else:
        try:
            store.images.remove(f"image{number}:1")
        except (NotFoundError, ConflictError):
            pass
store.close()
"""


@pytest.mark.parametrize("driver", ["directory", "erofs"])
def test_several_processes_at_once(tmp_path: Path, driver: str) -> None:
    if driver == "erofs" and (reason := no_erofs(tmp_path)):
        pytest.skip(reason)
    choose = random.Random(1)
    for number in range(4):
        layers = choose.sample(LAYERS, 2)
        config = build_config(*(digest(layer) for layer in layers), User=str(number))
        archive = build_docker_archive(*layers, tags=[f"image{number}:1"], config=config)
        (tmp_path / f"archive-{number}").write_bytes(archive)
    store = open_store(tmp_path / "state", driver)
    empty = store.contents()
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", BUSY, tmp_path, str(seed), driver],
            stderr=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        )
        for seed in range(4)
    ]
    for worker in workers:
        _, errors = worker.communicate(timeout=120)
        assert worker.returncode == 0, errors
    check_whole(store)
    for image in store.images.list():
        store.images.remove(image["Id"], force=True)
    store.images.load(io.BytesIO((tmp_path / "archive-0").read_bytes()))
    store.images.remove("image0:1")
    assert store.contents() == empty
    store.close()
