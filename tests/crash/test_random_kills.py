"""Any process of ours is killed at random, under containers of several clients: the truth is told, and nothing is left.

PYDOCK_KILL_SECONDS sets for how long; PYDOCK_KILL_SEED repeats a sequence of choices, as far as timing lets it.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from pydock_core.runtime.cgroups import read_layout
from tests.integration.conftest import Dock, archive, wait_until
from tests.support.network_namespace import NetworkNamespace, network_namespace

__all__ = ["archive"]  # a fixture

pytestmark = [
    pytest.mark.skipif("PYDOCK_KILL_SECONDS" not in os.environ, reason="on request: make test-kills"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: only root makes bridges"),
    pytest.mark.skipif(not shutil.which("nft"), reason="needs nft (Debian: nftables)"),
]

SECONDS = float(os.environ.get("PYDOCK_KILL_SECONDS", "20"))
SEED = int(os.environ.get("PYDOCK_KILL_SEED", time.time()))
CLIENTS = 4
CLIENT = Path(__file__).with_name("random_client.py")


class Host:
    """A state root in a network namespace of its own, and the processes that work on it."""

    def __init__(self, namespace: NetworkNamespace, base: Path) -> None:
        self.namespace = namespace
        self.base = base
        self.notes = base / "notes"
        self.scratch = base / "scratch"
        self.scratch.mkdir()
        (self.scratch / "given").write_bytes(b"x" * 100_000)
        self._clients: list[subprocess.Popen[bytes]] = []

    def dock(self, *words: object, code: int | None = 0, timeout: float = 120) -> str:
        done = self.namespace.run(
            *Dock(self.base).words(*words),
            environment={"PYDOCK_ROOT": str(self.base), "PYDOCK_PROGRAM_SERVER": "off"},
            code=code,
            timeout=timeout,
        )
        return done.stdout.strip()

    def keep_clients(self, choose: random.Random) -> None:
        """Start clients in the place of those that were killed."""
        self._clients = [client for client in self._clients if client.poll() is None]
        while len(self._clients) < CLIENTS:
            seed = choose.randrange(1 << 30)
            words = [
                sys.executable,
                "-m",
                "tests.crash.random_client",
                self.base,
                self.scratch,
                seed,
                self.notes,
            ]
            self._clients.append(self.namespace.start(*words, stderr=subprocess.DEVNULL))

    def processes(self) -> list[int]:
        """Every process of ours: each names the state root; the containers' own do not."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                with suppress(OSError):
                    if os.fsencode(self.base) in (entry / "cmdline").read_bytes():
                        found.append(int(entry.name))
        return found

    def kill(self, pids: list[int]) -> None:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def end_clients(self) -> None:
        for client in self._clients:
            client.kill()
        for client in self._clients:
            client.wait(10)

    def containers(self) -> list[dict[str, object]]:
        ids = self.dock("ps", "-aq", "--no-trunc").split()
        return list(json.loads(self.dock("inspect", *ids))) if ids else []

    def groups(self) -> set[str]:
        """Control groups with a process, of this root's containers or of any other."""
        layout = read_layout()
        top = (layout.v1.get("pids") or layout.unified or Path("/nonesuch")) / "pydock"
        return {path.parent.name for path in top.glob("*/cgroup.procs") if path.read_text()}

    def left(self) -> dict[str, list[str]]:
        """What there is on the host after everything was removed."""
        links = self.namespace.run("ip", "-o", "link").stdout.splitlines()
        tables = self.namespace.run("nft", "list", "tables").stdout.split("\n")
        return {
            "processes": [Path(f"/proc/{pid}/cmdline").read_text() for pid in self.processes()],
            "mounts": [
                line
                for line in Path("/proc/self/mountinfo").read_text().splitlines()
                if str(self.base) in line
            ],
            "links": [line for line in links if " lo:" not in line],
            "tables": [line for line in tables if "pydock" in line],
            "files": [
                str(path)
                for name in ("data/containers", "data/volumes", "data/tmp", "data/trash", "run/c", "run/n")
                for path in (self.base / name).iterdir()
            ],
        }


@pytest.fixture
def host(archive: Path, tmp_path: Path) -> Iterator[Host]:
    with network_namespace() as namespace:
        made = Host(namespace, tmp_path)
        made.dock("load", "-q", "-i", archive)
        try:
            yield made
        finally:
            made.end_clients()
            made.dock("system", "check", "--repair", code=None)
            if names := made.dock("ps", "-aq", code=None).split():
                made.dock("rm", "-f", *names, code=None)
            made.kill(made.processes())


@pytest.mark.timeout(int(SECONDS) + 240)
def test_the_truth_is_told_and_nothing_is_left(host: Host) -> None:
    print(f"PYDOCK_KILL_SEED={SEED}")
    choose = random.Random(SEED)
    ids: set[str] = set()
    killed = 0
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        host.keep_clients(choose)
        time.sleep(choose.uniform(0.02, 0.2))  # the moment is what is chosen at random
        ids.update(os.listdir(host.base / "data" / "containers"))
        if pids := host.processes():
            host.kill([choose.choice(pids)])
            killed += 1
    host.end_clients()
    assert killed > SECONDS
    assert not host.notes.exists(), host.notes.read_text()
    # One command tidies up; then there is nothing to find.
    host.dock("system", "prune", "-f")
    check = host.dock("system", "check", code=None)
    assert check == "no inconsistencies found"

    def is_true() -> bool:
        """Whether the containers with processes are those that are shown to run."""
        shown = {
            str(container["Id"])
            for container in host.containers()
            if container["State"]["Pid"]  # type: ignore[index]  # JSON
        }
        return shown == host.groups() & (ids | shown)

    wait_until(is_true, "ps tells the truth")
    if names := host.dock("ps", "-aq").split():
        host.dock("rm", "-f", "-v", *names)
    for kind in ("network", "volume"):
        host.dock(kind, "prune", "-f", *(["-a"] if kind == "volume" else []))
    assert host.dock("system", "check", code=None) == "no inconsistencies found"
    # What stays are the servers, which end by themselves after some minutes, and the default bridge.
    bridge = host.dock("network", "inspect", "-f", "{{.Id}}", "bridge")
    host.kill(host.processes())
    wait_until(lambda: not host.processes(), "the servers have gone")
    left = host.left()
    assert {kind: found for kind, found in left.items() if kind not in ("links", "tables", "files")} == {
        "processes": [],
        "mounts": [],
    }
    assert [line for line in left["links"] if "pydock" not in line] == []
    assert [line for line in left["tables"] if "pydock-br-" in line] == []
    assert [path for path in left["files"] if bridge not in path] == []
    assert not ids & host.groups()
