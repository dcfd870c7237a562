"""A Docker daemon of the tests' own: its store, socket and mount namespace are nobody else's, and it has no network."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.network_namespace import NetworkNamespace

_SECONDS = 30.0


@dataclass(frozen=True)
class DockerDaemon:
    """The command ``docker``, talking to the daemon."""

    socket: Path

    def __call__(self, *words: object, stdin: bytes | None = None) -> str:
        """Run a command that must succeed; return its standard output, stripped."""
        result = subprocess.run(
            ["docker", *(str(word) for word in words)],
            input=stdin,
            stdin=None if stdin is not None else subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            env={**os.environ, "DOCKER_HOST": f"unix://{self.socket}"},
            check=False,
        )
        assert result.returncode == 0, f"docker {words}: {result.stderr.decode()}"
        return result.stdout.decode().strip()


def missing() -> str:
    """Why there can be no daemon here; empty where there can."""
    if os.geteuid() != 0:
        return "a Docker daemon needs root"
    absent = [name for name in ("docker", "dockerd", "containerd") if not shutil.which(name)]
    return f"needs {', '.join(absent)} (Debian: docker.io)" if absent else ""


@contextmanager
def docker_daemon(inside: NetworkNamespace | None = None) -> Iterator[DockerDaemon]:
    """Start a daemon with everything in one directory, and end it with what it has mounted.

    Args:
        inside: where it runs; a network namespace of its own by default.
    """
    # Near the root: the path of a socket has at most 107 bytes (unix(7)).
    base = Path(tempfile.mkdtemp(prefix="dockerd-"))
    client = DockerDaemon(base / "docker.sock")
    words: list[object] = [*inside.words("unshare", "--mount")] if inside else ["unshare", "--mount", "--net"]
    words += ["dockerd", "--data-root", base / "data", "--exec-root", base / "exec"]
    words += ["--pidfile", base / "pid", "--host", f"unix://{client.socket}", "--bridge", "none"]
    words += ["--cgroup-parent", f"/{base.name}"]
    words += ["--iptables=false", "--ip6tables=false", "--exec-opt", "native.cgroupdriver=cgroupfs"]
    with (base / "log").open("wb") as log:
        daemon = subprocess.Popen(
            [str(word) for word in words], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        deadline = time.monotonic() + _SECONDS
        while not _answers(client):
            assert daemon.poll() is None, (base / "log").read_text()[-1000:]
            assert time.monotonic() < deadline, "the daemon does not answer"
            time.sleep(0.05)
        yield client
    finally:
        daemon.terminate()
        daemon.wait(_SECONDS)
        for group in Path("/sys/fs/cgroup").glob(f"**/{base.name}"):
            group.rmdir()
        shutil.rmtree(base, ignore_errors=True)


def _answers(client: DockerDaemon) -> bool:
    try:
        client("version")
    except AssertionError:
        return False
    return True
