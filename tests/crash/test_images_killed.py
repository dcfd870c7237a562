"""Killed at every step of a pull, a push, a commit and a prune: the store tells the truth, and the next one goes on."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from pydock_core.engine import Engine
from pydock_core.engine.registries import Registries
from pydock_core.errors import UnavailableError
from pydock_core.images.registry.client import RegistryClient
from pydock_core.store.snapshots.layers import VARIABLE
from tests.integration.conftest import Dock, archive, dock, nothing_is_left
from tests.support.create_request import create_request
from tests.support.fake_registry import FakeRegistry
from tests.support.image_store import NEEDS_ROOT, ROOT, build_docker_archive, build_tar, entry
from tests.support.killed import (
    check_nothing_left,
    check_whole,
    contents,
    dies_at,
    empty_trash,
    opened,
)

__all__ = ["archive", "dock", "nothing_is_left"]  # fixtures

pytestmark = pytest.mark.skipif(not ROOT, reason=NEEDS_ROOT)

NAME = "registry.test/box:1"
FIRST = build_tar([entry("d", "dir"), entry("d/a", data=b"first" * 2000)])
SECOND = build_tar([entry("d/b", data=b"second" * 100), entry("d/.wh.a")])
MANY = 400


@pytest.fixture(params=["", "directory"], ids=["default driver", "directory driver"])
def base(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state root that new layers of one driver are made in."""
    monkeypatch.setenv(VARIABLE, request.param)
    return tmp_path


def registries(engine: Engine, registry: FakeRegistry) -> Registries:
    return Registries(engine.state.image_store, lambda domain: cast(RegistryClient, registry))


class Watched(FakeRegistry):
    """Says from where on each blob was fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.begun: dict[str, int] = {}

    def fetch_blob(self, path: str, descriptor: Any, sink: Any) -> None:
        self.begun[descriptor.digest] = sink.position
        super().fetch_blob(path, descriptor, sink)


def test_a_pull(base: Path) -> None:
    registry = Watched()
    registry.add_image("box", "1", FIRST, SECOND, compression="")
    with opened(base / "reference") as engine:
        registries(engine, registry).pull(NAME)
        expected = contents(engine)
        registry.begun.clear()

    def pull() -> None:
        with opened(base) as engine:
            registries(engine, registry).pull(NAME)

    with opened(base) as engine:
        engine.state.image_store.snapshotter  # noqa: B018  # makes the skeleton, which is no step of a pull
    for step in range(MANY):
        if dies_at(step, pull):
            break
        with opened(base) as engine:
            check_whole(engine)
            there = set(engine.state.image_store.blobs.digests())
            partial = {path.name: path.stat().st_size for path in (engine.root.images / "partial").glob("*")}
            registries(engine, registry).pull(NAME)
            assert not there & set(registry.begun)
            assert all(partial.get(digest[7:], 0) == begun for digest, begun in registry.begun.items())
            registry.begun.clear()
            check_whole(engine)
            empty_trash(engine)
            assert contents(engine) == expected
            assert engine.images.list()[0]["RepoTags"] == [NAME]
            if step % 2:
                engine.usage.prune_images(all=True)
            else:
                engine.images.remove(NAME)
            check_nothing_left(engine)
    assert 10 < step < MANY


def test_a_killed_pull_that_is_not_wanted_any_more(base: Path) -> None:
    registry = FakeRegistry()
    registry.add_image("box", "1", FIRST, SECOND, compression="gzip")

    def pull() -> None:
        with opened(base) as engine:
            registries(engine, registry).pull(NAME)

    with opened(base) as engine:
        engine.state.image_store.snapshotter  # noqa: B018  # makes the skeleton
    for step in range(0, MANY, 2):
        if dies_at(step, pull):
            break
        with opened(base) as engine:
            engine.usage.prune_images(all=True)
            check_nothing_left(engine)
    assert 10 < step < MANY


def test_a_push(base: Path) -> None:
    name = "registry.test/box:1"
    with opened(base) as engine:
        engine.images.load(io.BytesIO(build_docker_archive(FIRST, SECOND, tags=[name])))
        before = contents(engine)
        reference = FakeRegistry()
        registries(engine, reference).push(name)

    def push() -> None:
        with opened(base) as engine:
            registries(engine, FakeRegistry()).push(name)

    for step in range(MANY):
        # What an earlier push has learnt is forgotten.
        with opened(base) as engine, engine.state.database.transaction() as connection:
            for table in ("layer_form", "blob_place", "repository_digest"):
                connection.execute(f"DELETE FROM {table}")
        if dies_at(step, push):
            break
        with opened(base) as engine:
            check_whole(engine)
            again = FakeRegistry()
            (pushed,) = registries(engine, again).push(name)
            assert again.blobs == reference.blobs
            assert pushed.digest in {key for _, key in reference.manifests}
            engine.state.image_store.sweep()
            assert contents(engine) == before
    assert 2 < step < MANY


def test_a_system_prune(base: Path) -> None:
    registry = FakeRegistry()
    registry.add_image("box", "1", FIRST, SECOND, compression="")
    broken = registry.add_image("box", "2", FIRST + bytes(512), compression="")

    def prune() -> None:
        with opened(base) as engine:
            engine.usage.prune_containers()
            engine.usage.prune_images(all=True)

    for step in range(MANY):
        with opened(base) as engine:
            registries(engine, registry).pull(NAME)
            engine.images.load(io.BytesIO(build_docker_archive(SECOND, tags=["other:1"])))
            registry.break_after[broken.layers[0].digest] = 4096
            with pytest.raises(UnavailableError, match="broke"):
                registries(engine, registry).pull("registry.test/box:2")
            engine.containers.create(create_request(NAME, "true"))
        if dies_at(step, prune):
            break
        with opened(base) as engine:
            check_whole(engine)
            for container in engine.containers.list(all=True):
                assert container["State"] == "created"
            engine.usage.prune_containers()
            engine.usage.prune_images(all=True)
            check_nothing_left(engine)
            assert list(engine.root.containers.iterdir()) == []
    assert 5 < step < MANY


@pytest.fixture
def echo(dock: Dock) -> Iterator[subprocess.Popen[bytes]]:
    """A container that says what it hears, and has written something."""
    script = "echo written > /file; mkdir /dir; ln -s file /dir/link; rm /etc/passwd; exec cat"
    with dock.start(
        "run",
        "-i",
        "--rm",
        "--name",
        "echo",
        "busybox",
        "sh",
        "-c",
        script,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as client:
        yield client
        client.stdin.close()
        client.wait(timeout=30)


def is_alive(echo: subprocess.Popen[bytes]) -> bool:
    assert echo.stdin is not None
    assert echo.stdout is not None
    echo.stdin.write(b"still\n")
    echo.stdin.flush()
    return echo.stdout.readline() == b"still\n"


def test_a_commit(dock: Dock, echo: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    assert is_alive(echo)

    def commit() -> None:
        with opened(dock.base) as engine:
            engine.filesystems.commit("echo", "committed:1")

    with opened(dock.base) as engine:
        before = contents(engine)
        expected = engine.filesystems.commit("echo", "committed:1")
        committed = contents(engine)
        engine.images.remove("committed:1")
    for step in range(MANY):
        if dies_at(step, commit):
            break
        assert is_alive(echo)
        with opened(dock.base) as engine:
            check_whole(engine)
            assert engine.filesystems.commit("echo", "committed:1") == expected
            empty_trash(engine)
            assert contents(engine) == committed
            engine.images.remove("committed:1")
            assert contents(engine) == before
    assert 5 < step < MANY
    dock("rmi", "committed:1")
