"""%dock in a real kernel: completion over the protocol, live output, and an interrupt that stops a container."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

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
        for name in ("sh", "sleep", "cat", "echo", "true"):
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


def run(
    client: BlockingKernelClient, code: str, on_text: Callable[[str], None] = lambda text: None
) -> tuple[str, str, list[dict[str, Any]]]:
    """Execute a cell; return its standard output, standard error and displayed data.

    ``on_text`` is called with the standard output so far, while the cell runs.
    """
    texts = {"stdout": "", "stderr": ""}
    displayed: list[dict[str, Any]] = []

    def hook(message: dict[str, Any]) -> None:
        content = message["content"]
        if message["msg_type"] == "stream":
            texts[content["name"]] += content["text"]
            on_text(texts["stdout"])
        elif message["msg_type"] in ("display_data", "execute_result"):
            displayed.append(content["data"])

    reply = client.execute_interactive(code, timeout=WAIT_SECONDS, output_hook=hook)
    assert reply["content"]["status"] == "ok", reply["content"]
    return texts["stdout"], texts["stderr"], displayed


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
    stdout, stderr, _ = run(
        client, f"%%dock run --rm --network none {IMAGE} sh\necho out; echo err >&2; exit 3\n"
    )
    assert (stdout, stderr) == ("out\n", "err\n")
    assert exit_code(client) == "3"


def test_output_comes_live_and_an_interrupt_stops_the_container(
    client: BlockingKernelClient, kernel: KernelManager, environment: dict[str, str]
) -> None:
    interrupted: list[str] = []

    def on_text(text: str) -> None:
        if "ready" in text and not interrupted:
            interrupted.append(text)
            kernel.interrupt_kernel()

    script = 'trap "echo stopped; exit 7" INT; echo ready; while true; do sleep 0.1; done'
    stdout, _, _ = run(client, f"%dock run --rm --name loop --network none {IMAGE} sh -c '{script}'", on_text)
    assert interrupted
    assert stdout == "ready\nstopped\n"
    assert exit_code(client) == "7"
    assert "loop" not in dock(environment, "ps", "-a", "--format", "{{.Names}}")


def test_following_a_log_ends_with_an_interrupt(
    client: BlockingKernelClient, kernel: KernelManager, environment: dict[str, str]
) -> None:
    script = "echo spoken; while true; do sleep 0.1; done"
    run(client, f"%dock run -d --name speaker --network none {IMAGE} sh -c '{script}'")
    sent: list[str] = []

    def on_text(text: str) -> None:
        if "spoken" in text and not sent:
            sent.append(text)
            kernel.interrupt_kernel()

    reply = client.execute_interactive(
        "%dock logs -f speaker",
        timeout=WAIT_SECONDS,
        output_hook=lambda message: on_text(str(message["content"].get("text", ""))),
    )
    assert sent
    assert reply["content"]["status"] in ("ok", "error")
    assert "running" in dock(environment, "inspect", "--format", "{{.State.Status}}", "speaker")
    run(client, "%dock rm -f speaker")


def test_a_terminal_goes_to_the_background(client: BlockingKernelClient) -> None:
    stdout, _, _ = run(client, f"%dock run -it --name shell --network none {IMAGE} sh")
    assert "shell" in stdout
    _, _, displayed = run(client, "%dock ps")
    assert "<td" in displayed[0]["text/html"]
    assert "shell" in displayed[0]["text/plain"]
    run(client, "%dock rm -f shell")


def test_an_error_is_one_line(client: BlockingKernelClient) -> None:
    stdout, stderr, _ = run(client, "%dock run missing-image true")
    assert stdout == ""
    assert stderr.startswith("error: ")
    assert "Traceback" not in stderr
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
    assert len(displayed) == 1
    assert "application/vnd.jupyter.widget-view+json" in displayed[0]
    stdout, _, displayed = run(client, f"%dock import --progress plain {archive} again:1")
    assert stdout.splitlines()[-1].startswith("sha256:")
    assert displayed == []
    _, stderr, _ = run(client, "%dock save again:1")
    assert stderr.startswith("error: an archive is not written to a cell")
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
