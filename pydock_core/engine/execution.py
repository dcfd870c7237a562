"""An additional process in a running container: the request, and the OCI process object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ExecRequest:
    """The request of ``dock exec``; None stands for the container's own value.

    Attributes:
        size: rows and columns of the terminal, (0, 0) if unknown.
    """

    command: tuple[str, ...]
    env: tuple[str, ...] = ()
    working_directory: str | None = None
    user: str | None = None
    terminal: bool = False
    privileged: bool = False
    size: tuple[int, int] = (0, 0)


def build_exec_process(
    base: Mapping[str, Any], request: ExecRequest, user: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return the OCI ``process`` object of an exec.

    Args:
        base: ``process`` of the container's own config.json.
        user: the OCI user object, None for the container's own.
    """
    from pydock_core.spec.builder import build_process  # late: listing and inspecting need none of it
    from pydock_core.spec.merge import merge_environment

    terminal = ["TERM=xterm"] if request.terminal else []
    return build_process(
        request.command,
        merge_environment([*base.get("env", ()), *terminal], request.env),
        request.working_directory or base.get("cwd", "/"),
        template=base,
        user=user,
        terminal=request.terminal,
        console_size=request.size,
        privileged=request.privileged,
    )
