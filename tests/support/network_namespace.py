"""A network namespace with nothing but loopback, for servers and clients that must not reach the machine's network."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest

from pydock_core.syscalls import CLONE_NEWNET, setns

T = TypeVar("T")


class NetworkNamespace:
    """A namespace that a process holds; it ends with the process that made this object."""

    def __init__(self) -> None:
        # cat reads a pipe of ours: it leaves when we close it, or are gone.
        self._holder = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "ip link set lo up && echo up && exec cat >/dev/null"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != b"up\n":
            self.close()
            pytest.fail("no network namespace")
        self._fd = os.open(f"/proc/{self._holder.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    @property
    def pid(self) -> int:
        """A process in the namespace, for nsenter."""
        return self._holder.pid

    def words(self, *words: object) -> list[str]:
        """The command that runs ``words`` inside."""
        return ["nsenter", "-t", str(self.pid), "-n", *(str(word) for word in words)]

    def run(
        self,
        *words: object,
        code: int | None = 0,
        timeout: float = 60,
        environment: Mapping[str, str] | None = None,
        stdin: bytes | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program inside (dock, skopeo, podman, docker); ``code`` is the exit code that it must have."""
        done = subprocess.run(
            self.words(*words),
            input=stdin,
            stdin=None if stdin is not None else subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            env={**os.environ, **(environment or {})},
            check=False,
        )
        text = subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
        )
        if code is not None:
            assert done.returncode == code, (
                f"{words}: exit code {done.returncode}\n{text.stdout}{text.stderr}"
            )
        return text

    def start(self, *words: object, **keywords: Any) -> subprocess.Popen[bytes]:
        """Start a program inside and go on."""
        return subprocess.Popen(self.words(*words), **keywords)

    def __call__(
        self, function: Callable[..., T], *arguments: Any, timeout: float = 60, **keywords: Any
    ) -> T:
        """Run a Python function inside: in a thread that enters, as do the threads that it starts."""
        results: list[T] = []
        errors: list[BaseException] = []

        def work() -> None:
            try:
                setns(self._fd, CLONE_NEWNET)
                results.append(function(*arguments, **keywords))
            except BaseException as error:  # noqa: BLE001  # it is raised in the caller's thread
                errors.append(error)

        thread = threading.Thread(target=work, name="inside", daemon=True)
        thread.start()
        thread.join(timeout)
        assert not thread.is_alive(), f"{function} did not end within {timeout} s"
        if errors:
            raise errors[0]
        return results[0]

    def wait_for_port(self, port: int, process: subprocess.Popen[bytes] | None = None) -> None:
        """Wait until somebody listens on 127.0.0.1."""

        def listens() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        end = time.monotonic() + 20
        while not self(listens):
            assert process is None or process.poll() is None, f"{process and process.args} has ended"
            assert time.monotonic() < end, f"nobody listens on port {port}"
            time.sleep(0.02)

    def close(self) -> None:
        """End the holder; what else runs inside keeps the namespace until it has ended."""
        assert self._holder.stdin is not None
        assert self._holder.stdout is not None
        self._holder.stdin.close()
        self._holder.wait(timeout=10)
        self._holder.stdout.close()
        if hasattr(self, "_fd"):
            os.close(self._fd)


def lacking_for_namespaces() -> str:
    """What is missing for a network namespace, or ""."""
    if os.geteuid() != 0:
        return "needs root (a network namespace)"
    missing = [program for program in ("unshare", "nsenter", "ip") if not shutil.which(program)]
    return f"needs {', '.join(missing)}" if missing else ""


@contextmanager
def network_namespace() -> Iterator[NetworkNamespace]:
    """Make one for a fixture; skips the test where it cannot be made."""
    if lack := lacking_for_namespaces():
        pytest.skip(lack)
    made = NetworkNamespace()
    try:
        yield made
    finally:
        made.close()


def end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """End what :meth:`NetworkNamespace.start` started."""
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
