"""Pull and push above the client: what is asked of a registry, what goes on after a failure, what is shared."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import signal
import socket
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from pydock_core.commands.progress_board import Board
from pydock_core.engine.registries import Registries
from pydock_core.errors import (
    ConflictError,
    CorruptError,
    InvalidError,
    NotFoundError,
    PyDockError,
    UnavailableError,
    UnsupportedError,
)
from pydock_core.images.compressed_layer import CompressedLayer
from pydock_core.images.registry.client import BlobSink, RegistryClient
from pydock_core.images.registry.transport import Transport
from pydock_core.oci.documents import (
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    encode,
    layer_media_type,
)
from pydock_core.oci.platform import host_architecture
from pydock_core.store.database import distribution
from pydock_core.store.database import images as sql
from pydock_core.store.growing_file import Arrival
from pydock_core.store.layer_blob import LayerBlob
from tests.support.fake_registry import FakeRegistry
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

NAME = "registry.test/box"
FIRST = build_tar([entry("a", data=b"first" * 5000), entry("d", "dir")])
SECOND = build_tar([entry("d/b", data=b"second" * 5000), entry(".wh.a")])


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = open_store(tmp_path)
    yield store
    store.close()


@pytest.fixture
def registry() -> FakeRegistry:
    return FakeRegistry()


def connect(store: Store, registry: FakeRegistry) -> Registries:
    return Registries(store.image_store, lambda domain: cast(RegistryClient, registry))


# -- pull ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", ["gzip", ""])
def test_a_pulled_image_is_whole_and_known_by_its_digest(
    store: Store, registry: FakeRegistry, compression: str
) -> None:
    manifest = registry.add_image("box", "1", FIRST, SECOND, compression=compression)
    events: list[dict[str, Any]] = []
    (pulled,) = connect(store, registry).pull(f"{NAME}:1", progress=events.append)
    assert pulled.is_new
    assert pulled.image_id == manifest.config.digest
    row = store.images.resolve(f"{NAME}:1")
    assert store.images.layers(row.id) == [digest(FIRST), digest(SECOND)]
    assert (store.tree(digest(FIRST)) / "a").read_bytes() == b"first" * 5000
    assert store.images.inspect(row.id)["RepoDigests"] == [f"{NAME}@{pulled.digest}"]
    statuses = [event["status"] for event in events]
    # The first word of each layer says how much is to come: all together is true before the last has begun.
    told = [event.get("total") for event in events if event["status"] == "Pulling fs layer"]
    assert told == [layer.size_bytes for layer in manifest.layers]
    assert statuses[0] == "Pulling from box"
    assert statuses.count("Pull complete") == 2
    assert statuses[-2:] == [f"Digest: {pulled.digest}", f"Status: Downloaded newer image for {NAME}:1"]
    assert not distribution.leased(store.database, 0)


def test_a_second_pull_fetches_nothing(store: Store, registry: FakeRegistry) -> None:
    registry.add_image("box", "1", FIRST, SECOND)
    registries = connect(store, registry)
    registries.pull(f"{NAME}:1")
    fetched = len(registry.asked("fetch"))
    events: list[dict[str, Any]] = []
    (pulled,) = registries.pull(f"{NAME}:1", progress=events.append)
    assert not pulled.is_new
    assert len(registry.asked("fetch")) == fetched
    assert [event["status"] for event in events].count("Already exists") == 2
    assert events[-1]["status"] == f"Status: Image is up to date for {NAME}:1"


def test_by_digest_an_image_has_no_tag(store: Store, registry: FakeRegistry) -> None:
    registry.add_image("box", "1", FIRST)
    wanted = digest(registry.manifests["box", "1"][1])
    (pulled,) = connect(store, registry).pull(f"{NAME}@{wanted}")
    assert pulled.reference == f"{NAME}@{wanted}"
    (summary,) = store.images.list()
    assert (summary["RepoTags"], summary["RepoDigests"]) == ([], [f"{NAME}@{wanted}"])
    assert store.images.resolve(f"{NAME}@{wanted}").id == pulled.image_id


def test_of_a_tag_and_a_digest_the_digest_counts_and_the_tag_stays_whose_it_is(
    store: Store, registry: FakeRegistry
) -> None:
    """As Docker has it: what the tag named when somebody wrote the digest down need not be what it names now."""
    registry.add_image("box", "1", SECOND)
    old = digest(registry.manifests["box", "1"][1])
    registry.add_image("box", "1", FIRST)
    registries = connect(store, registry)
    (new,) = registries.pull(f"{NAME}:1")
    (pulled,) = registries.pull(f"{NAME}:1@{old}")
    assert pulled.is_new
    assert pulled.reference == f"{NAME}:1@{old}"
    assert store.images.resolve(f"{NAME}:1@{old}").id == pulled.image_id != new.image_id
    assert store.images.resolve(f"{NAME}:1").id == new.image_id
    assert store.images.inspect(pulled.image_id)["RepoTags"] == []
    assert not registries.pull(f"{NAME}:1@{old}")[0].is_new


def test_an_image_that_is_removed_while_it_is_pulled_by_digest(
    store: Store, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pull does not say that an image is here that another process has pruned before it had its digest."""
    registry.add_image("box", "1", FIRST)
    reference = f"{NAME}@{digest(registry.manifests['box', '1'][1])}"
    record = store.image_store.record

    def record_and_lose(*words: Any, **keywords: Any) -> int:
        size = record(*words, **keywords)
        (row,) = sql.all_images(store.database)
        assert sql.delete_unused(store.database, row.id, ())
        return size

    monkeypatch.setattr(store.image_store, "record", record_and_lose)
    with pytest.raises(ConflictError, match="was removed just now"):
        connect(store, registry).pull(reference)


def test_nothing_of_a_hostile_layer_is_kept(store: Store, registry: FakeRegistry) -> None:
    registry.add_image("box", "1", build_tar([entry("owned", uid=(1 << 32) - 1)]))
    with pytest.raises(InvalidError, match="has owner"):
        connect(store, registry).pull(f"{NAME}:1")
    assert list((store.root.images / "partial").iterdir()) == []


def test_the_platform_chooses_of_an_index(store: Store, registry: FakeRegistry) -> None:
    index = registry.add_index("box", "1", amd64=FIRST, arm64=SECOND, s390x=FIRST)
    other = "arm64" if host_architecture()[0] != "arm64" else "amd64"
    (pulled,) = connect(store, registry).pull(f"{NAME}:1", platform=f"linux/{other}")
    assert pulled.digest == index
    assert store.images.inspect(pulled.image_id)["Architecture"] == other
    with pytest.raises(UnsupportedError, match="no image for linux/riscv64") as caught:
        connect(store, registry).pull(f"{NAME}:1", platform="linux/riscv64")
    assert "linux/s390x" in caught.value.hint


def test_an_index_of_no_images(store: Store, registry: FakeRegistry) -> None:
    described = Descriptor(
        "application/vnd.example", digest(FIRST), 5, platform={"os": "linux", "architecture": "x"}
    )
    registry.add_manifest("box", "1", OCI_INDEX, encode(Index((described,)).to_json()))
    with pytest.raises(UnsupportedError, match="no image for linux/") as caught:
        connect(store, registry).pull(f"{NAME}:1")
    assert "names no image at all" in caught.value.hint


def test_all_tags(store: Store, registry: FakeRegistry) -> None:
    registry.add_image("box", "1", FIRST)
    registry.add_image("box", "2", SECOND)
    assert [one.reference for one in connect(store, registry).pull(NAME, all_tags=True)] == [
        f"{NAME}:1",
        f"{NAME}:2",
    ]
    with pytest.raises(InvalidError):
        connect(store, registry).pull(f"{NAME}:1", all_tags=True)


def test_a_broken_pull_goes_on_where_it_stopped(store: Store, registry: FakeRegistry) -> None:
    manifest = registry.add_image("box", "1", FIRST, SECOND, compression="")
    broken = manifest.layers[1].digest
    registry.break_after[broken] = 8192
    registries = connect(store, registry)
    with pytest.raises(UnavailableError, match="the connection broke"):
        registries.pull(f"{NAME}:1")
    assert store.images.list() == []
    assert list(store.root.temporary.iterdir()) == []
    partial = store.root.images / "partial" / broken[7:]
    assert partial.stat().st_size == 8192
    # Another image that is added meanwhile, and its collector, leave all of that alone.
    store.images.load(io.BytesIO(build_docker_archive(build_tar([entry("x")]))))
    assert partial.exists()
    begun: list[int] = []
    fetch = registry.fetch_blob

    def watching(path: str, descriptor: Any, sink: Any) -> None:
        if descriptor.digest == broken:
            begun.append(sink.position)
        fetch(path, descriptor, sink)

    registry.fetch_blob = watching  # type: ignore[method-assign]  # a spy on one instance
    registries.pull(f"{NAME}:1")
    assert begun == [8192]
    assert not partial.exists()


def test_an_interrupted_pull_ends_at_once_and_keeps_what_came(store: Store, tmp_path: Path) -> None:
    """Ctrl-C, or the kernel's stop button: the main thread waits, and others are in the middle of a layer."""

    class Interrupting(FakeRegistry):
        def fetch_blob(self, path: str, descriptor: Descriptor, sink: BlobSink) -> None:
            if descriptor.digest in self.hold:
                sink.write(self.blobs[descriptor.digest][:4096])
                os.kill(os.getpid(), signal.SIGINT)  # the main thread gets it
                self.hold[descriptor.digest].wait(30)
            super().fetch_blob(path, descriptor, sink)

    registry = Interrupting()
    manifest = registry.add_image("box", "1", FIRST, SECOND, compression="")
    blob = manifest.layers[1].digest
    registry.hold[blob] = threading.Event()
    threads = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        connect(store, registry).pull(f"{NAME}:1")
    assert threading.active_count() == threads
    assert list(store.root.temporary.iterdir()) == []
    assert (store.root.images / "partial" / blob[7:]).stat().st_size == 4096
    assert store.images.list() == []
    del registry.hold[blob]
    positions = []

    def fetch(path: str, descriptor: Descriptor, sink: BlobSink) -> None:
        positions.append((descriptor.digest, sink.position))
        FakeRegistry.fetch_blob(registry, path, descriptor, sink)

    registry.fetch_blob = fetch  # type: ignore[method-assign]  # looks on
    connect(store, registry).pull(f"{NAME}:1")
    assert (blob, 4096) in positions


def test_a_blob_is_fetched_whole_though_its_layer_is_there(store: Store, registry: FakeRegistry) -> None:
    manifest = registry.add_image("box", "1", FIRST, SECOND)
    store.images.load(io.BytesIO(build_docker_archive(FIRST, SECOND, tags=["other:1"])))
    held = manifest.layers[0].digest
    registry.break_after[held] = 0
    registry.hold[held] = threading.Event()
    applied = threading.Event()

    def watch(event: dict[str, Any]) -> None:
        if event["status"] == "Pull complete" and event.get("id") == manifest.layers[1].digest[7:19]:
            applied.set()

    def release() -> None:
        applied.wait(30)  # the other layer was taken over by then, so this one would have been too
        registry.hold[held].set()

    thread = threading.Thread(target=release)
    thread.start()
    connect(store, registry).pull(f"{NAME}:1", progress=watch)
    thread.join()
    for layer in manifest.layers:
        assert digest(store.blobs.blob_path(layer.digest).read_bytes()) == layer.digest


def test_wrong_content_is_refused_and_nothing_of_it_kept(store: Store, registry: FakeRegistry) -> None:
    manifest = registry.add_image("box", "1", FIRST, SECOND)
    wrong = manifest.layers[1].digest
    registry.damage[wrong] = registry.blobs[wrong][:-1] + b"?"
    registries = connect(store, registry)
    with pytest.raises(CorruptError, match="digest"):
        registries.pull(f"{NAME}:1")
    assert store.images.list() == []
    assert not store.snapshotter.has(digest(SECOND))
    assert not (store.root.images / "partial" / wrong[7:]).exists()
    registry.damage.clear()
    registries.pull(f"{NAME}:1")
    assert store.snapshotter.has(digest(SECOND))


def test_a_wrong_layer_does_not_cost_another_one_what_came_of_it(
    store: Store, registry: FakeRegistry
) -> None:
    manifest = registry.add_image("box", "1", FIRST, SECOND, compression="")
    wrong, other = (layer.digest for layer in manifest.layers)
    registry.damage[wrong] = registry.blobs[wrong][:-1] + b"?"
    registry.break_after[other] = 8192
    registry.hold[other] = threading.Event()  # set when the client is closed, as the wrong one has failed
    fetch = registry.fetch_blob

    def wrong_one_last(path: str, descriptor: Any, sink: Any) -> None:
        while descriptor.digest == wrong and ("fetch", other) not in registry.log:
            threading.Event().wait(0.01)
        partial = store.root.images / "partial" / other[7:]
        while descriptor.digest == wrong and partial.stat().st_size < 8192:
            threading.Event().wait(0.01)
        fetch(path, descriptor, sink)

    registry.fetch_blob = wrong_one_last  # type: ignore[method-assign]  # of one instance
    with pytest.raises(CorruptError, match="digest"):
        connect(store, registry).pull(f"{NAME}:1")
    assert (store.root.images / "partial" / other[7:]).stat().st_size >= 8192
    assert not (store.root.images / "partial" / wrong[7:]).exists()


@pytest.mark.parametrize("change", [b"?", b""], ids=["too long", "too short"])
def test_the_size_is_the_manifests(store: Store, registry: FakeRegistry, change: bytes) -> None:
    manifest = registry.add_image("box", "1", FIRST)
    blob = registry.blobs[manifest.layers[0].digest]
    registry.damage[manifest.layers[0].digest] = blob + change if change else blob[:-1]
    with pytest.raises(CorruptError, match=r"longer than|bytes, not"):
        connect(store, registry).pull(f"{NAME}:1")


def test_a_layer_that_is_another_than_the_config_says(store: Store, registry: FakeRegistry) -> None:
    manifest = registry.add_image("box", "1", FIRST)
    lie = registry.add_blob("box", gzip.compress(SECOND), layer_media_type("gzip"))
    registry.add_manifest("box", "1", OCI_MANIFEST, encode(Manifest(manifest.config, (lie,)).to_json()))
    with pytest.raises(CorruptError, match="digest"):
        connect(store, registry).pull(f"{NAME}:1")
    assert store.images.list() == []
    assert store.snapshotter.diff_ids() == []


def test_a_manifest_whose_layers_do_not_fit_its_config(store: Store, registry: FakeRegistry) -> None:
    manifest = registry.add_image("box", "1", FIRST, SECOND)
    registry.add_manifest(
        "box", "1", OCI_MANIFEST, encode(Manifest(manifest.config, manifest.layers[:1]).to_json())
    )
    with pytest.raises(CorruptError, match="names 1 layers, the image's config 2"):
        connect(store, registry).pull(f"{NAME}:1")


def test_what_is_no_image_is_refused(store: Store, registry: FakeRegistry) -> None:
    config = registry.add_blob("box", b"{}", "application/vnd.example.chart")
    registry.add_manifest("box", "1", OCI_MANIFEST, encode(Manifest(config, ()).to_json()))
    with pytest.raises(UnsupportedError, match="an artifact"):
        connect(store, registry).pull(f"{NAME}:1")
    odd = registry.add_blob("box", b"x", "application/x-odd")
    manifest = registry.add_image("box", "2", FIRST)
    registry.add_manifest("box", "2", OCI_MANIFEST, encode(Manifest(manifest.config, (odd,)).to_json()))
    with pytest.raises(UnsupportedError, match="application/x-odd"):
        connect(store, registry).pull(f"{NAME}:2")


def test_two_that_pull_one_image_share_the_work(store: Store, registry: FakeRegistry, tmp_path: Path) -> None:
    manifest = registry.add_image("box", "1", FIRST, SECOND)
    slow = manifest.layers[0].digest
    registry.break_after[slow] = 0
    registry.hold[slow] = threading.Event()
    waiting = threading.Event()
    failures: list[PyDockError] = []

    def pull(events: Any) -> None:
        other = open_store(tmp_path)
        try:
            connect(other, registry).pull(f"{NAME}:1", progress=events)
        except PyDockError as error:
            failures.append(error)
        finally:
            other.close()

    first = threading.Thread(target=pull, args=(None,))
    first.start()
    while ("fetch", slow) not in registry.log:
        threading.Event().wait(0.01)
    second = threading.Thread(
        target=pull,
        args=(lambda event: waiting.set() if "current" in event and event["status"] == "Waiting" else None,),
    )
    second.start()
    assert waiting.wait(30)  # it has found the first one at work
    registry.hold[slow].set()
    for thread in (first, second):
        thread.join(60)
    assert failures == []
    assert sorted(registry.asked("fetch").count(layer.digest) for layer in manifest.layers) == [1, 1]


def test_two_pulls_of_the_same_layers_in_another_order_both_end(
    registry: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    tars = [build_tar([entry(f"f{number}", data=bytes([number]) * 9000)]) for number in range(4)]
    one = registry.add_image("box", "1", *tars)
    registry.add_image("box", "2", *tars[2:], *tars[:2])
    # Each pull is in the middle of its second layer, and holds its first one, when the other one has got as far.
    both = threading.Barrier(2, timeout=20)
    meeting = {one.layers[1].digest, one.layers[3].digest}
    fetch = registry.fetch_blob

    def meet(path: str, descriptor: Any, sink: Any) -> None:
        if descriptor.digest in meeting:
            both.wait()
        fetch(path, descriptor, sink)

    registry.fetch_blob = meet  # type: ignore[method-assign]  # of one instance
    failures: list[BaseException] = []

    def pull(tag: str) -> None:
        other = open_store(tmp_path)
        try:
            connect(other, registry).pull(f"{NAME}:{tag}")
        except (PyDockError, threading.BrokenBarrierError) as error:
            failures.append(error)
        finally:
            other.close()

    threads = [threading.Thread(target=pull, args=(tag,), daemon=True) for tag in "12"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert failures == []


def test_a_blob_that_is_not_the_layer_it_is_called_is_refused(store: Store, registry: FakeRegistry) -> None:
    manifest = registry.add_image("box", "1", FIRST)
    registries = connect(store, registry)
    registries.pull(f"{NAME}:1")
    lie = registry.add_blob("evil", gzip.compress(SECOND), layer_media_type("gzip"))
    registry.links["evil"].add(manifest.config.digest)
    registry.add_manifest("evil", "1", OCI_MANIFEST, encode(Manifest(manifest.config, (lie,)).to_json()))
    with pytest.raises(CorruptError, match="digest"):
        registries.pull("registry.test/evil:1")
    assert [summary["RepoTags"] for summary in store.images.list()] == [[f"{NAME}:1"]]
    store.image_store.collect()
    assert not store.blobs.has(lie.digest)


def test_an_archive_that_calls_a_layer_another_is_refused(store: Store) -> None:
    store.images.load(io.BytesIO(build_docker_archive(FIRST, tags=["good:1"])))
    blob = gzip.compress(SECOND)
    members = oci_members([(blob, layer_media_type("gzip"), digest(FIRST))], name="evil:1")
    with pytest.raises(CorruptError, match="digest"):
        store.images.load(io.BytesIO(tar_of(members)))
    assert [summary["RepoTags"] for summary in store.images.list()] == [["good:1"]]


def test_a_pull_gives_a_known_image_the_registrys_manifest(store: Store, registry: FakeRegistry) -> None:
    config = build_config(digest(FIRST), Cmd=["true"])
    store.images.load(io.BytesIO(build_docker_archive(FIRST, tags=["loaded:1"], config=config)))
    registry.add_image("box", "1", FIRST)
    registries = connect(store, registry)
    (pulled,) = registries.pull(f"{NAME}:1")
    assert pulled.image_id == store.images.resolve("loaded:1").id
    registry.log.clear()
    registries.pull(f"{NAME}:1")
    assert registry.asked("fetch") == []
    assert registries.push(f"{NAME}:1")[0].digest == pulled.digest


def test_the_platform_that_is_asked_for_is_kept_to(store: Store, registry: FakeRegistry) -> None:
    registry.add_image("box", "1", FIRST)
    with pytest.raises(UnsupportedError, match="is an image for linux/amd64, not for linux/s390x"):
        connect(store, registry).pull(f"{NAME}:1", platform="linux/s390x")
    assert store.images.list() == []
    connect(store, registry).pull(f"{NAME}:1", platform="linux/amd64")


@pytest.mark.parametrize("left", ["of an earlier boot", "too long"])
def test_what_cannot_be_continued_is_fetched_anew_and_not_written_over(
    store: Store, registry: FakeRegistry, left: str
) -> None:
    manifest = registry.add_image("box", "1", FIRST, compression="")
    partial = store.root.images / "partial" / manifest.layers[0].digest[7:]
    partial.parent.mkdir()
    content = b"?" * (100 if left == "of an earlier boot" else len(FIRST) + 1)
    partial.write_bytes(content)
    if left == "of an earlier boot":
        os.utime(partial, (1, 1))
    # A driver may have given the file a name of its own.
    other = store.root.layers / "other"
    other.hardlink_to(partial)
    connect(store, registry).pull(f"{NAME}:1")
    assert other.read_bytes() == content


def test_one_pull_does_not_end_anothers_leases(store: Store, registry: FakeRegistry) -> None:
    shared, broken = (layer.digest for layer in registry.add_image("box", "1", FIRST, SECOND).layers)
    registry.add_image("box", "2", FIRST)
    registry.break_after[broken] = 0
    registries = connect(store, registry)
    with pytest.raises(UnavailableError):
        registries.pull(f"{NAME}:1")
    registries.pull(f"{NAME}:2")
    store.images.remove(f"{NAME}:2")
    assert store.blobs.has(shared)  # leased by the first


def test_other_bytes_after_a_restart_are_refused(store: Store, registry: FakeRegistry) -> None:
    manifest = registry.add_image("box", "1", FIRST, compression="")

    def changing(path: str, descriptor: Any, sink: Any) -> None:
        if descriptor.digest == manifest.layers[0].digest:
            sink.write(b"?" * 5000)
            sink.restart()
        sink.write(registry.blobs[descriptor.digest])

    registry.fetch_blob = changing  # type: ignore[method-assign]  # of one instance
    with pytest.raises(CorruptError, match="differs from its earlier download"):
        connect(store, registry).pull(f"{NAME}:1")
    assert list((store.root.images / "partial").iterdir()) == []


# -- push ------------------------------------------------------------------------------------------------


@pytest.fixture
def loaded(store: Store) -> str:
    store.images.load(io.BytesIO(build_docker_archive(FIRST, SECOND, tags=[f"{NAME}:1"])))
    return store.images.resolve(f"{NAME}:1").id


def test_plain_layers_are_compressed_and_can_be_pulled_again(
    store: Store, registry: FakeRegistry, loaded: str, tmp_path: Path
) -> None:
    (pushed,) = connect(store, registry).push(f"{NAME}:1")
    media_type, data = registry.manifests["box", "1"]
    assert (pushed.digest, pushed.size_bytes) == (digest(data), len(data))
    manifest = Manifest.from_json(json.loads(data))
    assert (media_type, manifest.config.digest) == (OCI_MANIFEST, loaded)
    assert [layer.media_type for layer in manifest.layers] == [layer_media_type("gzip")] * 2
    # One gzip member, as the strictest of readers wants it.
    reader = zlib.decompressobj(31)
    assert reader.decompress(registry.blobs[manifest.layers[0].digest]) == FIRST
    assert reader.eof
    assert reader.unused_data == b""
    assert store.images.inspect(loaded)["RepoDigests"] == [f"{NAME}@{pushed.digest}"]
    other = open_store(tmp_path / "other")
    (pulled,) = connect(other, registry).pull(f"{NAME}:1")
    assert pulled.image_id == loaded
    other.close()


def test_what_is_there_is_not_sent_again(store: Store, registry: FakeRegistry, loaded: str) -> None:
    registries = connect(store, registry)
    registries.push(f"{NAME}:1")
    registry.log.clear()
    events: list[dict[str, Any]] = []
    registries.push(f"{NAME}:1", progress=events.append)
    assert registry.asked("upload") == []
    assert [event.get("total") for event in events[1:3]] == [len(FIRST), len(SECOND)]
    assert [event["status"] for event in events].count("Layer already exists") == 2
    board = Board()
    for event in events:
        board.update(event)
    assert board.overall()[:2] == (0, 0)


def test_what_another_repository_has_is_mounted(store: Store, registry: FakeRegistry, loaded: str) -> None:
    registries = connect(store, registry)
    registries.push(f"{NAME}:1")
    store.images.tag(f"{NAME}:1", "registry.test/else:2")
    registry.log.clear()
    events: list[dict[str, Any]] = []
    registries.push("registry.test/else:2", progress=events.append)
    assert registry.asked("upload") == [loaded]  # the config
    assert [event["status"] for event in events].count("Mounted from box") == 2


def test_a_place_that_lost_a_blob_is_forgotten(store: Store, registry: FakeRegistry, loaded: str) -> None:
    registries = connect(store, registry)
    registries.push(f"{NAME}:1")
    registry.links.clear()
    store.images.tag(f"{NAME}:1", "registry.test/else:2")
    registry.log.clear()
    registries.push("registry.test/else:2")
    assert len(registry.asked("upload")) == 3
    for mounted in registry.asked("mount"):
        assert distribution.blob_places(store.database, mounted, "registry.test") == ["else"]


def test_a_pulled_image_is_pushed_as_it_came(store: Store, registry: FakeRegistry) -> None:
    registry.add_image("box", "1", FIRST, SECOND)
    registries = connect(store, registry)
    (pulled,) = registries.pull(f"{NAME}:1")
    store.images.tag(f"{NAME}:1", "other.test/box:1")
    (pushed,) = registries.push("other.test/box:1")
    assert pushed.digest == pulled.digest


def test_all_tags_of_a_repository_are_pushed(store: Store, registry: FakeRegistry, loaded: str) -> None:
    store.images.tag(loaded, f"{NAME}:2")
    assert [one.reference for one in connect(store, registry).push(NAME, all_tags=True)] == [
        f"{NAME}:1",
        f"{NAME}:2",
    ]


def test_an_image_that_gets_another_manifest_before_it_is_pushed(
    store: Store, registry: FakeRegistry
) -> None:
    config = build_config(digest(FIRST), Cmd=["true"])
    store.images.load(io.BytesIO(build_docker_archive(FIRST, tags=[f"{NAME}:1"], config=config)))
    registry.add_image("box", "1", FIRST)

    def connect_late(domain: str) -> RegistryClient:
        connect(store, registry).pull(f"{NAME}:1")
        return cast(RegistryClient, registry)

    (pushed,) = Registries(store.image_store, connect_late).push(f"{NAME}:1")
    assert pushed.digest == store.images.resolve(f"{NAME}:1").manifest_digest


def test_the_platform_of_a_push_is_the_images_own(store: Store, registry: FakeRegistry) -> None:
    """As of a save; that a 386 runs on an amd64 does not make it one."""
    config = json.loads(build_config(digest(FIRST))) | {"architecture": "386"}
    archive = build_docker_archive(FIRST, tags=[f"{NAME}:1"], config=json.dumps(config).encode())
    store.images.load(io.BytesIO(archive))
    registries = connect(store, registry)
    with pytest.raises(NotFoundError, match=r"is for linux/386, not for linux/amd64"):
        registries.push(f"{NAME}:1", platform="linux/amd64")
    assert registries.push(f"{NAME}:1", platform="linux/386")


def test_only_names_are_pushed(store: Store, registry: FakeRegistry, loaded: str) -> None:
    registries = connect(store, registry)
    with pytest.raises(NotFoundError, match="no image is called"):
        registries.push("registry.test/none:1")
    with pytest.raises(InvalidError):
        registries.push(f"{NAME}@{loaded}")
    with pytest.raises(InvalidError):
        registries.push(f"{NAME}:1", all_tags=True)
    with pytest.raises(NotFoundError, match="not for linux/s390x"):
        registries.push(f"{NAME}:1", platform="linux/s390x")
    assert registry.log == []


def test_a_layer_that_is_damaged_here_is_not_pushed(
    store: Store, registry: FakeRegistry, loaded: str
) -> None:
    path = store.blobs.blob_path(digest(FIRST))
    data = bytearray(path.read_bytes())
    data[700] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    with pytest.raises(CorruptError, match="damaged in the store"):
        connect(store, registry).push(f"{NAME}:1")
    assert ("box", "1") not in registry.manifests


def test_a_failed_upload_is_the_error_and_leaves_nothing(
    store: Store, registry: FakeRegistry, loaded: str
) -> None:
    def refuse(*_: object) -> None:
        raise UnavailableError("the registry is full")

    registry.upload_blob = refuse  # type: ignore[method-assign]  # of one instance
    with pytest.raises(UnavailableError, match="the registry is full"):
        connect(store, registry).push(f"{NAME}:1")
    assert list(store.root.temporary.iterdir()) == []


def test_compression_depends_on_the_content_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "layer"
    source.write_bytes(bytes(range(256)) * 20000)
    wanted = digest(source.read_bytes())
    found = set()
    for cores in (1, 2, 5):
        monkeypatch.setattr("os.cpu_count", lambda cores=cores: cores)
        with CompressedLayer(tmp_path / f"out-{cores}") as compressed:
            compressed.fill(source, wanted, lambda: None)
        found.add((compressed.digest, compressed.size_bytes))
        assert compressed.digest == digest((tmp_path / f"out-{cores}").read_bytes())
    assert len(found) == 1


# -- a blob that arrives ---------------------------------------------------------------------------------


def test_a_reader_follows_a_growing_file(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    path.write_bytes(b"")
    arrival = Arrival()
    data = b"0123456789" * 100_000
    read = hashlib.sha256()

    def follow() -> None:
        with LayerBlob(path, "", arrival=arrival).open() as stream:
            while chunk := stream.read(70_000):
                read.update(chunk)

    reader = threading.Thread(target=follow)
    reader.start()
    with path.open("ab", buffering=0) as file:
        for start in range(0, len(data), 33_333):
            file.write(data[start : start + 33_333])
            arrival.advance(len(data[start : start + 33_333]))
    arrival.finish()
    reader.join(30)
    assert read.hexdigest() == hashlib.sha256(data).hexdigest()


def test_a_reader_gets_the_failure_in_place_of_an_end(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    path.write_bytes(b"part")
    arrival = Arrival(4)
    arrival.fail(UnavailableError("broken"))
    with (
        LayerBlob(path, "", arrival=arrival).open() as stream,
        pytest.raises(UnavailableError, match="broken"),
    ):
        stream.read()


def test_expired_leases_are_garbage(store: Store) -> None:
    with store.image_store.adding("test") as directory:
        kept = store.blobs.put_bytes(b"kept", directory, "blob")
        lost = store.blobs.put_bytes(b"lost", directory, "blob")
        distribution.lease(store.database, "a", [kept], 1 << 62)
        distribution.lease(store.database, "b", [lost], 1)
    assert (store.blobs.has(kept), store.blobs.has(lost)) == (True, False)
    distribution.release_all(store.database)
    assert store.image_store.collect()
    assert not store.blobs.has(kept)
    assert sql.all_images(store.database) == []


def test_a_pull_without_a_network_names_what_needs_none(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    monkeypatch.setattr(Transport, "wait", lambda *_: None)
    with pytest.raises(UnavailableError, match=r"registry\.test: unknown host") as caught:
        Registries(store.image_store).pull("registry.test/box:1")
    assert caught.value.hint == (
        "check the name and the network; without a network: dock load -i FILE, or dock image capture"
    )
