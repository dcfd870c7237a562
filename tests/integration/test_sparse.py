"""Files with holes in a container, larger than the disk; and what a client that is killed leaves of an archive."""

from __future__ import annotations

import io
import os
import select
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pydock_core.commands.archive_file import replaced_file
from pydock_core.engine import Engine
from tests.integration.conftest import Dock
from tests.support import docker_daemon
from tests.support.create_request import create_request
from tests.support.image_store import open_store

TERABYTE = 1 << 40
SMALL = 96 << 20
SCRIPT = f"""
mkdir /d
echo begin > /d/big; echo middle | dd of=/d/big bs=4096 seek={TERABYTE // 8192} conv=notrunc
truncate -s {TERABYTE} /d/big
truncate -s {TERABYTE} /empty
"""
SMALL_SCRIPT = f"echo begin > /small; truncate -s {SMALL - 4} /small; echo end >> /small"


@pytest.fixture(scope="module")
def large(dock: Dock) -> str:
    """A stopped container with files of 1 TB each, all but a few bytes of them holes."""
    return dock.out("run", "-d", "--network", "none", "busybox", "sh", "-ec", SCRIPT)


def check(path: Path) -> None:
    with path.open("rb") as file:
        for offset, expected in (
            (0, b"begin\n\0"),
            (TERABYTE // 2 - 1, b"\0middle\n\0"),
            (TERABYTE - 1, b"\0"),
        ):
            assert os.pread(file.fileno(), len(expected), offset) == expected
    status = path.stat()
    assert status.st_size == TERABYTE
    assert status.st_blocks * 512 < 64 << 20  # an index of EROFS describes chunks of 16 MiB


def test_a_terabyte_of_holes_is_exported_and_committed(
    engine: Engine, dock: Dock, large: str, tmp_path: Path
) -> None:
    dock.out("wait", large)
    target = tmp_path / "export.tar"
    dock("export", "-o", target, large)
    assert target.stat().st_size < 64 << 20
    with tarfile.open(target) as archive:
        assert {archive.getmember(name).size for name in ("d/big", "empty")} == {TERABYTE}
    subprocess.run(["tar", "-C", tmp_path, "-xf", target, "d/big"], check=True)
    check(tmp_path / "d/big")
    # As a layer: committed, run, put into a volume, saved, and loaded by the other driver.
    image = engine.filesystems.commit(large, "large:1")
    try:
        words = (
            "--rm",
            "--network",
            "none",
            "-v",
            "sparse:/d",
            "large:1",
            "stat",
            "-c",
            "%s",
            "/d/big",
            "/empty",
        )
        assert dock.out("run", *words).split() == [str(TERABYTE)] * 2
        check(engine.root.volumes / "sparse" / "_data" / "big")
        archive_bytes = io.BytesIO()
        engine.images.save(["large:1"], archive_bytes)
        other = open_store(tmp_path / "other", "directory")
        other.images.load(io.BytesIO(archive_bytes.getvalue()))
        layer = other.images.layers(other.images.resolve("large:1").id)[-1]
        check(other.tree(layer) / "d/big")
        other.close()
    finally:
        engine.images.remove(image, force=True)
        dock("volume", "rm", "sparse", code=None)


@pytest.fixture(scope="module")
def saved(dock: Dock, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The archive of an image whose last layer has a sparse file of a size that others can write out."""
    dock("run", "--name", "small", "--network", "none", "busybox", "sh", "-ec", SMALL_SCRIPT)
    dock("commit", "small", "sparse:1")
    target = tmp_path_factory.mktemp("saved") / "sparse.tar"
    dock("save", "-o", target, "sparse:1")
    dock("rm", "small")
    dock("rmi", "sparse:1")
    yield target
    target.unlink()


LOOK = ("sh", "-c", "stat -c %s /small; head -c 6 /small; tail -c 4 /small")
SEEN = [str(SMALL), "begin", "end"]


@pytest.mark.skipif(bool(docker_daemon.missing()), reason=docker_daemon.missing() or "there")
def test_docker_reads_a_sparse_layer(saved: Path) -> None:
    assert saved.stat().st_size < SMALL // 4
    with docker_daemon.docker_daemon() as docker:
        docker("load", "-i", saved)
        assert docker("run", "--rm", "--network", "none", "sparse:1", *LOOK).split() == SEEN


@pytest.mark.skipif(shutil.which("podman") is None, reason="needs podman (Debian: podman)")
def test_podman_reads_a_sparse_layer(saved: Path, tmp_path: Path) -> None:
    run_root = tempfile.mkdtemp(dir="/tmp")  # podman wants a short one
    options = ("--root", tmp_path / "root", "--runroot", run_root, "--storage-driver", "vfs")
    try:
        subprocess.run(
            ["podman", *map(str, options), "load", "-q", "-i", saved], check=True, capture_output=True
        )
        (small,) = (path for path in (tmp_path / "root").rglob("small") if path.stat().st_size == SMALL)
        with small.open("rb") as file:
            assert (os.pread(file.fileno(), 6, 0), os.pread(file.fileno(), 4, SMALL - 4)) == (
                b"begin\n",
                b"end\n",
            )
    finally:
        shutil.rmtree(run_root, ignore_errors=True)


# -- a client that is killed ---------------------------------------------------------------------------------


def test_the_worker_of_a_killed_export_ends(engine: Engine, dock: Dock) -> None:
    """Its reader waits: the worker is in the middle of a write, which nobody will end."""
    made, _ = engine.containers.create(create_request("busybox"))
    client = dock.start("export", made, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert client.stdout is not None
    with client.stdout as stream:
        select.select([stream], [], [])
        client.kill()
        client.wait()
        hangup = select.poll()
        hangup.register(stream, 0)  # POLLHUP: nobody can write any more
        assert hangup.poll(10_000), "the worker goes on"
    engine.state.image_store.sweep()


KILLED = """
import os, signal, sys
from pathlib import Path
from pydock_core.commands import archive_file
if sys.argv[2] == "named":
    archive_file._NO_UNNAMED_FILES = (0,)
    opened = os.open
    def without(path, flags, *words, **more):
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(0, "no unnamed files")
        return opened(path, flags, *words, **more)
    os.open = without
with archive_file.replaced_file(Path(sys.argv[1])) as stream:
    stream.write(b"half")
    stream.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("kind", ["unnamed", "named"])
def test_a_killed_writer_of_an_archive_leaves_no_file(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "a.tar"
    target.write_bytes(b"before")
    for _ in range(2):
        killed = subprocess.run([sys.executable, "-c", KILLED, target, kind], check=False)
        assert killed.returncode == -signal.SIGKILL
    assert target.read_bytes() == b"before"
    # Of a file system without unnamed files: one, which the next writer removes.
    assert len(os.listdir(tmp_path)) == (1 if kind == "unnamed" else 2)
    with replaced_file(target) as stream:
        stream.write(b"after")
        assert os.listdir(tmp_path) == ["a.tar"]
    assert target.read_bytes() == b"after"
    assert os.listdir(tmp_path) == ["a.tar"]
