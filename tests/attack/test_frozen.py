"""Containers that freeze themselves, so that no signal ends them: version 1's freezer holds back even SIGKILL."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from pydock_core.engine import Engine
from pydock_core.runtime.cgroups import probe_cgroups, read_layout
from pydock_core.runtime.cgroups.group import list_tree
from pydock_core.supervision.container_status import derive_status
from tests.integration.conftest import Dock, archive, dock, engine, nothing_is_left, wait_until

__all__ = ["archive", "dock", "engine", "nothing_is_left"]  # fixtures
pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not probe_cgroups().available, reason="needs root and control groups"
)

# A stopped process, a frozen one two groups below, a frozen group between, and at last all of it.
FREEZE = """
mkdir /tmp/g
file=freezer.state frozen=FROZEN
mount -t cgroup -o freezer g /tmp/g 2>/dev/null || {
    mount -t cgroup2 g /tmp/g
    file=cgroup.freeze frozen=1
}
cd /tmp/g
mkdir -p below/deep
sleep 100 & echo $! >below/deep/cgroup.procs
sleep 100 & kill -STOP $!
echo $frozen >below/deep/$file
echo $frozen >below/$file
echo $frozen >$file
sleep 100
"""


def frozen_groups(container_id: str) -> int:
    """Count the container's control groups that are frozen."""
    layout = read_layout()
    mounted = layout.v1.get("freezer") or layout.unified
    assert mounted is not None
    count = 0
    for top in mounted.glob(f"**/{container_id}"):
        for directory in list_tree(str(top)):
            for file, words in (("freezer.state", "FROZEN\n"), ("cgroup.events", "frozen 1\n")):
                path = Path(directory, file)
                count += path.exists() and words in path.read_text()
    return count


def start_frozen(dock: Dock, name: str) -> str:
    dock("start", name)
    container_id = dock.out("inspect", "-f", "{{.Id}}", name)
    wait_until(lambda: frozen_groups(container_id) == 3, "it has frozen itself")
    return container_id


@pytest.mark.parametrize("runtime", ["embedded", "crun"])
def test_killing_thaws(dock: Dock, engine: Engine, runtime: str) -> None:
    if runtime != "embedded" and not shutil.which(runtime):
        pytest.skip(f"needs {runtime} (Debian: {runtime})")
    words = ["--runtime", runtime, "--network", "none", "--cap-add", "SYS_ADMIN"]
    dock("create", "--name", f"ice-{runtime}", *words, "busybox", "sh", "-c", FREEZE)
    name = f"ice-{runtime}"
    start_frozen(dock, name)
    if runtime == "embedded":
        # A process that enters would stop there, and the supervisor would wait for it.
        assert "is frozen" in dock("exec", name, "true", code=None, timeout=20).stderr
    dock("kill", name, timeout=20)
    assert dock.out("wait", name, timeout=20) == "137"
    start_frozen(dock, name)
    dock("stop", "-t", "0", name, timeout=20)
    container_id = start_frozen(dock, name)
    dock("restart", "-t", "0", name, timeout=20)
    wait_until(lambda: frozen_groups(container_id) == 3, "it has frozen itself again")
    if runtime == "embedded":
        # A look shows its end; the next start reaps what the killed supervisor has left.
        os.kill(derive_status(engine.root.container(container_id)).supervisor_pid, signal.SIGKILL)
        wait_until(lambda: "Exited (137)" in dock.out("ps", "-a", timeout=20), "a look shows its end")
        start_frozen(dock, name)
    dock("rm", "-f", name, timeout=20)
    assert frozen_groups(container_id) == 0
    assert name not in dock.out("ps", "-a")
