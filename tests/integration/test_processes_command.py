"""top and stats of real containers."""

from __future__ import annotations

import json
import os

import pytest

from pydock_core.runtime.cgroups import probe_cgroups
from tests.integration.conftest import Dock

HAS_CGROUP = probe_cgroups().available


def test_stats_once(dock: Dock) -> None:
    limits = ["-m", "64m", "--pids-limit", "50"] if HAS_CGROUP else []
    dock("run", "-d", "--name", "busy", *limits, "busybox", "sh", "-c", "sleep 1000 & while true; do :; done")
    dock("create", "--name", "idle", "busybox", "true")
    result = dock("stats", "--no-stream", "--format", "json")
    (record,) = [json.loads(line) for line in result.stdout.splitlines()]
    assert list(record) == sorted(record)
    assert (record["Name"], record["PIDs"]) == ("busy", "2")
    assert float(record["CPUPerc"].rstrip("%")) > 0
    assert not record["MemUsage"].startswith("0B")
    if HAS_CGROUP:
        assert record["MemUsage"].endswith(" / 64MiB")
        assert result.stderr == ""
    else:
        assert "has no control group that counts memory" in result.stderr
    lines = dock.out("container", "stats", "--no-stream", "-a").splitlines()
    assert lines[0].split("   ")[0] == "CONTAINER ID"
    assert {line.split()[1] for line in lines[1:]} == {"busy", "idle"}
    (shown,) = dock.out("stats", "--no-stream", "--no-trunc", "--format", "{{.ID}}", "busy").splitlines()
    assert len(shown) == 64
    assert "no such container: nonesuch" in dock("stats", "--no-stream", "nonesuch", code=1).stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="a bridge needs root")
def test_the_network_counts(dock: Dock) -> None:
    dock("run", "-d", "--name", "net", "--network", "bridge", "busybox", "sleep", "1000")
    gateway = dock.out("exec", "net", "sh", "-c", "ip route | sed -n 's/default via \\([^ ]*\\).*/\\1/p'")
    dock("exec", "net", "ping", "-c", "2", "-W", "1", gateway, code=None)
    counts = dock.out("stats", "--no-stream", "--format", "{{.NetIO}}", "net")
    assert counts != "0B / 0B"


def test_stats_go_on(dock: Dock) -> None:
    dock("run", "-d", "--name", "shown", "busybox", "sleep", "1000")
    live = dock.start("stats", "--format", "{{.Name}}", "shown", stdout=-1)
    assert live.stdout is not None
    assert [live.stdout.readline() for _ in range(2)] == [b"shown\n", b"shown\n"]
    live.send_signal(2)
    assert live.wait(20) == 130
    live.stdout.close()


def test_top(dock: Dock) -> None:
    dock("run", "-d", "--name", "listed", "busybox", "sh", "-c", "sleep 1234 & sleep 1235")
    dock("exec", "-d", "listed", "sleep", "1236")
    lines = dock.out("top", "listed").splitlines()
    assert lines[0].split()[:3] == ["UID", "PID", "PPID"]
    for seconds in ("1234", "1235", "1236"):
        assert any(line.endswith(f"sleep {seconds}") for line in lines[1:])
    init = dock.out("inspect", "-f", "{{.State.Pid}}", "listed")
    lines = dock.out("container", "top", "listed", "-o", "pid,args").splitlines()
    assert lines[0].split() == ["PID", "COMMAND"]
    assert init in [line.split()[0] for line in lines[1:]]
    assert len(lines) == 4
    assert "shows no PID" in dock("top", "listed", "-o", "user", code=1).stderr
    assert "cannot be renamed" in dock("top", "listed", "-o", "pid=X", code=1).stderr
    assert dock("top", "listed", "--nonesuch", code=1).stderr.startswith("error: ps --nonesuch: ")
    dock("stop", "-t", "0", "listed")
    assert "is not running" in dock("top", "listed", code=1).stderr
