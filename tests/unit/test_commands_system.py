"""What ``info`` prints: Docker's lines, so that what reads those reads these."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pydock_core.commands.context import Context
from pydock_core.commands.dispatch import run_command
from pydock_core.commands.system import info_lines
from pydock_core.engine import Engine
from pydock_core.paths import StateRoot
from tests.support.commands import Output


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    engine = Engine(StateRoot(tmp_path / "data", tmp_path / "run"))
    yield Context(engine=engine, stdout=Output(), stderr=Output())
    engine.close()


def test_info_has_dockers_lines() -> None:
    document = {
        "Containers": 6,
        "ContainersRunning": 1,
        "ContainersPaused": 2,
        "ContainersStopped": 3,
        "Images": 4,
        "ServerVersion": "1.0",
        "Driver": "erofs",
        "DriverStatus": [["Layers as EROFS indexes", "3"]],
        "DefaultRuntime": "embedded",
        "SecurityOptions": ["name=seccomp,profile=builtin", "name=rootless"],
        "KernelVersion": "6.18",
        "OSType": "linux",
        "Architecture": "x86_64",
        "NCPU": 2,
        "MemTotal": 8 << 30,
        "Name": "host",
        "ID": "/root",
        "DockerRootDir": "/root",
    }
    assert "\n".join(info_lines(document)) == (
        "Containers: 6\n Running: 1\n Paused: 2\n Stopped: 3\nImages: 4\nServer Version: 1.0\n"
        "Storage Driver: erofs\n Layers as EROFS indexes: 3\nDefault Runtime: embedded\n"
        "Security Options:\n seccomp\n  Profile: builtin\n rootless\n"
        "Kernel Version: 6.18\nOSType: linux\nArchitecture: x86_64\nCPUs: 2\nTotal Memory: 8GiB\n"
        "Name: host\nID: /root\nDocker Root Dir: /root"
    )


def test_info_of_this_host(context: Context, tmp_path: Path) -> None:
    assert run_command(["info"], context) == 0
    text = context.stdout.text
    assert text.startswith("Containers: 0\n Running: 0\n")
    assert f"Docker Root Dir: {tmp_path / 'data'}\n" in text
    context.stdout.clear()
    assert run_command(["info", "--format", "{{json .}}"], context) == 0
    assert json.loads(context.stdout.text)["DockerRootDir"] == str(tmp_path / "data")


def test_an_output_that_cannot_be_written_is_no_defect(tmp_path: Path) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "pydock_core", "images"],
            stdout=full,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYDOCK_ROOT": str(tmp_path)},
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (
        1,
        "error: the output cannot be written: No space left on device\nhint: write it elsewhere\n",
    )
