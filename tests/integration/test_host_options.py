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
ALONE = ("--network", "none")
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


@each_runtime
def test_the_names_of_the_container_whose_network_is_shared(dock: Dock, runtime: tuple[str, ...]) -> None:
    names = ("--hostname", "alpha", "--domainname", "example.org")
    dock("run", "-d", "--name", "owner", *ALONE, *names, *runtime, "busybox", "sleep", "1000")
    joined = ("--network", "container:owner")
    dock("run", "-d", "--name", "guest", *joined, *runtime, "busybox", "sleep", "1000")
    script = "hostname; hostname -d; hostname -i; cat /etc/hostname; echo $HOSTNAME"
    expected = ["alpha", "example.org", "127.0.0.1", "alpha", "alpha"]
    assert dock.out("exec", "guest", "sh", "-c", script).split() == expected
    assert dock.out("inspect", "-f", "{{.Config.Hostname}}", "guest") == "alpha"
    dock("update", "--restart", "no", "guest")
    further = ("--network", "container:guest")
    assert out(dock, runtime, *further, "busybox", "sh", "-c", script) == expected
    for option in ("--hostname", "--domainname"):
        refused = dock("create", *joined, option, "beta", "busybox", code=125).stderr
        assert f"conflicting options: {option[2:]} and the network mode\nhint: leave {option} out" in refused
    host = out(dock, runtime, *joined, "--uts", "host", "busybox", "sh", "-c", "hostname; cat /etc/hostname")
    assert host == [os.uname().nodename] * 2


def test_the_hosts_network_comes_with_its_name(dock: Dock) -> None:
    words = ("--network", "host", "busybox", "sh", "-c", "hostname; cat /etc/hostname; hostname -i >&2")
    assert out(dock, (), *words) == [os.uname().nodename] * 2


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


@needs_groups
@each_runtime
def test_namespaces_of_another_container(dock: Dock, runtime: tuple[str, ...]) -> None:
    dock("run", "-d", "--name", "both", *ALONE, "--ipc", "shareable", "busybox", "sleep", "1000")
    script = "readlink /proc/self/ns/pid; readlink /proc/self/ns/ipc; cat /proc/1/comm; touch /dev/shm/ours"
    joined = (*ALONE, *runtime, "--pid", "container:both", "--ipc", "container:both", "busybox")
    lines = out(dock, (), *joined, "sh", "-c", script)
    look = "readlink /proc/self/ns/pid; readlink /proc/self/ns/ipc; cat /proc/1/comm; rm /dev/shm/ours"
    assert lines == dock.out("exec", "both", "sh", "-c", look).splitlines()
    assert lines[2] == "sleep"
    assert "not found" in dock("run", "--rm", *joined, "nonesuch", code=127).stderr


def test_another_containers_shared_memory(dock: Dock) -> None:
    """Its IPC namespace and its /dev/shm; a restart of either container joins again."""
    script = "echo theirs > /dev/shm/file; sleep 1000"
    donor = dock.out(
        "run", "-d", "--name", "donor", *ALONE, "--ipc", "shareable", "busybox", "sh", "-c", script
    )
    look = "until cat /dev/shm/file 2>/dev/null; do :; done; readlink /proc/self/ns/ipc; echo ours > /dev/shm/more"
    words = (*ALONE, "--ipc", "container:donor", "busybox", "sh", "-c", look)
    for _ in range(2):
        theirs = dock.out("exec", "donor", "readlink", "/proc/self/ns/ipc")
        assert out(dock, (), *words) == ["theirs", theirs]
        assert dock.out("exec", "donor", "cat", "/dev/shm/more") == "ours"
        dock("restart", "-t", "0", "donor")
    dock("create", "--name", "joiner", *words)
    assert dock.out("inspect", "-f", "{{.HostConfig.IpcMode}}", "joiner") == f"container:{donor}"
    assert dock.out("start", "-a", "joiner").splitlines()[0] == "theirs"
    dock("stop", "-t", "0", "donor")
    refused = dock("start", "joiner", code=125).stderr
    assert "container donor is not running, so its IPC namespace cannot be joined" in refused


def test_a_private_ipc_namespace_stays_private(dock: Dock) -> None:
    dock("run", "-d", "--name", "closed", *ALONE, "busybox", "sleep", "1000")
    refused = dock("run", "--rm", *ALONE, "--ipc", "container:closed", "busybox", "true", code=125).stderr
    assert "does not share its IPC namespace\nhint: make it with --ipc shareable" in refused
    assert dock.out("run", "--rm", *ALONE, "--ipc", "shareable", "busybox", "echo", "on") == "on"


@needs_groups
def test_another_containers_processes(dock: Dock) -> None:
    donor = dock.out("run", "-d", "--name", "owner", *ALONE, "busybox", "sleep", "1000")
    theirs = dock.out("exec", "owner", "readlink", "/proc/self/ns/pid")
    joined = (*ALONE, "--pid", "container:owner")
    # Its processes end with it, those that have left its session too, and the other container's stay.
    script = "setsid sleep 4322 & while :; do sleep 0.02; done"
    dock("run", "-d", "--name", "guest", *joined, "busybox", "sh", "-c", script)
    assert dock.out("inspect", "-f", "{{.HostConfig.PidMode}}", "guest") == f"container:{donor}"
    wait_until(lambda: "sleep 4322" in dock.out("exec", "owner", "ps"), "its process is seen")
    assert "sleep 1000" in dock.out("exec", "guest", "ps")
    dock("stop", "-t", "0", "guest")
    wait_until(lambda: "sleep 4322" not in dock.out("exec", "owner", "ps"), "its processes have ended")
    # It ends with the other container's first process, like every process there.
    dock("start", "guest")
    dock("restart", "-t", "0", "owner")
    assert dock.out("wait", "guest") == "137"
    dock("start", "guest")
    assert dock.out("exec", "guest", "readlink", "/proc/self/ns/pid") != theirs


@needs_groups
def test_a_killed_supervisor_leaves_no_process_there(dock: Dock, engine: Engine) -> None:
    dock("run", "-d", "--name", "owner", *ALONE, "busybox", "sleep", "1000")
    script = "setsid sleep 4323 & while :; do sleep 0.02; done"
    dock("run", "-d", "--name", "guest", *ALONE, "--pid", "container:owner", "busybox", "sh", "-c", script)
    wait_until(lambda: "sleep 4323" in dock.out("exec", "owner", "ps"), "its process is seen")
    pid = engine.containers.inspect("guest")["State"]["Pid"]
    os.kill(int(Path(f"/proc/{pid}/status").read_text().partition("PPid:")[2].split()[0]), 9)
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the first process ends with its supervisor")
    dock("rm", "guest")
    assert "sleep 4323" not in dock.out("exec", "owner", "ps")


@needs_groups
def test_a_terminal_and_an_init_beside_anothers_processes(dock: Dock) -> None:
    dock("run", "-d", "--name", "owner", *ALONE, "busybox", "sleep", "1000")
    words = ("run", "--rm", *ALONE, "--pid", "container:owner", "--init", "-t", "busybox")
    lines = dock.out(*words, "sh", "-c", "tty; ps").splitlines()
    assert lines[0] == "/dev/pts/0"
    assert any("init -- sh" in line for line in lines)


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
        (["--ipc", "container:nonesuch"], "no such container: nonesuch"),
        (["--ipc", "container:"], "invalid --ipc container:: the name is missing"),
        (["--uts", "container:x"], "invalid --uts container:x: no such mode"),
        (["--uts", "x"], "hint: the only mode is host"),
        (["--pid", "x"], "invalid --pid x: no such mode"),
        (["--userns", "keepid"], "hint: there are host, keep-id[:uid=N,gid=N]"),
        (["--userns", "keep-id:foo"], "invalid --userns keep-id:foo: 'foo' is not a setting"),
        (["--uts", "host", "--hostname", "x"], "--uts host cannot be combined"),
        (["--cgroup-parent", "../x"], "invalid --cgroup-parent ../x"),
        (["--device-cgroup-rule", "c 1:3"], "invalid --device-cgroup-rule c 1:3"),
        (["--device-read-bps", "/dev/nonesuch:1mb"], "device /dev/nonesuch"),
        (["--device-read-bps", "/dev/null:1mb"], "device /dev/null is not a block device"),
        (["--device-read-bps", "x"], "--device-read-bps x: malformed"),
        (["--memory-swappiness", "101"], "invalid --memory-swappiness 101"),
        (
            ["--storage-opt", "size=1g"],
            "option --storage-opt is refused: a writable layer has no quota of its own",
        ),
        (["--kernel-memory", "1g"], "option --kernel-memory is refused: the kernel has no such limit"),
        (["--isolation", "hyperv"], "option --isolation is refused: it applies to Windows containers only"),
        (["--use-api-socket"], "option --use-api-socket is refused: without a daemon"),
        (["--disable-content-trust=false"], "option --disable-content-trust=false is refused"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_is_refused_has_a_reason(dock: Dock, words: list[str], message: str) -> None:
    result = dock("create", *words, "busybox", "true", code=125)
    assert message in result.stderr
    assert result.stderr.splitlines()[1].startswith("hint: ")


def test_a_further_run_joins_again(dock: Dock) -> None:
    """By a restart policy: the other container has other namespaces by then."""
    dock("run", "-d", "--name", "donor", *ALONE, "--ipc", "shareable", "busybox", "sleep", "1000")
    look = "readlink /proc/self/ns/net; readlink /proc/self/ns/ipc"
    script = (
        f"{look}; until [ -e /v/go ]; do sleep 0.02; done; [ -e /v/done ] || {{ touch /v/done; exit 1; }}"
    )
    words = (
        "--network",
        "container:donor",
        "--ipc",
        "container:donor",
        "--restart",
        "on-failure:1",
        "-v",
        "/v",
    )
    dock("run", "-d", "--name", "joiner", *words, "busybox", "sh", "-c", script)
    namespaces = [dock.out("exec", "donor", "sh", "-c", look)]
    dock("restart", "-t", "0", "donor")
    namespaces.append(dock.out("exec", "donor", "sh", "-c", look))
    dock("exec", "joiner", "touch", "/v/go")
    wait_until(lambda: dock.out("ps", "-aqf", "name=joiner", "-f", "status=exited") != "", "it has ended")
    assert namespaces[0] != namespaces[1]
    assert dock.out("logs", "joiner") == "\n".join(namespaces)
