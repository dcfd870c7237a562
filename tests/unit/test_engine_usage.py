"""Disk usage, prunes and the removal of images: what goes, what stays, and what is said."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from pydock_core.commands.disk import df_records
from pydock_core.engine import Engine
from pydock_core.engine.images import Images
from pydock_core.engine.labels import parse_prune_filters
from pydock_core.errors import ConflictError, InvalidError, NotFoundError
from pydock_core.paths import StateRoot
from pydock_core.spec.definition import Definition, complete, encode
from pydock_core.store.database import containers as containers_sql
from pydock_core.store.database import distribution
from pydock_core.store.database import images as images_sql
from pydock_core.store.database.containers import ContainerRow, Uses
from pydock_core.store.database.images import DigestRow, ImageRow, TagRow
from pydock_core.store.database.volumes import NewVolume, add
from pydock_core.store.trees import remove_tree, tree_sizes
from tests.support.image_store import (
    NEEDS_ROOT,
    ROOT,
    build_config,
    build_docker_archive,
    build_tar,
    digest,
    entry,
    tar_of,
)
from tests.support.process import count_descriptors

pytestmark = pytest.mark.skipif(not ROOT, reason=NEEDS_ROOT)

ONE, TWO, THREE = (
    tar_of({name: name.encode() * size}) for name, size in (("one", 1000), ("two", 200), ("three", 30))
)
DIGEST = "sha256:" + "d" * 64


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = Engine(StateRoot(tmp_path / "data", tmp_path / "run"))
    yield made
    made.close()


def load(engine: Engine, *layers: bytes, tags: Sequence[str] = (), **config: Any) -> str:
    """Load an image; return its id."""
    document = build_config(*(digest(layer) for layer in layers), **config)
    engine.images.load(io.BytesIO(build_docker_archive(*layers, tags=tags, config=document)))
    return digest(document)


def use(engine: Engine, image_id: str, name: str = "web", labels: Mapping[str, str] | None = None) -> str:
    """Record a container of an image; return its id."""
    container_id = os.urandom(32).hex()
    request = complete({"Image": image_id, "Cmd": ["sh"], "Labels": dict(labels or {})})
    row = ContainerRow(container_id, name, image_id, time.time_ns(), encode(Definition(request, {})))
    containers_sql.insert(engine.state.database, row, Uses())
    return container_id


# -- usage -------------------------------------------------------------------------------------------------


def test_shared_layers_count_once(engine: Engine) -> None:
    first = load(engine, ONE, TWO, tags=["a:1"])
    load(engine, ONE, THREE, tags=["b:1"])
    container = use(engine, first)
    upper = engine.root.container(container).upper
    upper.mkdir(parents=True)
    (upper / "file").write_bytes(b"x" * 50)
    usage = engine.usage.df()
    by_name = {item["RepoTags"][0]: item for item in usage["Images"]}
    assert by_name["a:1"]["Size"] == 3000 + 600
    assert by_name["a:1"]["SharedSize"] == by_name["b:1"]["SharedSize"] == 3000
    assert by_name["a:1"]["Containers"] == 1
    layers = 3000 + 600 + 150
    files = [path.stat() for path in (engine.root.images / "blobs").rglob("*") if path.is_file()]
    blobs = sum(
        status.st_size for status in files if status.st_nlink == 1
    )  # others are layers, and counted as such
    assert usage["BlobsSize"] == blobs
    assert usage["LayersSize"] == layers + blobs
    # What goes with b alone: its own layer and blobs.
    before = engine.usage.df()["LayersSize"]
    reclaimable = usage["ImagesReclaimable"]
    assert engine.usage.prune_images(all=True)["SpaceReclaimed"] == reclaimable
    assert engine.usage.df()["LayersSize"] == before - reclaimable
    assert engine.usage.df()["ImagesReclaimable"] == 0
    (shown,) = usage["Containers"]
    assert (shown["SizeRw"], shown["SizeRootFs"]) == (50, 3650)
    assert engine.containers.inspect("web", size=True)["SizeRootFs"] == 3650


def test_what_a_layer_takes_over_others_counts(engine: Engine) -> None:
    info, data = entry("implied/link", "hard", linkname="one")
    first = load(engine, ONE, build_tar([(info, data), entry("implied/file", data=b"x" * 40)]), tags=["a:1"])
    usage = engine.usage.df()
    # The layer by itself has the file; over the other it has the link's file too.
    assert usage["LayersSize"] == 3000 + 40 + (40 + 3000) + usage["BlobsSize"]
    assert usage["ImagesReclaimable"] == usage["LayersSize"]
    use(engine, first)
    assert engine.usage.df()["ImagesReclaimable"] == 0
    engine.containers.remove("web")
    assert engine.usage.prune_images(all=True)["SpaceReclaimed"] == usage["LayersSize"]
    assert engine.usage.df()["LayersSize"] == 0


def test_the_rows_of_df_are_dockers() -> None:
    usage = {
        "LayersSize": 1_982_622,
        "ImagesReclaimable": 991_311,
        "Images": [{"Containers": 1}, {"Containers": 0}],
        "Containers": [{"State": "running", "SizeRw": 10}, {"State": "exited", "SizeRw": 30}],
        "Volumes": [{"UsageData": {"Size": 5, "RefCount": 1}}, {"UsageData": {"Size": 15, "RefCount": 0}}],
    }
    assert [list(record.values()) for record in df_records(usage)] == [
        ["Images", "2", "1", "1.983MB", "991.3kB (50%)"],
        ["Containers", "2", "1", "40B", "30B (75%)"],
        ["Local Volumes", "2", "1", "20B", "15B (75%)"],
        ["Build Cache", "0", "0", "0B", "0B"],
    ]


def test_tree_sizes_follow_nothing_and_count_links_once(tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"x" * 1000)
    tree = tmp_path / "tree"
    (tree / "d" / "e").mkdir(parents=True)
    (tree / "d" / "file").write_bytes(b"x" * 10)
    os.link(tree / "d" / "file", tree / "d" / "e" / "again")
    (tree / "link").symlink_to("../outside")
    assert tree_sizes([str(tree), str(tmp_path / "none"), str(tree / "link")]) == [
        10 + len("../outside"),
        0,
        0,
    ]


def test_a_tree_deeper_than_paths_is_measured(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("deep", dir_fd=fd)
        inner = os.open("deep", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    file_fd = os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=fd)
    os.write(file_fd, b"x" * 7)
    os.close(file_fd)
    os.close(fd)
    descriptors = count_descriptors()
    assert tree_sizes([str(tmp_path)]) == [7]
    assert count_descriptors() == descriptors
    remove_tree(str(tmp_path / "deep"))  # the next run's tidying up is recursive


# -- prune -------------------------------------------------------------------------------------------------


def test_prune_takes_the_nameless_and_with_all_the_unused(engine: Engine) -> None:
    used = load(engine, ONE, tags=["used:1"])
    load(engine, TWO, tags=["named:1"])
    nameless = load(engine, THREE)
    use(engine, used)
    report = engine.usage.prune_images()
    assert report["ImagesDeleted"] == [{"Deleted": nameless}, {"Deleted": digest(THREE)}]
    assert report["SpaceReclaimed"] > 150  # the layer's contents, and what is kept beside it
    assert report["Warnings"] == []
    events: list[dict[str, Any]] = []
    report = engine.usage.prune_images(filters={"dangling": ["false"]}, progress=events.append)
    assert report["ImagesDeleted"][0] == {"Untagged": "named:1"}
    assert events[0] == {"status": "Untagged", "id": "named:1"}  # said when it happens, not at the end
    assert len(events) == len(report["ImagesDeleted"]) + 1
    assert events[-1] == {"status": "Freeing space"}
    assert [tag for image in engine.images.list() for tag in image["RepoTags"]] == ["used:1"]
    assert engine.state.snapshotter.diff_ids() == [digest(ONE)]


def test_prune_ends_what_interrupted_pulls_left(engine: Engine, tmp_path: Path) -> None:
    store = engine.state.image_store
    with store.adding("pull") as directory:
        leased = store.blobs.put_bytes(b"half a pull", directory, "blob")
        distribution.lease(engine.state.database, "pull", [leased], time.time_ns() + 10**12)
    store.collect()
    assert store.blobs.has(leased)
    assert engine.usage.prune_images()["SpaceReclaimed"] == len(b"half a pull")
    assert not store.blobs.has(leased)


def test_prune_leaves_to_the_next_one_what_a_reader_may_need(engine: Engine) -> None:
    nameless = load(engine, ONE)
    with engine.state.image_store.reading():
        report = engine.usage.prune_images()
    assert {"Deleted": nameless} in report["ImagesDeleted"]
    assert report["SpaceReclaimed"] == 0
    assert "later" in report["Warnings"][0]
    assert engine.state.snapshotter.has(digest(ONE))
    assert engine.usage.prune_images()["SpaceReclaimed"] > 0
    assert not engine.state.snapshotter.has(digest(ONE))


def test_an_image_that_gets_a_container_meanwhile_stays(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    image_id = load(engine, ONE, tags=["a:1"])
    discard = Images.discard

    def late(self: Images, row: ImageRow, tags: Sequence[TagRow], digests: Sequence[DigestRow]) -> Any:
        use(engine, image_id)  # created after the prune has looked
        return discard(self, row, tags, digests)

    monkeypatch.setattr(Images, "discard", late)
    assert engine.usage.prune_images(all=True)["ImagesDeleted"] == []
    assert engine.images.resolve("a:1").id == image_id
    assert engine.state.snapshotter.has(digest(ONE))


def test_no_container_of_an_image_that_went_meanwhile(engine: Engine) -> None:
    image_id = load(engine, ONE, tags=["a:1"])
    engine.usage.prune_images(all=True)
    with pytest.raises(NotFoundError, match="was removed just now"):
        use(engine, image_id)
    assert containers_sql.all_rows(engine.state.database) == []


def test_prune_of_containers_and_volumes(engine: Engine) -> None:
    image_id = load(engine, ONE, tags=["a:1"])
    first = use(engine, image_id, "first", {"keep": "yes"})
    second = use(engine, image_id, "second")
    assert engine.usage.prune_containers({"label!": ["keep"]})["ContainersDeleted"] == [second]
    assert engine.usage.prune_containers({"until": ["1h"]})["ContainersDeleted"] == []
    assert engine.usage.prune_containers({"label": ["keep=yes"]})["ContainersDeleted"] == [first]
    now = time.time_ns()
    with engine.state.database.transaction() as connection:
        for name, anonymous in (("a" * 64, 1), ("named", 0)):
            add(connection, name, NewVolume(bool(anonymous)), now)
            (engine.root.volumes / name / "_data").mkdir(parents=True)
            (engine.root.volumes / name / "_data" / "file").write_text("12345")
    third = use(engine, image_id, "third")
    with engine.state.database.transaction() as connection:
        connection.execute("INSERT INTO container_volume VALUES (?, ?, 1, '[]')", (third, "a" * 64))
    assert engine.volumes.prune()["VolumesDeleted"] == []  # one is used, the other has a name
    engine.containers.remove("third")
    assert engine.volumes.prune({"label": ["x"]})["VolumesDeleted"] == []
    assert engine.volumes.prune() == {"VolumesDeleted": ["a" * 64], "SpaceReclaimed": 5}
    assert [volume["Name"] for volume in engine.usage.df()["Volumes"]] == ["named"]
    assert engine.volumes.prune({"all": ["true"]})["VolumesDeleted"] == ["named"]
    assert list(engine.root.volumes.iterdir()) == list(engine.root.trash.iterdir()) == []


def test_prune_filters_are_dockers() -> None:
    def may_go(filters: Mapping[str, Sequence[str]], created_ns: int = 0, **labels: str) -> bool:
        return parse_prune_filters(filters, 3600 * 10**9)(created_ns, labels)

    assert may_go({})
    assert may_go({"label": ["a", "b=1"]}, a="", b="1")
    assert not may_go({"label": ["a", "b=1"]}, a="", b="2")
    assert not may_go({"label!": ["a=1"]}, a="1")
    assert may_go({"label!": ["a=1"]}, a="2")
    assert may_go({"label!": ["a", "b"]}, a="1")  # only what has all of them stays
    assert may_go({"until": ["30m"]}, 1800 * 10**9)
    assert not may_go({"until": ["30m"]}, 1801 * 10**9)
    for filters in ({"colour": ["red"]}, {"until": ["soon"]}, {"until": ["1h", "2h"]}):
        with pytest.raises(InvalidError):
            may_go(filters)


# -- removal by name and digest ----------------------------------------------------------------------------


@pytest.fixture
def pulled(engine: Engine) -> str:
    """An image as after a pull: a name, and a digest in the repository."""
    image_id = load(engine, ONE, tags=["box:latest"])
    distribution.add_repository_digest(engine.state.database, "box", DIGEST, image_id)
    return image_id


def test_the_digest_goes_with_the_last_tag_of_its_repository(engine: Engine, pulled: str) -> None:
    engine.images.tag("box", "box:other")
    assert engine.images.remove("box:other") == [{"Untagged": "box:other"}]
    assert engine.images.remove("box") == [
        {"Untagged": "box:latest"},
        {"Untagged": f"box@{DIGEST}"},
        {"Deleted": pulled},
        {"Deleted": digest(ONE)},
    ]


def test_a_digest_of_another_repository_keeps_the_image(engine: Engine, pulled: str) -> None:
    distribution.add_repository_digest(engine.state.database, "registry.test/box", DIGEST, pulled)
    assert engine.images.remove("box") == [{"Untagged": "box:latest"}, {"Untagged": f"box@{DIGEST}"}]
    reference = f"registry.test/box@{DIGEST}"
    assert engine.images.inspect(reference)["RepoDigests"] == [reference]
    assert engine.images.remove(reference)[:2] == [{"Untagged": reference}, {"Deleted": pulled}]


def test_removal_by_digest_takes_the_digest_alone(engine: Engine, pulled: str) -> None:
    assert engine.images.remove(f"box@{DIGEST}") == [{"Untagged": f"box@{DIGEST}"}]
    assert engine.images.resolve("box").id == pulled


def test_an_image_in_use_keeps_its_last_name_unless_forced(engine: Engine, pulled: str) -> None:
    use(engine, pulled)
    with pytest.raises(ConflictError, match="uses image"):
        engine.images.remove("box")
    assert engine.images.remove("box", force=True) == [
        {"Untagged": "box:latest"},
        {"Untagged": f"box@{DIGEST}"},
    ]
    assert images_sql.by_id(engine.state.database, pulled) is not None
    with pytest.raises(ConflictError):
        engine.images.remove(pulled, force=True)
