"""Runs inside a virtual machine with unified control groups: drives the embedded executor, tells what happened.

Each line of standard output that begins with "RESULT " holds a JSON object, {"name", "value"}; the test outside
(tests/integration/test_cgroup_v2_qemu.py) judges them.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydock_core import syscalls
from pydock_core.errors import PyDockError
from pydock_core.oci.root_mount import RootMount
from pydock_core.runtime.cgroups import find_container_cgroup, probe_cgroups
from pydock_core.runtime.cgroups.freezer import find_freezer
from pydock_core.runtime.embedded import EmbeddedExecutor
from pydock_core.runtime.executor import Stdio
from pydock_core.runtime.rootfs import mount_root
from pydock_core.spec.builder import DeviceNode, HostFacts, build_process, build_spec
from pydock_core.spec.definition import Definition, complete
from pydock_core.spec.seccomp_profile import parse_kernel_release

BASE = Path("/guest")
APPLETS = ("sh", "cat", "sleep", "tail", "true", "mknod", "head", "ls", "touch", "dd", "id")
BUSY = "i=0; while [ $i -lt 100000000 ]; do i=$((i+1)); done"


class Guest:
    """One executor, and containers whose output goes to files."""

    def __init__(self) -> None:
        self.executor = EmbeddedExecutor(BASE / "state")
        self.rootfs = BASE / "rootfs"
        for name in ("bin", "proc", "sys", "dev", "tmp"):
            (self.rootfs / name).mkdir(parents=True)
        for applet in APPLETS:
            (self.rootfs / "bin" / applet).symlink_to("busybox")
        shutil.copy("/bin/busybox", self.rootfs / "bin" / "busybox")

    def start(
        self,
        name: str,
        *args: str,
        patch: Callable[[dict[str, Any]], None] | None = None,
        devices: Sequence[DeviceNode] = (),
        **host: Any,
    ) -> int:
        bundle = BASE / name
        bundle.mkdir()
        spec = build_spec(
            Definition(complete({"Cmd": list(args), "Env": ["PATH=/bin"], "HostConfig": host}), {}),
            HostFacts(
                rootfs=str(self.rootfs),
                machine=os.uname().machine,
                kernel=parse_kernel_release(os.uname().release),
                hostname=name,
                devices=devices,
                cgroups_path=f"/pydock/{name}",
            ),
        )
        if patch is not None:
            patch(spec)
        (bundle / "config.json").write_text(json.dumps(spec))
        stdio = self._open(name)
        try:
            pid = self.executor.create(bundle, name, stdio).pid
            self.executor.start(name)
        finally:
            self._close(stdio)
        return pid

    def _open(self, name: str) -> Stdio:
        output_fd = os.open(BASE / f"{name}.out", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        return Stdio(os.open("/dev/null", os.O_RDONLY), output_fd, os.dup(output_fd))

    def _close(self, stdio: Stdio) -> None:
        for descriptor in (stdio.stdin_fd, stdio.stdout_fd, stdio.stderr_fd):
            os.close(descriptor)

    def wait(self, pid: int) -> int:
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return code if code >= 0 else 128 - code

    def run(self, name: str, *args: str, **request: Any) -> dict[str, Any]:
        """Run a container to its end; return its code, its output and its group's figures."""
        code = self.wait(self.start(name, *args, **request))
        stats = dataclasses.asdict(self.executor.read_stats(name))
        self.executor.delete(name)
        return {"code": code, "out": (BASE / f"{name}.out").read_text(), **stats}

    def execute(self, name: str, *args: str) -> int:
        template = json.loads((BASE / name / "config.json").read_text())["process"]
        stdio = self._open(name)
        try:
            process = build_process(args, ["PATH=/bin"], "/", template=template)
            return self.executor.execute(name, process, stdio).pid
        finally:
            self._close(stdio)


def share_process_namespace(spec: dict[str, Any]) -> None:
    spec["linux"]["namespaces"] = [entry for entry in spec["linux"]["namespaces"] if entry["type"] != "pid"]


def support(_: Guest) -> Any:
    return dataclasses.asdict(probe_cgroups())


def memory(guest: Guest) -> Any:
    return guest.run("memory", "sh", "-c", "tail /dev/zero", Memory=24 << 20)


def pids(guest: Guest) -> Any:
    script = "for i in 1 2 3 4 5 6 7 8 9; do sleep 0.2 & done; wait"
    return guest.run("pids", "sh", "-c", script, PidsLimit=5)


def cpu(guest: Guest) -> Any:
    pid = guest.start("cpu", "sh", "-c", BUSY, NanoCpus=10**8)
    deadline = time.monotonic() + 20
    while not (guest.executor.read_stats("cpu").throttled_periods or 0) and time.monotonic() < deadline:
        time.sleep(0.05)
    stats = dataclasses.asdict(guest.executor.read_stats("cpu"))
    guest.executor.delete("cpu")
    return {**stats, "code": guest.wait(pid)}


def devices(guest: Guest) -> Any:
    script = """
    mknod /tmp/mem c 1 1 && head -c 1 /tmp/mem >/dev/null
    head -c 3 /dev/zero | cat >/dev/null && echo zero
    dd if=/dev/mine of=/dev/null bs=8192 count=1 2>/dev/null && echo mine
    (echo x >/dev/mine) || echo refused
    """
    device = DeviceNode("/dev/kmsg", "/dev/mine", "c", 1, 11, access="r")
    return guest.run("devices", "sh", "-c", script, devices=[device], CapAdd=["SYSLOG"])


def devices_of_privileged(guest: Guest) -> Any:
    return guest.run(
        "privileged", "sh", "-c", "mknod /tmp/k2 c 1 11 && head -c 1 /tmp/k2 >/dev/null", Privileged=True
    )


def written(guest: Guest) -> Any:
    limits = {
        "Memory": 64 << 20,
        "NanoCpus": 5 * 10**8,
        "CpuShares": 512,
        "PidsLimit": 77,
        "CpusetCpus": "0",
    }
    script = (
        "cd /sys/fs/cgroup && cat memory.max cpu.max cpu.weight pids.max cpuset.cpus; cat /proc/self/cgroup"
    )
    return guest.run("written", "sh", "-c", script, **limits)


def read_only_view(guest: Guest) -> Any:
    script = "echo 5 >/sys/fs/cgroup/pids.max; ls -d /sys/fs/cgroup/pydock"
    return guest.run("view", "sh", "-c", script, PidsLimit=9)


def execute_joins(guest: Guest) -> Any:
    init = guest.start("joins", "sleep", "100", PidsLimit=9)
    pid = guest.execute("joins", "sleep", "100")
    group = Path(f"/proc/{pid}/cgroup").read_text()
    guest.executor.delete("joins")
    return {"group": group, "codes": [guest.wait(pid), guest.wait(init)]}


def kill_everything(guest: Guest) -> Any:
    """Without a PID namespace of its own, only the group knows what belongs to the container."""
    init = guest.start(
        "many", "sh", "-c", "sleep 100 & sleep 100 & echo up; wait", patch=share_process_namespace
    )
    while "up" not in (BASE / "many.out").read_text():
        time.sleep(0.01)
    before = len(Path("/sys/fs/cgroup/pydock/many/cgroup.procs").read_text().split())
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
    guest.executor.delete("many")
    return {"before": before, "code": guest.wait(init), "left": Path("/sys/fs/cgroup/pydock/many").exists()}


def kill_what_init_left(guest: Guest) -> Any:
    """A reaped init's number lives on as that of its session, which a process that it left behind is in."""
    code = guest.wait(guest.start("leaver", "sh", "-c", "sleep 100 &", patch=share_process_namespace))
    group = Path("/sys/fs/cgroup/pydock/leaver")
    before = len((group / "cgroup.procs").read_text().split())
    guest.executor.delete("leaver")
    return {"before": before, "code": code, "left": group.exists()}


def freeze(guest: Guest) -> Any:
    """Stopped as the supervisor does it, let go on, and killed while it is stopped."""
    init = guest.start("frozen", "sh", "-c", "i=0; while true; do i=$((i+1)); echo $i; done", PidsLimit=9)
    freezer = find_freezer(init, "frozen")
    assert freezer is not None

    def written() -> int:
        return (BASE / "frozen.out").stat().st_size

    while not written():
        time.sleep(0.01)
    freezer.freeze()
    while not freezer.is_frozen():
        time.sleep(0.001)
    before = written()
    time.sleep(0.1)
    stood = written() == before
    freezer.thaw()
    deadline = time.monotonic() + 10
    while written() == before and time.monotonic() < deadline:
        time.sleep(0.01)
    went_on = written() > before
    freezer.freeze()
    guest.executor.delete("frozen")
    return {
        "directory": freezer.directory,
        "version": freezer.version,
        "stood": stood,
        "went_on": went_on,
        "code": guest.wait(init),
    }


def counted(guest: Guest) -> Any:
    """Its group is found by its first process, and counts."""
    script = "echo up; while true; do :; done"
    init = guest.start("counted", "sh", "-c", script, PidsLimit=9, Memory=32 << 20)
    while "up" not in (BASE / "counted.out").read_text():
        time.sleep(0.01)
    group = find_container_cgroup(init, "counted")
    assert group is not None
    assert find_container_cgroup(init, "another") is None
    stats = group.read_stats()
    guest.executor.delete("counted")
    guest.wait(init)
    return {
        "limits": [stats.memory_limit_bytes, stats.pids_limit],
        "pids": stats.pids,
        "counts": [bool(stats.memory_usage_bytes), bool(stats.cpu_usage_ns), stats.block_bytes is not None],
    }


def updated(guest: Guest) -> Any:
    """Limits of a running container change, all or none, with a controller that it did not have."""
    init = guest.start("updated", "sleep", "100", PidsLimit=9, Memory=32 << 20)
    group = find_container_cgroup(init, "updated")
    assert group is not None
    directory = Path("/sys/fs/cgroup/pydock/updated")

    def values() -> list[str]:
        files = ("memory.max", "memory.low", "cpu.max", "pids.max", "cpuset.cpus")
        return [(directory / file).read_text().strip() for file in files]

    restore = group.update(
        {
            "memory": {"limit": 48 << 20, "reservation": 8 << 20},
            "cpu": {"quota": 50_000, "period": 100_000, "cpus": "0"},
            "pids": {"limit": -1},
        }
    )
    after = values()
    try:
        group.update({"memory": {"limit": 64 << 20}, "cpu": {"cpus": "4000"}})
        message = ""
    except PyDockError as error:
        message = error.message
    refused = values()
    restore()
    before = values()
    guest.executor.delete("updated")
    guest.wait(init)
    return {"after": after, "message": message, "refused": refused, "before": before}


def refused(guest: Guest) -> Any:
    try:
        guest.run("refused", "true", CpusetCpus="4000")
    except PyDockError as error:
        return {"message": error.message, "left": sorted(os.listdir(BASE / "state"))}
    return None


def old_overlay(_: Guest) -> Any:
    """A kernel that knows no "lowerdir+"."""
    layers = []
    for number in range(3):
        layer = BASE / "layers" / f"layer{number}"
        layer.mkdir(parents=True)
        (layer / f"file{number}").write_text(str(number))
        layers.append(str(layer))
    for name in ("upper", "work", "target"):
        (BASE / name).mkdir()
    mount = RootMount("overlay", lower=tuple(layers), upper=str(BASE / "upper"), work=str(BASE / "work"))
    mount_root([mount], BASE / "target")
    (BASE / "target" / "new").write_text("x")
    return sorted(os.listdir(BASE / "target"))


def left(guest: Guest) -> Any:
    groups = [str(path) for path in Path("/sys/fs/cgroup/pydock").iterdir() if path.is_dir()]
    mounts = [line for line in Path("/proc/self/mounts").read_text().splitlines() if "/guest/rootfs" in line]
    return {"groups": groups, "mounts": mounts, "state": os.listdir(BASE / "state")}


STEPS: tuple[Callable[[Guest], Any], ...] = (
    support,
    memory,
    pids,
    cpu,
    devices,
    devices_of_privileged,
    written,
    read_only_view,
    execute_joins,
    kill_everything,
    kill_what_init_left,
    freeze,
    counted,
    updated,
    refused,
    old_overlay,
    left,
)


def main() -> None:
    BASE.mkdir()
    syscalls.mount(
        "guest", str(BASE), "tmpfs"
    )  # the root is an overlay, and one cannot be above another's layer
    guest = Guest()
    for step in STEPS:
        try:
            value = step(guest)
        except Exception as error:  # noqa: BLE001 - told to the test, which fails by it
            value = {"error": repr(error), "traceback": traceback.format_exc()}
        print("RESULT " + json.dumps({"name": step.__name__, "value": value}), flush=True)
    print("RESULT " + json.dumps({"name": "end", "value": True}), flush=True)


if __name__ == "__main__":
    main()
