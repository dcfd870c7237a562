"""What containers have changed, and their file systems as archives, beside what Docker says of the same."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pydock_core.engine import Engine
from pydock_core.engine.mount_points import make_layer
from pydock_core.errors import FailedError, NotFoundError
from pydock_core.paths import StateRoot
from tests.integration.conftest import Dock, wait_until
from tests.support import docker_daemon
from tests.support.create_request import create_request

SCRIPT = """
rm /etc/passwd; rm -r /root; mkdir /root; echo new > /root/file; chmod 700 /tmp; mkdir -p /n/m; echo a > /n/m/f
touch /etc/new; mkdir /etc/dir; cat /etc/group > /g; cp /etc/group /etc/group2; mv /etc/group2 /etc/group
ln -s /n /link; ln /g /hard; mkfifo /fifo; rm -r /sys2 /n/gone 2>/dev/null; mkdir /was; rmdir /was; echo ended > /ended
"""
CHANGES = {
    "/ended": 1,
    "/etc": 0,
    "/etc/dir": 1,
    "/etc/group": 0,
    "/etc/new": 1,
    "/etc/passwd": 2,
    "/fifo": 1,
    "/g": 1,
    "/hard": 1,
    "/link": 1,
    "/n": 1,
    "/n/m": 1,
    "/n/m/f": 1,
    "/root": 0,
    "/root/file": 1,
    "/tmp": 0,
}


@pytest.fixture(params=["running", "stopped"])
def changed(request: pytest.FixtureRequest, engine: Engine) -> Iterator[str]:
    """A container that has changed this and that."""
    forever = "while :; do sleep 1000; done" if request.param == "running" else ""
    definition = create_request(
        "busybox",
        "sh",
        "-c",
        SCRIPT + forever,
        Mounts=[{"Type": "volume", "Source": "kept", "Target": "/volume"}],
        Tmpfs={"/t": ""},
    )
    made, _ = engine.containers.create(definition)
    with engine.containers.start(made) as launch:
        upper = engine.root.container(made).upper
        if forever:
            wait_until(lambda: (upper / "ended").exists(), "the changes are made")
        else:
            launch.wait()
    yield made
    assert engine.containers.is_running(made) == bool(forever)


def test_diff(engine: Engine, changed: str) -> None:
    found = engine.filesystems.diff(changed)
    # What volumes are mounted on is made in the container's own layer, as Docker has it.
    expected = {**CHANGES, "/t": 1, "/volume": 1}
    assert found == [{"Path": path, "Kind": kind} for path, kind in sorted(expected.items())]


@pytest.mark.skipif(bool(docker_daemon.missing()), reason=docker_daemon.missing() or "there")
def test_diff_is_what_docker_says(archive: Path) -> None:
    with docker_daemon.docker_daemon() as docker:
        docker("load", "-i", archive)
        docker("run", "--name", "it", "--network", "none", "busybox", "sh", "-c", SCRIPT)
        lines = [line.split(" ", 1) for line in docker("diff", "it").splitlines()]
    assert {path: "CAD".index(kind) for kind, path in lines} == CHANGES


def test_diff_of_a_container_that_has_never_run(engine: Engine) -> None:
    made, _ = engine.containers.create(create_request("busybox"))
    assert engine.filesystems.diff(made) == []
    with pytest.raises(NotFoundError):
        engine.filesystems.diff("nobody")


def test_a_directory_in_the_place_of_another(engine: Engine) -> None:
    script = "mkdir -p /d/e; rm /bin/vi; mkdir /bin/vi; echo > /bin/vi/x; rm -r /root; echo > /root"
    made, _ = engine.containers.create(create_request("busybox", "sh", "-c", script))
    with engine.containers.start(made) as launch:
        launch.wait()
    assert [(change["Path"], change["Kind"]) for change in engine.filesystems.diff(made)] == [
        ("/bin", 0),
        ("/bin/vi", 0),
        ("/bin/vi/x", 1),
        ("/d", 1),
        ("/d/e", 1),
        ("/root", 0),
    ]


# -- export ------------------------------------------------------------------------------------------------


def members(data: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {member.name: member for member in archive}


def test_export(engine: Engine, changed: str, tmp_path: Path) -> None:
    subprocess.run(["touch", engine.root.volumes / "kept" / "_data" / "inside"], check=True)
    buffer = io.BytesIO()
    engine.filesystems.export(changed, buffer)
    found = members(buffer.getvalue())
    assert {"bin/busybox", "etc/group", "etc/new", "root/file", "n/m/f", "link", "fifo", "g", "hard"} <= set(
        found
    )
    assert not {"etc/passwd", "sys2"} & set(found)
    # What something is mounted on is there, and empty.
    for directory in ("proc", "sys", "dev", "volume", "t"):
        assert found[directory].isdir()
        assert not [name for name in found if name.startswith(f"{directory}/")]
    for file in ("etc/hosts", "etc/hostname", "etc/resolv.conf"):
        assert (found[file].isreg(), found[file].size) == (True, 0)
    assert found["hard"].islnk()
    assert found["hard"].linkname == "g"
    assert (found["bin/sh"].issym(), found["bin/sh"].linkname) == (True, "busybox")
    # A file gets it within the kernel, and gets the same.
    with open(tmp_path / "export.tar", "wb") as stream:
        engine.filesystems.export(changed, stream)
    assert (tmp_path / "export.tar").read_bytes() == buffer.getvalue()
    with open(tmp_path / "appended.tar", "ab") as stream:
        stream.write(b"before")
        engine.filesystems.export(changed, stream)
    assert (tmp_path / "appended.tar").read_bytes() == b"before" + buffer.getvalue()


def test_an_export_becomes_an_image_again(engine: Engine, changed: str, dock: Dock) -> None:
    exported = subprocess.run(
        dock.words("export", changed), env=dock.environment(), capture_output=True, check=True
    ).stdout
    image = engine.images.import_(io.BytesIO(exported), "again:1", changes=['CMD ["cat", "/root/file"]'])
    assert dock.out("run", "--rm", "--network", "none", "again:1") == "new"
    engine.images.remove(image)


def test_modes_are_not_the_affair_of_whose_umask_it_is(engine: Engine, dock: Dock, tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        look = (
            "--rm",
            "--network",
            "none",
            "-v",
            "private:/private",
            "busybox",
            "stat",
            "-c",
            "%a",
            "/private",
        )
        assert dock.out("run", *look) == "755"
        root = StateRoot(tmp_path / "data", tmp_path / "run")
        root.ensure()
        layer = make_layer(root)
    finally:
        os.umask(before)
    modes = {path.relative_to(layer).as_posix(): path.stat().st_mode & 0o777 for path in layer.rglob("*")}
    assert modes["etc"] == 0o755
    assert modes["etc/hosts"] == 0o644
    engine.volumes.prune({"all": ["true"]})


def test_a_reader_that_goes_away(engine: Engine, changed: str) -> None:
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    with open(write_fd, "wb", buffering=0) as stream, pytest.raises(FailedError, match="went away"):
        engine.filesystems.export(changed, stream)


class Refusing(io.RawIOBase):
    """A stream that takes nothing."""

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        raise ValueError("full")


def test_a_stream_that_fails(engine: Engine, changed: str) -> None:
    with pytest.raises(ValueError, match="full"):
        engine.filesystems.export(changed, Refusing())  # type: ignore[arg-type]  # raw, not buffered
    assert os.listdir(engine.root.temporary) == []


def test_links_in_the_container_lead_nowhere(engine: Engine) -> None:
    """A root full of links to the host's files: what is exported and committed is the links."""
    script = "ln -s ../../../../etc/shadow /shadow; ln -s /proc/1/root /proc-link; rm -r /tmp; ln -s / /tmp"
    made, _ = engine.containers.create(create_request("busybox", "sh", "-c", script))
    with engine.containers.start(made) as launch:
        launch.wait()
    buffer = io.BytesIO()
    engine.filesystems.export(made, buffer)
    found = members(buffer.getvalue())
    assert found["shadow"].issym()
    assert found["tmp"].issym()
    assert not [name for name in found if name.startswith(("tmp/", "shadow/"))]
    assert {"/shadow", "/tmp"} <= {change["Path"] for change in engine.filesystems.diff(made)}
