"""A state root with a busybox image, the program ``dock`` on it, and a check that nothing is left on the host."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pydock_core.engine import Engine
from pydock_core.network.client import NetworkService
from pydock_core.network.rules import BridgeRules
from pydock_core.paths import StateRoot
from pydock_core.program_server import program_server_spec
from pydock_core.store.database import Database
from pydock_core.supervision.client import Zygote
from pydock_core.supervision.server_start import ask_server_surely
from tests.bench.samples import BUSYBOX, busybox_archive
from tests.support.process import count_descriptors, has_ended

CGROUPS = Path("/sys/fs/cgroup")
REPOSITORY = Path(__file__).parents[2]
SCRIPT = (
    "import sys; checkout = sys.argv.pop(1); sys.path[0] = checkout; "
    "exec(compile(open(checkout + '/pydock_core/scripts/dock').read(), 'dock', 'exec'))"
)
"""The installed program with the package of a checkout; its own place may be out of an ordinary user's reach."""


@dataclass(frozen=True)
class Dock:
    """The program ``dock`` on one state root.

    Attributes:
        base: the state root.
        has_server: whether the commands that a test waits for run in the program server, like those of the installed
            program; they take a fifth of the time.  The others run as ``python -m pydock_core``.
    """

    base: Path
    has_server: bool = field(default=False, kw_only=True)

    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYDOCK_ROOT": str(self.base)}

    def python(self) -> list[str]:
        """The words that begin a Python program."""
        return [sys.executable]

    @property
    def checkout(self) -> Path:
        """The directory of the package, as the program sees it."""
        return REPOSITORY

    def words(self, *words: object) -> list[str]:
        return [*self.python(), "-m", "pydock_core", *map(str, words)]

    def served_words(self, *words: object) -> list[str]:
        return [*self.python(), "-c", SCRIPT, str(self.checkout), *map(str, words)]

    def __call__(
        self, *words: object, stdin: bytes | None = None, code: int | None = 0, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run a command; ``code`` is the exit code that it must have (None for any)."""
        variables = self.environment()
        if self.has_server:
            variables.pop("PYTHONPATH", None)  # the script searches its directories last
        result = subprocess.run(
            self.served_words(*words) if self.has_server else self.words(*words),
            input=stdin,
            stdin=None if stdin is not None else subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            env=variables,
            check=False,
        )
        finished = subprocess.CompletedProcess(
            result.args, result.returncode, result.stdout.decode(), result.stderr.decode()
        )
        if code is not None:
            assert finished.returncode == code, (
                f"{words}: exit code {finished.returncode}\n{finished.stdout}{finished.stderr}"
            )
        return finished

    def out(self, *words: object, **keywords: object) -> str:
        """Run a command that must succeed, and return what it wrote to standard output, stripped."""
        return self(*words, **keywords).stdout.strip()  # type: ignore[arg-type]  # the keywords of __call__

    def start(self, *words: object, **keywords: object) -> subprocess.Popen[bytes]:
        """Start a command and go on."""
        return subprocess.Popen(self.words(*words), env=self.environment(), **keywords)  # type: ignore[call-overload,no-any-return]  # Popen's own


def recorded_containers(base: Path) -> set[str]:
    """Return the ids of a state root's containers."""
    return _read_column(base, "SELECT id FROM container")


def groups_of_removed(base: Path) -> list[str]:
    """Return the control groups of containers that a state root no longer has.

    The groups of other state roots, whose tests run at the same time, come and go meanwhile.
    """
    removed = _read_column(base, "SELECT actor FROM event WHERE type = 'container'") - recorded_containers(
        base
    )
    groups = [*CGROUPS.glob("*/pydock/*"), *CGROUPS.glob("pydock/*")]
    return sorted(str(path) for path in groups if path.name in removed)


def _read_column(base: Path, query: str) -> set[str]:
    with closing(sqlite3.connect(base / "data" / "pydock.db", timeout=20)) as database:
        return {row[0] for row in database.execute(query)}


def host_state(base: Path) -> dict[str, object]:
    """What of the host a test must leave as it was; descriptors of garbage do not count."""
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(base) in line]
    cgroups = groups_of_removed(base)
    return {"mounts": mounts, "cgroups": cgroups, "descriptors": count_descriptors()}


def assert_nothing_is_left(after: dict[str, object], before: dict[str, object]) -> None:
    """Compare two states of the host.

    Fewer descriptors are no leak: an earlier test's garbage may be closed in the middle of a later test.
    """
    assert after["descriptors"] <= before["descriptors"]  # type: ignore[operator]  # the values of this key are numbers
    assert after == {**before, "descriptors": after["descriptors"]}


def children_of(pid: int) -> list[int]:
    """The processes that descend from one directly."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 20) -> None:
    """Poll a condition, bounded."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.02)


def end_servers(root: StateRoot) -> None:
    """Remove the bridge of a state root, and end its zygote and its network service, as far as they are there."""
    database = Database(root.database)
    for bridge, subnet in database.query("SELECT bridge, subnet FROM network WHERE subnet <> ''"):
        NetworkService(root).remove(BridgeRules(bridge, subnet))
    database.close()
    pids = []
    if root.zygote_socket().exists():
        pids.append(Zygote(root).ping()["pid"])
    if root.network_socket().exists():
        pids.append(NetworkService(root).ping()["pid"])
    if (program := program_server_spec(root)).socket_path.exists():
        pids.append(ask_server_surely(program, {"op": "ping"})["pid"])
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    for pid in pids:
        wait_until(lambda pid=pid: has_ended(pid), "the server has ended")


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A docker-archive of busybox."""
    if not BUSYBOX.exists():
        pytest.skip("needs /bin/busybox (Debian: busybox-static)")
    return busybox_archive(tmp_path_factory.mktemp("archive") / "busybox.tar")


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory with a short name: podman refuses a run root of more than 50 characters."""
    with tempfile.TemporaryDirectory(prefix="pd-", dir="/tmp") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def dock(tmp_path_factory: pytest.TempPathFactory, archive: Path) -> Iterator[Dock]:
    """``dock`` on a state root of the module's own, with the image busybox."""
    base = tmp_path_factory.mktemp("state")
    program = Dock(base, has_server=True)
    program("load", "-q", "-i", archive)
    root = StateRoot(base / "data", base / "run")
    ask_server_surely(program_server_spec(root), {"op": "ping"})
    yield program
    if names := recorded_containers(base):
        program("rm", "-f", *names)
    if os.geteuid() != 0:  # subordinate ids own files in the layers' copies of --userns keep-id
        Zygote(root).call("pydock_core.store.trees:remove_tree", {"path": str(root.layers)})
    end_servers(root)
    shutil.rmtree(base)


@pytest.fixture
def engine(dock: Dock) -> Iterator[Engine]:
    """An engine on the module's state root."""
    made = Engine(StateRoot(dock.base / "data", dock.base / "run"))
    yield made
    made.close()


@pytest.fixture(autouse=True)
def nothing_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Compare the host before and after, and remove the test's containers."""
    if "dock" not in request.fixturenames:
        yield
        return
    program: Dock = request.getfixturevalue("dock")
    before = host_state(program.base)
    existing = recorded_containers(program.base)
    yield
    if made := recorded_containers(program.base) - existing:
        program("rm", "-f", "-v", *made)
    wait_until(lambda: not groups_of_removed(program.base), "the test's cgroups are gone", 5)
    assert_nothing_is_left(host_state(program.base), {**before, "cgroups": []})
