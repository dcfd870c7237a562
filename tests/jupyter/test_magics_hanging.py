"""An interrupt of a command that hangs: one line in a cell, none in a terminal, and the store as before."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from pydock_core.paths import StateRoot
from tests.integration.conftest import end_servers
from tests.support.image_store import build_docker_archive, build_tar, entry
from tests.support.network_namespace import NetworkNamespace, end, network_namespace
from tests.support.scripted_server import Exchange, Scripted, scripted_server

WAIT_SECONDS = 20
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"

SHELL = """
import json, sys
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
shell = InteractiveShell.instance()
shell.run_line_magic("load_ext", "pydock_jupyter")
for line in sys.stdin:
    with capture_output() as captured:
        error = shell.run_cell("%dock " + line).error_in_exec
    shown = {"stdout": captured.stdout, "stderr": captured.stderr, "code": shell.user_ns["_exit_code"]}
    print(json.dumps({**shown, "is_interrupt": isinstance(error, KeyboardInterrupt)}), flush=True)
"""
"""Runs a %dock command for each line of its input, and prints what the cell showed."""


def describe(data: bytes, media_type: str) -> dict[str, object]:
    return {
        "mediaType": media_type,
        "size": len(data),
        "digest": f"sha256:{hashlib.sha256(data).hexdigest()}",
    }


class HangingRegistry:
    """Answers the manifest and the configuration of an image of two layers, and hangs at everything else.

    Attributes:
        hangs: set when somebody waits for an answer.
        is_there: it answers the first question, whether it is a registry.
    """

    def __init__(self) -> None:
        layers = [b"first layer", b"second layer"]
        ids = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
        config = json.dumps(
            {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": ids}}
        ).encode()
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": describe(config, "application/vnd.oci.image.config.v1+json"),
                "layers": [describe(layer, LAYER) for layer in layers],
            }
        ).encode()
        self._manifest = manifest
        self._config = config
        self.hangs = threading.Event()
        self.is_there = True

    def __call__(self, exchange: Exchange) -> None:
        path = exchange.path
        if path == "/v2/" and self.is_there:
            exchange.answer(200)
        elif "/manifests/hangs" in path and exchange.command in ("GET", "HEAD"):
            exchange.answer(200, self._manifest, {"Content-Type": MANIFEST})
        elif path.endswith(hashlib.sha256(self._config).hexdigest()) and exchange.command == "GET":
            exchange.answer(200, self._config)
        else:
            self.hangs.set()
            exchange.stall()


@dataclass
class Place:
    """A state root with one image, a registry that hangs, and a shell with the magics, all in one namespace."""

    inside: NetworkNamespace
    registry: HangingRegistry
    server: Scripted
    environment: dict[str, str]
    shell: subprocess.Popen[bytes]
    base: Path

    def dock(self, *words: str) -> str:
        return self.inside.run(*PROGRAM, *words, environment=self.environment).stdout


PROGRAM = (sys.executable, "-m", "pydock_core")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    base = tmp_path_factory.mktemp("hanging")
    state = base / "state"
    environment = {
        **os.environ,
        "HOME": str(base),
        "PYDOCK_ROOT": str(state),
        "IPYTHONDIR": str(base / "ipython"),
    }
    registry = HangingRegistry()
    with network_namespace() as inside, scripted_server(inside, registry) as server:
        archive = base / "image.tar"
        layer = build_tar([entry("big", data=os.urandom(1 << 20))])
        archive.write_bytes(build_docker_archive(layer, tags=[f"{server.host}/here:1"]))
        inside.run(*PROGRAM, "load", "-i", archive, environment=environment)
        shell = inside.start(
            *(sys.executable, "-c", SHELL), env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        try:
            yield Place(inside, registry, server, environment, shell, base)
        finally:
            end([shell])
            shell.communicate()  # closes the pipes
            end_servers(StateRoot(state / "data", state / "run"))
            shutil.rmtree(state)


@contextmanager
def hanging(place: Place, command: str) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yield a command's words, and a function that waits until the command hangs."""
    fifo = place.base / "fifo"
    opened: list[int] = []

    def wait_for_registry() -> None:
        assert place.registry.hangs.wait(WAIT_SECONDS)

    words = {
        "pull": f"pull {place.server.host}/there:hangs",
        "run": f"run --pull missing --rm --name never {place.server.host}/there:hangs true",
        "push": f"push {place.server.host}/here:1",
        "login": f"login -u ann -p secret {place.server.host}",
        "load": f"load -i {fifo}",
        "save": f"save -o {fifo} {place.server.host}/here:1",
    }[command]
    if command not in ("load", "save"):
        place.registry.hangs.clear()
        place.registry.is_there = command != "login"
        yield words, wait_for_registry
        return
    os.mkfifo(fifo)
    how = os.O_WRONLY if command == "load" else os.O_RDONLY
    try:
        yield words, lambda: opened.append(os.open(fifo, how))  # waits for the other side
    finally:
        for fd in opened:
            os.close(fd)
        fifo.unlink()


def interrupt(process: subprocess.Popen[bytes], has_heeded: Callable[[], bool]) -> None:
    """Interrupt a process that hangs; ``has_heeded`` waits a second for it to say or do something.

    A signal that comes in the microseconds before a system call that waits does not break that off (a limit of
    CPython): a person would press again.
    """
    for _ in range(WAIT_SECONDS):
        process.send_signal(signal.SIGINT)
        if has_heeded():
            return
    pytest.fail(f"{process.args} does not heed an interrupt")


def has_said_something(process: subprocess.Popen[bytes]) -> bool:
    answered = select.poll()
    assert process.stdout is not None
    answered.register(process.stdout, select.POLLIN)
    return bool(answered.poll(1000))


def has_ended(process: subprocess.Popen[bytes]) -> bool:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(1)
    return process.returncode is not None


COMMANDS = ("pull", "run", "push", "login", "load", "save")


def test_in_a_cell_it_is_one_line(place: Place) -> None:
    before = place.dock("images", "-q")
    stdin, stdout = place.shell.stdin, place.shell.stdout
    assert stdin is not None
    assert stdout is not None
    for command in COMMANDS:
        with hanging(place, command) as (words, wait):
            stdin.write(words.encode() + b"\n")
            stdin.flush()
            wait()
            interrupt(place.shell, lambda: has_said_something(place.shell))
            shown = json.loads(stdout.readline())
        assert shown["is_interrupt"], shown
        assert shown["code"] == 130
        assert shown["stdout"].splitlines()[-1] == f"KeyboardInterrupt: dock {command} was interrupted"
        assert "Traceback" not in shown["stdout"] + shown["stderr"]
    assert place.dock("images", "-q") == before
    assert place.dock("ps", "-aq") == ""


def test_in_a_terminal_it_is_no_line(place: Place) -> None:
    for command in COMMANDS:
        with hanging(place, command) as (words, wait):
            pipe = subprocess.PIPE
            process = place.inside.start(
                *PROGRAM, *words.split(), env=place.environment, stdout=pipe, stderr=pipe
            )
            try:
                wait()
                interrupt(process, functools.partial(has_ended, process))
                _, stderr = process.communicate(timeout=WAIT_SECONDS)
            finally:
                process.kill()
                process.communicate()
        # The signal itself ends a program that a second one reaches while Python shuts down: 130 for a shell too.
        assert process.returncode in (130, -signal.SIGINT)
        assert not [
            line for line in stderr.decode().splitlines() if "Traceback" in line or "Interrupt" in line
        ]
    assert place.dock("ps", "-aq") == ""
