"""Many processes on one store of images: they share the work, wait for nobody for good, and the store stays whole."""

from __future__ import annotations

import contextlib
import io
import os
import random
import select
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from pydock_core.engine import Engine
from pydock_core.engine.registries import Registries
from pydock_core.engine.volume_files import fill_volumes, volume_directory
from pydock_core.errors import ConflictError, NotFoundError
from pydock_core.images.registry.client import RegistryClient
from pydock_core.oci.root_mount import RootMount
from pydock_core.spec.definition import decode
from pydock_core.spec.mount import definition_mounts
from pydock_core.store.database import containers as containers_sql
from pydock_core.store.snapshots.layers import VARIABLE
from tests.integration.conftest import Dock, archive, dock, engine, nothing_is_left
from tests.support.create_request import create_request
from tests.support.fake_registry import FakeRegistry
from tests.support.image_store import (
    NEEDS_ROOT,
    ROOT,
    build_config,
    build_docker_archive,
    build_tar,
    digest,
    entry,
)
from tests.support.killed import check_nothing_left, check_whole, contents, empty_trash, opened

__all__ = ["archive", "dock", "engine", "nothing_is_left"]  # fixtures

pytestmark = pytest.mark.skipif(not ROOT, reason=NEEDS_ROOT)

LAYERS = [build_tar([entry(f"f{number}", data=bytes([number]) * 9000)]) for number in range(4)]
NAME = "registry.test/box:1"
SECONDS = 30


@pytest.fixture(params=["", "directory"], ids=["default driver", "directory driver"])
def base(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state root that new layers of one driver are made in."""
    monkeypatch.setenv(VARIABLE, request.param)
    with opened(tmp_path) as engine:
        engine.state.image_store.snapshotter  # noqa: B018  # makes the skeleton
    return tmp_path


class Flags:
    """Signals between processes: each a byte in a pipe."""

    def __init__(self) -> None:
        self._read_fd, self._write_fd = os.pipe()

    def raise_(self) -> None:
        os.write(self._write_fd, b"x")

    def wait(self) -> None:
        assert select.select([self._read_fd], [], [], SECONDS)[0], "the other process never came so far"
        os.read(self._read_fd, 1)

    def close(self) -> None:
        os.close(self._read_fd)
        os.close(self._write_fd)


@pytest.fixture
def flags() -> Iterator[Callable[[], Flags]]:
    """Makes flags, and closes them."""
    with contextlib.ExitStack() as stack:

        def make() -> Flags:
            made = Flags()
            stack.callback(made.close)
            return made

        yield make


class Slow(FakeRegistry):
    """Stops in the middle of a layer, says so, and goes on when it may."""

    def __init__(self, began: Flags, may_go_on: Flags) -> None:
        super().__init__()
        self.add_image("box", "1", LAYERS[0], LAYERS[1], compression="")
        self._began, self._may_go_on = began, may_go_on
        self._slow = digest(LAYERS[1])

    def fetch_blob(self, path: str, descriptor: Any, sink: Any) -> None:
        write = sink.write
        if descriptor.digest == self._slow:

            class Stopping:
                """The sink, which stops after its first piece."""

                def __init__(self, registry: Slow) -> None:
                    self._registry: Slow | None = registry

                @property
                def position(self) -> int:
                    return int(sink.position)

                def write(self, data: bytes) -> None:
                    write(data)
                    if self._registry is not None:
                        self._registry._began.raise_()
                        self._registry._may_go_on.wait()
                        self._registry = None

                def restart(self) -> None:
                    sink.restart()

            super().fetch_blob(path, descriptor, Stopping(self))
        else:
            super().fetch_blob(path, descriptor, sink)


def registries(engine: Engine, registry: FakeRegistry) -> Registries:
    return Registries(engine.state.image_store, lambda domain: cast(RegistryClient, registry))


@contextlib.contextmanager
def forked(operation: Callable[[], None], code: int = 0) -> Iterator[int]:
    """Run an operation in a process beside this one, which must end with this code after the block."""
    pid = os.fork()
    if pid == 0:
        failed = 1
        try:
            signal.alarm(SECONDS)
            operation()
            failed = 0
        except BaseException:  # noqa: BLE001  # a forked process must not go on into the test runner
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(failed)
    try:
        yield pid
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == code, "see standard error"


def pulling(base: Path, registry: FakeRegistry) -> Callable[[], None]:
    def pull() -> None:
        with opened(base) as engine:
            registries(engine, registry).pull(NAME)

    return pull


def test_two_pulls_share_the_work(base: Path, flags: Callable[[], Flags]) -> None:
    began, may_go_on = flags(), flags()
    registry = FakeRegistry()
    registry.add_image("box", "1", LAYERS[0], LAYERS[1], compression="")
    with forked(pulling(base, Slow(began, may_go_on))):
        began.wait()
        waits = threading.Event()

        def seen(event: dict[str, Any]) -> None:
            if event["status"] == "Waiting" and not waits.is_set():
                waits.set()
                may_go_on.raise_()

        with opened(base) as engine:
            registries(engine, registry).pull(NAME, progress=seen)
            check_whole(engine)
            assert engine.images.list()[0]["RepoTags"] == [NAME]
    assert waits.is_set()
    assert digest(LAYERS[1]) not in registry.asked("fetch")
    with opened(base) as engine:
        check_whole(engine)
        engine.images.remove(NAME)
        check_nothing_left(engine)


def test_a_pull_goes_on_where_a_killed_one_stopped_that_it_waited_for(
    base: Path, flags: Callable[[], Flags]
) -> None:
    began, may_go_on = flags(), flags()
    registry = FakeRegistry()
    registry.add_image("box", "1", LAYERS[0], LAYERS[1], compression="")
    begun: dict[str, int] = {}
    fetch = registry.fetch_blob

    def watching(path: str, descriptor: Any, sink: Any) -> None:
        begun[descriptor.digest] = sink.position
        fetch(path, descriptor, sink)

    registry.fetch_blob = watching  # type: ignore[method-assign]  # a spy on one instance
    with forked(pulling(base, Slow(began, may_go_on)), -signal.SIGKILL) as pid:
        began.wait()

        def seen(event: dict[str, Any]) -> None:
            if event["status"] == "Waiting":
                os.kill(pid, signal.SIGKILL)

        with opened(base) as engine:
            registries(engine, registry).pull(NAME, progress=seen)
            check_whole(engine)
    assert begun[digest(LAYERS[1])] == 4096


@pytest.mark.parametrize("way", ["image prune", "rmi", "load and rmi"])
def test_what_removes_leaves_a_pull_alone(base: Path, flags: Callable[[], Flags], way: str) -> None:
    began, may_go_on = flags(), flags()
    with opened(base) as engine:
        engine.images.load(io.BytesIO(build_docker_archive(LAYERS[0], LAYERS[2], tags=["other:1"])))
    with forked(pulling(base, Slow(began, may_go_on))):
        began.wait()
        with opened(base) as engine:
            if way == "image prune":
                report = engine.usage.prune_images(all=True)
                assert report["Warnings"]
            else:
                if way == "load and rmi":
                    engine.images.load(io.BytesIO(build_docker_archive(LAYERS[3], tags=["third:1"])))
                    engine.images.remove("third:1")
                engine.images.remove("other:1")
        may_go_on.raise_()
    with opened(base) as engine:
        check_whole(engine)
        assert [image["RepoTags"] for image in engine.images.list()] == [[NAME]]
        engine.usage.prune_images(all=True)
        check_nothing_left(engine)


def test_an_image_that_is_removed_while_it_is_pushed(base: Path, flags: Callable[[], Flags]) -> None:
    began, may_go_on = flags(), flags()
    with opened(base) as engine:
        engine.images.load(io.BytesIO(build_docker_archive(LAYERS[0], LAYERS[1], tags=[NAME])))

    class SlowUpload(FakeRegistry):
        def upload_blob(self, path: str, *words: Any) -> None:
            if not self.asked("upload"):
                began.raise_()
                may_go_on.wait()
            super().upload_blob(path, *words)

    def push() -> None:
        registry = SlowUpload()
        with opened(base) as engine:
            registries(engine, registry).push(NAME)
            assert ("box", "1") in registry.manifests
            assert len(registry.blobs) == 3

    with forked(push):
        began.wait()
        with opened(base) as engine:
            engine.images.remove(NAME)
            assert engine.images.list() == []
        for _ in range(2):
            may_go_on.raise_()
    with opened(base) as engine:
        engine.usage.prune_images()
        check_nothing_left(engine)


def test_a_new_volume_is_not_swept_while_it_is_filled(dock: Dock, engine: Engine) -> None:
    """Every command that adds images sweeps what killed ones have left: not what another one is at."""
    container_id = dock.out("create", "-v", "filled:/etc", "busybox", "true")
    diff_ids = engine.images.layers(engine.images.resolve("busybox").id)

    def mounts() -> Sequence[RootMount]:
        engine.state.image_store.sweep()
        return engine.state.snapshotter.mounts(diff_ids, None, None)

    row = containers_sql.find(engine.state.database, container_id)
    definition = decode(row.definition)
    fill_volumes(
        engine.root, engine.state.database, definition_mounts(definition), mounts, is_first_start=True
    )
    assert (volume_directory(engine.root, "filled") / "passwd").is_file()
    dock("rm", container_id)
    assert engine.volumes.prune({"all": ["true"]})["VolumesDeleted"] == ["filled"]


def busy(base: Path, seed: int, registry: FakeRegistry, archives: list[bytes]) -> Callable[[], None]:
    """Forty of all that changes images, at random."""

    def work() -> None:
        choose = random.Random(seed)
        with opened(base) as engine:
            for _ in range(40):
                number = choose.randrange(len(archives))
                pull = f"registry.test/box:{number}"
                actions: list[Callable[[], object]] = [
                    lambda number=number: engine.images.load(io.BytesIO(archives[number])),
                    lambda pull=pull: registries(engine, registry).pull(pull),
                    lambda pull=pull: registries(engine, registry).push(pull),
                    lambda number=number: engine.images.remove(f"image{number}:1", force=True),
                    lambda pull=pull: engine.images.remove(pull, force=True),
                    lambda: engine.usage.prune_images(all=choose.random() < 0.5),
                    lambda number=number: commit(engine, f"image{number}:1", f"committed{seed}:1"),
                    engine.usage.df,
                ]
                with contextlib.suppress(NotFoundError, ConflictError):
                    choose.choice(actions)()

    return work


def commit(engine: Engine, image: str, name: str) -> None:
    """Commit a container that has written something without having run."""
    container_id, _ = engine.containers.create(create_request(image, "true"))
    try:
        upper = engine.root.container(container_id).upper
        upper.mkdir(parents=True, exist_ok=True)
        (upper / name).write_bytes(name.encode() * 100)
        engine.filesystems.commit(container_id, name)
    finally:
        engine.containers.remove(container_id)


def test_all_at_random(base: Path) -> None:
    registry = FakeRegistry()
    archives = []
    choose = random.Random(1)
    for number in range(4):
        layers = choose.sample(LAYERS, 2)
        config = build_config(*(digest(layer) for layer in layers), User=str(number))
        archives.append(build_docker_archive(*layers, tags=[f"image{number}:1"], config=config))
        registry.add_image(
            "box", str(number), *choose.sample(LAYERS, 2), compression=choose.choice(["", "gzip"])
        )
    with contextlib.ExitStack() as stack:
        for seed in range(5):
            stack.enter_context(forked(busy(base, seed, registry, archives)))
    with opened(base) as engine:
        check_whole(engine)
        for image in engine.images.list():
            engine.images.remove(image["Id"], force=True)
        engine.usage.prune_containers()
        engine.usage.prune_images(all=True)
        check_nothing_left(engine)
        engine.images.load(io.BytesIO(archives[0]))
        check_whole(engine)
        empty_trash(engine)
        assert contents(engine)
