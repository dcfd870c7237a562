"""What holds for a whole run: skips that CI takes for failures, the machine's state, and crun's control group.

In CI, as root, a missing tool can be installed, so a skip that says "needs" is a failure there.  So is anything that a
run leaves on the machine, or takes away; elsewhere it is only reported, as others may work on the same machine.

crun 1.8 refuses the hybrid mode of cgroups while version 2 holds a controller.  The hugetlb controller is mounted
for the whole run, not by the tests that need it: they run at the same time as others.
"""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING

import hypothesis
import pytest

from tests.bench.isolation import HUGETLB, ensure_hugetlb
from tests.support.file_duration import SECONDS
from tests.support.machine import State, describe_changes, read_state

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.scheduler import LoadScopeScheduling

# An image that a test forgot to make is missing, and not asked for on the network.
os.environ["PYDOCK_PULL"] = "never"

# Other tests run at the same time, so the time of a single example says nothing.
hypothesis.settings.register_profile("pydock", deadline=None)
hypothesis.settings.load_profile("pydock")

_lacking: list[str] = []
_made_hugetlb = False
_state_before: State = {}
_changes: list[str] = []


def pytest_configure(config: pytest.Config) -> None:
    """Heed interrupts: a shell starts what it puts in the background with SIGINT ignored, and programs inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let workers start with the files that take longest: the last one to end then has only a short file."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: -SECONDS.get(item.location[0], 0))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling | None:
    """Give a worker a whole file, or all files of tests/ui, which share a JupyterLab and an image of its environment."""
    if config.option.dist != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):  # type: ignore[misc]  # the plugin has no types
        def _split_scope(self, nodeid: str) -> str:
            scope = str(super()._split_scope(nodeid))
            return "tests/ui" if scope.startswith("tests/ui/") else scope

    return Scheduling(config, log)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Mount the hugetlb controller, in the process that is not a worker of another."""
    global _made_hugetlb, _state_before
    if "PYTEST_XDIST_WORKER" not in os.environ and not session.config.option.collectonly:
        _state_before = read_state()
    if os.geteuid() == 0 and "PYTEST_XDIST_WORKER" not in os.environ:
        was_there = HUGETLB.exists()
        ensure_hugetlb()
        _made_hugetlb = HUGETLB.exists() and not was_there


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note the skips for want of something."""
    if report.skipped and isinstance(report.longrepr, tuple) and "needs " in report.longrepr[2]:
        _lacking.append(f"{report.nodeid}: {report.longrepr[2]}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the session for skips that CI does not accept, and unmount the hugetlb controller."""
    if _made_hugetlb and subprocess.run(["umount", HUGETLB], check=False).returncode == 0:
        HUGETLB.rmdir()
    if _state_before:
        _changes.extend(describe_changes(_state_before, read_state()))
        if _changes and os.environ.get("CI"):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
    if _lacking and os.environ.get("CI") and os.geteuid() == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which, and what the run has left on the machine."""
    if _changes:
        terminalreporter.section("the machine is not as it was", red=True)
        for line in _changes:
            terminalreporter.line(line)
    if _lacking and os.environ.get("CI") and os.geteuid() == 0:
        terminalreporter.section("skipped for want of something that CI must install", red=True)
        for line in _lacking:
            terminalreporter.line(line)
