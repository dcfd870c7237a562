"""Volumes: the commands, every way to mount one, and what an empty one gets from the image."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pydock_core.engine import Engine
from pydock_core.errors import ConflictError, InvalidError, UnsupportedError
from pydock_core.store.database import events
from tests.bench.samples import busybox_tree, docker_archive, tar_of
from tests.integration.conftest import Dock
from tests.support.create_request import create_request


@pytest.fixture(autouse=True)
def no_volume_is_left(dock: Dock) -> Iterator[None]:
    """Remove the test's volumes, after its containers."""
    yield
    names = dock.out("ps", "-aq").split()
    if names:
        dock("rm", "-f", *names)
    dock("volume", "prune", "-af")


@pytest.fixture(scope="module")
def filled(dock: Dock, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An image with a volume whose directory has files of several owners, links and attributes."""
    base = tmp_path_factory.mktemp("filled")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, kind, owner, mode, link in (
            ("data", tarfile.DIRTYPE, (7, 8), 0o2751, ""),
            ("data/file", tarfile.REGTYPE, (1000, 1001), 0o4750, ""),
            ("data/hard", tarfile.LNKTYPE, (1000, 1001), 0o4750, "data/file"),
            ("data/soft", tarfile.SYMTYPE, (5, 6), 0o777, "/etc/passwd"),
            ("data/sub", tarfile.DIRTYPE, (9, 9), 0o700, ""),
            ("data/sub/inside", tarfile.REGTYPE, (9, 9), 0o600, ""),
            ("data/pipe", tarfile.FIFOTYPE, (0, 0), 0o600, ""),
        ):
            info = tarfile.TarInfo(name)
            info.type, (info.uid, info.gid), info.mode, info.linkname = kind, owner, mode, link
            info.mtime = 1_600_000_000
            body = b"content" if kind == tarfile.REGTYPE else b""
            info.size = len(body)
            if name == "data/file":
                info.pax_headers = {"SCHILY.xattr.user.colour": "red"}
            archive.addfile(info, io.BytesIO(body))
    layers = [tar_of(busybox_tree(base / "tree")), buffer.getvalue()]
    path = docker_archive(base / "filled.tar", layers, "filled:latest", ["sh"])
    dock("load", "-q", "-i", path)
    yield "filled"
    dock("rmi", "-f", "filled")


# -- mounts ----------------------------------------------------------------------------------------------


def test_rm_v_takes_only_what_the_container_did_not_name(dock: Dock) -> None:
    dock("volume", "create", "named")
    unnamed = dock.out("volume", "create")
    dock("create", "--name", "one", "-v", "named:/a", "-v", f"{unnamed}:/b", "-v", "/c", "busybox", "true")
    assert len(dock.out("volume", "ls", "-q").split()) == 3
    dock("rm", "-v", "one")
    assert set(dock.out("volume", "ls", "-q").split()) == {"named", unnamed}


def test_volumes_from(dock: Dock) -> None:
    dock(
        "run",
        "--name",
        "giver",
        "-v",
        "named:/a",
        "-v",
        "/b",
        "-v",
        "/tmp:/t",
        "busybox",
        "touch",
        "/a/1",
        "/b/2",
    )
    seen = ("sh", "-c", "ls /a /b; grep -c ' /t ' /proc/mounts; touch /a/x && echo written")
    assert dock.out("run", "--rm", "--volumes-from", "giver", "busybox", *seen).split() == (
        "/a: 1 /b: 2 1 written".split()
    )
    read_only = dock("run", "--rm", "--volumes-from", "giver:ro", "busybox", *seen, code=1)
    assert "Read-only file system" in read_only.stderr
    dock("create", "--name", "heir", "--volumes-from", "giver", "busybox", "true")
    (document,) = json.loads(dock.out("inspect", "heir"))
    assert {mount["Destination"] for mount in document["Mounts"]} == {"/a", "/b", "/t"}
    assert document["HostConfig"]["VolumesFrom"] == ["giver"]
    dock("rm", "-v", "giver")  # the heir has the unnamed one too
    assert dock.out("start", "-a", "heir") == ""
    assert len(dock.out("volume", "ls", "-q").split()) == 2
    dock("rm", "-v", "heir")
    assert dock.out("volume", "ls", "-q") == "named"
    assert "no such container: nobody" in dock("run", "--volumes-from", "nobody", "busybox", code=125).stderr


def test_a_container_mounts_over_what_it_inherits(dock: Dock) -> None:
    dock("run", "--name", "giver", "-v", "first:/a", "busybox", "touch", "/a/first")
    words = ("--volumes-from", "giver", "-v", "second:/a", "busybox", "ls", "/a")
    assert dock.out("run", "--rm", *words) == ""


def test_subpaths_stay_in_the_volume(dock: Dock) -> None:
    dock(
        "run",
        "--rm",
        "-v",
        "vol:/v",
        "busybox",
        "sh",
        "-c",
        "mkdir -p /v/a/b; echo deep > /v/a/b/f; ln -s /a/b /v/link; ln -s ../../../../etc /v/out",
    )

    def mount(subpath: str) -> tuple[str, ...]:
        return ("run", "--rm", "--mount", f"type=volume,src=vol,dst=/x,volume-subpath={subpath}", "busybox")

    assert dock.out(*mount("a/b"), "cat", "/x/f") == "deep"
    assert dock.out(*mount("a/b/f"), "cat", "/x") == "deep"
    assert dock.out(*mount("link"), "ls", "/x") == "f"
    for name in ("out", "nope"):
        refused = dock(*mount(name), "ls", "/x", code=125)
        assert f"volume vol: {name} does not exist in it" in refused.stderr
    assert "subpath" in dock(*mount("../x"), "ls", "/x", code=125).stderr


def test_image_mounts(dock: Dock, filled: str) -> None:
    mount = ("--mount", "type=image,src=filled,dst=/x")
    assert "sub" in dock.out("run", "--rm", *mount, "busybox", "ls", "/x/data").split()
    assert "Read-only" in dock("run", "--rm", *mount, "busybox", "touch", "/x/new", code=1).stderr
    part = ("--mount", "type=image,src=filled,dst=/x,image-subpath=data/file")
    assert dock.out("run", "--rm", *part, "busybox", "cat", "/x") == "content"
    dock("create", "--name", "holder", *mount, "busybox", "true")
    assert "container" in dock("rmi", "filled", code=1).stderr
    dock("rm", "holder")
    assert "no such image" in dock("run", "--mount", "type=image,src=nope,dst=/x", "busybox", code=125).stderr


def test_read_only_binds_reach_below(dock: Dock) -> None:
    """What is mounted below the source of a read-only bind is read-only too, unless it is asked for otherwise."""
    script = "touch /h/dev/shm/pydock-$1 && echo written; rm -f /h/dev/shm/pydock-$1"

    def written(mount: str, name: str) -> bool:
        words = (
            "run",
            "--rm",
            "--mount",
            f"type=bind,src=/,dst=/h,{mount}",
            "busybox",
            "sh",
            "-c",
            script,
            "sh",
        )
        return "written" in dock.out(*words, name)

    assert written("readonly=false", "a")
    assert not written("readonly", "b")
    assert written("readonly,bind-recursive=writable", "c")
    assert not written("readonly,bind-recursive=readonly,bind-propagation=rprivate", "d")
    if os.geteuid():  # the kernel lets nobody look below a mount of the host's
        return
    words = (
        "--mount",
        "type=bind,src=/,dst=/h,bind-nonrecursive",
        "busybox",
        "grep",
        "-c",
        " /h/dev/shm ",
        "/proc/mounts",
    )
    assert dock("run", "--rm", *words, code=1).stdout.strip() == "0"


def test_local_driver_options(dock: Dock, tmp_path: Path) -> None:
    (tmp_path / "here").write_text("host\n")
    bind = ("-o", "type=none", "-o", f"device={tmp_path}")
    dock("volume", "create", *bind, "-o", "o=bind", "bound")
    dock("volume", "create", *bind, "-o", "o=bind,ro", "bound-ro")
    dock("volume", "create", "-o", "type=none", "-o", "o=bind", "-o", f"device={tmp_path}/nope", "gone")
    assert dock.out("run", "--rm", "-v", "bound:/x", "busybox", "cat", "/x/here") == "host"
    assert "Read-only" in dock("run", "--rm", "-v", "bound-ro:/x", "busybox", "touch", "/x/y", code=1).stderr
    refused = dock("run", "--rm", "-v", "gone:/x", "busybox", "true", code=125)
    assert f"volume gone cannot be mounted: {tmp_path}/nope does not exist" in refused.stderr
    words = "type=volume,dst=/x,volume-opt=type=tmpfs,volume-opt=device=tmpfs,volume-opt=o=size=1m,src=made,volume-label=a=b"
    assert "size=1024k" in dock.out(
        "run", "--rm", "--mount", words, "busybox", "grep", " /x ", "/proc/mounts"
    )
    (document,) = json.loads(dock.out("volume", "inspect", "made"))
    assert document["Options"] == {"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}
    assert document["Labels"] == {"a": "b"}


def test_containers_share_a_file_system_in_memory_while_one_runs(dock: Dock) -> None:
    dock("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "memory")
    dock("run", "-d", "--name", "first", "-v", "memory:/m", "busybox", "sleep", "1000")
    dock("exec", "first", "touch", "/m/from-first")
    dock("run", "-d", "--name", "second", "-v", "memory:/m", "busybox", "sleep", "1000")
    dock("exec", "second", "touch", "/m/from-second")
    assert dock.out("exec", "first", "ls", "/m").split() == ["from-first", "from-second"]
    dock("rm", "-f", "first")
    third = ("run", "--rm", "-v", "memory:/m", "busybox", "ls", "/m")
    assert dock.out(*third).split() == ["from-first", "from-second"]
    dock("rm", "-f", "second")
    assert dock.out(*third) == ""
    dock("volume", "rm", "memory")
    assert not (dock.base / "run" / "v" / "memory").exists()


# -- what an empty volume gets ---------------------------------------------------------------------------


def facts(path: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    for directory, directories, files in os.walk(path):
        for name in (*directories, *files):
            at = Path(directory, name)
            status = at.lstat()
            found[str(at.relative_to(path))] = (
                oct(status.st_mode),
                status.st_uid,
                status.st_gid,
                int(status.st_mtime),
                status.st_nlink if not at.is_dir() else 0,
                at.readlink() if at.is_symlink() else "",
            )
    return found


EXPECTED = {
    "file": ("0o104750", 1000, 1001, 1_600_000_000, 2, ""),
    "hard": ("0o104750", 1000, 1001, 1_600_000_000, 2, ""),
    "soft": ("0o120777", 5, 6, 1_600_000_000, 1, Path("/etc/passwd")),
    "sub": ("0o40700", 9, 9, 1_600_000_000, 0, ""),
    "sub/inside": ("0o100600", 9, 9, 1_600_000_000, 1, ""),
    "pipe": ("0o10600", 0, 0, 1_600_000_000, 1, ""),
}


def seen(engine: Engine, volume: str) -> dict[str, tarfile.TarInfo]:
    """The entries of a volume with the owners that a container sees."""
    name, _ = engine.containers.create(
        create_request("busybox", Mounts=[{"Type": "volume", "Source": volume, "Target": "/x"}])
    )
    buffer = io.BytesIO()
    engine.copies.read_archive(name, "/x/.", buffer)
    engine.containers.remove(name)
    buffer.seek(0)
    with tarfile.open(fileobj=buffer) as archive:
        return {member.name: member for member in archive}


@pytest.mark.parametrize("is_made_before", [False, True])
def test_an_empty_volume_gets_the_images_files(
    dock: Dock, engine: Engine, filled: str, is_made_before: bool
) -> None:
    if is_made_before:
        dock("volume", "create", "copied")
    dock("run", "--rm", "-v", "copied:/data", filled, "true")
    found = seen(engine, "copied")
    assert {name: (oct(entry.mode & 0o7777), entry.uid, entry.gid) for name, entry in found.items()} == {
        ".": ("0o2751", 7, 8),
        "./file": ("0o4750", 1000, 1001),
        "./hard": ("0o4750", 1000, 1001),
        "./soft": ("0o777", 5, 6),
        "./sub": ("0o700", 9, 9),
        "./sub/inside": ("0o600", 9, 9),
        "./pipe": ("0o600", 0, 0),
    }
    links = {found["./file"].linkname, found["./hard"].linkname}
    assert links in ({"", "./file"}, {"", "./hard"})
    assert found["./soft"].linkname == "/etc/passwd"
    assert {int(entry.mtime) for name, entry in found.items() if name != "."} == {1_600_000_000}
    assert found["./file"].pax_headers["SCHILY.xattr.user.colour"] == "red"
    assert os.listdir(dock.base / "data" / "volumes" / "copied") == ["_data"]


def test_a_volume_with_files_stays_as_it_is(dock: Dock, filled: str) -> None:
    dock("run", "--rm", "-v", "own:/x", "busybox", "touch", "/x/mine")
    dock("run", "--rm", "-v", "own:/data", filled, "true")
    assert os.listdir(dock.base / "data" / "volumes" / "own" / "_data") == ["mine"]


def test_nocopy_and_the_second_start(dock: Dock, engine: Engine, filled: str) -> None:
    dock("run", "--name", "twice", "-v", "bare:/data:nocopy", filled, "true")
    assert set(seen(engine, "bare")) == {"."}
    dock("rm", "twice")
    dock("run", "--name", "twice", "-v", "bare:/data", filled, "sh", "-c", "rm -fr /data/*")
    dock("start", "-a", "twice")  # Docker fills a volume for a new container only
    assert set(seen(engine, "bare")) == {"."}


def test_a_running_container_sees_what_an_empty_volume_gets(dock: Dock, filled: str) -> None:
    dock("run", "-d", "--name", "waits", "-v", "both:/x", "busybox", "sleep", "1000")
    dock("run", "--rm", "-v", "both:/data", filled, "true")
    assert "file" in dock.out("exec", "waits", "ls", "/x").split()


@pytest.mark.skipif(os.geteuid() != 0, reason="the files are a subordinate id's, which only root can move")
def test_an_unfinished_move_is_finished_by_the_next_start(dock: Dock, filled: str) -> None:
    """A start that was killed while it moved the files leaves some of them beside the volume."""
    dock("run", "--rm", "-v", "half:/data", filled, "true")
    volume = dock.base / "data" / "volumes" / "half"
    (volume / "fill" / "_data").mkdir(parents=True)
    os.rename(volume / "_data" / "sub", volume / "fill" / "_data" / "sub")
    dock("run", "--rm", "-v", "half:/x", "busybox", "true")
    assert set(os.listdir(volume / "_data")) == {"file", "hard", "soft", "sub", "pipe"}
    assert os.listdir(volume) == ["_data"]


# -- the engine ------------------------------------------------------------------------------------------


def test_the_engine_refuses_with_errors_of_its_own(engine: Engine) -> None:
    engine.volumes.create("mine")
    assert engine.volumes.exists("mine")
    engine.containers.create(
        create_request("busybox", Mounts=[{"Type": "volume", "Source": "mine", "Target": "/x"}])
    )
    with pytest.raises(ConflictError):
        engine.volumes.remove("mine")
    with pytest.raises(InvalidError):
        engine.volumes.create("/x")
    with pytest.raises(UnsupportedError):
        engine.volumes.create("x1", driver="convoy")
    assert [volume["UsageData"] for volume in engine.usage.df()["Volumes"]] == [{"Size": 0, "RefCount": 1}]


def test_what_happens_to_a_volume_is_recorded(dock: Dock, engine: Engine) -> None:
    first = events.last_id(engine.state.database)
    container = dock.out("run", "-d", "-v", "told:/a:ro", "busybox", "true")
    dock("wait", container)
    dock("rm", container)
    dock("volume", "rm", "told")
    found = [
        event for event in events.select_after(engine.state.database, first)[0] if event.type == "volume"
    ]
    assert sorted(event.action for event in found) == ["create", "destroy", "mount", "unmount"]
    assert {event.actor for event in found} == {"told"}
    (mounted,) = [event.attributes for event in found if event.action == "mount"]
    assert mounted == {
        "container": container,
        "destination": "/a",
        "driver": "local",
        "propagation": "",
        "read/write": "false",
    }
