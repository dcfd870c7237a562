"""Those who are measured with images: PyDock's program and library, podman, docker and skopeo, each on stores of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tests.bench.isolation import ensure_hugetlb, unmount_below
from tests.bench.peer import LIMIT_SECONDS, Skipped, quietly
from tests.bench.peers import start_daemon, ulimits

Action = Callable[[], object]


class Command(Protocol):
    """Runs a peer's program with these words."""

    def __call__(self, *words: object) -> subprocess.CompletedProcess[bytes]: ...


@dataclass
class ImagePeer:
    """One peer.  All of them take the same words; an action that it does not have is not in ``can``.

    Attributes:
        command: runs the program on the peer's own store.
        can: of load, pull, push, save, commit.
        push: the words before NAME of a push, and so on, where they differ from Docker's.
        run: the words of a ``run`` that have to be added on this machine.
        closers: undo what was started, the last one first.
    """

    name: str
    command: Command
    can: frozenset[str] = frozenset({"load", "pull", "push", "save", "commit"})
    insecure: tuple[str, ...] = ()
    run: tuple[str, ...] = ()
    closers: list[Action] = field(default_factory=list)

    def forget(self, *names: str) -> None:
        """Remove images, where they are there."""
        for name in names:
            try:
                self.command("rmi", "-f", name)
            except subprocess.CalledProcessError:
                continue

    def close(self) -> None:
        """Undo what was started."""
        for closer in reversed(self.closers):
            closer()


def dock_peer(base: Path, driver: str) -> ImagePeer:
    """PyDock's program, with one of its snapshot drivers."""
    program = Path(sys.executable).with_name("dock")
    environment = {"PYDOCK_ROOT": str(base), "PYDOCK_SNAPSHOTTER": driver}

    def command(*words: object) -> subprocess.CompletedProcess[bytes]:
        return quietly(program, *words, **environment)

    return ImagePeer(f"pydock ({driver})", command)


def podman_images(base: Path) -> ImagePeer:
    """podman."""
    if not shutil.which("podman"):
        raise Skipped("podman", "not on this machine")
    ensure_hugetlb()
    base.mkdir()
    roots: list[object] = ["--root", base / "store", "--runroot", base / "run", "--tmpdir", base / "tmp"]
    roots += ["--network-config-dir", base / "networks", "--cgroup-manager", "cgroupfs"]

    def command(*words: object) -> subprocess.CompletedProcess[bytes]:
        return quietly("podman", *roots, *words)

    return ImagePeer(
        "podman",
        command,
        insecure=("--tls-verify=false",),
        run=tuple(ulimits()),
        closers=[lambda: unmount_below(base)],
    )


def docker_images(base: Path) -> ImagePeer:
    """docker, with a daemon of the benchmark's own."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("docker", "dockerd", "containerd"))):
        raise Skipped("docker", "not on this machine, or not root")
    environment = {"DOCKER_HOST": f"unix://{base}/docker.sock", "DOCKER_CONFIG": str(base / "config")}
    closers: list[Action] = []
    start_daemon(base, environment, closers)

    def command(*words: object) -> subprocess.CompletedProcess[bytes]:
        return quietly("docker", *words, **environment)

    return ImagePeer("docker", command, closers=closers)


def skopeo_images(archive: Path) -> ImagePeer:
    """skopeo, which has no store: it pushes from the archive."""
    if not shutil.which("skopeo"):
        raise Skipped("skopeo", "not on this machine")

    def command(*words: object) -> subprocess.CompletedProcess[bytes]:
        name = words[-1]
        return quietly(
            "skopeo", "copy", "--dest-tls-verify=false", f"docker-archive:{archive}", f"docker://{name}"
        )

    return ImagePeer("skopeo", command, can=frozenset({"push"}))


class Registry:
    """Debian's docker-registry on loopback, over plain HTTP, with an empty store."""

    def __init__(self, base: Path, port: int) -> None:
        base.mkdir(parents=True)
        config = base / "config.yml"
        config.write_text(
            "version: 0.1\nlog: {level: error}\n"
            f"storage: {{filesystem: {{rootdirectory: {base}/data}}, delete: {{enabled: true}}}}\n"
            f"http: {{addr: '127.0.0.1:{port}'}}\n"
        )
        self.host = f"127.0.0.1:{port}"
        with (base / "log").open("wb") as log:
            self._process = subprocess.Popen(
                ["docker-registry", "serve", str(config)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self._base = base
        self._wait(port)

    def _wait(self, port: int) -> None:
        import socket
        import time

        deadline = time.monotonic() + LIMIT_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.05)
        raise Skipped("registry", (self._base / "log").read_text()[-80:])

    def close(self) -> None:
        """End it and remove its store."""
        self._process.terminate()
        self._process.wait()
        shutil.rmtree(self._base)
