"""A further process in a running container: the request, the OCI process object, and the session that stays with it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pydock_core.runtime.executor import Stdio
from pydock_core.supervision.client import ExecSession, SupervisorClient


@dataclass(frozen=True, slots=True)
class ExecRequest:
    """The request of ``dock exec``; None is the container's own value.

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


class Execution:
    """An exec in the foreground: the near ends of its streams.

    Attributes:
        stdin_fd: where its standard input is written (non-blocking), None if it has none.
        stdout_fd, stderr_fd: where its output is read; with a terminal all three are the master side.
    """

    def __init__(
        self,
        session: ExecSession,
        stdin_fd: int | None,
        stdout_fd: int,
        stderr_fd: int | None,
        *,
        terminal: bool,
    ) -> None:
        self._session = session
        self.stdin_fd = stdin_fd
        self.stdout_fd = stdout_fd
        self.stderr_fd = stderr_fd
        self.terminal = terminal

    def fileno(self) -> int:
        """The session's socket, readable when the process has ended."""
        return self._session.fileno()

    def signal(self, number: int) -> None:
        """Send the process a signal."""
        self._session.signal(number)

    def resize(self, rows: int, columns: int) -> None:
        """Set the size of its terminal."""
        self._session.resize(rows, columns)

    def wait(self) -> int:
        """Wait for its end; return its exit code."""
        code = self._session.wait()
        assert code is not None  # no timeout was given
        return code

    def close_stdin(self) -> None:
        """End its standard input: close the pipe, or type ctrl-d into the terminal."""
        if self.stdin_fd is None:
            return
        if self.terminal:
            with suppress(OSError):
                os.write(self.stdin_fd, b"\x04")
            return
        os.close(self.stdin_fd)
        self.stdin_fd = None

    def close(self) -> None:
        """Let go of the streams; the process goes on, without a reader."""
        for fd in {self.stdin_fd, self.stdout_fd, self.stderr_fd}:
            if fd is not None and fd >= 0:
                os.close(fd)
        self.stdin_fd = self.stderr_fd = None
        self.stdout_fd = -1
        self._session.close()

    def __enter__(self) -> Execution:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def begin_execution(
    client: SupervisorClient, process: Mapping[str, Any], *, stdin: bool, detach: bool
) -> Execution:
    """Start the process, with pipes (never descriptors of our own terminal, into which it could type: TIOCSTI)."""
    if process["terminal"]:
        session = client.exec_(process, None)
        console_fd = session.console_fd
        assert console_fd is not None
        os.set_blocking(console_fd, False)
        return Execution(session, console_fd, console_fd, None, terminal=True)
    null_fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    theirs = [null_fd]
    ours: list[int] = []
    try:
        if detach:
            session = client.exec_(process, Stdio(null_fd, null_fd, null_fd))
            return Execution(session, None, -1, None, terminal=False)
        stdin_read, stdin_write = os.pipe2(os.O_CLOEXEC) if stdin else (null_fd, -1)
        stdout_read, stdout_write = os.pipe2(os.O_CLOEXEC)
        stderr_read, stderr_write = os.pipe2(os.O_CLOEXEC)
        theirs += [stdout_write, stderr_write] + ([stdin_read] if stdin else [])
        ours += [stdout_read, stderr_read] + ([stdin_write] if stdin else [])
        session = client.exec_(process, Stdio(stdin_read, stdout_write, stderr_write))
        for fd in ours:
            os.set_blocking(fd, False)
        execution = Execution(
            session, stdin_write if stdin else None, stdout_read, stderr_read, terminal=False
        )
        ours.clear()
        return execution
    finally:
        for fd in [*theirs, *ours]:
            os.close(fd)
