"""Containers that trace what an exec brings in and never wait for it, so that its parent cannot reap it (ptrace(2))."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pydock_core.errors import PyDockError
from tests.integration.conftest import Dock, archive, dock, nothing_is_left, wait_until
from tests.support.executor_box import Box
from tests.support.executor_fixtures import only

__all__ = ["archive", "dock", "nothing_is_left"]  # fixtures
SOURCE = Path(__file__).parents[1] / "support" / "ptracer.c"
EXECS = 50
PATIENCE_SECONDS = 3.0  # of the driver's executors
pytestmark = pytest.mark.skipif(
    shutil.which("gcc") is None, reason="needs gcc, which makes the attacker (Debian: gcc)"
)


@pytest.fixture(scope="module")
def tracer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The attacker's program, which needs no library."""
    program = tmp_path_factory.mktemp("tracer") / "ptracer"
    subprocess.run(["gcc", "-O2", "-static", "-w", "-o", program, SOURCE], check=True, timeout=60)
    return program


@pytest.fixture
def limit(box: Box) -> Iterator[None]:
    """End the driver, which fails the test, if it hangs."""
    timer = threading.Timer(60, box.driver.process.kill)
    timer.start()
    yield
    timer.cancel()


@pytest.mark.usefixtures("limit")
@only("embedded", "crun")
def test_a_tracer_that_holds_what_enters_cannot_hold_up_who_executes(box: Box, tracer: Path) -> None:
    shutil.copy(tracer, box.make_rootfs() / "bin" / "ptracer")
    container = box.start("ptracer", "hold", host={"CapAdd": ["SYS_PTRACE"]})
    container.wait_for_output()
    for _ in range(EXECS):
        begin = time.monotonic()
        try:
            container.exec("true")  # the tracer may come when the program runs already
        except PyDockError as error:
            assert "did not start its program in time" in error.message
        assert time.monotonic() - begin < PATIENCE_SECONDS + 5
    begin = time.monotonic()
    container.kill(signal.SIGKILL)
    result = container.wait()
    assert result.code == 137
    assert "held" in result.out
    container.delete()
    assert time.monotonic() - begin < 5


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize("runtime", ["embedded", "crun"])
def test_the_end_of_a_traced_exec_is_reported(dock: Dock, tracer: Path, runtime: str) -> None:
    if runtime != "embedded" and not shutil.which(runtime):
        pytest.skip(f"needs {runtime} (Debian: {runtime})")
    scope = Path("/proc/sys/kernel/yama/ptrace_scope")
    # Yama may leave a process of the same user untraceable; without it no capability is needed.
    needs_capability = scope.exists() and int(scope.read_text()) > 0
    rights = ["--cap-add", "SYS_PTRACE"] if needs_capability else []
    name = f"tracer-{runtime}"
    volume = ["-v", f"{tracer}:/ptracer:ro", "--network", "none", "--runtime", runtime]
    dock("run", "-d", "--name", name, *volume, *rights, "busybox", "/ptracer", "follow", "sh")
    wait_until(lambda: "on" in dock.out("logs", name), "the tracer looks")
    words = ["exec", "-i", name, "sh", "-c", "read line; exit 7"]
    with dock.start(*words, stdin=subprocess.PIPE) as client:
        try:
            wait_until(lambda: "held" in dock.out("logs", name), "the tracer holds the process")
            client.communicate(b"\n", timeout=15)
        finally:
            client.kill()
    assert client.returncode == 7
    # The supervisor serves on, and does not spin on what it cannot reap yet.
    assert dock.out("exec", name, "echo", "next", timeout=20) == "next"
    dock("rm", "-f", name, timeout=20)
