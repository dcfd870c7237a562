"""Chooses the executor that a launch plan names."""

from __future__ import annotations

from pydock_core.paths import ContainerPaths, StateRoot
from pydock_core.runtime.executor import Executor
from pydock_core.supervision.plan import EMBEDDED


def make_executor(name: str, paths: ContainerPaths) -> Executor:
    """Return the executor ``name`` ("embedded", or the path of an OCI runtime program) for one container.

    Its state is under the container's run directory, and is removed with it.
    """
    state_dir = paths.run / "executor"
    # Imported late: a supervisor loads only the one that it uses.
    if name == EMBEDDED:
        from pydock_core.runtime.embedded import EmbeddedExecutor

        cache_dir = StateRoot(paths.data.parent.parent, paths.run.parent.parent).cache
        return EmbeddedExecutor(state_dir, cache_dir)
    from pydock_core.runtime.command_executor import CommandExecutor

    return CommandExecutor(name, state_dir)
