"""Attacks on the processes that an exec brings into a container, by a container with CAP_SYS_PTRACE.

crun is the control: the watcher must see as many of its processes as of ours.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pydock_core.errors import PyDockError
from pydock_core.runtime.capabilities import build_mask
from pydock_core.runtime.cgroups import probe_cgroups
from pydock_core.spec.defaults import CAPABILITIES
from tests.integration.conftest import Dock, archive, dock, nothing_is_left, wait_until
from tests.support.executor_box import Box
from tests.support.executor_fixtures import only

__all__ = ["archive", "dock", "nothing_is_left"]  # fixtures
EXECS = 25
JOINS = 8
SUPPORT = Path(__file__).parents[1] / "support"
pytestmark = pytest.mark.skipif(
    shutil.which("gcc") is None, reason="needs gcc, which makes the attacker (Debian: gcc)"
)


def compile_program(name: str, directory: Path) -> Path:
    """Compile an attacker's program, which needs no library."""
    source = SUPPORT / f"{name}.c"
    subprocess.run(["gcc", "-O2", "-static", "-w", "-o", directory / name, source], check=True, timeout=60)
    return directory / name


@pytest.fixture(scope="session")
def watcher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_program("proc_watcher", tmp_path_factory.mktemp("watcher"))


@pytest.mark.parametrize("privileged", [False, True])
@only("embedded", "embedded-userns", "embedded-rootless", "crun")
def test_a_tracer_finds_nothing_of_the_host_in_an_exec(box: Box, watcher: Path, privileged: bool) -> None:
    marker = box.base / "marker"
    marker.write_text("host\n")
    marker.chmod(0o666)
    shutil.copy(watcher, box.make_rootfs() / "bin" / "proc_watcher")
    if privileged and not box.is_embedded:
        pytest.skip("crun gives up where root itself has not all capabilities; the other case is the control")
    rights: dict[str, Any] = {"Privileged": True} if privileged else {"CapAdd": ["SYS_PTRACE"]}
    container = box.start("proc_watcher", str(marker), host=rights)
    container.wait_for_output()
    for _ in range(EXECS):
        assert container.exec("sleep", "0.02").code == 0
    container.kill(signal.SIGKILL)
    lines = [line.split() for line in container.wait().lines]

    assert marker.read_text() == "host\n"
    assert [line for line in lines if line[0] == "escaped"] == []
    seen = {line[1] for line in lines if line[0] == "seen"}
    # Each exec was looked at while it lived; most of them, on a machine that is busy.
    assert len(seen) > EXECS / 2
    if not box.is_embedded:
        return
    # Nothing but the program's own rights, from the first moment to the last.
    own = {tuple(line[2:]) for line in lines if line[0] == "state" and line[1] in seen}
    assert len(own) == 1, own
    effective, permitted, seccomp = own.pop()
    if not privileged:
        assert int(effective, 16) == int(permitted, 16) == build_mask([*CAPABILITIES, "CAP_SYS_PTRACE"])
        assert seccomp == "2"
    targets = {line[2] for line in lines if line[0] == "open"}
    assert {target for target in targets if not target.startswith("pipe:[")} <= {"/dev/null"}
    assert {line[2] for line in lines if line[0] == "cwd"} <= {"/"}


@pytest.mark.skipif(
    os.geteuid() != 0, reason="needs root: an ordinary user's container may share no processes"
)
@pytest.mark.skipif(not probe_cgroups().available, reason="needs control groups")
def test_a_tracer_finds_nothing_of_the_host_in_a_container_that_joins_it(
    dock: Dock, watcher: Path, tmp_path: Path
) -> None:
    """The first process of --pid container: is seen in its final form only, as that of an exec."""
    marker = tmp_path / "marker"
    marker.write_text("host\n")
    marker.chmod(0o666)
    rights = ("--cap-add", "SYS_PTRACE", "-v", f"{watcher}:/proc_watcher:ro", "--network", "none")
    dock("run", "-d", "--name", "watching", *rights, "busybox", "/proc_watcher", marker)
    wait_until(lambda: dock.out("logs", "watching") != "", "the watcher looks")
    for _ in range(JOINS):
        dock("run", "--rm", "--network", "none", "--pid", "container:watching", "busybox", "sleep", "0.02")
    dock("kill", "watching")
    lines = [line.split() for line in dock.out("logs", "watching").splitlines()]
    assert marker.read_text() == "host\n"
    assert [line for line in lines if line[0] == "escaped"] == []
    seen = {line[1] for line in lines if line[0] == "seen"}
    assert len(seen) > JOINS / 2
    own = {tuple(line[2:]) for line in lines if line[0] == "state" and line[1] in seen}
    mask = f"{build_mask(CAPABILITIES):x}"
    assert own == {(mask, mask, "2")}
    targets = {line[2] for line in lines if line[0] == "open"}
    assert {target for target in targets if not target.startswith("pipe:[")} <= {"/dev/null"}
    assert {line[2] for line in lines if line[0] == "cwd"} <= {"/"}


@only("embedded")
def test_a_container_cannot_hold_up_who_executes_in_it(box: Box) -> None:
    # As root it may stop what enters; with the report pipe open, the caller would wait for it.
    script = "echo on; while :; do for p in /proc/[0-9]*; do [ $p = /proc/1 ] || kill -STOP ${p#/proc/}; done; done"
    container = box.start("sh", "-c", script)
    container.wait_for_output()
    pids = []
    for _ in range(5):
        try:
            pids.append(container.exec_start("sleep", "100"))
        except PyDockError as error:
            assert "did not start its program in time" in error.message
            break
    container.kill(signal.SIGKILL)
    for pid in pids:  # first: init waits for them to be reaped
        assert box.finish(pid).code == 137
    assert container.wait().code == 137


@pytest.mark.skipif(
    os.geteuid() != 0, reason="needs root: the capability counts in the host's user namespace only"
)
def test_a_tracer_opens_no_file_for_writing_that_an_exec_has_mapped(dock: Dock, tmp_path: Path) -> None:
    """With CAP_CHECKPOINT_RESTORE too, /proc/PID/map_files led to the host's C library (proc_pid_map_files(5))."""
    program = compile_program("map_watcher", tmp_path)
    rights = ("--cap-add", "SYS_PTRACE", "--cap-add", "CHECKPOINT_RESTORE")
    volume = ("-v", f"{program}:/map_watcher:ro")
    dock("run", "-d", "--name", "maps", "--network", "none", *rights, *volume, "busybox", "/map_watcher")
    wait_until(lambda: "watching" in dock.out("logs", "maps"), "the watcher looks")
    found: set[str] = set()

    def look() -> bool:
        dock("exec", "maps", "true")
        found.update(line for line in dock.out("logs", "maps").splitlines() if ".so" in line)
        return bool(found)

    for _ in range(EXECS):
        look()
    wait_until(look, "the process is seen while it still is PyDock's", 60)
    assert [line for line in found if line.startswith("writable")] == []
    assert any(line.startswith(f"refused {errno.EROFS} ") for line in found)
