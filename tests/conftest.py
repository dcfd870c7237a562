"""In CI, as root, what a test needs can be installed: a skip that says "needs" is a failure there."""

from __future__ import annotations

import os

import pytest

# An image that a test forgot to make is missing, and not asked for on the network.
os.environ["PYDOCK_PULL"] = "never"

_lacking: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note the skips for want of something."""
    if report.skipped and isinstance(report.longrepr, tuple) and "needs " in report.longrepr[2]:
        _lacking.append(f"{report.nodeid}: {report.longrepr[2]}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the session for them."""
    if _lacking and os.environ.get("CI") and os.geteuid() == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which."""
    if _lacking and os.environ.get("CI") and os.geteuid() == 0:
        terminalreporter.section("skipped for want of something that CI must install", red=True)
        for line in _lacking:
            terminalreporter.line(line)
