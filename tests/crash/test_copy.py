"""A copy whose client or worker is killed holds nothing any more: the container starts, and nothing is mounted."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import tarfile
from pathlib import Path

import pytest

from pydock_core.engine import Engine
from pydock_core.supervision.client import Zygote
from tests.integration.conftest import Dock, archive, children_of, dock, engine, nothing_is_left, wait_until

__all__ = ["archive", "dock", "engine", "nothing_is_left"]  # fixtures


def first_half() -> bytes:
    """An archive that breaks off in the middle of its second file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as made:
        for name in ("first", "second"):
            info = tarfile.TarInfo(name)
            info.size = 4 << 20
            made.addfile(info, io.BytesIO(b"x" * info.size))
    return buffer.getvalue()[: 7 << 20]


@pytest.mark.parametrize("whom", ["client", "worker"])
def test_a_killed_copy_holds_nothing(dock: Dock, engine: Engine, whom: str) -> None:
    name = dock.out("create", "busybox", "ls", "/tmp/first")
    with dock.start("cp", "-", f"{name}:/tmp", stdin=subprocess.PIPE, stderr=subprocess.PIPE) as client:
        assert client.stdin is not None
        client.stdin.write(first_half())
        client.stdin.flush()
        made = engine.root.container(name).upper / "tmp" / "first"
        wait_until(made.exists, "the first file is there")
        zygote = Zygote(engine.root).ping()["pid"]
        workers = [
            pid for pid in children_of(zygote) if str(engine.root.container(name).rootfs) in mounts_of(pid)
        ]
        assert workers
        for pid in [client.pid] if whom == "client" else workers:
            os.kill(pid, signal.SIGKILL)
        assert client.wait(20) != 0
        wait_until(lambda: not any(map(is_alive, workers)), "the worker has ended")
    assert dock.out("start", "-a", name) == "/tmp/first"
    assert str(engine.root.containers) not in Path("/proc/self/mountinfo").read_text()


def mounts_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/mountinfo").read_text()
    except OSError:
        return ""


def is_alive(pid: int) -> bool:
    try:
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
