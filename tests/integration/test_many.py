"""Two hundred in a row, fifty at once: nothing is left behind."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from pydock_core.engine import Engine
from pydock_core.supervision.client import Streams, Zygote
from pydock_core.supervision.container_status import derive_status
from tests.integration.conftest import (
    Dock,
    assert_nothing_is_left,
    children_of,
    groups_of_removed,
    host_state,
    wait_until,
)
from tests.support.create_request import create_request

_STEADY_SECONDS = 0.2


def everything(dock: Dock, engine: Engine) -> dict[str, object]:
    """The host's state, and every file and process of the state root."""
    engine.containers.list()  # opens the database
    zygote = Zygote(engine.root).ping()["pid"]
    files = sorted(
        str(path.relative_to(dock.base))
        for path in dock.base.rglob("*")
        if not path.name.startswith("pydock.db") and path.name != "zygote.log"
    )
    namespaces = len(
        {os.readlink(path / "ns/mnt") for path in Path("/proc").glob("[0-9]*") if _sees(path, dock.base)}
    )
    return {
        **host_state(dock.base),
        "files": files,
        "children": len(children_of(zygote)),
        "namespaces": namespaces,
    }


def is_idle(engine: Engine, base: Path) -> bool:
    """Whether the zygote has no children but its template and a complete spare, and the containers have left neither files
    nor groups.

    The second child may still be a supervisor that is about to end; a complete spare has its starter, maker and spare init.
    """
    zygote = Zygote(engine.root).ping()["pid"]
    children = children_of(zygote)
    places = (engine.root.trash, engine.root.containers, engine.root.run / "c")
    return (
        sorted(len(children_of(child)) for child in children) == [0, 3]
        and not any(map(os.listdir, places))
        and not groups_of_removed(base)
        and not time.sleep(_STEADY_SECONDS)  # type: ignore[func-returns-value]  # a supervisor that ends looks like a spare
        and children_of(zygote) == children
    )


def _sees(process: Path, base: Path) -> bool:
    """Whether a process is in a mount namespace where something is mounted below the state root."""
    try:
        return str(base) in (process / "mountinfo").read_text()
    except OSError:
        return False


@pytest.mark.timeout(300)
def test_two_hundred_runs_leave_nothing(dock: Dock, engine: Engine) -> None:
    def run() -> None:
        request = create_request("busybox", "true", AutoRemove=True)
        container_id, _ = engine.containers.create(request)
        with engine.containers.start(container_id, attach=Streams(stdin=False)) as session:
            end = session.wait()
        assert end.exit_code == 0
        engine.containers.remove(container_id)

    run()
    wait_until(lambda: is_idle(engine, dock.base), "the supervisor has gone")
    before = everything(dock, engine)
    for _ in range(200):
        run()
    wait_until(lambda: is_idle(engine, dock.base), "the supervisors have gone")
    assert_nothing_is_left(everything(dock, engine), before)


def test_a_container_that_ends_before_its_client_leaves_is_removed_with_rm(
    dock: Dock, engine: Engine
) -> None:
    container_id, _ = engine.containers.create(create_request("busybox", "true", AutoRemove=True))
    with engine.containers.start(container_id):
        wait_until(engine.root.container(container_id).exit_file.exists, "its end is recorded")
    wait_until(lambda: not os.listdir(engine.root.containers), "its supervisor has removed it")
    assert engine.containers.list(all=True) == []


@pytest.mark.timeout(300)
def test_fifty_at_once_leave_nothing(dock: Dock, engine: Engine) -> None:
    wait_until(lambda: is_idle(engine, dock.base), "earlier supervisors have gone")
    before = everything(dock, engine)
    request = create_request("busybox", "sleep", "1000")
    made = [engine.containers.create(request)[0] for _ in range(50)]
    for container_id in made:
        engine.containers.start(container_id).close()
    assert len(engine.containers.list()) == 50
    statuses = [derive_status(engine.root.container(container_id)) for container_id in made]
    assert len({status.pid for status in statuses}) == 50
    for container_id in made:
        engine.containers.remove(container_id, force=True)
    wait_until(lambda: is_idle(engine, dock.base), "the supervisors have gone")
    assert_nothing_is_left(everything(dock, engine), before)
