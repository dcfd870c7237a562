"""Copies between the host and containers, beside what Docker's own program does with the same words."""

from __future__ import annotations

import io
import os
import re
import socket
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pydock_core.commands.context import Context
from pydock_core.commands.dispatch import run_command
from pydock_core.engine import Engine
from pydock_core.errors import ConflictError, InvalidError, NotFoundError, PyDockError
from pydock_core.store.database import events
from tests.integration.conftest import Dock
from tests.support import docker_daemon
from tests.support.commands import Output
from tests.support.create_request import create_request

SCRIPT = """
mkdir -p /w/sub; echo file > /w/file; ln -s file /w/link; ln -s sub /w/lsub; ln -s /made /w/dang; chown 1000:1000 /w/file
ln /w/file /w/sub/hard; chmod 4750 /w/file; mkfifo /w/sub/pipe; ln -s /etc/passwd /w/abs; touch /tmp/ready
"""
FOREVER = "while :; do sleep 1000; done"


class Copier:
    """``dock cp`` in this process, between a directory and a container that has run SCRIPT."""

    def __init__(self, engine: Engine, name: str) -> None:
        self.engine = engine
        self.name = name
        self.errors = ""

    def code(self, words: list[str]) -> int:
        """Copy; return the exit code, with an error if it is not 0."""
        try:
            self(*words)
        except AssertionError:
            assert self.errors
            return 1
        return 0

    def __call__(self, *words: str, stdin: bytes | None = None, code: int = 0) -> bytes:
        """Copy; ``c:`` stands for the container.  Return standard output."""
        stdout, stderr = Output(), Output()
        source = None if stdin is None else io.BytesIO(stdin)
        context = Context(engine=self.engine, stdout=stdout, stderr=stderr, stdin=source, exact=True)
        named = [f"{self.name}:{word[2:]}" if word.startswith("c:") else word for word in words]
        self.errors = ""
        try:
            found = run_command(["cp", *named], context)
        except PyDockError as error:
            self.errors, found = error.line, 1
        self.errors += stderr.text
        assert found == code, (words, self.errors)
        return stdout.data


@pytest.fixture(params=["running", "stopped"])
def cp(
    request: pytest.FixtureRequest, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Copier:
    is_running = request.param == "running"
    mounts = [{"Type": "volume", "Source": "data", "Target": "/data"}]
    command = SCRIPT + (FOREVER if is_running else "")
    name, _ = engine.containers.create(create_request("busybox", "sh", "-c", command, Mounts=mounts))
    with engine.containers.start(name) as session:
        ready = engine.root.container(name).upper / "tmp" / "ready"
        while is_running and not ready.exists():
            assert engine.containers.is_running(name)
        if not is_running:
            session.wait()
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    return Copier(engine, name)


def make_sources() -> None:
    """Make what is copied into a container, in the working directory."""
    Path("f").write_text("host\n")
    if not os.geteuid():
        os.chown("f", 1234, 2345)
    os.chmod("f", 0o640)
    os.makedirs("d/e")
    Path("d/e/g").write_text("x")
    if not os.geteuid():
        os.chown("d", 77, 88)
    os.symlink("f", "lf")
    os.symlink("d", "ld")
    os.symlink("nope", "ldang")


def tree(archive: bytes) -> dict[str, tuple[str, int, int, str]]:
    """The entries of an archive: kind and mode, owners, link."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        return {
            member.name: (
                f"{member.type.decode()}{member.mode & 0o7777:o}",
                member.uid,
                member.gid,
                member.linkname,
            )
            for member in opened
        }


def host_tree() -> dict[str, tuple[int, int, str]]:
    found = {}
    for directory, directories, files in os.walk("."):
        for name in (*directories, *files):
            path = os.path.join(directory, name)
            status = os.lstat(path)
            link = os.readlink(path) if os.path.islink(path) else ""
            found[path] = (status.st_mode, status.st_uid, link)
    return found


def seen(cp: Copier) -> dict[str, tuple[str, int, int, str]]:
    return tree(cp("c:/w", "-"))


# -- every rule, beside Docker ------------------------------------------------------------------------------

INTO = (
    "f c:/w/",
    "f c:/w/new",
    "f c:/w/link",
    "f c:/w/lsub",
    "f c:/w/dang",
    "d c:/w/newd",
    "d c:/w",
    "d/. c:/w/sub",
    "d/. c:/w/sub2",
    "d/ c:/w/sub3",
    "lf c:/w/x1",
    "-L lf c:/w/x2",
    "-L lf c:/w",
    "ld c:/w/x3",
    "ld/ c:/w/x4",
    "ld/. c:/w/x5",
    "ldang c:/w/x6",
    ". c:/w/cwd",
    "f c:w/relative",
    "f c:/w/sub/.././dots",
    "f c:/nope/x",
    "f c:/w/nope/",
    "d c:/w/file",
    "d/. c:/w/file",
    "f c:/w/file/",
    "f c:/w/sub/hard/x",
    "nope c:/w",
    "-L ldang c:/w",
    "f/ c:/w",
    "f c:/etc/hosts",
)
OUT = (
    "c:/w/file .",
    "c:/w/file other",
    "c:/w/sub .",
    "c:/w/sub/. sub2",
    "c:/w/sub/. d",
    "c:/w/sub d",
    "c:/w/link .",
    "c:/w/dang .",
    "c:/w/abs .",
    "-L c:/w/link l2",
    "-L c:/w/link d",
    "-L c:/w/abs passwd",
    "c:/w/lsub ls1",
    "c:/w/lsub/ ls2",
    "c:/w/lsub/. ls3",
    "c:/w/file lf",
    "c:/w/file ld",
    "c:/etc/hosts .",
    "c:/nope .",
    "c:/w/file/ .",
    "c:/w/file nopedir/x",
    "c:/w/file nopedir/",
    "c:/w f",
    "-L c:/w/dang dd",
    "c:/proc/cpuinfo .",
    "c: x",
    "c:/w c:/x",
    "f g",
)


LINES = (*INTO, *OUT)
MANY = "n=0; while [ $n -lt %d ]; do w=/w$n; %s n=$((n+1)); done" % (  # noqa: UP031 - the shell has braces
    len(LINES),
    SCRIPT.replace("/w", "$w").replace("/made", "/made$n").replace("\n", "; ").lstrip("; "),
)


def run_lines(copy: Callable[[list[str]], int], everything: Callable[[], bytes], base: Path) -> list[object]:
    """Copy by each line, from and to a directory of its own on both sides; return what is there afterwards.

    Args:
        copy: runs ``cp`` with words in the working directory, and returns the exit code.
        everything: returns an archive of the whole container.
    """
    found: list[object] = []
    for number, line in enumerate(LINES):
        here = base / str(number)
        here.mkdir(parents=True)
        os.chdir(here)
        make_sources()
        words = [re.sub(r"^c:(/?)w", rf"c:\g<1>w{number}", word) for word in line.split()]
        code = copy(words)
        # A file that becomes the caller's loses its set-user-id bit here.
        after = {path: (mode & ~0o6000, *rest) for path, (mode, *rest) in host_tree().items()}
        found.append([line, code, after])
    entries = tree(everything())
    for number, item in enumerate(found):
        place = re.compile(rf"/?(w|made){number}(/|$)")
        item.append({name: entry for name, entry in entries.items() if place.match(name)})  # type: ignore[attr-defined]  # the lists above
    return found


@pytest.mark.timeout(300)
@pytest.mark.skipif(bool(docker_daemon.missing()), reason=docker_daemon.missing() or "there")
def test_every_rule_is_dockers(
    engine: Engine, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with docker_daemon.docker_daemon() as docker:
        docker("load", "-i", archive)
        docker("run", "--name", "theirs", "--network", "none", "busybox", "sh", "-c", MANY)
        environment = {**os.environ, "DOCKER_HOST": f"unix://{docker.socket}"}

        def cp(*words: str) -> subprocess.CompletedProcess[bytes]:
            named = [f"theirs:{word[2:]}" if word.startswith("c:") else word for word in words]
            return subprocess.run(
                ["docker", "cp", *named], env=environment, capture_output=True, check=False, timeout=60
            )

        expected = run_lines(
            lambda words: cp(*words).returncode, lambda: cp("c:/", "-").stdout, tmp_path / "theirs"
        )
    name, _ = engine.containers.create(create_request("busybox", "sh", "-c", MANY))
    with engine.containers.start(name) as session:
        session.wait()
    ours = Copier(engine, name)
    found = run_lines(ours.code, lambda: ours("c:/", "-"), tmp_path / "ours")
    for one, other in zip(found, expected, strict=True):
        assert one == other


# -- ours -----------------------------------------------------------------------------------------------


def test_there_and_back(cp: Copier) -> None:
    make_sources()
    cp("d", "c:/w/copied")
    assert seen(cp)["w/copied/e/g"][0] == "0644"
    cp("c:/w/copied/.", "back")
    assert Path("back/e/g").read_text() == "x"
    cp("c:/w/sub", ".")
    assert os.stat("sub/hard").st_nlink == 1
    assert os.stat("sub/pipe").st_mode & 0o170000 == 0o010000
    cp("c:/w/file", "mine")
    mine = os.stat("mine")
    assert (mine.st_uid, oct(mine.st_mode)) == (os.geteuid(), "0o100750")
    cp("-a", "c:/w/file", "owned")
    owned = os.stat("owned")
    assert oct(owned.st_mode) == "0o104750"
    if os.geteuid():  # the subordinate id that is 1000 in the container
        assert owned.st_uid > 65536
    else:
        assert (owned.st_uid, owned.st_gid) == (1000, 1000)


def test_hard_links_and_holes_stay(cp: Copier) -> None:
    os.mkdir("tree")
    Path("tree/a").write_text("same")
    os.link("tree/a", "tree/b")
    with open("tree/sparse", "wb") as file:
        file.truncate(1 << 30)
        file.seek(1 << 29)
        file.write(b"middle")
    os.setxattr("tree/a", "user.colour", b"red")
    cp("tree", "c:/w/tree")
    cp("c:/w/tree", "back")
    assert os.stat("back/a").st_ino == os.stat("back/b").st_ino
    assert os.getxattr("back/a", "user.colour") == b"red"
    assert os.stat("back/sparse").st_size == 1 << 30
    assert os.stat("back/sparse").st_blocks < 1000


def test_volumes_and_binds_are_seen(cp: Copier) -> None:
    Path("f").write_text("to the volume")
    cp("f", "c:/data/f")
    assert (cp.engine.root.volumes / "data" / "_data" / "f").read_text() == "to the volume"
    cp("c:/data", "out")
    assert Path("out/f").read_text() == "to the volume"
    assert cp.engine.copies.stat(cp.name, "/data/f")["size"] == 13
    cp.engine.volumes.inspect("data")


def test_archives(cp: Copier) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, kind, link in (
            ("a/file", tarfile.REGTYPE, ""),
            ("a/hard", tarfile.LNKTYPE, "a/file"),
            ("a/.wh.kept", tarfile.REGTYPE, ""),
            ("jump/through", tarfile.REGTYPE, ""),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.uid, info.gid = kind, link, 5, 6
            archive.addfile(info)
    os.symlink("/w/sub", "link")
    cp("link", "c:/w/jump")
    cp("-", "c:/w", stdin=buffer.getvalue())
    found = seen(cp)
    assert {"w/a/file", "w/a/hard", "w/a/.wh.kept", "w/sub/through"} <= set(found)
    assert found["w/a/file"][1:3] == (5, 6)
    assert tree(cp("c:/w/file", "-")) == {"file": ("04750", 1000, 1000, "")}
    assert set(tree(cp("c:/w/sub/.", "-"))) == {".", "./hard", "./pipe", "./through"}


@pytest.mark.parametrize(
    ("entry", "link", "message"),
    [
        ("../../etc/evil", "", "leads out"),
        ("hard", "../../etc/passwd", "leads"),
        ("hard", "nothing", "not there"),
        ("sub", "", "cannot overwrite directory"),
    ],
)
def test_hostile_archives(cp: Copier, entry: str, link: str, message: str) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo(entry)
        if link:
            info.type, info.linkname = tarfile.LNKTYPE, link
        archive.addfile(info)
    before = seen(cp)
    cp("-", "c:/w", stdin=buffer.getvalue(), code=1)
    assert message in cp.errors
    assert seen(cp) == before


def test_what_is_refused(cp: Copier) -> None:
    make_sources()
    cp("-", "c:/w/file", stdin=b"", code=1)
    assert "is not a directory" in cp.errors
    cp("-", "c:/nope", stdin=b"", code=1)
    assert "could not find the file /nope in" in cp.errors
    cp("/etc/passwd", "c:/nope/passwd", code=1)
    assert "could not find the file /nope in" in cp.errors
    cp("-", "c:/w", stdin=b"x" * 2000, code=1)
    assert "archive" in cp.errors
    cp("c:/w", "/dev/null", code=1)
    assert "neither a directory nor a regular file" in cp.errors
    cp("f", "nobody:/x", code=1)
    assert "no such container: nobody" in cp.errors
    cp("f", "c:/dev/full", code=0)  # /dev is an empty directory of the container's own
    os.mkdir("with-socket")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("with-socket/socket")
        cp("with-socket", "c:/w/with-socket")
    cp("c:/w/with-socket", "back")
    assert os.listdir("back") == []
    assert "left out: /back/socket is a socket" in cp.errors


def test_a_container_that_has_never_run(engine: Engine, tmp_path: Path) -> None:
    """``create``, ``cp``, ``start``: the file is there, and an empty volume has got the image's files."""
    (tmp_path / "f").write_text("early\n")
    mounts = [{"Type": "volume", "Source": "early", "Target": "/etc"}]
    request = create_request(
        "busybox", "sh", "-c", "cat /root/f /etc/new && grep -c root /etc/passwd", Mounts=mounts
    )
    name, _ = engine.containers.create(request)
    engine.copies.copy_in(str(tmp_path / "f"), name, "/root/")
    engine.copies.copy_in(str(tmp_path / "f"), name, "/etc/new")
    with engine.containers.start(name) as session:
        assert session.wait().exit_code == 0
    assert b"".join(entry.data for entry in engine.containers.logs(name)) == b"early\nearly\n1\n"
    assert engine.containers.list(all=True, filters={"id": [name]})[0]["State"] == "exited"


def test_what_is_read_only_stays(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    mounts = [
        {"Type": "volume", "Source": "rw", "Target": "/rw"},
        {"Type": "volume", "Source": "ro", "Target": "/ro", "ReadOnly": True},
    ]
    name, _ = engine.containers.create(
        create_request("busybox", "sleep", "1000", ReadonlyRootfs=True, Mounts=mounts)
    )
    engine.containers.start(name).close()
    for target in ("/f", "/ro/f"):
        with pytest.raises(ConflictError, match="read-only"):
            engine.copies.copy_in(str(tmp_path / "f"), name, target)
        with pytest.raises(ConflictError, match="read-only"):
            engine.copies.write_archive(name, os.path.dirname(target), io.BytesIO(one_file()))
    engine.copies.copy_in(str(tmp_path / "f"), name, "/rw/f")
    assert (engine.root.volumes / "rw" / "_data" / "f").read_text() == "x"


def one_file() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("file"))
    return buffer.getvalue()


def test_archive_mode_gives_the_containers_user(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    request = {**create_request("busybox", "true"), "User": "guest"}
    name, _ = engine.containers.create(request)
    engine.copies.copy_in(str(tmp_path / "f"), name, "/tmp/f", as_user=True)
    engine.copies.write_archive(name, "/tmp", io.BytesIO(one_file()), as_user=True)
    engine.copies.copy_in(str(tmp_path / "f"), name, "/tmp/roots")
    buffer = io.BytesIO()
    engine.copies.read_archive(name, "/tmp/.", buffer)
    found = {path: entry[1] for path, entry in tree(buffer.getvalue()).items()}
    assert found == {".": 0, "./f": 1000, "./file": 1000, "./roots": 0}


def test_stat(cp: Copier) -> None:
    stat = cp.engine.copies.stat
    file = stat(cp.name, "/w/file")
    assert (file["name"], file["size"], file["linkTarget"]) == ("file", 5, "")
    assert file["mode"] == 0o750 | 1 << 23  # Go's ModeSetuid
    assert file["mtime"].endswith("Z")
    assert stat(cp.name, "/w/sub/")["mode"] >> 31
    assert stat(cp.name, "/w/link")["linkTarget"] == "/w/file"
    assert stat(cp.name, "/w/lsub/.")["name"] == "."
    assert stat(cp.name, "/")["name"] == "/"
    assert stat(cp.name, "/w/abs")["mode"] & 1 << 27
    with pytest.raises(NotFoundError):
        stat(cp.name, "/w/nope")
    with pytest.raises(InvalidError):
        stat(cp.name, "/w/file/x/y")


def test_the_copies_are_recorded(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    name, _ = engine.containers.create(create_request("busybox", "true"))
    first = events.last_id(engine.state.database)
    engine.copies.copy_in(str(tmp_path / "f"), name, "/f")
    engine.copies.copy_out(name, "/f", str(tmp_path / "g"))
    engine.copies.read_archive(name, "/f", io.BytesIO())
    engine.copies.write_archive(name, "/", io.BytesIO(one_file()))
    found = [
        (event.action, event.attributes["path"])
        for event in events.select_after(engine.state.database, first)[0]
    ]
    assert found == [
        ("extract-to-dir", "/f"),
        ("archive-path", "/f"),
        ("archive-path", "/f"),
        ("extract-to-dir", "/"),
    ]


def test_nothing_is_mounted_afterwards(dock: Dock, engine: Engine, tmp_path: Path) -> None:
    """The writable layer is free again when a copy has ended: the container starts at once."""
    (tmp_path / "f").write_text("x")
    name, _ = engine.containers.create(create_request("busybox", "true"))
    for number in range(3):
        engine.copies.copy_in(str(tmp_path / "f"), name, f"/{number}")
        with engine.containers.start(name) as session:
            assert session.wait().exit_code == 0
    assert str(dock.base) not in Path("/proc/self/mountinfo").read_text()
