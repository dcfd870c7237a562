"""A disk that fills at every stage of a pull, a load, an import, a commit and a save: one clear error, nothing left."""

from __future__ import annotations

import gzip
import io
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from pydock_core import syscalls
from pydock_core.engine import Engine
from pydock_core.engine.registries import Registries
from pydock_core.errors import NoSpaceError
from pydock_core.images.registry.client import RegistryClient
from pydock_core.oci.documents import layer_media_type
from pydock_core.store.container_removal import remove_container
from pydock_core.store.database import containers, distribution
from pydock_core.store.database.connection import Database
from pydock_core.store.reserve import RESERVE_BYTES, RESERVE_FILES, Reserve
from pydock_core.store.snapshots.layers import VARIABLE
from tests.support.create_request import create_request
from tests.support.fake_registry import FakeRegistry
from tests.support.image_store import (
    NEEDS_ROOT,
    ROOT,
    build_docker_archive,
    build_tar,
    digest,
    entry,
    oci_members,
    tar_of,
)
from tests.support.killed import check_whole, contents, empty_trash, in_child, opened

pytestmark = pytest.mark.skipif(not ROOT, reason=f"{NEEDS_ROOT}; and to mount a small disk")

KIB = 1024
DISK_BYTES = 24 << 20
NAME = "registry.test/box:1"
NOISE = random.Random(1).randbytes(3 << 19)
LAYERS = [
    build_tar([entry("a", data=NOISE), entry("d", "dir")]),
    build_tar([entry("d/b", data=NOISE[::-1]), *(entry(f"d/{n}", data=b"x") for n in range(40))]),
]
FREE = (0, 4, 12, 28, 60, 124, 252, 600, 1200, 1700, 2400, 3300, 4200, 5200, 6500, 8000, 10000, 14000)
"""What is left of the disk, in KiB."""


def _pull(compression: str) -> Callable[[Engine], object]:
    registry = FakeRegistry()
    registry.add_image("box", "1", *LAYERS, compression=compression)

    def pull(engine: Engine) -> object:
        return Registries(engine.state.image_store, lambda domain: cast(RegistryClient, registry)).pull(NAME)

    return pull


def _load(archive: bytes) -> Callable[[Engine], object]:
    return lambda engine: engine.images.load(io.BytesIO(archive))


def _oci_archive() -> bytes:
    packed = [(gzip.compress(layer), layer_media_type("gzip"), digest(layer)) for layer in LAYERS]
    return gzip.compress(tar_of(oci_members(packed)))


def _commit(engine: Engine) -> object:
    return engine.filesystems.commit("changed", "committed:1")


def _prepare_commit(engine: Engine) -> None:
    """A container that has written something, without having run."""
    container_id, _ = engine.containers.create(create_request("small:1", "true"), "changed")
    upper = engine.root.container(container_id).upper
    upper.mkdir(parents=True, exist_ok=True)
    (upper / "large").write_bytes(NOISE)


OPERATIONS = {
    "pull": lambda: _pull("gzip"),
    "pull of plain layers": lambda: _pull(""),
    "load": lambda: _load(build_docker_archive(*LAYERS)),
    "load of compressed layers": lambda: _load(_oci_archive()),
    "import": lambda: (
        lambda engine: engine.images.import_(io.BytesIO(gzip.compress(LAYERS[0])), "imported:1")
    ),
    "commit": lambda: _commit,
}


@pytest.fixture(params=["", "directory"], ids=["default driver", "directory driver"])
def disk(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a small disk is mounted by :func:`mount_disk`."""
    monkeypatch.setenv(VARIABLE, request.param)
    return tmp_path


def mount_disk(place: Path, options: str = "") -> None:
    """Mount a small disk, for this process only, which is a test's child: it is gone with it."""
    syscalls.unshare(os.CLONE_NEWNS if hasattr(os, "CLONE_NEWNS") else 0x00020000)
    syscalls.mount("none", "/", "", 0x4000 | 0x40000)  # MS_REC | MS_PRIVATE
    syscalls.mount("disk", str(place), "tmpfs", 0, f"size={DISK_BYTES}{options}")


def leave_free(place: Path, free_bytes: int) -> None:
    """Fill the disk up to so many bytes."""
    ballast = place / "ballast"
    ballast.unlink(missing_ok=True)
    status = os.statvfs(place)
    with open(ballast, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(status.f_bavail * status.f_frsize - free_bytes, 1))


def leave_no_file(place: Path) -> None:
    """Fill the disk with empty files."""
    for number in range(os.statvfs(place).f_favail):
        (place / f"ballast{number}").touch()
    assert os.statvfs(place).f_favail == 0


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_full_disk_while_images_are_added(disk: Path, name: str) -> None:
    operation = OPERATIONS[name]()

    def attempt() -> None:
        mount_disk(disk)
        with opened(disk / "state") as engine:
            engine.images.load(io.BytesIO(build_docker_archive(build_tar([entry("x")]), tags=["small:1"])))
            if name == "commit":
                _prepare_commit(engine)
            listed, before = engine.images.list(), contents(engine)
            refused = 0
            for free in FREE:
                leave_free(disk, free * KIB)
                try:
                    operation(engine)
                except NoSpaceError as error:
                    refused += 1
                    assert "no space left" in error.message, error.message
                    assert "\n" not in error.message
                    assert not getattr(error, "__notes__", []), error.__notes__
                    assert "free some space" in error.hint
                else:
                    break
                (disk / "ballast").unlink()
                check_whole(engine)
                assert engine.images.list() == listed
                assert distribution.leased(engine.state.database, 0) == set(), free
                empty_trash(engine)
                assert contents(engine) == before, free
            else:
                pytest.fail("it was never done")
            assert refused > 4
            check_whole(engine)
            assert len(engine.images.list()) == len(listed) + 1

    in_child(attempt)


def test_a_full_disk_that_an_archive_is_saved_to(disk: Path) -> None:
    def attempt() -> None:
        (disk / "small").mkdir()
        with opened(disk / "state") as engine:
            engine.images.load(io.BytesIO(build_docker_archive(*LAYERS, tags=["saved:1"])))
            before = contents(engine)
            mount_disk(disk / "small")
            for free in (0, 64, 1000, 2500):
                (disk / "small" / "archive").unlink(missing_ok=True)
                leave_free(disk / "small", free * KIB)
                with open(disk / "small" / "archive", "wb") as file, pytest.raises(NoSpaceError) as raised:
                    engine.images.save(["saved:1"], file)
                assert "archive" in raised.value.message
                assert contents(engine) == before
                check_whole(engine)

    in_child(attempt)


def test_a_full_disk_can_be_freed(disk: Path) -> None:
    def attempt() -> None:
        mount_disk(disk)
        with opened(disk / "state") as engine:
            engine.images.load(io.BytesIO(build_docker_archive(*LAYERS, tags=["large:1"])))
            engine.images.load(io.BytesIO(build_docker_archive(build_tar([entry("x")]), tags=["small:1"])))
        leave_free(disk, 0)
        with opened(disk / "state") as engine:  # without the files that a database in use has beside it
            assert len(engine.images.list()) == 2
            assert engine.usage.df()["LayersSize"] > 0
        with opened(disk / "state") as engine:
            used = os.statvfs(disk).f_bfree
            engine.images.remove("large:1")
            assert (os.statvfs(disk).f_bfree - used) * os.statvfs(disk).f_frsize > len(NOISE)
            check_whole(engine)
        with opened(disk / "state") as engine:  # there is room for the reserve again
            assert engine.images.list()[0]["RepoTags"] == ["small:1"]
            held = [path.stat().st_blocks * 512 for path in engine.root.reserve.iterdir()]
            assert len(held) == RESERVE_FILES
            assert sum(held) >= RESERVE_BYTES

    in_child(attempt)


@pytest.mark.parametrize("is_new", [True, False], ids=["new program", "running program"])
def test_a_disk_with_all_the_files_that_it_can_have_can_be_freed(disk: Path, is_new: bool) -> None:
    def free(engine: Engine) -> None:
        assert [image["RepoTags"] for image in engine.images.list()] == [["small:1"]]
        engine.images.remove("small:1")
        assert os.statvfs(disk).f_favail > 10
        check_whole(engine)

    def attempt() -> None:
        mount_disk(disk, ",nr_inodes=600")
        small = build_tar([entry(f"d/{number}", data=b"x") for number in range(20)])
        with opened(disk / "state") as engine:
            engine.images.load(io.BytesIO(build_docker_archive(small, tags=["small:1"])))
            if not is_new:
                leave_no_file(disk)
                free(engine)
                return
        leave_no_file(disk)
        with opened(disk / "state") as engine:
            free(engine)
        with opened(disk / "state") as engine:
            assert engine.images.list() == []

    in_child(attempt)


def test_a_program_that_runs_can_free_a_full_disk(disk: Path) -> None:
    def attempt() -> None:
        mount_disk(disk)
        with opened(disk / "state") as engine:
            engine.images.load(io.BytesIO(build_docker_archive(*LAYERS, tags=["large:1"])))
            leave_free(disk, 0)
            engine.usage.prune_images(all=True)
            assert engine.images.list() == []
            check_whole(engine)

    in_child(attempt)


@pytest.mark.parametrize("is_used_up", [False, True], ids=["with the reserve", "without the reserve"])
def test_a_container_is_found_and_removed_on_a_full_disk(disk: Path, is_used_up: bool) -> None:
    """A container that still writes uses up all that is given up before it is stopped: no read gives up the reserve."""

    def attempt() -> None:
        mount_disk(disk)
        with opened(disk / "state") as engine:
            engine.images.load(io.BytesIO(build_docker_archive(build_tar([entry("x")]), tags=["small:1"])))
            _prepare_commit(engine)
            if is_used_up:
                Reserve(engine.root.reserve).release()
        leave_free(disk, 0)
        for _ in range(2):
            with opened(disk / "state") as engine:
                assert [row["Names"] for row in engine.containers.list(all=True)] == [["/changed"]]
                assert engine.containers.resolve("changed")
                assert not engine.containers.is_running("changed")
                assert len(engine.images.list()) == 1
                assert engine.root.reserve.exists() is not is_used_up
        with opened(disk / "state") as engine:
            if is_used_up:
                with pytest.raises(NoSpaceError) as raised:
                    engine.containers.rename("changed", "renamed")
                assert "dock rm" in raised.value.hint
            engine.containers.remove("changed", force=True)
            # More than the reserve; the files beside the database take some.
            assert os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize > len(NOISE) * 3 // 4
        with opened(disk / "state") as engine:
            assert engine.containers.list(all=True) == []
            check_whole(engine)

    in_child(attempt)


def test_a_container_that_was_to_go_goes_from_a_full_disk(tmp_path: Path) -> None:
    def attempt() -> None:
        mount_disk(tmp_path)
        with opened(tmp_path / "state") as engine:
            engine.images.load(io.BytesIO(build_docker_archive(build_tar([entry("x")]), tags=["small:1"])))
            _prepare_commit(engine)
            row = containers.find(engine.state.database, "changed")
            root = engine.root
        leave_free(tmp_path, 0)
        remove_container(data=str(root.data), run=str(root.run), container_id=row.id)
        assert not root.container(row.id).data.exists()
        assert not list(root.trash.iterdir())

    in_child(attempt)


@pytest.mark.parametrize("pieces", [1, 100], ids=["at the end", "in the middle"])
def test_a_transaction_on_a_full_disk_is_undone(tmp_path: Path, pieces: int) -> None:
    """In the middle, where it is larger than the database's cache, SQLite undoes it by itself."""

    def attempt() -> None:
        mount_disk(tmp_path)
        database = Database(tmp_path / "some.db")
        with database.transaction() as connection:
            connection.execute("CREATE TABLE piece (data)")
        leave_free(tmp_path, 0)
        large = [(NOISE[:100_000],)] * pieces
        for _ in range(2):
            with pytest.raises(NoSpaceError), database.transaction() as connection:
                connection.executemany("INSERT INTO piece VALUES (?)", large)
            assert not database.connection.in_transaction
        (tmp_path / "ballast").unlink()
        with database.transaction() as connection:
            connection.execute("INSERT INTO piece VALUES ('small')")
        assert database.query("SELECT data FROM piece") == [("small",)]

    in_child(attempt)
