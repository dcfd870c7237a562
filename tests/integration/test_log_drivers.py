"""Log drivers and options, ``logs --details``, and readers that do not read."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from pydock_core.engine import Engine
from pydock_core.supervision.journal import has_journal
from tests.integration.conftest import Dock, wait_until


def test_details(dock: Dock, engine: Engine) -> None:
    dock(
        *(
            "run",
            "--name",
            "detailed",
            "--log-opt",
            "labels=team,none",
            "--log-opt",
            "env=A",
            "--log-opt",
            "tag={{.Name}}",
        ),
        *("-l", "team=a b", "-e", "A=x&y", "busybox", "sh", "-c", "echo one; echo two >&2"),
    )
    assert dock.out("logs", "detailed") == "one"
    assert dock("logs", "--details", "detailed").stdout == "A=x%26y,tag=detailed,team=a+b one\n"
    line = dock("logs", "--details", "-t", "detailed").stderr
    assert line.partition(" ")[2] == "A=x%26y,tag=detailed,team=a+b two\n"
    dock("run", "--name", "plain", "busybox", "echo", "one")
    assert dock("logs", "--details", "plain").stdout == " one\n"


def test_local(dock: Dock, engine: Engine) -> None:
    dock(
        "run", "--name", "local", "--log-driver", "local", "--log-opt", "max-file=2", "busybox", "echo", "one"
    )
    assert dock.out("logs", "local") == "one"
    config = engine.containers.inspect("local")["HostConfig"]["LogConfig"]
    assert config == {"Type": "local", "Config": {"max-size": "20m", "max-file": "2"}}


@pytest.mark.skipif(has_journal(), reason="a journal listens here")
def test_journald_is_refused_where_there_is_none(dock: Dock) -> None:
    result = dock("create", "--log-driver", "journald", "busybox", "true", code=125)
    assert "no journal of systemd listens on this host" in result.stderr


@pytest.mark.parametrize("end", [signal.SIGSTOP, signal.SIGKILL], ids=["slow", "dead"])
def test_a_reader_never_blocks_the_container(dock: Dock, end: signal.Signals) -> None:
    """The container writes more than every pipe and socket between it and the reader can hold."""
    dock(
        *("run", "-d", "--name", "writer", "--log-opt", "max-size=100k", "busybox"),
        *(
            "sh",
            "-c",
            "echo up; while [ ! -e /tmp/go ]; do sleep 0.01; done; yes line | head -n 400000; echo last",
        ),
    )
    with dock.start("logs", "-f", "writer", stdout=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == b"up\n"
        os.kill(reader.pid, end)
        dock("exec", "writer", "touch", "/tmp/go")
        assert dock.out("wait", "writer") == "0"
        assert dock.out("logs", "-n", "1", "writer") == "last"
        reader.kill()
    wait_until(lambda: dock.out("ps", "-q") == "", "nothing runs")
