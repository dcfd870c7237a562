"""update: the record and the control group of a container change together, or neither does."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from pydock_core.engine import Engine, update
from pydock_core.errors import FailedError
from pydock_core.runtime.cgroups import probe_cgroups
from pydock_core.runtime.cgroups.layout import find_directories, read_layout
from pydock_core.store.database import events
from pydock_core.supervision.container_status import derive_status
from tests.integration.conftest import Dock, wait_until

SUPPORT = probe_cgroups()
needs_limits = pytest.mark.skipif(
    not (SUPPORT.memory and SUPPORT.pids), reason="no controllers for this user"
)
needs_v1 = pytest.mark.skipif(SUPPORT.version != 1 or not SUPPORT.memory, reason="not on cgroup version 1")


def host_config(dock: Dock, name: str) -> Any:
    return json.loads(dock.out("inspect", "-f", "{{json .HostConfig}}", name))


def kernel_value(engine: Engine, container_id: str, controller: str, file: str) -> str:
    """What the control group of a running container has in a file of version 1."""
    pid = derive_status(engine.root.container(container_id)).pid
    return Path(find_directories(pid, container_id, read_layout())[controller], file).read_text().strip()


@needs_v1
def test_every_limit_of_a_running_container(dock: Dock, engine: Engine) -> None:
    container_id = dock.out("run", "-d", "--name", "limited", "-m", "64m", "busybox", "sleep", "1000")

    def has(controller: str, file: str, value: object) -> None:
        assert kernel_value(engine, container_id, controller, file) == str(value), file

    swap = ["--memory-swap", "256m"] if SUPPORT.swap else []
    assert dock.out("update", "-m", "128m", *swap, "--memory-reservation", "32m", "limited") == "limited"
    has("memory", "memory.limit_in_bytes", 128 << 20)
    has("memory", "memory.soft_limit_in_bytes", 32 << 20)
    if SUPPORT.swap:
        has("memory", "memory.memsw.limit_in_bytes", 256 << 20)
    dock("update", "-m", "48m", *(["--memory-swap", "96m"] if swap else []), "limited")  # lower again
    has("memory", "memory.limit_in_bytes", 48 << 20)
    dock("update", "--cpus", "0.5", "--cpu-shares", "512", "--cpuset-cpus", "0", "limited")
    has("cpu", "cpu.cfs_quota_us", 50_000)
    has("cpu", "cpu.shares", 512)
    has("cpuset", "cpuset.cpus", 0)
    dock("update", "--cpuset-mems", "0", "--pids-limit", "77", "limited")
    has("pids", "pids.max", 77)
    dock("update", "--pids-limit", "-1", "limited")
    has("pids", "pids.max", "max")
    host = host_config(dock, "limited")
    assert (host["Memory"], host["NanoCpus"], host["CpuShares"]) == (48 << 20, 5 * 10**8, 512)
    assert (host["MemoryReservation"], host["CpusetCpus"], host["PidsLimit"]) == (32 << 20, "0", -1)
    recorded = events.select_after(engine.state.database, 0)[0]
    assert [event.action for event in recorded if event.actor == container_id].count("update") == 5
    dock("restart", "-t", "0", "limited")
    has("memory", "memory.limit_in_bytes", 48 << 20)
    has("cpu", "cpu.cfs_quota_us", 50_000)


@needs_v1
def test_the_period_and_the_quota(dock: Dock, engine: Engine) -> None:
    container_id = dock.out(
        "run", "-d", "--name", "quota", "--cpu-quota", "30000", "busybox", "sleep", "1000"
    )
    assert kernel_value(engine, container_id, "cpu", "cpu.cfs_quota_us") == "30000"
    dock("update", "--cpu-period", "50000", "--cpu-quota", "10000", "quota")
    assert kernel_value(engine, container_id, "cpu", "cpu.cfs_period_us") == "50000"
    assert kernel_value(engine, container_id, "cpu", "cpu.cfs_quota_us") == "10000"
    result = dock("update", "--cpus", "1", "quota", code=125)
    assert "cannot be combined with --cpus" in result.stderr


@needs_v1
def test_what_the_kernel_refuses_changes_nothing(
    dock: Dock, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For instance a processor that goes away after the check."""
    container_id = dock.out("run", "-d", "--name", "refused", "-m", "64m", "busybox", "sleep", "1000")
    before = host_config(dock, "refused")
    monkeypatch.setattr(update, "check_cpuset", lambda _: None)
    with pytest.raises(FailedError, match=r"cpuset\.cpus: Numerical result out of range"):
        engine.containers.update("refused", {"Memory": 96 << 20, "CpusetCpus": "4000"})
    assert host_config(dock, "refused") == before
    assert kernel_value(engine, container_id, "memory", "memory.limit_in_bytes") == str(64 << 20)


@needs_limits
def test_a_container_that_does_not_run_starts_with_its_new_limits(dock: Dock) -> None:
    dock("create", "--name", "later", "busybox", "sh", "-c", "cat /sys/fs/cgroup/*/memory.limit_in_bytes")
    dock("update", "-m", "32m", "--restart", "on-failure:3", "later")
    host = host_config(dock, "later")
    assert (host["Memory"], host["RestartPolicy"]) == (
        32 << 20,
        {"Name": "on-failure", "MaximumRetryCount": 3},
    )
    if SUPPORT.version == 1 and os.geteuid() == 0:
        assert str(32 << 20) in dock.out("start", "-a", "later")


def test_a_restart_policy_is_followed_at_once(dock: Dock) -> None:
    dock(
        "run",
        "-d",
        "--name",
        "again",
        "busybox",
        "sh",
        "-c",
        "until test -e /go; do sleep 0.05; done; rm /go",
    )
    dock("update", "--restart", "always", "again")
    dock("exec", "again", "touch", "/go")
    look = ("inspect", "-f", "{{.RestartCount}} {{.State.Status}}", "again")
    wait_until(lambda: dock.out(*look) == "1 running", "it is started again")
    dock("update", "--restart", "no", "again")
    dock("exec", "again", "touch", "/go")
    assert dock.out("wait", "again") == "0"


@needs_v1
def test_a_container_that_its_policy_starts_again_has_the_new_limits(dock: Dock, engine: Engine) -> None:
    script = "until test -e /go; do sleep 0.05; done; rm /go"
    container_id = dock.out(
        "run", "-d", "--name", "kept", "--restart", "always", "busybox", "sh", "-c", script
    )
    dock("update", "--pids-limit", "55", "kept")
    dock("exec", "kept", "touch", "/go")
    wait_until(lambda: dock.out("inspect", "-f", "{{.RestartCount}}", "kept") == "1", "it is started again")
    wait_until(lambda: derive_status(engine.root.container(container_id)).is_running, "it runs")
    assert kernel_value(engine, container_id, "pids", "pids.max") == "55"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], 1, "no limit and no restart policy to set"),
        (["-m", "1k"], 125, "invalid --memory 1KiB"),
        (["--cpuset-cpus", "4000"], 125, "invalid --cpuset-cpus 4000: this host has processors 0"),
        (["--restart", "sometimes"], 125, "--restart"),
        (["--cpu-rt-runtime", "5"], 125, "without real-time scheduling"),
    ],
)
def test_what_is_refused(dock: Dock, words: list[str], code: int, message: str) -> None:
    dock("create", "--name", "strict", "busybox", "true")
    result = dock("update", *words, "strict", code=code)
    assert message in result.stderr.splitlines()[0]
    assert "no such container: nonesuch" in dock("update", "--restart", "no", "nonesuch", code=1).stderr


@pytest.mark.skipif(SUPPORT.memory, reason="a user who has no controllers")
def test_a_limit_that_cannot_be_enforced_is_refused(dock: Dock) -> None:
    dock("create", "--name", "free", "busybox", "true")
    result = dock("update", "-m", "64m", "free", code=1)
    assert "cannot enforce --memory here" in result.stderr
    assert host_config(dock, "free")["Memory"] == 0
