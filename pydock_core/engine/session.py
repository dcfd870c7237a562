"""Sessions of this host: a container or an exec'd process in the foreground, with its streams.

:class:`pydock_core.engine.protocol.SessionProtocol` describes their use.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from pydock_core.engine.protocol import InputStream, Output, OutputStream, SessionEnd
from pydock_core.errors import ConflictError, PyDockError, UnavailableError
from pydock_core.paths import ContainerPaths
from pydock_core.runtime.executor import Stdio
from pydock_core.supervision.client import ExecSession, Launch, SupervisorClient, wait_for_exit
from pydock_core.supervision.container_status import KILLED_EXIT_CODE, derive_status

_CHUNK_BYTES = 64 * 1024
_NAMES = {1: "stdout", 2: "stderr"}


class DescriptorOutput:
    """One output stream that is a non-blocking descriptor: a pipe, a terminal, or an attachment's raw socket."""

    def __init__(self, fd: int, name: str) -> None:
        self._fd = fd
        self._name = name

    def fileno(self) -> int:
        return self._fd

    def read(self) -> Sequence[Output] | None:
        chunk = _read(self._fd)
        return chunk if chunk is None else [(self._name, chunk)] if chunk else []


class FrameOutput:
    """Both output streams in Docker's multiplexed form: frames of 8 bytes (stream, three zeros, length), then data."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._header = bytearray()
        self._remaining_bytes = 0
        self._name = _NAMES[1]

    def fileno(self) -> int:
        return self._fd

    def read(self) -> Sequence[Output] | None:
        chunk = _read(self._fd)
        if not chunk:
            return chunk if chunk is None else []
        return list(self._split(memoryview(chunk))) or None

    def _split(self, view: memoryview) -> list[Output]:
        outputs: list[Output] = []
        while view:
            if self._remaining_bytes:
                part = bytes(view[: self._remaining_bytes])
                outputs.append((self._name, part))
                self._remaining_bytes -= len(part)
                view = view[len(part) :]
                continue
            missing = 8 - len(self._header)
            self._header += view[:missing]
            view = view[missing:]
            if len(self._header) == 8:
                self._name = _NAMES.get(self._header[0], _NAMES[1])
                self._remaining_bytes = int.from_bytes(self._header[4:8], "big")
                self._header.clear()
        return outputs


class SocketInput:
    """Standard input over an attachment; shutting down the write side ends it."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def fileno(self) -> int:
        return self._connection.fileno()

    def write(self, data: bytes) -> int:
        return _write(self._connection.fileno(), data)

    def close(self) -> None:
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)


class PipeInput:
    """Standard input that is a pipe of this process's own."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        return self._fd

    def write(self, data: bytes) -> int:
        return _write(self._fd, data)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1


class TerminalInput:
    """Standard input that is a terminal's master side; ctrl-d ends it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        return self._fd

    def write(self, data: bytes) -> int:
        return _write(self._fd, data)

    def close(self) -> None:
        with suppress(OSError):
            os.write(self._fd, b"\x04")


class ContainerSession:
    """A container that was started or attached to; see :class:`pydock_core.engine.protocol.SessionProtocol`.

    Args:
        paths: of the container.
        attachment: the stream socket of the attached streams, which the session closes; None without any.
        terminal: the container's process has a terminal.
        launch: the launch of a started container; it reports the end.
        begin_wait: for an attached container: waits for its end and returns its exit code.
        on_end: called when :meth:`wait` has the end.
    """

    def __init__(
        self,
        paths: ContainerPaths,
        attachment: socket.socket | None,
        *,
        terminal: bool,
        launch: Launch | None = None,
        wait_for_end: Callable[[], int] | None = None,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self.terminal = terminal
        self.stdin: InputStream | None = None
        self.outputs: Sequence[OutputStream] = ()
        self._paths = paths
        self._attachment = attachment
        self._launch = launch
        self._wait_for_end = wait_for_end
        self._on_end = on_end
        if attachment is not None:
            attachment.setblocking(False)
            fd = attachment.fileno()
            self.stdin = SocketInput(attachment)
            self.outputs = (DescriptorOutput(fd, "stdout") if terminal else FrameOutput(fd),)

    @classmethod
    def attach(
        cls,
        client: SupervisorClient,
        paths: ContainerPaths,
        streams: Any,
        terminal: bool,
        on_end: Callable[[], None],
    ) -> ContainerSession:
        """Attach to a running container.  The wait for its end begins first, because ``--rm`` removes its exit record."""
        try:
            wait_for_end = client.begin_wait()
        except ConflictError:  # it has just ended, as the next line finds
            wait_for_end = None
        return cls(paths, client.attach(streams), terminal=terminal, wait_for_end=wait_for_end, on_end=on_end)

    def fileno(self) -> int:
        """Return a descriptor that is readable when the container has ended; -1 if only its streams show the end."""
        return self._launch.fileno() if self._launch is not None else -1

    def signal(self, number: int) -> None:
        with suppress(PyDockError):  # it has just ended
            SupervisorClient(self._paths).signal(number)

    def resize(self, rows: int, columns: int) -> None:
        with suppress(PyDockError):  # it has just ended
            SupervisorClient(self._paths).resize(rows, columns)

    def wait(self) -> SessionEnd:
        end = self._wait()
        self._on_end()
        return end

    def _wait(self) -> SessionEnd:
        try:
            if self._launch is not None:
                end = self._launch.wait()
                assert end is not None  # no timeout was given
                return SessionEnd(end.exit_code, end.oom_killed)
            if self._wait_for_end is not None:
                code = self._wait_for_end()
                return SessionEnd(code, derive_status(self._paths).oom_killed)
        except UnavailableError:
            pass  # the supervisor was killed: read the record
        status = wait_for_exit(self._paths)
        if status.status == "created":  # it had --rm, and another process has removed it
            return SessionEnd(KILLED_EXIT_CODE)
        return SessionEnd(status.exit_code, status.oom_killed)

    def close(self) -> None:
        if self._launch is not None:
            self._launch.close()
        if self._attachment is not None:
            self._attachment.close()

    def __enter__(self) -> ContainerSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class ExecutionSession:
    """A process of ``exec``; see :class:`pydock_core.engine.protocol.SessionProtocol`.

    Args:
        connection: the supervisor's session.
        stdin, outputs: the near ends of its streams.
        fds: further descriptors for the session to close.
        on_end: called once with the exit code, when :meth:`wait` has it.
    """

    def __init__(
        self,
        connection: ExecSession,
        stdin: InputStream | None,
        outputs: Sequence[OutputStream],
        fds: Sequence[int],
        *,
        terminal: bool,
        on_end: Callable[[int], None],
    ) -> None:
        self.terminal = terminal
        self.stdin = stdin
        self.outputs = outputs
        self._connection = connection
        self._fds = list(fds)
        self._on_end = on_end

    def fileno(self) -> int:
        """Return a descriptor that is readable when the process has ended."""
        return self._connection.fileno()

    def signal(self, number: int) -> None:
        with suppress(PyDockError):
            self._connection.signal(number)

    def resize(self, rows: int, columns: int) -> None:
        self._connection.resize(rows, columns)

    def wait(self) -> SessionEnd:
        code = self._connection.wait()
        assert code is not None  # no timeout was given
        self._on_end(code)
        return SessionEnd(code)

    def close(self) -> None:
        if isinstance(self.stdin, PipeInput):
            self.stdin.close()
        while self._fds:
            os.close(self._fds.pop())
        self._connection.close()

    def __enter__(self) -> ExecutionSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def begin_execution(
    client: SupervisorClient,
    process: Mapping[str, Any],
    *,
    exec_id: str,
    stdin: bool,
    detach: bool,
    on_end: Callable[[int], None],
) -> ExecutionSession:
    """Start a process in a running container, with pipes or its own terminal.

    It never gets a descriptor of this process's terminal, because it could inject input there (TIOCSTI).

    Args:
        exec_id: identifies the process in events.
        on_end: see :class:`ExecutionSession`.
    """
    if process["terminal"]:
        connection = client.exec_(process, None, exec_id, detach=detach)
        console_fd = connection.console_fd
        assert console_fd is not None
        os.set_blocking(console_fd, False)
        outputs = [DescriptorOutput(console_fd, "stdout")]
        return ExecutionSession(
            connection, TerminalInput(console_fd), outputs, [console_fd], terminal=True, on_end=on_end
        )
    null_fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    theirs = [null_fd]
    ours: list[int] = []
    try:
        if detach:
            connection = client.exec_(process, Stdio(null_fd, null_fd, null_fd), exec_id, detach=True)
            return ExecutionSession(connection, None, (), (), terminal=False, on_end=on_end)
        stdin_read, stdin_write = os.pipe2(os.O_CLOEXEC) if stdin else (null_fd, -1)
        stdout_read, stdout_write = os.pipe2(os.O_CLOEXEC)
        stderr_read, stderr_write = os.pipe2(os.O_CLOEXEC)
        theirs += [stdout_write, stderr_write] + ([stdin_read] if stdin else [])
        ours += [stdout_read, stderr_read] + ([stdin_write] if stdin else [])
        connection = client.exec_(process, Stdio(stdin_read, stdout_write, stderr_write), exec_id)
        for fd in ours:
            os.set_blocking(fd, False)
        session = ExecutionSession(
            connection,
            PipeInput(stdin_write) if stdin else None,
            (DescriptorOutput(stdout_read, "stdout"), DescriptorOutput(stderr_read, "stderr")),
            (stdout_read, stderr_read),
            terminal=False,
            on_end=on_end,
        )
        ours.clear()
        return session
    finally:
        for fd in [*theirs, *ours]:
            os.close(fd)


def _read(fd: int) -> bytes | None:
    """Read a chunk; return b"" at the end, None if there is nothing."""
    try:
        return os.read(fd, _CHUNK_BYTES)
    except BlockingIOError:
        return None
    except OSError:  # EIO: the other side of a terminal is closed; ECONNRESET: the supervisor was killed
        return b""


def _write(fd: int, data: bytes) -> int:
    """Write without waiting; return the number of bytes written, or all if the reader is gone."""
    try:
        return os.write(fd, data)
    except BlockingIOError:
        return 0
    except OSError:
        return len(data)
