"""A captured environment runs: in a chroot on the merged layers, with nothing else of the host."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pydock_core.commands.progress_board import Board
from pydock_core.progress import Event
from pydock_core.spelling import human_size
from tests.support.image_store import NEEDS_ROOT, ROOT, Store, open_store

pytestmark = pytest.mark.skipif(not ROOT, reason=NEEDS_ROOT)

SCRIPT = """
set -e
target="$0"; lower="$1"; shift
mount -t tmpfs tmpfs "$target"
mkdir "$target/upper" "$target/work" "$target/root"
mount -t overlay overlay -o "lowerdir=$lower,upperdir=$target/upper,workdir=$target/work" "$target/root"
mount -t proc proc "$target/root/proc"
mount --bind /dev "$target/root/dev"
exec /usr/sbin/chroot "$target/root" /usr/bin/env -i HOME=/root "$@"
"""
UNSHARED = ["unshare", "--mount", "--pid", "--fork", "--uts", "--net", "/bin/sh", "-c"]


class Captured:
    """An image of a virtual environment, and commands in it."""

    def __init__(self, store: Store, image_id: str, venv: Path, target: Path) -> None:
        self.store = store
        self.image_id = image_id
        self.venv = venv
        self._target = target

    def run(self, *words: str) -> str:
        (mount,) = self.store.snapshotter.mounts(
            self.store.images.layers(self.image_id), Path("/u"), Path("/w")
        )
        env = self.store.images.config(self.image_id)["config"]["Env"]
        done = subprocess.run(
            [*UNSHARED, SCRIPT, str(self._target), ":".join(mount.lower), *env, *words],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def captured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Captured]:
    base = Path(os.path.realpath(tmp_path_factory.mktemp("capture")))
    venv, extra, target = base / "venv", base / "extra", base / "target"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True, timeout=120)
    extra.mkdir()
    target.mkdir()
    (extra / "data.txt").write_text("data")
    (extra / ".netrc").write_text("machine x login y password z")
    store = open_store(base / "state")
    result = store.images.capture("environment", venv, [extra])
    assert any(".netrc" in note for note in result.notes)
    yield Captured(store, result.image_id, venv, target)
    store.close()


def test_the_interpreter_runs_with_its_libraries(captured: Captured) -> None:
    code = (
        "import bz2, ctypes, decimal, hashlib, json, locale, lzma, multiprocessing, pwd, socket, sqlite3, ssl, sys, zlib\n"
        "assert ssl.create_default_context().get_ca_certs()\n"
        "assert sqlite3.connect(':memory:').execute('select 1').fetchone() == (1,)\n"
        "assert locale.setlocale(locale.LC_ALL, '') == 'C.UTF-8'\n"
        "assert [entry.pw_name for entry in pwd.getpwall()] == ['root', 'nobody']\n"
        "assert multiprocessing.Lock().acquire()\n"
        "assert hashlib.sha256(b'').hexdigest() and decimal.Decimal(1)\n"
        "print(json.dumps([sys.prefix, sys.executable, sys.version]))\n"
    )
    prefix, executable, version = json.loads(captured.run("python", "-c", code))
    assert prefix == str(captured.venv)
    assert executable == f"{captured.venv}/bin/python"
    assert version == sys.version


def test_console_scripts_and_a_shell(captured: Captured) -> None:
    assert captured.run("pip", "--version").startswith("pip ")
    words = (
        "ls cat cp mv rm mkdir env id sleep true grep sed head tail tar find kill hostname mount bash".split()
    )
    missing = captured.run(
        "sh", "-c", f"for word in {' '.join(words)}; do command -v $word >/dev/null || echo $word; done"
    )
    assert missing == ""
    assert captured.run("bash", "-c", "id -u; stat -c %a /tmp /var/tmp; pwd").split() == [
        "0",
        "1777",
        "1777",
        "/",
    ]
    assert captured.run("sh", "-c", "ls -A /root /home; date +%Z").split() == ["/home:", "/root:", "UTC"]


def test_every_program_finds_its_libraries(captured: Captured) -> None:
    """What the loader says of every program and library in the image: nothing is missing."""
    script = (
        "for file in /usr/bin/* /usr/sbin/*; do "
        "[ -x $file ] && LD_TRACE_LOADED_OBJECTS=1 /lib64/ld-linux-x86-64.so.2 $file 2>/dev/null; done"
    )
    if not os.path.exists("/lib64/ld-linux-x86-64.so.2"):
        pytest.skip("asks glibc's loader of x86-64")
    listed = captured.run("sh", "-c", script + "; true")
    assert "libc.so.6" in listed
    assert "not found" not in listed


def test_paths_are_taken_along_without_secrets(captured: Captured) -> None:
    extra = captured.venv.parent / "extra"
    assert captured.run("ls", "-A", str(extra)).split() == ["data.txt"]
    assert captured.run("cat", f"{extra}/data.txt") == "data"


def test_nothing_of_the_environment_is_in_the_config(captured: Captured) -> None:
    config = captured.store.images.config(captured.image_id)["config"]
    names = [entry.partition("=")[0] for entry in config["Env"]]
    assert names == ["PATH", "LANG", "VIRTUAL_ENV"]
    assert config["Env"][0].startswith(f"PATH={captured.venv}/bin:")
    assert config["Cmd"] == ["python3"]


def test_an_unchanged_environment_gives_the_same_layers(captured: Captured) -> None:
    extra = captured.venv.parent / "extra"
    again = captured.store.images.capture("again", captured.venv, [extra])
    assert captured.store.images.layers(again.image_id) == captured.store.images.layers(captured.image_id)
    other = captured.store.images.capture("other", captured.venv)
    assert len(captured.store.images.layers(other.image_id)) == 3
    captured.store.images.remove("again")
    captured.store.images.remove("other")
    assert len(captured.store.snapshotter.diff_ids()) == 4


def test_the_progress_of_a_capture_counts_each_layer_once(captured: Captured) -> None:
    new = captured.venv / "lib/new.txt"
    new.write_text("for a layer that has to be extracted")
    board = Board()

    def show(event: Event) -> None:
        board.update(event)

    result = captured.store.images.capture("shown", captured.venv, progress=show)
    captured.store.images.remove("shown")
    new.unlink()
    assert list(board.rows) == ["system", "interpreter", "packages"]
    assert board.rows["packages"].status == "Extracting"
    size_bytes = sum(row.total or row.current for row in board.rows.values())
    assert result.size_bytes < size_bytes < 1.2 * result.size_bytes  # the archives have headers
    assert board.summary() == f"3 layers, {human_size(size_bytes)}"


def test_all_layers_are_roots_and_have_no_set_user_id(captured: Captured) -> None:
    found = set()
    for diff_id in captured.store.images.layers(captured.image_id):
        for directory, directories, files in os.walk(captured.store.tree(diff_id)):
            for name in (*directories, *files):
                status = os.lstat(os.path.join(directory, name))
                found.add((status.st_uid, status.st_gid, status.st_mode & 0o6000))
    assert found == {(0, 0, 0)}
    assert captured.store.snapshotter.chains() == []  # they have all their directories
