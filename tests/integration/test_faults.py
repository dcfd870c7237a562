"""Containers that behave badly, and a host without room: one line and a hint, the state as before, and all can be ended."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pydock_core.paths import StateRoot
from pydock_core.runtime.cgroups import probe_cgroups
from tests.integration.conftest import Dock, archive, dock, end_servers, nothing_is_left, wait_until
from tests.support.network_namespace import network_namespace

__all__ = ["archive", "dock", "nothing_is_left"]  # fixtures

PATIENCE_SECONDS = 20.0
needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="needs root, to mount a small disk and to make bridges"
)


def line_and_hint(result: subprocess.CompletedProcess[str]) -> str:
    """The one line of an error; a hint follows it, and nothing more."""
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 2, result.stderr
    assert lines[0].startswith("error: ")
    assert lines[1].startswith("hint: ")
    return lines[0]


@pytest.mark.skipif(
    not probe_cgroups().pids, reason="an ordinary user on cgroup version 1 has no limit of processes"
)
def test_a_container_that_forks_without_end(dock: Dock) -> None:
    # A shell that cannot fork ends; what it has forked stays, and so does the container.
    bomb = "fork() { while :; do sleep 1000 & (fork) & done; }; fork & exec sleep 1000"
    dock("run", "-d", "--name", "bomb", "--pids-limit", "40", "busybox", "sh", "-c", bomb)
    (document,) = json.loads(dock.out("inspect", "bomb"))
    assert document["State"]["Running"]

    def processes() -> int:
        (line,) = dock.out("stats", "--no-stream", "--format", "{{.PIDs}}", "bomb").splitlines()
        return int(line)

    wait_until(lambda: processes() > 30, "it has as many processes as it may have")
    assert processes() <= 40
    assert dock.out("ps", "--format", "{{.Names}} {{.State}}") == "bomb running"
    refused = dock("exec", "bomb", "true", code=None)
    if refused.returncode:  # it fits in, or there is no room for it
        assert len(refused.stderr.strip().splitlines()) <= 2, refused.stderr
    assert dock.out("run", "--rm", "busybox", "echo", "others run") == "others run"
    dock("stop", "-t", "0", "bomb")
    assert dock.out("inspect", "-f", "{{.State.Status}} {{.State.Pid}}", "bomb") == "exited 0"
    assert dock.out("system", "check") == "no inconsistencies found"


def test_a_container_that_ignores_sigterm(dock: Dock) -> None:
    deaf = "trap '' TERM; echo ready; while :; do sleep 0.1; done"
    dock("run", "-d", "--name", "deaf", "busybox", "sh", "-c", deaf)
    wait_until(lambda: dock.out("logs", "deaf") == "ready", "it ignores the signal")
    dock("kill", "-s", "TERM", "deaf")
    began = time.monotonic()
    dock("stop", "-t", "1", "deaf")
    assert 1 <= time.monotonic() - began < PATIENCE_SECONDS
    assert dock.out("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "deaf") == "exited 137"
    dock("start", "deaf")
    dock("rm", "-f", "deaf")


def test_a_container_that_closes_its_streams(dock: Dock) -> None:
    closing = "echo before; exec <&- >&- 2>&-; while [ ! -e /end ]; do sleep 0.05; done; exit 7"
    with dock.start(
        "run",
        "-i",
        "--name",
        "mute",
        "busybox",
        "sh",
        "-c",
        closing,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"before\n"
        assert dock.out("ps", "--format", "{{.Names}} {{.State}}") == "mute running"
        assert dock.out("logs", "mute") == "before"
        assert dock.out("exec", "mute", "echo", "answers") == "answers"
        dock("exec", "mute", "touch", "/end")
        assert client.wait(PATIENCE_SECONDS) == 7
    assert dock.out("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "mute") == "exited 7"
    dock("start", "mute")  # detached: without anybody at the streams that it closes
    assert dock.out("wait", "mute") == "7"


def test_a_health_check_that_never_answers_holds_nothing_up(dock: Dock) -> None:
    words = (
        "--health-cmd",
        "sleep 1000",
        "--health-interval",
        "100ms",
        "--health-timeout",
        "200ms",
        "--health-retries",
        "1",
    )
    dock("run", "-d", "--name", "ill", *words, "busybox", "sleep", "1000")
    wait_until(lambda: "(unhealthy)" in dock.out("ps", "--format", "{{.Status}}"), "it is unhealthy")
    assert dock.out("exec", "ill", "echo", "answers") == "answers"
    began = time.monotonic()
    dock("stop", "-t", "0", "ill")
    assert time.monotonic() - began < PATIENCE_SECONDS
    assert dock.out("system", "check") == "no inconsistencies found"


# -- a host without room -----------------------------------------------------------------------------------


@pytest.fixture
def small(archive: Path, tmp_path: Path) -> Iterator[Dock]:
    """A state root with the image, on a disk of its own."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "small", tmp_path], check=True)
    program = Dock(tmp_path / "state")
    try:
        program("load", "-q", "-i", archive)
        yield program
    finally:
        root = StateRoot(program.base / "data", program.base / "run")
        end_servers(root)
        unmounted = lambda: subprocess.run(["umount", tmp_path], check=False).returncode == 0  # noqa: E731
        wait_until(unmounted, "the disk is unmounted")


def fill(directory: Path, name: str) -> None:
    """Take all room of a disk."""
    with open(directory / name, "wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            try:
                while file.write(bytes(size)):
                    pass
            except OSError:
                continue


@needs_root
@pytest.mark.skipif(not shutil.which("nft"), reason="needs nft (Debian: nftables)")
def test_a_full_disk_for_containers_volumes_and_networks(small: Dock) -> None:
    with network_namespace() as namespace:

        def run(*words: str) -> subprocess.CompletedProcess[str]:
            environment = {"PYDOCK_ROOT": str(small.base)}
            return namespace.run(
                sys.executable, "-m", "pydock_core", *words, code=None, environment=environment
            )

        def state() -> list[str]:
            listings = ("ps -aq", "volume ls -q", "network ls -q")
            found = [run(*line.split()).stdout for line in listings]
            devices = [
                name for name in namespace.run("ip", "-o", "link").stdout.splitlines() if "br-" in name
            ]
            return [*found, *devices, *(str(path) for path in (small.base / "data" / "volumes").iterdir())]

        assert run("network", "create", "there").returncode == 0
        assert run("network", "rm", "there").returncode == 0
        fill(small.base.parent, "filled")
        for number in range(20):  # what is held back is used up too
            if run("create", "busybox", "true").returncode:
                break
            fill(small.base.parent, f"filled-{number}")
        before = state()
        for code, words in (
            (125, ("create", "--name", "new", "busybox", "true")),
            (125, ("run", "-d", "--network", "none", "busybox", "sleep", "1000")),
            (1, ("volume", "create", "new")),
            (1, ("network", "create", "new")),
        ):
            refused = run(*words)
            assert refused.returncode == code
            assert "no space left" in line_and_hint(refused)
            assert state() == before
        assert run("system", "check").stdout == "no inconsistencies found\n"
        for path in small.base.parent.glob("filled*"):
            path.unlink()
        assert run("create", "--name", "new", "busybox", "true").returncode == 0
        assert run("rm", *run("ps", "-aq").stdout.split()).returncode == 0
        namespace(end_servers, StateRoot(small.base / "data", small.base / "run"))


@needs_root
@pytest.mark.skipif(not shutil.which("nft"), reason="needs nft (Debian: nftables)")
def test_subnets_that_collide_and_addresses_that_run_out(dock: Dock) -> None:
    with network_namespace() as namespace:
        base = dock.base / "crowded"
        shutil.copytree(dock.base / "data", base / "data")

        def run(*words: str) -> subprocess.CompletedProcess[str]:
            return namespace.run(*dock.words(*words), code=None, environment={"PYDOCK_ROOT": str(base)})

        namespace.run("ip", "link", "add", "taken", "type", "bridge")
        namespace.run("ip", "addr", "add", "10.77.0.1/16", "dev", "taken")
        namespace.run("ip", "link", "set", "taken", "up")
        listed = run("network", "ls").stdout
        refused = run("network", "create", "--subnet", "10.77.5.0/24", "new")
        assert (refused.returncode, "10.77.0.0/16" in line_and_hint(refused)) == (1, True)
        assert run("network", "ls").stdout == listed
        # A few addresses for containers: then one more is refused.
        assert (
            run(
                "network", "create", "--subnet", "10.78.0.0/29", "--ip-range", "10.78.0.4/30", "tiny"
            ).returncode
            == 0
        )
        started = []
        while (last := run("run", "-d", "--network", "tiny", "busybox", "sleep", "1000")).returncode == 0:
            started.append(last.stdout.strip())
            assert len(started) < 8
        assert last.returncode == 125
        assert "address" in line_and_hint(last)
        assert run("network", "rm", "tiny").returncode == 1
        everything = run("ps", "-aq").stdout.split()
        assert run("rm", "-f", *everything).returncode == 0
        assert run("network", "rm", "tiny").returncode == 0
        assert run("system", "check").stdout == "no inconsistencies found\n"
        namespace(end_servers, StateRoot(base / "data", base / "run"))
        shutil.rmtree(base)
