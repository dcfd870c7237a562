"""Archives of images: every layout and compression, several images and names, and what the store then
says.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest
import zstandard

from pydock_core.commands.context import Context
from pydock_core.commands.dispatch import run_command
from pydock_core.errors import ConflictError, CorruptError, InvalidError, NotFoundError, UnsupportedError
from pydock_core.store.database.containers import ContainerRow, Uses
from pydock_core.store.database.containers import insert as insert_container
from tests.support.commands import Output
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

ONE = build_tar([entry("a", data=b"1")])
TWO = build_tar([entry("b", data=b"22")])
PLAIN = "application/vnd.oci.image.layer.v1.tar"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(tmp_path)
    yield opened
    opened.close()


class Pipe(io.RawIOBase):
    """A stream that cannot seek and gives little at a time."""

    def __init__(self, data: bytes) -> None:
        self._left = data

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = min(len(buffer), 777, len(self._left))
        buffer[:count], self._left = self._left[:count], self._left[count:]
        return count


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstandard.compress,
}


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("order", ["first", "last"])
def test_docker_archives_from_a_pipe(store: Store, packer: str, order: str) -> None:
    archive = PACKERS[packer](build_docker_archive(ONE, TWO, tags=["a:1", "ghcr.io/x/y:z"], order=order))
    assert store.images.load(io.BufferedReader(Pipe(archive))) == ["a:1", "ghcr.io/x/y:z"]
    row = store.images.resolve("a:1")
    assert row == store.images.resolve("ghcr.io/x/y:z")
    assert row.size_bytes == 3
    assert store.images.layers(row.id) == [digest(ONE), digest(TWO)]
    assert store.images.config(row.id)["config"] == {"Cmd": ["sh"]}


@pytest.mark.parametrize("packer", ["gzip", "zstd", "xz", "bzip2"])
def test_docker_archives_with_compressed_layers(store: Store, packer: str) -> None:
    members = {
        "l.tar": PACKERS[packer](ONE),
        "c": build_config(digest(ONE)),
        "manifest.json": json.dumps([{"Config": "c", "RepoTags": ["a:1"], "Layers": ["l.tar"]}]).encode(),
    }
    store.images.load(io.BytesIO(tar_of(members)))
    assert (store.tree(digest(ONE)) / "a").read_bytes() == b"1"


def test_layers_that_are_links_to_others(store: Store) -> None:
    config = build_config(digest(ONE), digest(ONE), digest(ONE))
    manifest = [{"Config": "c", "RepoTags": ["a:1"], "Layers": ["x/layer.tar", "y/layer.tar", "z/layer.tar"]}]
    archive = build_tar(
        [
            entry("x/layer.tar", data=ONE),
            entry("y/layer.tar", "link", linkname="../x/layer.tar"),
            entry("z/layer.tar", "hard", linkname="x/layer.tar"),
            entry("c", data=config),
            entry("manifest.json", data=json.dumps(manifest).encode()),
        ]
    )
    store.images.load(io.BytesIO(archive))
    assert store.images.layers(store.images.resolve("a:1").id) == [digest(ONE)] * 3


@pytest.mark.parametrize("is_file", [True, False])
def test_of_members_of_one_name_the_last_counts(store: Store, tmp_path: Path, is_file: bool) -> None:
    """As tar --append leaves them: a later member takes the place of an earlier one, whatever that was."""
    config = build_config(digest(TWO))
    manifest = json.dumps([{"Config": "c", "RepoTags": ["a:1"], "Layers": ["x/layer.tar"]}]).encode()
    archive = build_tar(
        [
            entry("manifest.json", data=b"[]"),
            entry("manifest.json", data=manifest),
            entry("c", "link", linkname="other"),
            entry("other", data=b"{}"),
            entry("c", data=config),
            entry("real", data=TWO),
            entry("x/layer.tar", data=ONE),
            entry("x/layer.tar", "link", linkname="../real"),
            entry("x/layer.tar", "hard", linkname="x/layer.tar"),
        ]
    )
    (tmp_path / "archive").write_bytes(archive)
    with open(tmp_path / "archive", "rb") if is_file else io.BytesIO(archive) as stream:
        assert store.images.load(stream) == ["a:1"]
    assert store.images.layers(store.images.resolve("a:1").id) == [digest(TWO)]


def test_several_images_share_layers(store: Store) -> None:
    configs = [build_config(digest(ONE)), build_config(digest(ONE), digest(TWO)), build_config()]
    manifest = [
        {"Config": "0", "RepoTags": ["a:1"], "Layers": ["one"]},
        {"Config": "1", "RepoTags": ["a:2", "b"], "Layers": ["one", "two"]},
        {"Config": "2", "RepoTags": None, "Layers": None},
    ]
    members = {
        "one": ONE,
        "two": TWO,
        **{str(number): config for number, config in enumerate(configs)},
        "manifest.json": json.dumps(manifest).encode(),
    }
    loaded = store.images.load(io.BytesIO(tar_of(members)))
    assert loaded == ["a:1", "a:2", "b:latest", digest(configs[2])]
    assert len(store.snapshotter.diff_ids()) == 2
    removed = store.images.remove("a:2"), store.images.remove("b")
    assert removed[0] == [{"Untagged": "a:2"}]
    assert {"Deleted": digest(TWO)} in removed[1]
    assert {"Deleted": digest(ONE)} not in removed[1]
    assert store.snapshotter.diff_ids() == [digest(ONE)]


def test_the_layout_before_docker_1_10(store: Store) -> None:
    members = {
        "aaa/json": json.dumps({"id": "aaa", "container_config": {"Cmd": ["/bin/sh", "-c", "x"]}}).encode(),
        "aaa/layer.tar": ONE,
        "aaa/VERSION": b"1.0",
        "bbb/json": json.dumps(
            {"id": "bbb", "parent": "aaa", "architecture": "amd64", "os": "linux", "config": {"Cmd": ["sh"]}}
        ).encode(),
        "bbb/layer.tar": TWO,
        "repositories": json.dumps({"old": {"1": "bbb", "2": "bbb"}}).encode(),
    }
    assert store.images.load(io.BytesIO(tar_of(members))) == ["old:1", "old:2"]
    config = store.images.config(store.images.resolve("old:1").id)
    assert config["rootfs"]["diff_ids"] == [digest(ONE), digest(TWO)]
    assert config["config"] == {"Cmd": ["sh"]}
    assert config["history"][0]["created_by"] == "/bin/sh -c x"
    members["aaa/json"] = json.dumps({"id": "aaa", "parent": "bbb"}).encode()
    with pytest.raises(CorruptError, match="cycle"):
        store.images.load(io.BytesIO(tar_of(members)))


@pytest.mark.parametrize(
    ("name", "loaded"),
    [("test:oci", "test:oci"), ("docker.io/library/x:1", "x:1"), ("latest", None), ("", None)],
)
def test_oci_archives(store: Store, name: str, loaded: str | None) -> None:
    packed = gzip.compress(ONE)
    members = oci_members([(packed, PLAIN + "+gzip", digest(ONE)), (TWO, PLAIN, digest(TWO))], name)
    (found,) = store.images.load(io.BytesIO(tar_of(members)))
    row = store.images.resolve(found)
    assert found == (loaded or row.id)
    # The manifest is kept as it was: whatever refers to its digest still finds it.
    assert row.manifest_digest == json.loads(members["index.json"])["manifests"][0]["digest"]
    assert store.blobs.has(digest(packed))
    assert not store.blobs.has(digest(ONE))


def test_nested_indexes(store: Store) -> None:
    members = oci_members([(ONE, PLAIN, digest(ONE))])
    described = json.loads(members["index.json"])["manifests"][0]
    entries = [
        {**described, "digest": digest(b"arm"), "platform": {"os": "linux", "architecture": "nonesuch"}},
        {**described, "platform": {"os": "linux", "architecture": "amd64"}},
        {**described, "digest": digest(b"proof"), "platform": {"os": "unknown", "architecture": "unknown"}},
    ]
    inner = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
    members["blobs/sha256/" + digest(inner)[7:]] = inner
    outer = {
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "digest": digest(inner),
        "size": len(inner),
        "annotations": {"io.containerd.image.name": "docker.io/library/multi:1"},
    }
    members["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [outer]}).encode()
    assert store.images.load(io.BytesIO(tar_of(members))) == ["multi:1"]


def test_an_attestation_beside_an_image_is_passed_over(store: Store) -> None:
    members = oci_members([(ONE, PLAIN, digest(ONE))])
    index = json.loads(members["index.json"])
    unknown = {"os": "unknown", "architecture": "unknown"}
    index["manifests"].insert(0, {**index["manifests"][0], "digest": digest(b"proof"), "platform": unknown})
    members["index.json"] = json.dumps(index).encode()
    assert store.images.load(io.BytesIO(tar_of(members))) == ["test:oci"]


def test_an_image_for_other_hosts_only(store: Store) -> None:
    members = oci_members([(ONE, PLAIN, digest(ONE))])
    described = json.loads(members["index.json"])["manifests"][0]
    inner = json.dumps(
        {"schemaVersion": 2, "manifests": [{**described, "platform": {"os": "linux", "architecture": "vax"}}]}
    ).encode()
    members["blobs/sha256/" + digest(inner)[7:]] = inner
    outer = {
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "digest": digest(inner),
        "size": len(inner),
    }
    members["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [outer]}).encode()
    with pytest.raises(UnsupportedError, match="has no image for linux/"):
        store.images.load(io.BytesIO(tar_of(members)))


def test_what_is_no_archive_of_images(store: Store) -> None:
    with pytest.raises(InvalidError, match="is empty"):
        store.images.load(io.BytesIO(b""))
    with pytest.raises(InvalidError, match="contains no images") as raised:
        store.images.load(io.BytesIO(ONE))
    assert "dock import" in raised.value.hint
    with pytest.raises(CorruptError, match="not a valid tar"):
        store.images.load(io.BytesIO(b"#!/bin/sh\n" * 200))


def test_loading_again_changes_nothing(store: Store) -> None:
    store.images.load(io.BytesIO(build_docker_archive(ONE)))
    before = store.contents()
    store.images.load(io.BytesIO(build_docker_archive(ONE)))
    assert store.contents() == before


def test_load_says_whose_name_it_takes_as_docker_does(store: Store) -> None:
    out = Output()
    engine: Any = SimpleNamespace(images=store.images)

    def load(archive: bytes, *words: str, code: int = 0) -> list[str]:
        out.clear()
        context = Context(engine=engine, stdout=out, stderr=Output(), stdin=io.BytesIO(archive))
        assert run_command(("load", *words), context) == code
        return out.text.splitlines()

    first = build_docker_archive(ONE, tags=["a:1", "a:2"])
    second = build_docker_archive(TWO, tags=["a:1", "b:1", "a:2"])
    assert load(first) == load(first) == ["Loaded image: a:1", "Loaded image: a:2"]
    one = store.images.resolve("a:1").id
    renaming = "already exists, renaming the old one with ID"
    assert load(second) == [
        f"The image a:1 {renaming} {one} to empty string",
        "Loaded image: a:1",
        "Loaded image: b:1",
        f"The image a:2 {renaming} {one} to empty string",
        "Loaded image: a:2",
    ]
    two = store.images.resolve("a:1").id
    assert load(first, "-q") == [  # as Docker: it is no progress
        f"The image a:1 {renaming} {two} to empty string",
        "Loaded image: a:1",
        f"The image a:2 {renaming} {two} to empty string",
        "Loaded image: a:2",
    ]
    messages = [json.loads(line) for line in load(second, "--progress", "json")]
    told = [message["stream"] for message in messages if "stream" in message]
    assert told[:2] == [f"The image a:1 {renaming} {one} to empty string\n", "Loaded image: a:1\n"]
    # What the first image of an archive took is told although the second is broken.
    members = {"1.tar": gzip.compress(ONE), "2.tar": gzip.compress(TWO)}
    items = []
    for number, diff_id, tag in ((1, digest(ONE), "a:1"), (2, digest(b"another"), "c:1")):
        members[f"{number}.json"] = build_config(diff_id, Cmd=["sh"])
        items.append({"Config": f"{number}.json", "RepoTags": [tag], "Layers": [f"{number}.tar"]})
    members["manifest.json"] = json.dumps(items).encode()
    assert load(tar_of(members), code=1) == [f"The image a:1 {renaming} {two} to empty string"]


def test_a_name_moves_to_the_new_image(store: Store) -> None:
    store.images.load(io.BytesIO(build_docker_archive(ONE, tags=["a:1"])))
    first = store.images.resolve("a:1")
    store.images.load(io.BytesIO(build_docker_archive(TWO, tags=["a:1"])))
    assert store.images.resolve("a:1") != first
    (untagged,) = store.images.list(filters={"dangling": ["true"]})
    assert untagged["Id"] == first.id
    index = json.loads((store.root.images / "index.json").read_text())
    names = [
        entry.get("annotations", {}).get("org.opencontainers.image.ref.name") for entry in index["manifests"]
    ]
    assert sorted(names, key=str) == [None, "a:1"]


def test_progress(store: Store) -> None:
    large = build_tar([entry("a", data=bytes(20 << 20))])
    events: list[dict[str, Any]] = []
    store.images.load(io.BytesIO(build_docker_archive(large)), events.append)
    assert {event["status"] for event in events} == {"Loading layer", "Extracting"}
    assert all(event["current"] <= event["total"] for event in events)


# -- looking up, listing, removing -----------------------------------------------------------------------


@pytest.fixture
def filled(store: Store) -> Store:
    store.images.load(io.BytesIO(build_docker_archive(ONE, tags=["a:1", "a:2", "b:1"])))
    labelled = build_config(digest(TWO), Labels={"k": "v"})
    store.images.load(io.BytesIO(build_docker_archive(TWO, tags=["c/d:1"], config=labelled)))
    return store


def test_resolving(filled: Store) -> None:
    images = filled.images
    row = images.resolve("a:1")
    for text in (
        row.id,
        row.id[7:],
        row.id[7:19],
        row.id[:20],
        "docker.io/library/a:1",
        f"a@{row.manifest_digest}",
    ):
        assert images.resolve(text) == row
    with pytest.raises(NotFoundError) as caught:
        images.resolve("a:3")
    assert caught.value.hint == "there is a:1, a:2; dock images lists all"
    for text in ("nope", "a", "a:3", "sha256:" + "0" * 64, "0" * 64, f"nope@{row.manifest_digest}"):
        with pytest.raises(NotFoundError, match="no such image") as raised:
            images.resolve(text)
        assert "dock images" in raised.value.hint
    with pytest.raises(InvalidError):
        images.resolve("Not A Name")


def test_a_prefix_that_fits_several(store: Store) -> None:
    found: dict[str, bytes] = {}
    number = 0
    while True:  # two configs whose digests begin alike: some forty tries
        config = build_config(digest(ONE), User=str(number))
        first = digest(config)[7:9]
        if first in found:
            break
        found[first] = config
        number += 1
    for name, each in (("x:1", found[first]), ("x:2", config)):
        store.images.load(io.BytesIO(build_docker_archive(ONE, tags=[name], config=each)))
    with pytest.raises(ConflictError, match=f"prefix {first} matches several"):
        store.images.resolve(first)


def test_listing(filled: Store) -> None:
    def names(**filters: list[str]) -> list[str]:
        return [name for image in filled.images.list(filters=filters) for name in image["RepoTags"]]

    assert sorted(names()) == ["a:1", "a:2", "b:1", "c/d:1"]
    assert names(label=["k"]) == names(label=["k=v"]) == names(reference=["c/*"]) == ["c/d:1"]
    assert names(label=["k=w"]) == names(dangling=["1"]) == []
    assert names(reference=["a"]) == ["a:1", "a:2"]  # of an image, the names that fit
    assert names(reference=["b:1", "x"]) == ["b:1"]
    assert names(reference=["*"]) == ["a:1", "a:2", "b:1"]  # an asterisk is no slash
    assert sorted(names(until=["1h"])) == ["a:1", "a:2", "b:1", "c/d:1"]
    assert names(until=["2020-01-01"]) == []
    assert names(before=["a:1"]) == names(since=["a:1"]) == []
    with pytest.raises(InvalidError, match="--filter colour"):
        names(colour=["red"])
    with pytest.raises(InvalidError, match="dangling=perhaps"):
        names(dangling=["perhaps"])
    with pytest.raises(NotFoundError):
        names(before=["nope"])


def test_the_shapes_are_the_engine_apis(filled: Store) -> None:
    document = json.loads((Path(__file__).parents[1] / "jupyter" / "engine_api_1.51.json").read_text())
    definitions = document.get("definitions", document)

    def check(name: str, value: object) -> None:
        schema = {"$ref": f"#/definitions/{name}", "definitions": definitions}
        jsonschema.Draft4Validator(schema).validate(value)

    for summary in filled.images.list():
        check("ImageSummary", summary)
        assert summary["Created"] == 1714979289
    inspected = filled.images.inspect("a:1")
    check("ImageInspect", inspected)
    assert inspected["RootFS"]["Layers"] == [digest(ONE)]
    assert inspected["Created"] == "2024-05-06T07:08:09.5Z"


def test_tagging(filled: Store) -> None:
    filled.images.tag("a:1", "new")
    assert filled.images.resolve("new:latest") == filled.images.resolve("a:1")
    filled.images.tag("c/d:1", "new")
    assert filled.images.resolve("new") == filled.images.resolve("c/d:1")
    with pytest.raises(NotFoundError):
        filled.images.tag("nope", "x")
    with pytest.raises(InvalidError):
        filled.images.tag("a:1", "UPPER")


def use(store: Store, name: str) -> None:
    """Record a container of an image."""
    insert_container(
        store.database, ContainerRow("c" * 64, "name", store.images.resolve(name).id, 0, "{}"), Uses()
    )


def test_removing_by_name_and_by_id(filled: Store) -> None:
    images = filled.images
    image_id = images.resolve("a:1").id
    with pytest.raises(ConflictError, match="several repositories"):
        images.remove(image_id)
    assert images.remove("a:2") == [{"Untagged": "a:2"}]
    assert images.remove(image_id, force=True) == [
        {"Untagged": "a:1"},
        {"Untagged": "b:1"},
        {"Deleted": image_id},
        {"Deleted": digest(ONE)},
    ]
    assert filled.snapshotter.diff_ids() == [digest(TWO)]
    images.remove("c/d:1")
    assert filled.blobs.digests() == []
    with pytest.raises(NotFoundError):
        images.remove("c/d:1")


def test_an_image_that_a_container_uses_is_kept(filled: Store) -> None:
    images = filled.images
    image_id = images.resolve("c/d:1").id
    use(filled, "c/d:1")
    assert images.list(filters={"label": ["k"]})[0]["Containers"] == 1
    for name in ("c/d:1", image_id, image_id[7:19]):
        with pytest.raises(ConflictError, match="container name uses") as raised:
            images.remove(name)
        assert "dock rm -f name" in raised.value.hint
    assert images.remove("c/d:1", force=True) == [{"Untagged": "c/d:1"}]
    with pytest.raises(ConflictError, match="uses"):
        images.remove(image_id, force=True)
    assert images.layers(image_id) == [digest(TWO)]
    assert filled.snapshotter.has(digest(TWO))


def test_garbage_is_left_while_another_process_adds(filled: Store) -> None:
    with filled.blobs.lock(exclusive=False):
        filled.images.remove("c/d:1")
        assert filled.snapshotter.has(digest(TWO))
    filled.images.remove("a:1")
    for name in ("a:2", "b:1"):
        filled.images.remove(name)
    assert filled.snapshotter.diff_ids() == []


# -- import ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packer", PACKERS)
def test_importing(store: Store, packer: str) -> None:
    image_id = store.images.import_(
        io.BufferedReader(Pipe(PACKERS[packer](ONE))), "root", ['CMD ["/a"]', "ENV A=1 B='2 3'"], "a message"
    )
    config = store.images.config(image_id)
    assert store.images.layers(image_id) == [digest(ONE)]
    assert config["config"] == {"Cmd": ["/a"], "Env": ["A=1", "B=2 3"]}
    assert config["comment"] == "a message"
    assert store.images.resolve("root:latest").id == image_id
    assert (store.tree(digest(ONE)) / "a").read_bytes() == b"1"


@pytest.mark.parametrize(
    ("data", "changes"),
    [
        (b"", ()),
        (ONE[:700], ()),
        (ONE[:1024], ()),
        (b"no tar" * 200, ()),
        (ONE, ["RUN x"]),
        (gzip.compress(ONE, mtime=0)[:60], ()),
    ],
)
def test_an_import_that_fails_leaves_nothing(store: Store, data: bytes, changes: list[str]) -> None:
    before = store.contents()
    with pytest.raises((InvalidError, CorruptError)):
        store.images.import_(io.BytesIO(data), "root", changes)
    assert store.contents() == before
    assert store.images.list() == []
