"""A process that is killed at any step of making, filling or removing a volume loses nothing of it.

Everything is done in one process here, workers' jobs too, so that each of its steps can be the last one.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from pydock_core import syscalls
from pydock_core.engine import Engine, volume_files
from pydock_core.paths import StateRoot
from pydock_core.spec.definition import decode
from pydock_core.store.database import containers as table
from pydock_core.store.worker import perform
from tests.integration.conftest import Dock, archive, dock, nothing_is_left
from tests.integration.test_volumes import EXPECTED, facts, filled
from tests.support.create_request import create_request
from tests.support.killed import state_root

__all__ = ["archive", "dock", "filled", "nothing_is_left"]  # fixtures

STEPS: tuple[tuple[Any, str], ...] = (
    *(
        (os, name)
        for name in "rename mkdir rmdir unlink link symlink mknod write chown fchown fchmod utime".split()
    ),
    (syscalls, "rename_noreplace"),
)
"""Calls that change what others see: before each of them is a step, and after it."""


left_steps = 0
"""How many steps the process may still do."""
write = os.write


class InProcess:
    """Does a worker's job in a child of this process, whose steps count too: if it is killed, so is this process."""

    def __init__(self, root: StateRoot) -> None:
        self._root = root

    def call(self, function: str, arguments: Mapping[str, Any], fds: Sequence[int] = ()) -> Any:
        global left_steps
        read_fd, write_fd = os.pipe()
        pid = os.fork()
        if pid == 0:
            result = perform(function, arguments, fds)
            write(write_fd, json.dumps([left_steps, result]).encode())
            os._exit(0)
        os.close(write_fd)
        with open(read_fd, "rb") as file:
            answer = file.read()
        if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL:
            os.kill(os.getpid(), signal.SIGKILL)
        left_steps, result = json.loads(answer)
        return result


def dies_at(step: int, operation: Callable[[Engine], object], base: Path) -> bool:
    """Run an operation in a process that is killed at a step, from 0; return whether it came to its end before."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            volume_files.Zygote = InProcess  # type: ignore[misc, assignment]  # of this process only
            engine = Engine(state_root(base))
            engine.state.sweep_once()
            watch(step)
            operation(engine)
            code = 0
        except BaseException:  # noqa: BLE001  # a forked process must not go on into the test runner
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, -signal.SIGKILL), f"the operation failed with {code}; see standard error"
    return code == 0


def watch(step: int) -> None:
    global left_steps
    left_steps = step

    def count() -> None:
        global left_steps
        left_steps -= 1
        if left_steps < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def watched(function: Callable[..., object]) -> Callable[..., object]:
        def call(*words: object, **keywords: object) -> object:
            count()
            result = function(*words, **keywords)
            count()
            return result

        return call

    for module, name in STEPS:
        setattr(module, name, watched(getattr(module, name)))


def every_step(
    base: Path,
    prepare: Callable[[Engine, int], Callable[[Engine], object]],
    check: Callable[[Engine, int], None],
) -> int:
    """Kill an operation at each of its steps, and look each time; return how many there are.

    Args:
        prepare: makes what a step's operation needs; returns the operation.
        check: looks at what is left, when the next command has tidied up.
    """
    for step in range(1000):
        engine = Engine(state_root(base))
        operation = prepare(engine, step)
        engine.close()
        is_done = dies_at(step, operation, base)
        engine = Engine(state_root(base))
        engine.state.remover.sweep()
        engine.state.image_store.sweep()
        check(engine, step)
        assert os.listdir(engine.root.temporary) == []
        engine.close()
        if is_done:
            return step
    raise AssertionError("the operation never ends")


def fill(engine: Engine, step: int) -> None:
    """Make and fill the volume of a step's container, as its first start does."""
    row = table.find(engine.state.database, f"user{step}")
    engine.state.launcher.view(row, decode(row.definition), engine.root.container(row.id))


@pytest.mark.parametrize("is_made_before", [False, True])
def test_a_volume_that_is_filled(dock: Dock, filled: str, is_made_before: bool) -> None:
    def prepare(engine: Engine, step: int) -> Callable[[Engine], object]:
        if is_made_before:
            engine.volumes.create(f"v{step}")
        mounts = [{"Type": "volume", "Source": f"v{step}", "Target": "/data"}]
        engine.containers.create(create_request(filled, "true", Mounts=mounts), f"user{step}")
        return lambda engine: fill(engine, step)

    def check(engine: Engine, step: int) -> None:
        assert dies_at(1 << 30, lambda engine: fill(engine, step), dock.base)
        volume = engine.root.volumes / f"v{step}"
        assert facts(volume / "_data") == EXPECTED
        assert os.listdir(volume) == ["_data"]
        engine.containers.remove(f"user{step}")
        engine.volumes.remove(f"v{step}")

    assert every_step(dock.base, prepare, check) > 30
    assert os.listdir(dock.base / "data" / "volumes") == []


def test_a_volume_that_is_created(dock: Dock) -> None:
    def check(engine: Engine, step: int) -> None:
        made = engine.volumes.create(f"v{step}", labels={"later": ""})
        assert Path(made["Mountpoint"]).is_dir()
        engine.volumes.remove(f"v{step}")

    steps = every_step(
        dock.base,
        lambda _, step: lambda engine: engine.volumes.create(f"v{step}", labels={"first": ""}),
        check,
    )
    assert steps > 5
    assert os.listdir(dock.base / "data" / "volumes") == []


def test_a_volume_that_is_removed(dock: Dock) -> None:
    outcomes = set()

    def prepare(engine: Engine, step: int) -> Callable[[Engine], object]:
        made = Path(engine.volumes.create(f"v{step}")["Mountpoint"])
        (made / "directory").mkdir()
        (made / "directory" / "file").write_text("content")
        return lambda engine: engine.volumes.remove(f"v{step}")

    def check(engine: Engine, step: int) -> None:
        file = engine.root.volumes / f"v{step}" / "_data" / "directory" / "file"
        is_listed = engine.volumes.exists(f"v{step}")
        outcomes.add(is_listed)
        if is_listed:
            assert file.read_text() == "content"
            engine.volumes.remove(f"v{step}")
        assert not (engine.root.volumes / f"v{step}").exists()
        assert os.listdir(engine.root.trash) == []

    assert every_step(dock.base, prepare, check) > 5
    assert outcomes == {True, False}
