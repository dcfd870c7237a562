"""The init of --init: its code is that of its sources, and it does what it is there for."""

from __future__ import annotations

import base64
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from pydock_core.errors import UnsupportedError
from pydock_core.runtime import reaper
from pydock_core.runtime.container_config import REAPER_ANNOTATION
from pydock_core.runtime.reaper.image import _MACHINES, PLACE, build_image, build_words
from pydock_core.spec import defaults

ASSEMBLERS = {"x86_64": "x86_64-linux-gnu-", "aarch64": "aarch64-linux-gnu-"}
EMULATORS = {"x86_64": "qemu-x86_64-static", "aarch64": "qemu-aarch64-static"}
OWN = os.uname().machine


@pytest.mark.parametrize("machine", sorted(_MACHINES))
def test_the_code_is_what_the_source_says(machine: str, tmp_path: Path) -> None:
    prefix = ASSEMBLERS[machine]
    if not shutil.which(f"{prefix}as"):
        pytest.skip(f"needs {prefix}as (Debian: binutils-{machine}-linux-gnu)")
    source = Path(reaper.__file__).parent / f"{machine}.S"
    subprocess.run([f"{prefix}as", "-o", tmp_path / "o", source], check=True)
    subprocess.run(
        [f"{prefix}objcopy", "-O", "binary", "-j", ".text", tmp_path / "o", tmp_path / "code"], check=True
    )
    assert base64.b64decode(_MACHINES[machine][1]) == (tmp_path / "code").read_bytes()


@pytest.fixture(params=sorted(_MACHINES))
def init(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """The words that execute the program, for this machine or in an emulator."""
    path = tmp_path / "init"
    path.write_bytes(build_image(request.param))
    path.chmod(0o755)
    if request.param == OWN:
        return [str(path)]
    emulator = shutil.which(EMULATORS[request.param])
    if emulator is None:
        pytest.skip(f"needs {EMULATORS[request.param]} (Debian: qemu-user-static)")
    return [emulator, str(path)]


def run(init: list[str], *words: str) -> int:
    return subprocess.run([*init, *words], timeout=20, check=False, env={"A": "1"}).returncode


def test_it_ends_as_its_child_does(init: list[str]) -> None:
    assert run(init, "/bin/sh", "--", "sh", "-c", "exit 3") == 3
    assert run(init, "/bin/sh", "--", "sh", "-c", "kill -TERM $$") == 128 + signal.SIGTERM
    assert run(init, "/nonesuch", "/bin/sh", "--", "sh", "-c", 'test "$A$0" = 1sh') == 0


def test_what_cannot_be_executed(init: list[str], tmp_path: Path) -> None:
    assert run(init, "/nonesuch", "/bin/sh/x", "--", "x") == 127
    (tmp_path / "plain").write_text("x")
    assert run(init, str(tmp_path / "plain"), "--", "x") == 126


def test_it_forwards_signals(init: list[str]) -> None:
    script = "trap 'exit 9' USR1; echo ready; while :; do sleep 0.01; done"
    with subprocess.Popen([*init, "/bin/sh", "--", "sh", "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGUSR1)
        assert process.wait(20) == 9


def test_another_machine_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="no init for mips"):
        build_image("mips")


def test_words_for_a_runtime_program() -> None:
    assert build_words(["sh", "-c"], "/bin::/x") == [PLACE, "/bin/sh", "./sh", "/x/sh", "--", "sh", "-c"]
    assert build_words(["./a"], "/bin") == [PLACE, "./a", "--", "./a"]
    assert (PLACE, REAPER_ANNOTATION) == (defaults.INIT_PLACE, defaults.INIT_ANNOTATION)
