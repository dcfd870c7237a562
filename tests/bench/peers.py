"""The others who are measured: crun, podman and docker, each on a store of its own."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench.isolation import ensure_hugetlb, unmount_below
from tests.bench.peer import Peer, Skipped, command_actions, last_line, parent_of, pss, quietly

_DAEMON_SECONDS = 20.0


def crun_peer(name: str, bundle: Path) -> Peer:
    """crun on a bundle that is ready; it has no images, no writable layers, no log and no records."""
    if not shutil.which("crun"):
        raise Skipped(name, "not on this machine")
    if os.geteuid() != 0:
        raise Skipped(name, "needs root")
    ensure_hugetlb()
    peer = Peer(name, lambda: quietly("crun", "run", "--bundle", bundle, "pydock-bench"))
    try:
        peer.run_true()
    except subprocess.CalledProcessError as error:
        raise Skipped(name, last_line(error)) from error
    return peer


def podman_peer(base: Path, archive: Path) -> Peer:
    """podman, on a store of its own."""
    if not shutil.which("podman"):
        raise Skipped("podman", "not on this machine")
    if os.geteuid() == 0:
        ensure_hugetlb()
    base.mkdir()

    def podman(*words: object) -> subprocess.CompletedProcess[bytes]:
        roots = [
            "--root",
            base / "store",
            "--runroot",
            base / "run",
            "--tmpdir",
            base / "tmp",
        ]
        return quietly(
            "podman",
            *roots,
            "--network-config-dir",
            base / "networks",
            "--cgroup-manager",
            "cgroupfs",
            *words,
        )

    # podman raises the limits as far as root usually may, which is further than this process perhaps may.
    limits = ulimits()

    def start() -> str:
        words = ("run", "-d", *limits, "--network", "none", "busybox", "sleep", "600")
        name = podman(*words).stdout.decode().strip()
        peer.closers.append(lambda: podman("rm", "-f", "-t", "0", name))
        return name

    def start_and_exec() -> Callable[[], object]:
        name = start()
        return lambda: podman("exec", name, "true")

    def keeper() -> int:
        return int(podman("inspect", "--format", "{{.State.ConmonPid}}", start()).stdout)

    def run_true() -> None:
        podman("run", "--rm", *limits, "--network", "none", "busybox", "true")

    def run_connected() -> None:
        podman("run", "--rm", *limits, "busybox", "true")

    try:
        podman("load", "-i", archive)
        run_true()
    except subprocess.CalledProcessError as error:
        unmount_below(base)
        raise Skipped("podman", last_line(error)) from error
    peer = Peer(
        "podman",
        run_true,
        run_connected if _works(run_connected) else None,
        start_and_exec,
        lambda: podman("ps"),
        keeper,
        closers=[lambda: unmount_below(base)],
    )
    peer.commands = lambda: command_actions(podman, start())
    return peer


_LIMITS = {"nofile": resource.RLIMIT_NOFILE, "nproc": resource.RLIMIT_NPROC}


def ulimits() -> list[str]:
    """podman's words for limits that this process may set."""
    return [f"--ulimit={name}={_allowed(number)}" for name, number in _LIMITS.items()]


def _allowed(number: int) -> str:
    """A limit that this process may set, as podman's --ulimit takes it."""
    hard = resource.getrlimit(number)[1]
    value = 1024 if hard == resource.RLIM_INFINITY else min(1024, hard)
    return f"{value}:{value}"


def _works(action: Callable[[], object]) -> bool:
    try:
        action()
    except subprocess.CalledProcessError:
        return False
    return True


def docker_peer(base: Path, archive: Path) -> Peer:
    """docker: the daemon that answers, or else, for root, one of the benchmark's own."""
    if not shutil.which("docker"):
        raise Skipped("docker", "not on this machine")
    environment: dict[str, str] = {}
    closers: list[Callable[[], object]] = []
    daemon_pids: list[int] = []
    if not _works(lambda: quietly("docker", "info")):
        if os.geteuid() != 0 or not shutil.which("dockerd") or not shutil.which("containerd"):
            raise Skipped("docker", "no daemon answers")
        environment = {"DOCKER_HOST": f"unix://{base}/docker.sock"}
        daemon_pids = start_daemon(base, environment, closers)

    def docker(*words: object) -> subprocess.CompletedProcess[bytes]:
        return quietly("docker", *words, **environment)

    def start() -> str:
        name = docker("run", "-d", "--network", "none", "busybox", "sleep", "600").stdout.decode().strip()
        peer.closers.append(lambda: docker("rm", "-f", name))
        return name

    def start_and_exec() -> Callable[[], object]:
        name = start()
        return lambda: docker("exec", name, "true")

    def keeper() -> int:
        return parent_of(int(docker("inspect", "--format", "{{.State.Pid}}", start()).stdout))

    def run_true() -> None:
        docker("run", "--rm", "--network", "none", "busybox", "true")

    def run_connected() -> None:
        docker("run", "--rm", "busybox", "true")

    try:
        docker("load", "-i", archive)
        run_true()
    except subprocess.CalledProcessError as error:
        for closer in reversed(closers):
            closer()
        raise Skipped("docker", last_line(error)) from error
    peer = Peer(
        "docker",
        run_true,
        run_connected if _works(run_connected) else None,
        start_and_exec,
        lambda: docker("ps"),
        keeper,
        (lambda: pss(*daemon_pids)) if daemon_pids else None,
        closers=closers,
    )
    peer.commands = lambda: command_actions(docker, start())
    return peer


def start_daemon(base: Path, environment: dict[str, str], closers: list[Callable[[], object]]) -> list[int]:
    """Start a dockerd with a store, a socket and a bridge of its own; return its pid and its containerd's."""
    base.mkdir()
    words = ["dockerd", "--data-root", base / "data", "--exec-root", base / "exec", "--pidfile", base / "pid"]
    words += ["--host", environment["DOCKER_HOST"], "--exec-opt", "native.cgroupdriver=cgroupfs"]
    with (base / "log").open("wb") as log:
        daemon = subprocess.Popen(
            [str(word) for word in words], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    closers.append(lambda: unmount_below(base))
    closers.append(daemon.wait)
    closers.append(daemon.terminate)
    deadline = time.monotonic() + _DAEMON_SECONDS
    while not _works(lambda: quietly("docker", "info", **environment)):
        if daemon.poll() is not None or time.monotonic() > deadline:
            for closer in reversed(closers):
                closer()
            lines = (base / "log").read_text().splitlines()
            raise Skipped("docker", f"no daemon answers, and none could be started: {lines[-1][-60:]}")
        time.sleep(0.05)
    children = Path(f"/proc/{daemon.pid}/task").glob("*/children")
    return [daemon.pid, *(int(pid) for path in children for pid in path.read_text().split())]
