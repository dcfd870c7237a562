"""Who is measured: each peer as a handful of actions of the same meaning."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pydock_core.engine import Engine
from pydock_core.engine.config import ContainerConfig
from pydock_core.engine.execution import ExecRequest
from pydock_core.paths import StateRoot
from pydock_core.runtime.client import Streams

LIMIT_SECONDS = 120


class Skipped(Exception):
    """A peer that cannot be measured here, with the reason."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(reason)
        self.name = name


@dataclass
class Peer:
    """One peer.

    Attributes:
        run_true: ``run --rm --network none IMAGE true``.
        start_and_exec: starts a container and returns the action ``exec CONTAINER true``.
        ps: lists the running containers.
        memory: bytes (PSS) that the peer's own processes take for one running container.
        load: returns the action that loads an archive into an empty store.
    """

    name: str
    run_true: Callable[[], object]
    start_and_exec: Callable[[], Callable[[], object]] | None = None
    ps: Callable[[], object] | None = None
    memory: Callable[[], int] | None = None
    load: Callable[[Path], Callable[[], object]] | None = None
    closers: list[Callable[[], object]] = field(default_factory=list)

    def close(self) -> None:
        """Undo what was started."""
        for closer in reversed(self.closers):
            closer()


def quietly(*words: object, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command that must succeed."""
    return subprocess.run(
        [str(word) for word in words],
        check=True,
        timeout=LIMIT_SECONDS,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env={**os.environ, **environment},
    )


def pss(pid: int) -> int:
    """Proportional set size in bytes (proc_pid_smaps_rollup)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise ValueError("no Pss line")


def pydock_peer(base: Path, archive: Path) -> Peer:
    """PyDock in this warm process."""
    engine = Engine(StateRoot(base / "data", base / "run"))
    with archive.open("rb") as stream:
        engine.images.load(stream)
    true = ContainerConfig("busybox", command=("true",), network="none", auto_remove=True)

    def run_true() -> None:
        container_id, _ = engine.containers.create(true)
        with engine.containers.start(container_id, attach=Streams(stdin=False)) as launch:
            assert launch.attachment is not None
            with launch.attachment:
                while launch.attachment.recv(65536):
                    pass
            end = launch.wait()
        assert end is not None
        assert end.exit_code == 0
        engine.containers.remove(container_id)

    def start() -> str:
        request = ContainerConfig("busybox", command=("sleep", "600"), network="none")
        container_id, _ = engine.containers.create(request)
        engine.containers.start(container_id).close()
        peer.closers.append(lambda: engine.containers.remove(container_id, force=True))
        return container_id

    def start_and_exec() -> Callable[[], object]:
        container_id = start()

        def execute() -> None:
            with engine.containers.exec(container_id, ExecRequest(("true",))) as execution:
                assert execution.wait() == 0

        return execute

    def memory() -> int:
        from pydock_core.runtime.process import derive_status

        return pss(derive_status(engine.root.container(start())).supervisor_pid)

    def load(sample: Path) -> Callable[[], object]:
        other = Engine(StateRoot(base / "other" / "data", base / "other" / "run"))

        def action() -> None:
            with sample.open("rb") as stream:
                other.images.load(stream)

        return action

    peer = Peer("pydock", run_true, start_and_exec, lambda: engine.containers.list(), memory, load)
    return peer


def dock_program_peer(base: Path) -> Peer:
    """The program ``dock`` on the state root that :func:`pydock_peer` has filled."""
    program = Path(sys.executable).with_name("dock")
    environment = {"PYDOCK_ROOT": str(base)}
    return Peer(
        "dock (command)",
        lambda: quietly(program, "run", "--rm", "--network", "none", "busybox", "true", **environment),
        ps=lambda: quietly(program, "ps", **environment),
    )


def crun_peer(bundle: Path) -> Peer:
    """crun, which has no images, no log and no records."""
    if not shutil.which("crun"):
        raise Skipped("crun", "not on this machine")
    if os.geteuid() != 0:
        raise Skipped("crun", "needs root")
    closers: list[Callable[[], object]] = []
    ensure_hugetlb(closers)
    peer = Peer(
        "crun run", lambda: quietly("crun", "run", "--bundle", bundle, "pydock-bench"), closers=closers
    )
    try:
        peer.run_true()
    except subprocess.CalledProcessError as error:
        raise Skipped("crun", error.stderr.decode().strip()[:80]) from error
    return peer


def ensure_hugetlb(closers: list[Callable[[], object]]) -> None:
    """crun 1.8 refuses the hybrid mode of cgroups while a controller is left on the v2 side."""
    point = Path("/sys/fs/cgroup/hugetlb")
    if Path("/sys/fs/cgroup/unified").is_dir() and not os.path.ismount(point):
        point.mkdir(exist_ok=True)
        quietly("mount", "-t", "cgroup", "-o", "hugetlb", "hugetlb", point)
        closers.append(lambda: quietly("umount", point))


def unmount_below(base: Path) -> None:
    """Unmount what podman leaves mounted below its store, the deepest first."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [line.split()[4] for line in lines if line.split()[4].startswith(f"{base}/")]
    for point in sorted(points, key=len, reverse=True):
        quietly("umount", point)


def podman_peer(base: Path, archive: Path) -> Peer:
    """podman, on a store of its own."""
    if not shutil.which("podman"):
        raise Skipped("podman", "not on this machine")
    closers: list[Callable[[], object]] = []
    if os.geteuid() == 0:
        ensure_hugetlb(closers)
    base.mkdir()
    closers.append(lambda: unmount_below(base))
    settings = base / "containers.conf"
    settings.write_text(
        '[containers]\ndefault_ulimits = ["nofile=1024:1024"]\n[engine]\ncgroup_manager = "cgroupfs"\n'
    )

    def podman(*words: object, store: str = "store") -> subprocess.CompletedProcess[bytes]:
        roots = (
            "--root",
            base / store,
            "--runroot",
            base / f"{store}-run",
            "--tmpdir",
            base / f"{store}-tmp",
        )
        return quietly("podman", *roots, *words, CONTAINERS_CONF=str(settings))

    def start() -> str:
        name = podman("run", "-d", "--network", "none", "busybox", "sleep", "600").stdout.decode().strip()
        peer.closers.append(lambda: podman("rm", "-f", "-t", "0", name))
        return name

    def start_and_exec() -> Callable[[], object]:
        name = start()
        return lambda: podman("exec", name, "true")

    def memory() -> int:
        pid = podman("inspect", "--format", "{{.State.ConmonPid}}", start()).stdout.decode().strip()
        return pss(int(pid))

    try:
        podman("load", "-i", archive)
        podman("run", "--rm", "--network", "none", "busybox", "true")
    except subprocess.CalledProcessError as error:
        for closer in reversed(closers):
            closer()
        raise Skipped("podman", error.stderr.decode().strip().splitlines()[-1][:80]) from error
    peer = Peer(
        "podman",
        lambda: podman("run", "--rm", "--network", "none", "busybox", "true"),
        start_and_exec,
        lambda: podman("ps"),
        memory,
        lambda sample: lambda: podman("load", "-i", sample, store="other"),
        closers=closers,
    )
    return peer


def docker_peer(archive: Path) -> Peer:
    """docker, where a daemon answers."""
    if not shutil.which("docker"):
        raise Skipped("docker", "not on this machine")
    try:
        quietly("docker", "info")
        quietly("docker", "load", "-i", archive)
    except subprocess.CalledProcessError as error:
        raise Skipped("docker", "no daemon answers") from error

    def start_and_exec() -> Callable[[], object]:
        name = (
            quietly("docker", "run", "-d", "--network", "none", "busybox", "sleep", "600")
            .stdout.decode()
            .strip()
        )
        peer.closers.append(lambda: quietly("docker", "rm", "-f", name))
        return lambda: quietly("docker", "exec", name, "true")

    peer = Peer(
        "docker",
        lambda: quietly("docker", "run", "--rm", "--network", "none", "busybox", "true"),
        start_and_exec,
        lambda: quietly("docker", "ps"),
        None,
        lambda sample: lambda: quietly("docker", "load", "-i", sample),
    )
    return peer
