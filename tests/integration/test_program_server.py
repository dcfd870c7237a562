"""The program server: commands of the installed ``dock`` run in its children, and nothing about them tells."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pydock_core.engine import Engine
from pydock_core.paths import StateRoot
from pydock_core.program_server import program_server_spec
from pydock_core.supervision.client import Zygote
from pydock_core.supervision.server_start import ask_server_surely
from tests.integration.conftest import Dock, children_of, wait_until
from tests.support.process import has_ended

SCRIPT = Path(sys.executable).with_name("dock")
pytestmark = pytest.mark.skipif(not SCRIPT.exists(), reason="needs the program dock (make .make/test)")


@pytest.fixture
def server(dock: Dock) -> Iterator[int]:
    """The process id of the state root's program server, started before."""
    spec = program_server_spec(StateRoot(dock.base / "data", dock.base / "run"))
    pid = ask_server_surely(spec, {"op": "ping"})["pid"]
    yield pid
    if Path(f"/proc/{pid}").exists():
        wait_until(lambda: not children_of(pid), "the server's children have ended")


def start(dock: Dock, *words: object, **options: object) -> subprocess.Popen[bytes]:
    options = {"env": dock.environment(), **options}
    return subprocess.Popen([str(word) for word in (SCRIPT, *words)], **options)  # type: ignore[call-overload,no-any-return]  # Popen's own


def output(dock: Dock, *words: object, code: int = 0, **options: object) -> str:
    process = start(dock, *words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == code, text
    return text.decode()


def test_a_command_runs_in_a_child_of_the_server(dock: Dock, server: int) -> None:
    dock("run", "-d", "--name", "follow", "busybox", "sh", "-c", "echo ready; exec sleep 1000")
    follower = start(dock, "logs", "-f", "follow", stdout=subprocess.PIPE)
    assert follower.stdout is not None
    assert follower.stdout.readline() == b"ready\n"
    (child,) = children_of(server)
    assert f"{child}" not in output(dock, "ps", "-a")  # another command beside it
    follower.kill()  # the command ends with its client
    follower.wait()
    follower.stdout.close()
    wait_until(lambda: has_ended(child), "the child has ended")


def test_its_commands_and_other_programs_share_a_zygote(dock: Dock, server: int, engine: Engine) -> None:
    before = Zygote(engine.root).ping()["pid"]
    output(dock, "run", "--rm", "busybox", "true")
    wait_until(lambda: not any(engine.root.trash.iterdir()), "the container's files are removed")
    assert Zygote(engine.root).ping()["pid"] == before


def test_everything_a_command_sees_is_the_clients(dock: Dock, server: int, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "file").write_text("found")
    (tmp_path / "list").write_bytes("FROM_FILE=été\n".encode())
    environment = {**dock.environment(), "OF_THE_CLIENT": "a\udcffb"}
    words = ("--rm", "-i", "-e", "OF_THE_CLIENT", "--env-file", "list", "-v", "./here:/here", "busybox")
    script = 'cat; cat /here/file; printf "%s %s" "$OF_THE_CLIENT" "$FROM_FILE"; echo err >&2; exit 9'
    results = []
    for setting in ("on", "off"):
        done = subprocess.run(
            [SCRIPT, "run", *words, "sh", "-c", script],
            cwd=tmp_path / "here" / "..",
            env={**environment, "PYDOCK_PROGRAM_SERVER": setting},
            input=b"typed\n",
            capture_output=True,
        )
        results.append((done.returncode, done.stdout, done.stderr))
    assert results[0] == results[1]
    assert results[0] == (9, b"typed\nfounda\xffb " + "été".encode(), b"err\n")


def test_errors_and_help_are_the_same(dock: Dock, server: int) -> None:
    for words in (
        ("ps", "--nonsense"),
        ("inspect", "nobody"),
        ("run",),
        ("logs", "--help"),
        ("images", "-q"),
    ):
        served = subprocess.run([SCRIPT, *words], env=dock.environment(), capture_output=True)
        own = subprocess.run(dock.words(*words), env=dock.environment(), capture_output=True)
        assert (served.returncode, served.stdout, served.stderr) == (own.returncode, own.stdout, own.stderr)


def test_signals_reach_the_command(dock: Dock, server: int) -> None:
    trap = "trap 'echo got; exit 3' TERM; echo ready; while :; do sleep 0.1; done"
    run = start(
        dock, "run", "--rm", "--name", "trapping", "busybox", "sh", "-c", trap, stdout=subprocess.PIPE
    )
    assert run.stdout is not None
    assert run.stdout.readline() == b"ready\n"
    run.send_signal(signal.SIGTERM)
    assert run.stdout.read() == b"got\n"
    assert run.wait() == 3
    run.stdout.close()


def test_an_interrupt_ends_a_wait_and_an_ignored_hangup_does_not(dock: Dock, server: int) -> None:
    dock("run", "-d", "--name", "waited", "busybox", "sleep", "1000")
    ignoring = start(
        dock,
        *("wait", "waited"),
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    wait_until(lambda: len(children_of(server)) == 1, "the command runs")
    ignoring.send_signal(signal.SIGHUP)
    ignoring.send_signal(signal.SIGINT)
    assert ignoring.wait() == 130


def test_closed_and_broken_streams(dock: Dock, server: int) -> None:
    shell = f'{SCRIPT} ps >&-; echo $?; {SCRIPT} ps <&-; echo $?; {SCRIPT} images | true; echo "${{PIPESTATUS[0]}}"'
    results = []
    for setting in ("on", "off"):
        environment = {**dock.environment(), "PYDOCK_PROGRAM_SERVER": setting}
        results.append(subprocess.run(["bash", "-c", shell], env=environment, capture_output=True, text=True))
    assert results[0].stdout.splitlines()[:-1] == results[1].stdout.splitlines()[:-1]
    assert results[0].stderr == results[1].stderr
    assert {result.stdout.splitlines()[-1] for result in results} <= {"0", "141"}  # as quick as true is


@pytest.mark.parametrize(
    "prefix",
    [
        ("unshare", "--mount"),
        ("setpriv", "--no-new-privs"),
        ("setpriv", "--bounding-set", "-sys_ptrace"),
        ("setpriv", "--groups", "7"),
    ],
    ids=" ".join,
)
def test_a_client_elsewhere_runs_its_command_itself(dock: Dock, server: int, prefix: tuple[str, ...]) -> None:
    if os.geteuid():
        pytest.skip("changing namespaces and credentials takes root")
    dock("run", "-d", "--name", "elsewhere", "busybox", "sleep", "1000")
    command = [*prefix, SCRIPT, "wait", "elsewhere"]
    waiting = subprocess.Popen(command, env=dock.environment(), stdout=subprocess.PIPE)
    assert not children_of(server)
    dock("kill", "elsewhere")
    assert waiting.communicate(timeout=30)[0] == b"137\n"


def test_a_server_of_other_code_leaves_and_the_next_one_comes(dock: Dock, server: int) -> None:
    import pydock_core.commands.ending as some_module

    file = Path(some_module.__file__)
    before = file.stat()
    socket = dock.base / "run" / "program.sock"
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    try:
        assert "busybox" in output(dock, "images")
        wait_until(lambda: has_ended(server), "the first server has left")
        wait_until(socket.exists, "the next server listens")
    finally:
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    second = ask_server_surely(
        program_server_spec(StateRoot(dock.base / "data", dock.base / "run")), {"op": "ping"}
    )
    assert second["pid"] != server
