"""%dock in a real kernel: completion over the protocol, live output, and an interrupt that stops a container."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

from tests.support.image_store import build_docker_archive, build_tar, entry

WAIT_SECONDS = 30
IMAGE = "box:latest"
BUSYBOX = Path("/bin/busybox")

pytestmark = pytest.mark.skipif(
    not BUSYBOX.exists(), reason="needs /bin/busybox: apt-get install busybox-static"
)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A state root with one image, made of busybox alone."""
    home = tmp_path_factory.mktemp("kernel")
    environment = {
        **os.environ,
        "PYDOCK_ROOT": str(home / "pydock"),
        "IPYTHONDIR": str(home / "ipython"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
    }
    archive = home / "box.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(BUSYBOX, "bin/busybox")
        for name in ("sh", "sleep", "cat", "echo", "true", "tail"):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    dock(environment, "import", str(archive), IMAGE)
    yield environment
    for container in dock(environment, "ps", "-aq").split():
        dock(environment, "rm", "-f", container)
    shutil.rmtree(home / "pydock", ignore_errors=True)


def dock(environment: dict[str, str], *words: str) -> str:
    command = [sys.executable, "-m", "pydock_core", *words]
    return subprocess.run(
        command, env=environment, check=True, capture_output=True, text=True, timeout=60
    ).stdout


@pytest.fixture(scope="module")
def kernel(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[KernelManager]:
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(env=environment, cwd=str(tmp_path_factory.mktemp("cwd")))
    yield manager
    manager.shutdown_kernel(now=True)


@pytest.fixture(scope="module")
def client(kernel: KernelManager) -> Iterator[BlockingKernelClient]:
    connected = kernel.blocking_client()
    connected.start_channels()
    connected.wait_for_ready(timeout=WAIT_SECONDS)
    run(connected, "%load_ext pydock_jupyter")
    yield connected
    connected.stop_channels()


def execute(
    client: BlockingKernelClient, code: str, on_text: Callable[[str, str], None] = lambda stdout, stderr: None
) -> tuple[dict[str, Any], str, str, list[dict[str, Any]]]:
    """Execute a cell; return the reply, its standard output, standard error and displayed data.

    ``on_text`` is called with both texts so far, while the cell runs.
    """
    texts = {"stdout": "", "stderr": ""}
    displayed: list[dict[str, Any]] = []

    def hook(message: dict[str, Any]) -> None:
        content = message["content"]
        if message["msg_type"] == "stream":
            texts[content["name"]] += content["text"]
            on_text(texts["stdout"], texts["stderr"])
        elif message["msg_type"] in ("display_data", "execute_result", "update_display_data"):
            displayed.append(content["data"])

    reply = client.execute_interactive(code, timeout=WAIT_SECONDS, output_hook=hook)
    return reply["content"], texts["stdout"], texts["stderr"], displayed


def run(client: BlockingKernelClient, code: str) -> tuple[str, str, list[dict[str, Any]]]:
    """Execute a cell that succeeds; return its standard output, standard error and displayed data."""
    reply, *shown = execute(client, code)
    assert reply["status"] == "ok", reply
    stdout, stderr, displayed = shown
    return stdout, stderr, displayed


def fail(client: BlockingKernelClient, code: str) -> tuple[str, str, str]:
    """Execute a cell whose command fails; return the one line of it, its standard output and standard error."""
    reply, stdout, stderr, _ = execute(client, code)
    assert reply["ename"] == "CommandError"
    (line,) = reply["traceback"]
    assert line == f"CommandError: {reply['evalue']}"
    return reply["evalue"], stdout, stderr


def interrupt(
    client: BlockingKernelClient, kernel: KernelManager, code: str, *when: str
) -> tuple[str, str, str]:
    """Execute a cell and interrupt it each time when one of the texts has come, in their order.

    Returns:
        The one line that the cell ends with, its standard output and standard error.
    """
    waiting = list(when)

    def on_text(stdout: str, stderr: str) -> None:
        if waiting and waiting[0] in stdout + stderr:
            waiting.pop(0)
            kernel.interrupt_kernel()

    reply, stdout, stderr, _ = execute(client, code, on_text)
    assert not waiting, (waiting, stdout, stderr)
    assert reply["status"] == "error"
    (line,) = reply["traceback"]
    assert line == f"KeyboardInterrupt: {reply['evalue']}"
    return reply["evalue"], stdout, stderr


def exit_code(client: BlockingKernelClient) -> str:
    return run(client, "print(_exit_code)")[0].strip()


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("%dock run --rm bo", "box:latest"),
        ("%dock run --read", "--read-only"),
        ("x = 1\n%dock imag", "images"),
        ("%%dock ru", "run"),
    ],
)
def test_completion(client: BlockingKernelClient, cell: str, expected: str) -> None:
    reply = client.complete(cell, len(cell), reply=True, timeout=WAIT_SECONDS)["content"]
    assert expected in reply["matches"]
    assert reply["cursor_start"] == cell.rindex(" ") + 1
    assert reply["cursor_end"] == len(cell)


def test_a_cell_is_standard_input(client: BlockingKernelClient) -> None:
    line, stdout, stderr = fail(
        client, f"%%dock run --rm --network none {IMAGE} sh\necho out; echo err >&2; exit 3\n"
    )
    assert (line, stdout, stderr) == ("dock run: exit code 3", "out\n", "err\n")
    assert exit_code(client) == "3"


def test_a_notebook_that_is_executed_stops_where_a_command_fails(
    environment: dict[str, str], tmp_path: Path
) -> None:
    cells = (
        "%load_ext pydock_jupyter",
        "%dock --no-raise rm nothing",
        "%dock rm nothing",
        "print('not reached')",
    )
    path = tmp_path / "failing.ipynb"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbformat.write(notebook, path)
    command = [sys.executable, "-m", "jupyter", "execute", "--inplace", path]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.rstrip().splitlines()[-1] == "CommandError: dock rm: exit code 1"
    assert "not reached" not in done.stdout


def test_what_killed_a_command_is_told(client: BlockingKernelClient) -> None:
    options = "--rm --network none -m 16m --memory-swap 16m"
    line, _, _ = fail(client, f"%dock run {options} {IMAGE} sh -c 'tail /dev/zero'")
    assert re.fullmatch(
        r"dock run: exit code \d+: (a process of the container was )?killed: out of memory "
        r"\(-m 16m\)",
        line,
    )
    cell = f"%%dock run --rm --network none {IMAGE} sh\nsh -c 'kill -SEGV $$'\nexit $?"
    line, _, _ = fail(client, cell)
    assert line == "dock run: exit code 139: killed by SIGSEGV"


def test_output_comes_live_and_an_interrupt_reaches_the_program(
    client: BlockingKernelClient, kernel: KernelManager, environment: dict[str, str]
) -> None:
    script = 'trap "echo stopped; exit 7" INT; echo ready; while true; do sleep 0.1; done'
    command = f"%dock run --rm --name loop --network none {IMAGE} sh -c '{script}'"
    line, stdout, stderr = interrupt(client, kernel, command, "ready")
    assert stdout == "ready\nstopped\n"
    assert stderr.startswith("note: sent SIGINT; the container is stopped if it has not ended in 3 s")
    assert line == "dock run was interrupted: exit code 7"
    assert exit_code(client) == "7"
    assert "loop" not in dock(environment, "ps", "-a", "--format", "{{.Names}}")


def test_interrupts_stop_and_then_kill_what_does_not_listen(
    client: BlockingKernelClient, kernel: KernelManager, environment: dict[str, str]
) -> None:
    """Process 1 of a container has no default action for a signal (pid_namespaces(7))."""
    command = f"%dock run --name deaf --network none {IMAGE} sh -c 'echo ready; exec sleep 60'"
    line, _, stderr = interrupt(client, kernel, command, "ready", "sent SIGINT", "sent SIGTERM")
    assert stderr.splitlines() == [
        "note: sent SIGINT; the container is stopped if it has not ended in 3 s; interrupt again to stop it now",
        "note: sent SIGTERM; the container is killed if it has not ended in 10 s; interrupt again to kill it now",
        "note: killed the container",
    ]
    assert line == "dock run was interrupted: exit code 137: killed by SIGKILL"
    # Once is enough, in time: the same container, which has closed its output, too.
    run(client, "from pydock_core.commands import interrupts\ninterrupts.GRACE_SECONDS = 0.2")
    script = "echo ready; exec >&- 2>&-; exec sleep 60"
    options = "--rm --name deaf2 --network none --stop-signal USR1 --stop-timeout 0.2"
    line, _, stderr = interrupt(client, kernel, f"%dock run {options} {IMAGE} sh -c '{script}'", "ready")
    assert [note.split(";")[0] for note in stderr.splitlines()] == [
        *("note: sent SIGINT", "note: sent SIGUSR1", "note: killed the container")
    ]
    assert line.endswith("exit code 137: killed by SIGKILL")
    assert "deaf2" not in dock(environment, "ps", "-a", "--format", "{{.Names}}")
    run(client, "%dock rm -f deaf")


def test_an_interrupt_ends_what_another_cell_has_started(
    client: BlockingKernelClient, kernel: KernelManager, environment: dict[str, str]
) -> None:
    """exec: the process alone; attach and logs: the cell alone; wait: nothing but the cell."""
    run(client, "from pydock_core.commands import interrupts\ninterrupts.GRACE_SECONDS = 0.2")
    script = 'trap "" INT; echo spoken; while true; do echo more; sleep 0.1; done'
    run(client, f"%dock run -d --name speaker --network none {IMAGE} sh -c '{script}'")
    started = dock(environment, "inspect", "--format", "{{.State.StartedAt}}", "speaker")

    script = 'trap "" INT TERM; sleep 61 & echo ready; wait'
    command = f"%dock exec speaker sh -c '{script}'"
    line, _, stderr = interrupt(client, kernel, command, "ready", "sent SIGINT", "sent SIGTERM")
    assert line == "dock exec was interrupted: exit code 137: killed by SIGKILL"
    assert "note: sent SIGTERM; the command is killed if it has not ended in 10 s" in stderr

    command = "%dock exec speaker sh -c 'sleep 62 & echo ready'"  # what is left holds the output
    line, _, _ = interrupt(client, kernel, command, "ready")
    assert line == "dock exec was interrupted: exit code 0"

    line, _, stderr = interrupt(client, kernel, "%dock attach speaker", "more")
    assert stderr.splitlines()[-1] == "note: speaker goes on running; to end it: dock stop speaker"
    line, _, _ = interrupt(client, kernel, "%dock logs -f speaker", "spoken")
    assert line == "dock logs was interrupted"
    assert exit_code(client) == "130"

    waits = "import signal\nsignal.setitimer(signal.ITIMER_REAL, 0.3)\n"
    run(
        client,
        "import os, signal\nsignal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGINT))",
    )
    line, _, _ = interrupt(client, kernel, f"{waits}%dock wait speaker")
    assert line == "dock wait was interrupted"
    line, _, _ = interrupt(client, kernel, f"{waits}%dock stop -t 60 speaker")
    assert line == "dock stop was interrupted"
    assert dock(environment, "inspect", "--format", "{{.State.StartedAt}}", "speaker") == started
    assert "running" in dock(environment, "inspect", "--format", "{{.State.Status}}", "speaker")
    run(client, "%dock rm -f speaker")


def test_a_terminal_is_refused_before_anything_is_made(
    client: BlockingKernelClient, environment: dict[str, str]
) -> None:
    run(client, f"%dock create -it --name made --network none {IMAGE} sh")
    run(client, f"%dock run -itd --name shell --network none {IMAGE} sh")
    before = dock(environment, "ps", "-a", "--format", "{{.Names}} {{.State}}")
    for words in (
        f"run -it {IMAGE} sh",
        f"run -it --pull always --rm {IMAGE} sh",
        "start -i made",
        "attach shell",
        "exec -it shell sh",
    ):
        line, stdout, stderr = fail(client, f"%dock {words}")
        assert line == f"dock {words.split()[0]}: exit code 1"
        assert stdout == ""
        assert stderr.startswith("error: -t with -i needs a terminal, and a cell is not a terminal")
        assert "with dock in place of %dock" in stderr
    _, _, stderr = fail(client, f"%%dock run -t {IMAGE} sh\necho never")
    assert stderr.startswith("error: -t with -i needs a terminal")
    assert dock(environment, "ps", "-a", "--format", "{{.Names}} {{.State}}") == before
    assert run(client, f"%dock run -t --rm --network none {IMAGE} echo seen")[0] == "seen\r\n"
    _, _, displayed = run(client, "%dock ps")
    assert "<td" in displayed[0]["text/html"]
    assert "shell" in displayed[0]["text/plain"]
    run(client, "%dock rm -f shell made")


def test_an_error_is_one_line(client: BlockingKernelClient) -> None:
    line, stdout, stderr = fail(client, "%dock run missing-image true")
    assert stdout == ""
    assert stderr.startswith("error: ")
    assert "Traceback" not in stderr
    assert line == "dock run: exit code 125"
    assert exit_code(client) == "125"


def test_progress_is_a_widget(client: BlockingKernelClient, environment: dict[str, str]) -> None:
    archive = Path(environment["PYDOCK_ROOT"]).parent / "box.tar"
    stdout, stderr, _ = run(client, f"%dock import {archive} again:1")
    assert stdout.startswith("sha256:")
    assert stderr == ""
    saved = archive.with_name("new.tar")
    saved.write_bytes(build_docker_archive(build_tar([entry("new")]), tags=["new:1"]))
    stdout, stderr, displayed = run(client, f"%dock load -i {saved}")
    assert (stdout, stderr) == ("Loaded image: new:1\n", "")
    bars, line = displayed
    assert "application/vnd.jupyter.widget-view+json" in bars
    assert "VBox" not in bars["text/plain"]
    assert set(line) == {"text/plain"}
    assert re.fullmatch(rf"loaded {saved}: 1 layer, \S+B", line["text/plain"])
    stdout, _, displayed = run(client, f"%dock import --progress plain {archive} again:1")
    assert stdout.splitlines()[-1].startswith("sha256:")
    assert displayed == []
    _, _, stderr = fail(client, "%dock save again:1")
    assert stderr.startswith("error: cannot write an archive to a cell")
    run(client, "%dock rmi again:1 new:1")


@pytest.mark.parametrize(("answer", "is_done"), [("y", True), ("n", False)])
def test_a_question_is_asked_below_the_cell(client: BlockingKernelClient, answer: str, is_done: bool) -> None:
    asked: list[str] = []

    def on_question(message: dict[str, Any]) -> None:
        asked.append(message["content"]["prompt"])
        client.input(answer)

    texts: list[str] = []
    client.execute_interactive(
        "%dock image prune",
        timeout=WAIT_SECONDS,
        stdin_hook=on_question,
        output_hook=lambda message: texts.append(str(message["content"].get("text", ""))),
    )
    assert len(asked) == 1
    assert asked[0].endswith("Are you sure you want to continue? [y/N] ")
    assert ("Total reclaimed space" in "".join(texts)) is is_done


def test_without_somebody_to_ask_it_is_refused(client: BlockingKernelClient) -> None:
    texts: list[str] = []
    client.execute_interactive(
        "%dock system prune",
        timeout=WAIT_SECONDS,
        allow_stdin=False,
        output_hook=lambda message: texts.append(str(message["content"].get("text", ""))),
    )
    assert "hint: give -f to go on without being asked" in "".join(texts)
    assert exit_code(client) == "1"
