"""Namespaces shared with the host, the parent control group, and limits of devices; with crun and runc too."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from pydock_core.engine import Engine
from pydock_core.runtime.cgroups import probe_cgroups
from tests.integration.conftest import CGROUPS, Dock, wait_until
from tests.support.process import has_ended

IS_ROOT = os.geteuid() == 0
RUNTIMES = [
    (),
    *(
        pytest.param(
            ("--runtime", name),
            marks=pytest.mark.skipif(not (IS_ROOT and shutil.which(name)), reason=f"needs root and {name}"),
        )
        for name in ("crun", "runc")
    ),
]
each_runtime = pytest.mark.parametrize(
    "runtime", RUNTIMES, ids=lambda words: words[-1] if words else "embedded"
)
needs_groups = pytest.mark.skipif(not probe_cgroups().available, reason="needs control groups")
needs_version_1 = pytest.mark.skipif(
    probe_cgroups().version != 1 or not probe_cgroups().memory, reason="needs control groups of version 1"
)


def out(dock: Dock, runtime: tuple[str, ...], *words: str) -> list[str]:
    return dock.out("run", "--rm", *runtime, *words).splitlines()


def namespace(kind: str) -> str:
    return os.readlink(f"/proc/self/ns/{kind}")


@each_runtime
def test_the_hosts_namespaces(dock: Dock, runtime: tuple[str, ...]) -> None:
    script = "readlink /proc/self/ns/ipc; readlink /proc/self/ns/uts; hostname; ls -di /dev/shm"
    lines = out(dock, runtime, "--ipc", "host", "--uts", "host", "busybox", "sh", "-c", script)
    assert lines[:3] == [namespace("ipc"), namespace("uts"), os.uname().nodename]
    assert lines[3].split()[0] == str(os.stat("/dev/shm").st_ino)
    own = out(dock, runtime, "busybox", "sh", "-c", script)
    assert namespace("ipc") not in own
    assert namespace("uts") not in own


@each_runtime
def test_no_shared_memory(dock: Dock, runtime: tuple[str, ...]) -> None:
    assert out(
        dock, runtime, "--ipc", "none", "busybox", "sh", "-c", "grep -c ' /dev/shm ' /proc/mounts || true"
    ) == ["0"]


@needs_groups
@each_runtime
def test_the_hosts_pid_namespace_ends_with_the_container(
    dock: Dock, engine: Engine, runtime: tuple[str, ...]
) -> None:
    """What the container leaves behind ends with it, though the kernel does not end it with the first process."""
    script = "readlink /proc/self/ns/pid; setsid sleep 4321 & echo $!; read line < /tmp/none; sleep 0.1"
    lines = out(dock, runtime, "--pid", "host", "busybox", "sh", "-c", script)
    assert lines[0] == namespace("pid")
    wait_until(lambda: has_ended(int(lines[1])), "the process that was left has ended")
    dock("run", "-d", "--name", "shares", "--pid", "host", *runtime, "busybox", "sleep", "1000")
    dock("exec", "shares", "true")
    dock("stop", "-t", "1", "shares")
    assert engine.containers.inspect("shares")["State"]["Status"] == "exited"


@each_runtime
def test_the_cgroup_namespace(dock: Dock, runtime: tuple[str, ...]) -> None:
    script = "readlink /proc/self/ns/cgroup"
    assert out(dock, runtime, "--cgroupns", "host", "busybox", "sh", "-c", script) == [namespace("cgroup")]
    assert out(dock, runtime, "--cgroupns", "private", "busybox", "sh", "-c", script) != [namespace("cgroup")]


@pytest.fixture
def parent() -> Iterator[str]:
    yield "/pydock-jobs/nightly"
    for group in (*CGROUPS.glob("*/pydock-jobs/nightly"), *CGROUPS.glob("pydock-jobs/nightly")):
        group.rmdir()
        group.parent.rmdir()


@needs_groups
@pytest.mark.skipif(not IS_ROOT, reason="the path starts at the user's own group")
@each_runtime
def test_the_parent_control_group(dock: Dock, engine: Engine, parent: str, runtime: tuple[str, ...]) -> None:
    container_id = dock.out("run", "-d", "--cgroup-parent", parent, *runtime, "busybox", "sleep", "1000")
    pid = engine.containers.inspect(container_id)["State"]["Pid"]
    assert f"{parent}/{container_id}\n" in Path(f"/proc/{pid}/cgroup").read_text()
    dock("rm", "-f", container_id)
    assert [*CGROUPS.glob(f"**{parent}/{container_id}")] == []


@each_runtime
def test_the_domain(dock: Dock, runtime: tuple[str, ...]) -> None:
    script = "cat /proc/sys/kernel/domainname; grep box /etc/hosts"
    if runtime:
        script = "grep box /etc/hosts; grep box /etc/hosts"  # runc and crun of Debian 12 have no domain names
    words = ("--hostname", "box", "--domainname", "example.org", "busybox", "sh", "-c", script)
    lines = out(dock, runtime, *words)
    assert lines[0] == "example.org" or runtime
    assert lines[1].split()[1:] == ["box.example.org", "box"]


@pytest.mark.skipif(not IS_ROOT, reason="an ordinary user has no rules of devices")
@each_runtime
def test_a_device_rule(dock: Dock, runtime: tuple[str, ...]) -> None:
    """No driver has the device, as the kernel finds after it has looked at the rules."""
    script = "mknod /tmp/device c 10 253; cat /tmp/device 2>&1; true"
    assert "not permitted" in out(dock, runtime, "busybox", "sh", "-c", script)[0]
    allowed = out(dock, runtime, "--device-cgroup-rule", "c 10:* rwm", "busybox", "sh", "-c", script)[0]
    assert "No such device" in allowed


def disk() -> Path | None:
    """A disk, which has limits: partitions have none."""
    names = [path.name for path in Path("/sys/block").iterdir()]
    found = (Path("/dev") / name for name in sorted(names) if not name.startswith(("loop", "ram", "zram")))
    return next((path for path in found if path.exists() and stat.S_ISBLK(path.stat().st_mode)), None)


@needs_version_1
@pytest.mark.skipif(disk() is None, reason="needs a disk")
@each_runtime
def test_limits_of_a_disk(dock: Dock, engine: Engine, runtime: tuple[str, ...]) -> None:
    device = disk()
    assert device is not None
    words = ["--device-read-bps", f"{device}:1mb", "--device-write-iops", f"{device}:7"]
    container_id = dock.out("run", "-d", *words, *runtime, "busybox", "sleep", "1000")
    numbers = f"{os.major(device.stat().st_rdev)}:{os.minor(device.stat().st_rdev)}"
    (group,) = CGROUPS.glob(f"blkio/pydock/{container_id}")
    assert (group / "blkio.throttle.read_bps_device").read_text() == f"{numbers} 1048576\n"
    assert (group / "blkio.throttle.write_iops_device").read_text() == f"{numbers} 7\n"
    dock("rm", "-f", container_id)


@needs_version_1
def test_swappiness_and_the_oom_killer(dock: Dock) -> None:
    words = ("--memory-swappiness", "10", "--oom-kill-disable", "-m", "64m")
    container_id = dock.out("run", "-d", *words, "busybox", "sleep", "1000")
    (group,) = CGROUPS.glob(f"memory/pydock/{container_id}")
    assert (group / "memory.swappiness").read_text() == "10\n"
    assert "oom_kill_disable 1" in (group / "memory.oom_control").read_text()
    dock("rm", "-f", container_id)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--ipc", "shareable"], "--ipc shareable is refused: a container's /dev/shm"),
        (["--pid", "container:x"], "--pid container:x is refused"),
        (["--pid", "x"], "invalid --pid x: no such mode"),
        (["--uts", "host", "--hostname", "x"], "--uts host cannot be combined"),
        (["--cgroup-parent", "../x"], "invalid --cgroup-parent ../x"),
        (["--device-cgroup-rule", "c 1:3"], "invalid --device-cgroup-rule c 1:3"),
        (["--device-read-bps", "/dev/nonesuch:1mb"], "device /dev/nonesuch"),
        (["--device-read-bps", "/dev/null:1mb"], "device /dev/null is not a block device"),
        (["--device-read-bps", "x"], "--device-read-bps x: malformed"),
        (["--memory-swappiness", "101"], "invalid --memory-swappiness 101"),
        (["--storage-opt", "size=1g"], "option --storage-opt is refused: writable layers have no quota"),
        (["--kernel-memory", "1g"], "option --kernel-memory is refused: the kernel has no such limit"),
        (["--isolation", "hyperv"], "option --isolation is refused: it is of containers on Windows"),
        (["--use-api-socket"], "option --use-api-socket is refused: without a daemon"),
        (["--disable-content-trust=false"], "option --disable-content-trust=false is refused"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_is_refused_has_a_reason(dock: Dock, words: list[str], message: str) -> None:
    result = dock("create", *words, "busybox", "true", code=125)
    assert message in result.stderr
    assert result.stderr.splitlines()[1].startswith("hint: ")
