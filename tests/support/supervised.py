"""Containers without the engine: a bundle of busybox, a launch plan, and the clients, for tests of the process model."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydock_core.oci.root_mount import RootMount
from pydock_core.paths import ContainerPaths, StateRoot
from pydock_core.supervision.client import Launch, Streams, SupervisorClient, Zygote
from pydock_core.supervision.container_status import Status, derive_status
from pydock_core.supervision.plan import LaunchPlan, NetworkAttachment
from pydock_core.supervision.reaper import reap_killed
from tests.support.process import has_ended

BUSYBOX = Path("/bin/busybox")


def wait_until(condition: Callable[[], object], what: str, seconds: float = 20.0) -> None:
    """Poll a condition, bounded."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.005)


def make_lower(path: Path) -> Path:
    """Make a root filesystem of busybox."""
    (path / "bin").mkdir(parents=True)
    shutil.copy(BUSYBOX, path / "bin" / "busybox")
    for name in (
        "sh",
        "cat",
        "sleep",
        "true",
        "false",
        "echo",
        "nc",
        "ping",
        "yes",
        "head",
        "stty",
        "id",
        "ip",
        "dd",
        "readlink",
        "kill",
        "test",
        "printf",
        "tee",
        "wget",
        "seq",
        "ls",
        "env",
        "mount",
        "httpd",
    ):
        (path / "bin" / name).symlink_to("busybox")
    for name in ("proc", "dev", "sys", "tmp", "etc"):
        (path / name).mkdir()
    (path / "etc" / "passwd").write_text("root:x:0:0:root:/:/bin/sh\n")
    return path


def build_config(
    arguments: Sequence[str], *, terminal: bool = False, network: Path | None = None
) -> dict[str, Any]:
    """A small config.json: enough namespaces and mounts for busybox."""
    namespaces: list[dict[str, str]] = [{"type": kind} for kind in ("pid", "mount", "ipc", "uts")]
    if network is not None:
        namespaces.append({"type": "network", "path": str(network)})
    return {
        "ociVersion": "1.0.2",
        "root": {"path": "rootfs"},
        "hostname": "box",
        "process": build_process(arguments, terminal=terminal),
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            {
                "destination": "/dev/pts",
                "type": "devpts",
                "source": "devpts",
                "options": ["newinstance", "ptmxmode=0666", "mode=0620"],
            },
        ],
        "linux": {"namespaces": namespaces},
    }


def build_process(arguments: Sequence[str], *, terminal: bool = False) -> dict[str, Any]:
    """An OCI process object for root in a box."""
    capabilities = ["CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETUID", "CAP_SETGID"]
    return {
        "terminal": terminal,
        "user": {"uid": 0, "gid": 0},
        "args": list(arguments),
        "env": ["PATH=/bin", "TERM=xterm"],
        "cwd": "/",
        "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), capabilities),
    }


class Box:
    """One container on a state root: its files, its plan, and how to start it."""

    def __init__(
        self,
        root: StateRoot,
        lower: Path,
        arguments: Sequence[str],
        *,
        config: Callable[[dict[str, Any]], None] | None = None,
        **plan: Any,
    ) -> None:
        self.root = root
        self.id = secrets.token_hex(32)
        self.paths: ContainerPaths = root.container(self.id)
        for path in (self.paths.rootfs, self.paths.upper, self.paths.work, self.paths.run):
            path.mkdir(parents=True)
        network = plan.pop("network", NetworkAttachment("none"))
        self.plan = replace(
            LaunchPlan(
                container_id=self.id,
                data_dir=str(self.paths.data),
                run_dir=str(self.paths.run),
                root_mounts=(
                    RootMount(
                        "overlay",
                        lower=(str(lower),),
                        upper=str(self.paths.upper),
                        work=str(self.paths.work),
                        options=("userxattr",) if os.geteuid() else (),
                    ),
                ),
                network=network,
                network_socket=str(root.network_socket()),
                log_path=str(self.paths.log_file),
            ),
            **plan,
        )
        document = build_config(
            arguments,
            terminal=self.plan.terminal,
            network=None if network.mode == "host" else self.paths.network_namespace,
        )
        if config is not None:
            config(document)
        self.paths.config_file.write_text(json.dumps(document))
        self.paths.plan_file.write_text(json.dumps(self.plan.to_json()))

    def launch(self, attach: Streams | None = None) -> Launch:
        """Start it through the zygote."""
        return Zygote(self.root).supervise(self.paths.plan_file, attach=attach)

    @property
    def client(self) -> SupervisorClient:
        """The client of its supervisor."""
        return SupervisorClient(self.paths)

    def status(self) -> Status:
        """What it does now."""
        return derive_status(self.paths)

    def reaped(self) -> Status:
        """What it does now; what a killed supervisor left is reaped first."""
        return reap_killed(self.paths)

    def log(self) -> bytes:
        """What it has written, from the log."""
        from pydock_core.supervision.logs import read_log

        return b"".join(entry.data for entry in read_log(self.paths.log_file))


def read_frames(stream: Any) -> dict[int, bytes]:
    """Read Docker's multiplexed stream to its end: stream number to bytes."""
    with stream.makefile("rb") as source:
        found: dict[int, bytes] = {}
        while header := source.read(8):
            size = int.from_bytes(header[4:], "big")
            found[header[0]] = found.get(header[0], b"") + source.read(size)
        return found


def read_all(stream: Any) -> bytes:
    """Read a stream socket to its end."""
    with stream.makefile("rb") as source:
        return bytes(source.read())


def end_server(*pids: int) -> None:
    """Kill servers that a test has started, and wait for their end."""
    for pid in pids:  # all before the first wait: init may take seconds to reap
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for pid in pids:
        wait_until(lambda pid=pid: has_ended(pid), f"process {pid} has ended")


def end_boxes(root: StateRoot) -> None:
    """Kill what a failed test has left running, supervisors and all, and let the rest be reaped."""
    for directory in (root.run / "c").iterdir():
        paths = root.container(directory.name)
        supervisor = derive_status(paths).supervisor_pid
        if supervisor:
            end_server(supervisor)
        reap_killed(paths)


def leftovers(root: StateRoot) -> Mapping[str, Any]:
    """What lies about of a state root's containers: mounts, cgroups, sockets, states."""
    base = str(root.data.parent)
    containers = os.listdir(root.run / "c") if (root.run / "c").is_dir() else []
    return {
        "mounts": [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if base in line],
        "cgroups": [
            os.path.join(parent, name)
            for parent, names, _ in os.walk("/sys/fs/cgroup")
            for name in names
            if any(container in name for container in containers)
        ],
        "states": [str(path) for path in root.run.glob("c/*/state.json")],
        "sockets": [str(path) for path in root.run.glob("c/*/control.sock")],
        "executors": [str(path) for path in root.run.glob("c/*/executor/**/*") if path.name in containers],
    }
