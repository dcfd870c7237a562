"""The examples in the help texts: each is accepted by the command that it is an example for."""

from __future__ import annotations

import io
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pydock_core.commands.command import Command, Option
from pydock_core.commands.context import Context
from pydock_core.commands.dispatch import run_command
from pydock_core.commands.table import COMMANDS
from pydock_core.engine import Engine
from pydock_core.engine.consistency.finding import Finding
from pydock_core.engine.containers import Containers
from pydock_core.engine.processes import Processes, build_stats
from pydock_core.engine.system import System
from pydock_core.errors import NotFoundError
from pydock_core.paths import StateRoot
from pydock_core.store.database.containers import ContainerRow
from pydock_core.supervision.container_status import Status
from tests.support.commands import Output
from tests.support.image_store import build_config, build_docker_archive

CONTAINER = "web"
SUMMARY: dict[str, Any] = {
    "Id": "c" * 64,
    "Image": "box:1",
    "Command": "sh",
    "Created": 1,
    "Status": "Up 1 second",
    "State": "running",
    "Ports": [],
    "Names": [f"/{CONTAINER}"],
    "Labels": {},
    "Mounts": [],
    "SizeRw": 0,
    "NetworkSettings": {"Networks": {}},
}
FOUND = {"name": "box", "description": "", "star_count": 3, "is_official": True, "is_automated": False}
ROW = ContainerRow(SUMMARY["Id"], CONTAINER, "sha256:1", 1, "{}")
ENDING = {"events": ["--until", "0s"], "stats": ["--no-stream"]}
"""The options with which a command ends that would go on."""
ARGUMENTS = {
    "IMAGE": "box:1",
    "CONTAINER": CONTAINER,
    "NAME": "box:1",
    "TERM": "box",
    "VOLUME": "kept",
    "NETWORK": "bridge",
}


def with_option(flag: str) -> list[tuple[Command, Option]]:
    return [(command, option) for command in COMMANDS for option in command.options if flag in option.flags]


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Context]:
    """An engine with one image, and doubles of a container and of a registry."""

    def look(self: Containers, name: str, size: bool = False) -> dict[str, Any]:
        if name == CONTAINER:
            return {"Id": SUMMARY["Id"], "Name": f"/{CONTAINER}"}
        raise NotFoundError(name, "")

    engine = Engine(StateRoot(tmp_path / "data", tmp_path / "run"))
    monkeypatch.setattr(Containers, "list", lambda self, **words: [SUMMARY])
    monkeypatch.setattr(Containers, "inspect", look)
    monkeypatch.setattr(Processes, "stats", lambda self, name: build_stats(ROW, Status("created")))
    monkeypatch.setattr(Engine, "registries", SimpleNamespace(search=lambda *_, **__: [FOUND]))
    config = build_config(Cmd=["sh"]).replace(b'"rootfs"', b'"history": [{"created_by": "x"}], "rootfs"')
    config = config.replace(b'"x"', b'"x", "empty_layer": true')
    engine.images.load(io.BytesIO(build_docker_archive(tags=["box:1"], config=config)))
    finding = Finding(
        "file", "tmp/load-1", "a killed process left it unfinished", "removes it", True, "repaired"
    )
    monkeypatch.setattr(System, "check", lambda self, **words: [finding])
    engine.volumes.create("kept")
    output = Output()
    yield Context(engine=engine, stdout=output, stderr=output)
    engine.close()


def run(context: Context, command: Command, *words: str) -> str:
    """Run a command that must succeed, with the arguments that it needs; return what it wrote."""
    needed = [ARGUMENTS[argument.name] for argument in command.arguments if argument.count in ("1", "+")]
    assert isinstance(context.stdout, Output)
    context.stdout.clear()
    ending = ENDING.get(command.name, [])
    code = run_command([*command.path, *ending, *words, *needed], context)
    written = context.stdout.text
    assert code == 0 or command.name == "doctor", written
    assert "error:" not in written
    return written


@pytest.mark.parametrize(
    ("command", "option"), with_option("--format"), ids=lambda given: getattr(given, "name", "")
)
def test_the_templates(context: Context, command: Command, option: Option) -> None:
    (template,) = re.findall(r"'(\{\{.+\}\})'", option.help)
    assert run(context, command, "--format", template).strip()
    for kind in ("table", "json"):
        if re.search(rf"\b{kind}\b", option.help):
            assert run(context, command, "--format", kind).strip()


@pytest.mark.parametrize(
    ("command", "option"), with_option("--filter"), ids=lambda given: getattr(given, "name", "")
)
def test_the_filters(context: Context, command: Command, option: Option) -> None:
    examples = shlex.split(option.help.rpartition(": ")[2].replace(",", " "))
    assert examples
    for example in examples:
        assert re.fullmatch(r"[a-z-]+!?=\S+", example)
        run(context, command, "--filter", example, *(["-f"] if "prune" in command.path else []))


def test_fields_that_an_image_says_nothing_of(context: Context) -> None:
    (command,) = [command for command in COMMANDS if command.name == "image inspect"]
    template = (
        "{{.Config.Entrypoint}}|{{.Config.User}}|{{json .Config.ExposedPorts}}|{{.Config.Cmd}}|{{.Variant}}"
    )
    assert run(context, command, "-f", template) == "[]||null|[sh]|\n"
