"""What goes wrong is one clear line and a hint, with the documented exit code, and the store as it was."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import socket
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.bench.samples import busybox_tree, docker_archive, tar_of
from tests.integration.conftest import Dock, wait_until


def store_of(dock: Dock) -> dict[str, object]:
    """The store's files, and what is listed."""
    data = dock.base / "data"
    files = sorted(
        str(path.relative_to(data))
        for path in data.rglob("*")
        if not path.name.startswith(("pydock.db", "index.json"))
    )
    return {"files": files, "images": dock.out("images", "-a", "--no-trunc"), "ps": dock.out("ps", "-aq")}


@contextmanager
def unchanged(dock: Dock) -> Iterator[None]:
    before = store_of(dock)
    yield
    assert store_of(dock) == before


def refused(dock: Dock, *words: object, code: int, names: str, stdin: bytes | None = None) -> str:
    """Run what must be refused: one line that names the subject, a hint, nothing more."""
    result = dock(*words, code=code, stdin=stdin)
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 2, result.stderr
    assert lines[0].startswith("error: ")
    assert names in lines[0]
    assert lines[1].startswith("hint: ")
    return lines[0]


def hostile(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    """A layer with one entry, preceded by a link out of the root where a link is what attacks."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.type = kind
        info.linkname = link
        info.size = 4 if kind == tarfile.REGTYPE else 0
        archive.addfile(info, io.BytesIO(b"evil") if kind == tarfile.REGTYPE else None)
    return buffer.getvalue()


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.98])
def test_a_truncated_archive(dock: Dock, archive: Path, tmp_path: Path, part: float) -> None:
    data = archive.read_bytes()
    cut = tmp_path / "cut.tar"
    cut.write_bytes(data[: int(len(data) * part)])
    with unchanged(dock):
        refused(dock, "load", "-i", cut, code=1, names="")
        refused(dock, "load", code=1, names="", stdin=gzip.compress(data)[: int(len(data) * part / 20)])


@pytest.mark.parametrize(
    "data", [b"", b"not a tar", b"\0" * 20480, os.urandom(5000)], ids=["empty", "text", "zeros", "random"]
)
def test_what_is_no_archive(dock: Dock, data: bytes) -> None:
    with unchanged(dock):
        refused(dock, "load", code=1, names="", stdin=data)


def test_a_tampered_archive(dock: Dock, archive: Path, tmp_path: Path) -> None:
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 1  # inside the layer
    bad = tmp_path / "bad.tar"
    bad.write_bytes(data)
    with unchanged(dock):
        assert "digest" in refused(dock, "load", "-i", bad, code=1, names="")


@pytest.mark.parametrize(
    "layer",
    [
        hostile("../../../../tmp/pydock-evil"),
        hostile("a", tarfile.LNKTYPE, "../../../../etc/passwd"),
        hostile("a", tarfile.LNKTYPE, "/etc/passwd-not-in-the-layer"),
    ],
    ids=["dotdot", "hard link out", "hard link to nothing"],
)
def test_a_malicious_archive(dock: Dock, tmp_path: Path, layer: bytes) -> None:
    path = docker_archive(tmp_path / "evil.tar", [layer], "evil:latest", ["sh"])
    with unchanged(dock):
        refused(dock, "load", "-i", path, code=1, names="")
    assert not Path("/tmp/pydock-evil").exists()


def image_with(path: Path, layer: bytes, config: dict[str, object]) -> Path:
    """A docker-archive "odd:latest" whose configuration says what it is told."""
    whole = docker_archive(path, [layer], "odd:latest", ["sh"])
    with tarfile.open(whole) as archive:
        members = [(member, archive.extractfile(member).read()) for member in archive]  # type: ignore[union-attr]  # all are files
    manifest = json.loads({member.name: data for member, data in members}["manifest.json"])
    name = manifest[0]["Config"]
    document = next(json.loads(data) for member, data in members if member.name == name)
    document["config"] |= config
    body = json.dumps(document).encode()
    manifest[0]["Config"] = f"{hashlib.sha256(body).hexdigest()}.json"
    with tarfile.open(path, "w") as archive:
        for member, data in members:
            new_name = {name: manifest[0]["Config"]}.get(member.name, member.name)
            new_data = {name: body, "manifest.json": json.dumps(manifest).encode()}.get(member.name, data)
            info = tarfile.TarInfo(new_name)
            info.size = len(new_data)
            archive.addfile(info, io.BytesIO(new_data))
    return path


@pytest.mark.parametrize(
    "config",
    [
        {"Labels": ["x"]},
        {"Labels": {"x": 1}},
        {"Env": [1]},
        {"Env": "x"},
        {"User": 5},
        {"WorkingDir": 7},
        {"Cmd": "sh"},
        {"Volumes": ["/a"]},
        {"Volumes": {"a": {}}},
        {"ExposedPorts": {"abc": {}}},
        {"StopSignal": 9},
    ],
    ids=str,
)
def test_a_malformed_configuration(dock: Dock, tmp_path: Path, config: dict[str, object]) -> None:
    dock(
        "load", "-q", "-i", image_with(tmp_path / "odd.tar", tar_of(busybox_tree(tmp_path / "tree")), config)
    )
    with unchanged(dock):
        refused(dock, "run", "--rm", "odd", "true", code=125, names=next(iter(config)))
    dock("rmi", "odd")


@pytest.mark.parametrize("null", ["link", "file", "missing"])
def test_an_images_own_dev_does_not_open_the_host(dock: Dock, tmp_path: Path, null: str) -> None:
    """CVE-2025-31133: masked paths are bound from /dev/null, which a volume on /dev lets the image choose."""
    tree = busybox_tree(tmp_path / "tree")
    if null == "link":
        (tree / "dev" / "null").symlink_to("/proc/sys/kernel/core_pattern")
    elif null == "file":
        (tree / "dev" / "null").write_text("of the image\n")
    dock("load", "-q", "-i", image_with(tmp_path / "odd.tar", tar_of(tree), {"Volumes": {"/dev": {}}}))
    before = Path("/proc/sys/kernel/core_pattern").read_text()
    result = dock(
        "run",
        "--rm",
        "--network",
        "none",
        "odd",
        "sh",
        "-c",
        "cat /proc/keys; echo '|x' > /proc/keys",
        code=125,
    )
    assert result.stderr.startswith("error: ")
    assert result.stdout == ""
    assert Path("/proc/sys/kernel/core_pattern").read_text() == before
    dock("rmi", "odd")


def test_names_that_are_not_there(dock: Dock) -> None:
    with unchanged(dock):
        refused(dock, "run", "nonesuch", "true", code=125, names="nonesuch")
        refused(dock, "run", "Bad/Name", "true", code=125, names="Bad/Name")
        refused(dock, "load", "-i", "/nonesuch.tar", code=1, names="/nonesuch.tar")
        refused(dock, "rmi", "nonesuch", code=1, names="nonesuch")
        refused(dock, "tag", "nonesuch", "x", code=1, names="nonesuch")
        refused(dock, "tag", "busybox", "Bad:Name:", code=1, names="Bad")
        refused(dock, "start", "nonesuch", code=1, names="nonesuch")
        refused(dock, "logs", "nonesuch", code=1, names="nonesuch")
        refused(dock, "build", ".", code=125, names="build")
        refused(dock, "run", "--restart", "often", "busybox", code=125, names="--restart")
        refused(dock, "run", "--cidfile", "/nonesuch/id", "busybox", code=125, names="/nonesuch/id")
        refused(dock, "rm", "-f", "nonesuch", code=0, names="nonesuch")


def test_the_file_of_an_id_stays_with_its_container_only(dock: Dock, tmp_path: Path) -> None:
    path = tmp_path / "id"
    dock("create", "--cidfile", path, "--pull", "never", "nonesuch", code=125)
    assert not path.exists()
    assert dock.out("create", "--cidfile", path, "busybox") == path.read_text()
    refused(dock, "create", "--cidfile", path, "busybox", code=125, names=str(path))
    dock("rm", path.read_text())


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("kernel.panic=1", "sysctl kernel.panic is not one of a namespace"),
        ("net.nonesuch=1", "sysctl net.nonesuch=1 is refused: No such file"),
    ],
)
def test_an_error_of_any_step_of_a_start_is_told(dock: Dock, setting: str, message: str) -> None:
    """The first is found before the container's file systems are mounted, the second after."""
    words = ("run", "--rm", "--network", "none", "--sysctl", setting, "busybox", "true")
    refused(dock, *words, code=125, names=message)
    assert dock.out("ps", "-aq") == ""


def test_an_option_that_the_file_system_lacks(dock: Dock) -> None:
    words = ("run", "--rm", "--network", "none", "--tmpfs", "/x:foo", "busybox", "true")
    refused(dock, *words, code=125, names="cannot mount tmpfs on /x: Invalid argument (foo)")


def test_a_port_that_is_taken(dock: Dock) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with unchanged(dock):
            refused(dock, "run", "--rm", "-p", f"{port}:80", "busybox", "true", code=125, names=str(port))


def test_a_name_that_is_taken_by_a_running_container(dock: Dock) -> None:
    dock("run", "-d", "--name", "taken", "busybox", "sleep", "1000")
    with unchanged(dock):
        result = dock("run", "-d", "--name", "taken", "busybox", "true", code=125)
    hint = result.stderr.splitlines()[-1]
    command = hint[hint.index("dock rm") :].split()
    dock(*command[1:])  # what the hint says works
    assert dock.out("run", "--rm", "--name", "taken", "busybox", "echo", "free") == "free"


def test_an_unknown_snapshot_driver_is_told_once(dock: Dock, archive: Path) -> None:
    words = dock.words("load", "-i", archive)
    environment = {**dock.environment(), "PYDOCK_SNAPSHOTTER": "foo"}
    result = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert (
        result.stderr == "error: PYDOCK_SNAPSHOTTER: unknown driver 'foo'\nhint: it is directory or erofs\n"
    )


def test_an_image_in_use(dock: Dock) -> None:
    dock("run", "-d", "--name", "user", "busybox", "sleep", "1000")
    with unchanged(dock):
        refused(dock, "rmi", "busybox", code=1, names="busybox")
    assert dock.out("exec", "user", "echo", "alive") == "alive"


def test_a_command_that_cannot_run_leaves_a_created_container(dock: Dock) -> None:
    refused(dock, "run", "--name", "failed", "busybox", "nonesuch", code=127, names="nonesuch")
    state = json.loads(dock.out("inspect", "failed"))[0]["State"]
    assert (state["Status"], state["ExitCode"]) == ("created", 127)
    assert "nonesuch" in state["Error"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a small disk")
def test_a_full_disk(dock: Dock, archive: Path, tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "small", tmp_path], check=True)
    try:
        small = Dock(tmp_path / "state")
        before = small.out("images", "-a")
        refused(small, "load", "-i", archive, code=1, names="space")
        assert small.out("images", "-a") == before
        assert not list((tmp_path / "state" / "data" / "tmp").iterdir())
        assert not [
            path for path in (tmp_path / "state" / "data" / "images" / "blobs").rglob("*") if path.is_file()
        ]
    finally:
        wait_until(
            lambda: subprocess.run(["umount", tmp_path], check=False).returncode == 0, "the disk is unmounted"
        )


def test_a_state_directory_that_cannot_be(dock: Dock) -> None:
    other = Dock(Path("/proc/nonesuch"))
    result = other("ps", code=1)
    assert result.stderr.startswith("error: state directory")
    assert "PYDOCK_ROOT" in result.stderr


def test_a_database_that_is_none(tmp_path: Path) -> None:
    other = Dock(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "pydock.db").write_bytes(b"not a database" * 1000)
    refused(other, "ps", code=1, names="pydock.db")
