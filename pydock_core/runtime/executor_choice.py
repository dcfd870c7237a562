"""Chooses the executor that a launch plan names."""

from __future__ import annotations

from pathlib import Path

from pydock_core.runtime.executor import Executor
from pydock_core.runtime.plan import EMBEDDED


def make_executor(name: str, run_dir: Path) -> Executor:
    """Return the executor ``name`` ("embedded", or the path of an OCI runtime program).

    Its state lies under the container's run directory, so it ends with the container.
    """
    state_dir = run_dir / "executor"
    # Imported late: a supervisor pays for the one that it uses.
    if name == EMBEDDED:
        from pydock_core.runtime.embedded import EmbeddedExecutor

        return EmbeddedExecutor(state_dir)
    from pydock_core.runtime.command import CommandExecutor

    return CommandExecutor(name, state_dir)
