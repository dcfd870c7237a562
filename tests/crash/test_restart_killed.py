"""The two processes of a container with a restart policy are killed at random instants of its runs."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

from pydock_core.engine import Engine
from pydock_core.supervision.client import Zygote
from pydock_core.supervision.container_status import StateRecord
from tests.integration.conftest import (
    Dock,
    archive,
    children_of,
    dock,
    engine,
    nothing_is_left,
    wait_until,
)

__all__ = ["archive", "dock", "engine", "nothing_is_left"]  # fixtures
_ROUNDS = 12


def test_supervisors_and_keepers_that_are_killed_at_any_instant(dock: Dock, engine: Engine) -> None:
    """However a round ends, the container can be removed at once, and no process of it is left."""
    chance = random.Random(7)
    request = {
        "Image": "busybox",
        "Cmd": ["sleep", "0.05"],
        "HostConfig": {"NetworkMode": "none", "RestartPolicy": {"Name": "always"}},
    }
    zygote = Zygote(engine.root).ping()["pid"]
    for number in range(_ROUNDS):
        container_id, _ = engine.containers.create(request)
        before = set(children_of(zygote))
        engine.containers.start(container_id).close()
        paths = engine.root.container(container_id)
        own: set[int] = set()
        for _ in range(2):
            time.sleep(chance.uniform(0, 0.3))
            state = StateRecord.read(paths.state_file)
            own |= (set(children_of(zygote)) - before) | (
                {state.supervisor.pid} if state is not None else set()
            )
            if state is not None:
                with suppress(ProcessLookupError):
                    os.kill(state.supervisor.pid, signal.SIGKILL)
        listed = {summary["Id"]: summary["State"] for summary in engine.containers.list(all=True)}
        assert listed[container_id] in ("created", "running", "restarting", "exited"), number
        engine.containers.remove(container_id, force=True)
        assert container_id not in {summary["Id"] for summary in engine.containers.list(all=True)}
        assert not paths.data.exists()
        assert not paths.run.exists()
        wait_until(partial(have_ended, own, container_id), "its processes have ended")


def have_ended(pids: set[int], container_id: str) -> bool:
    return not any(keeps(pid, container_id) for pid in pids)


def keeps(pid: int, container_id: str) -> bool:
    """Whether a process has a file of the container open: its lock, its log or its control socket."""
    with suppress(OSError):
        return any(container_id in os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir())
    return False
