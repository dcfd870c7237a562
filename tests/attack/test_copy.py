"""Attacks on ``cp``: by links that are swapped underneath, by libraries in the container, by archives.

Each attack is first run against a copy that does what the vulnerable versions of Docker did, and must succeed there: so a test
that passes says something.
"""

from __future__ import annotations

import ctypes
import io
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from pydock_core import syscalls
from pydock_core.engine import Engine
from pydock_core.errors import PyDockError
from tests.integration.conftest import Dock, archive, dock, engine, nothing_is_left
from tests.support.create_request import create_request

__all__ = ["archive", "dock", "engine", "nothing_is_left"]  # fixtures

SECRET = b"the host's secret\n"
_EXCHANGE = 2
ROUNDS = 15


def exchange(one: str, other: str) -> None:
    """renameat2(2) with RENAME_EXCHANGE."""
    libc = ctypes.CDLL(None, use_errno=True)
    at = ctypes.c_int(syscalls.AT_FDCWD)
    libc.renameat2(at, os.fsencode(one), at, os.fsencode(other), ctypes.c_uint(_EXCHANGE))


@contextmanager
def swapping(one: Path, other: Path) -> Iterator[None]:
    """Exchange two names without end, as a container's process does."""
    stopped = threading.Event()

    def swap() -> None:
        while not stopped.is_set():
            exchange(str(one), str(other))

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


class Prey:
    """A container, the host's directory that it is after, and the container's files as its process changes them."""

    def __init__(self, engine: Engine, base: Path) -> None:
        self.engine = engine
        self.host = base / "host"
        self.host.mkdir()
        (self.host / "secret").write_bytes(SECRET)
        (self.host / "secret").chmod(0o600)
        self.given = base / "given"
        self.given.mkdir()
        (self.given / "secret").write_bytes(b"given\n")
        self.name, _ = engine.containers.create(create_request("busybox", "sleep", "1000"))
        engine.containers.start(self.name).close()
        pid = engine.containers.inspect(self.name)["State"]["Pid"]
        self.root = Path(f"/proc/{pid}/root")
        self.before = self.snapshot()

    def snapshot(self) -> list[tuple[str, int, int, bytes]]:
        found = []
        for path in sorted([self.host, *self.host.rglob("*")]):
            status = path.lstat()
            content = path.read_bytes() if path.is_file() else b""
            found.append((path.name, status.st_mode, status.st_uid, content))
        return found

    def plant(self) -> tuple[Path, Path]:
        """Put a directory and a link to the host's directory, by the host's name, into the container."""
        directory, link = self.root / "w" / "stash", self.root / "w" / "link"
        directory.mkdir(parents=True)
        (directory / "secret").write_bytes(b"the container's\n")
        link.symlink_to(self.host)
        return directory, link


@pytest.fixture
def prey(engine: Engine, tmp_path: Path) -> Prey:
    return Prey(engine, tmp_path)


# -- CVE-2018-15664: the path is checked, and then opened again ------------------------------------------------


def open_as_before_18_06(root: Path, path: str) -> Path:
    """Resolve a path in the container's root as text, and return a path of the host: what FollowSymlinkInScope gave."""
    resolved = root
    for part in path.strip("/").split("/"):
        if (resolved / part).is_symlink():
            resolved = root  # an absolute link begins at the root again
            continue
        resolved = resolved / part
    return resolved


def test_swapped_links_win_against_paths(prey: Prey) -> None:
    """The attack works where a checked path is opened again."""
    directory, link = prey.plant()
    upper = prey.engine.root.container(prey.name).upper
    with swapping(directory, link):
        for _ in range(100_000):
            path = open_as_before_18_06(upper, "/w/stash") / "secret"
            with suppress(OSError):
                if path.read_bytes() == SECRET:
                    return
    pytest.fail("the attack does not work, so the test below says nothing")


def test_swapped_links_lead_no_copy_out(prey: Prey, tmp_path: Path) -> None:
    directory, link = prey.plant()
    copies = prey.engine.copies
    with swapping(directory, link):
        for number in range(ROUNDS):
            target = tmp_path / str(number)
            with suppress(PyDockError):
                copies.copy_out(prey.name, "/w/stash", str(target))
            with suppress(PyDockError):
                copies.copy_out(prey.name, "/w/stash/secret", str(tmp_path / f"file{number}"))
            buffer = io.BytesIO()
            with suppress(PyDockError):
                copies.read_archive(prey.name, "/w/stash/secret", buffer)
            assert SECRET not in buffer.getvalue()
            # What comes out may be the link itself, which leads where it leads.
            found = [] if target.is_symlink() else list(target.rglob("secret"))
            for path in (*found, tmp_path / f"file{number}"):
                assert not path.exists() or path.is_symlink() or path.read_bytes() != SECRET
    assert prey.snapshot() == prey.before


def test_swapped_links_lead_no_copy_in(prey: Prey) -> None:
    directory, link = prey.plant()
    copies = prey.engine.copies
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as made:
        info = tarfile.TarInfo("secret")
        info.size = 5
        made.addfile(info, io.BytesIO(b"evil\n"))
    with swapping(directory, link):
        for _ in range(ROUNDS):
            for copy in (
                lambda: copies.copy_in(str(prey.given / "secret"), prey.name, "/w/stash/secret"),
                lambda: copies.copy_in(f"{prey.given}/.", prey.name, "/w/stash"),
                lambda: copies.write_archive(prey.name, "/w/stash", io.BytesIO(buffer.getvalue())),
            ):
                with suppress(PyDockError):
                    copy()
    assert prey.snapshot() == prey.before


def test_links_that_stay_lead_nowhere_either(prey: Prey, tmp_path: Path) -> None:
    prey.plant()
    (prey.root / "w" / "up").symlink_to("../" * 40 + str(prey.host).lstrip("/"))
    copies = prey.engine.copies
    for path in ("/w/link/secret", "/w/up/secret", "/w/link/", "/w/up/."):
        with pytest.raises(PyDockError):
            copies.copy_out(prey.name, path, str(tmp_path / "out"))
    # A link in the place of the target is followed within the container's root.
    copies.copy_in(str(prey.given / "secret"), prey.name, "/w/link/../secret")
    with pytest.raises(PyDockError):  # which has no such directory
        copies.copy_in(str(prey.given), prey.name, "/w/link")
    assert prey.snapshot() == prey.before


# -- CVE-2019-14271: the helper loads a library of the container -----------------------------------------------

LIBRARY = r"""
#include <fcntl.h>
#include <unistd.h>
__attribute__((constructor)) static void attack(void) { close(open("/loaded", O_CREAT | O_WRONLY, 0600)); }
int _nss_evil_getpwnam_r(void) { return 0; }
"""


def poison(root: Path, base: Path) -> None:
    """Put a name service library, and modules of Python, into the container that leave a file when they are loaded."""
    source = base / "evil.c"
    source.write_text(LIBRARY)
    library = base / "libnss_evil.so.2"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source], check=True, capture_output=True)
    (root / "etc" / "nsswitch.conf").write_text("passwd: evil files\ngroup: evil files\nhosts: evil\n")
    multiarch = f"lib/{os.uname().machine}-linux-gnu"
    for directory in ("lib", "lib64", "usr/lib", multiarch, f"usr/{multiarch}"):
        (root / directory).mkdir(parents=True, exist_ok=True)
        shutil.copy(library, root / directory / library.name)
    for directory in {os.path.dirname(os.__file__), os.path.dirname(tarfile.__file__)}:
        place = root / directory.lstrip("/")
        (place / "encodings").mkdir(parents=True, exist_ok=True)
        for name in ("encodings/__init__.py", "encodings/idna.py", "lzma.py", "bz2.py", "pwd.py"):
            (place / name).write_text("open('/loaded', 'w').close()\n")


needs_gcc = pytest.mark.skipif(not shutil.which("gcc"), reason="needs gcc (Debian: gcc)")


@needs_gcc
def test_a_library_of_the_container_is_loaded_after_chroot(tmp_path: Path) -> None:
    """The attack works on a process that changes its root to the container's, and then looks up a user."""
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    poison(root, tmp_path)
    # What the library itself needs is in any image.
    linked = subprocess.run(
        ["ldd", tmp_path / "libnss_evil.so.2"], capture_output=True, text=True, check=True
    )
    for word in linked.stdout.split():
        if word.startswith("/"):
            (root / word.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(word, root / word.lstrip("/"))

    # A process that has looked up nobody before: glibc does not load again after chroot(2).
    script = f"import os, pwd; os.chroot({str(root)!r}); os.chdir('/'); pwd.getpwnam('nobody-at-all')"
    subprocess.run([sys.executable, "-S", "-c", script], capture_output=True, check=False)
    assert (root / "loaded").exists(), "the attack does not work, so the test below says nothing"


@needs_gcc
def test_nothing_of_the_container_is_loaded(prey: Prey, tmp_path: Path) -> None:
    poison(prey.root, tmp_path)
    copies = prey.engine.copies
    copies.copy_in(str(prey.given), prey.name, "/root/in", as_user=True)
    copies.copy_out(prey.name, "/root/in", str(tmp_path / "out"), keep_owners=True)
    copies.read_archive(prey.name, "/root", io.BytesIO())
    for mode in ("w:gz", "w:xz", "w:bz2"):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode=mode) as made:
            info = tarfile.TarInfo("file")
            info.uname = "root"
            made.addfile(info)
        copies.write_archive(prey.name, "/root", io.BytesIO(buffer.getvalue()), as_user=True)
    assert not (prey.root / "loaded").exists()
    assert not Path("/loaded").exists()


# -- CVE-2021-41089: modes of the host's files are changed -----------------------------------------------------


def extract_as_before_20_10_9(root: Path, directory: str, name: str, mode: int) -> None:
    """Make the directories of an entry, and set their modes, by paths whose links nobody looks at."""
    target = Path(f"{root}{directory}") / name
    target.mkdir(exist_ok=True)
    os.chmod(target, mode)


def plant_links(prey: Prey) -> None:
    (prey.root / "w").mkdir()
    (prey.root / "w" / "d").symlink_to(prey.host)
    (prey.root / "w" / "f").symlink_to(prey.host / "secret")


def test_a_planted_link_wins_against_paths(prey: Prey) -> None:
    plant_links(prey)
    extract_as_before_20_10_9(prey.engine.root.container(prey.name).upper, "/w", "d", 0o777)
    assert stat.S_IMODE(prey.host.stat().st_mode) == 0o777, "the attack does not work"


@pytest.mark.parametrize("kind", ["tree", "archive"])
def test_no_mode_of_the_host_changes(prey: Prey, tmp_path: Path, kind: str) -> None:
    plant_links(prey)
    source = tmp_path / "source"
    (source / "d").mkdir(parents=True)
    (source / "d").chmod(0o777)
    (source / "f").write_text("evil")
    (source / "f").chmod(0o777)
    (source / "d" / "secret").write_text("evil")
    copies = prey.engine.copies
    attempts: list[Callable[[], object]] = [
        lambda: copies.copy_in(f"{source}/.", prey.name, "/w"),
        lambda: copies.copy_in(str(source / "d"), prey.name, "/w"),
        lambda: copies.copy_in(str(source / "f"), prey.name, "/w/f"),
    ]
    if kind == "archive":
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as made:
            made.add(source, ".")
        data = buffer.getvalue()
        attempts = [
            lambda: copies.write_archive(prey.name, "/w", io.BytesIO(data), may_replace=False),
            lambda: copies.write_archive(prey.name, "/w", io.BytesIO(data), may_replace=True),
        ]
    for attempt in attempts:
        with suppress(PyDockError):
            attempt()
    assert prey.snapshot() == prey.before


# -- the container's side of what is written on the host -------------------------------------------------------


def test_no_device_and_no_set_user_id_bit_comes_out(prey: Prey, tmp_path: Path, dock: Dock) -> None:
    script = "mkdir /w && mknod /w/disk b 7 0 && chmod 666 /w/disk && cp /bin/busybox /w/shell && chmod 6755 /w/shell"
    dock("exec", prey.name, "sh", "-c", script)
    prey.engine.copies.copy_out(prey.name, "/w", str(tmp_path / "out"))
    found = {path.name: path.lstat().st_mode for path in (tmp_path / "out").iterdir()}
    assert {name: oct(mode) for name, mode in found.items()} == {"shell": "0o100755"}


def test_a_link_that_comes_out_is_not_followed(prey: Prey, tmp_path: Path) -> None:
    """A directory of the archive's own name is a link on the host by then: nothing is written through it."""
    out = tmp_path / "out"
    out.mkdir()
    prey.plant()
    shutil.rmtree(prey.root / "w" / "stash")
    (prey.root / "w" / "d").symlink_to(prey.host)
    prey.engine.copies.copy_out(prey.name, "/w/d", str(out))
    assert (out / "d").is_symlink()
    (prey.root / "w" / "d").unlink()
    (prey.root / "w" / "d").mkdir()
    (prey.root / "w" / "d" / "secret").write_bytes(b"evil\n")
    with pytest.raises(PyDockError, match="cannot overwrite non-directory"):
        prey.engine.copies.copy_out(prey.name, "/w/d", str(out))
    assert prey.snapshot() == prey.before
