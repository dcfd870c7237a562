"""The client of the zygote and the supervisors, for the engine.

It is synchronous and thread-safe (every request has a connection of its own), and never forks, so a process with
threads and a running event loop can use it.  An error of the other side is raised here as the same
:class:`pydock_core.errors.PyDockError`.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, cast

from pydock_core import messages
from pydock_core.errors import ConflictError, UnavailableError, from_json
from pydock_core.paths import ContainerPaths, StateRoot
from pydock_core.progress import Progress
from pydock_core.runtime.executor import Stdio
from pydock_core.supervision.container_status import Status
from pydock_core.supervision.logs import LogEntry, LogReader
from pydock_core.supervision.plan import Interface, NameService, PublishedPort
from pydock_core.supervision.reaper import reap_killed
from pydock_core.supervision.server_start import ServerSpec, ask_server, ask_server_surely, zygote_spec

if TYPE_CHECKING:
    from pydock_core.supervision.protocol import (
        ControlRequest,
        ExecExitedEvent,
        ExecInstruction,
        ExecReply,
        ExitedEvent,
        ExitReply,
        LaunchOrder,
        ServerFacts,
        StateReply,
        StreamChoice,
        SuperviseRequest,
        SupervisorEvent,
        WorkerEvent,
        WorkRequest,
    )


@dataclass(frozen=True, slots=True)
class Streams:
    """An attached client's choice of the container's standard streams."""

    stdin: bool = True
    stdout: bool = True
    stderr: bool = True

    def to_json(self) -> StreamChoice:
        return {"stdin": self.stdin, "stdout": self.stdout, "stderr": self.stderr}


class Launch:
    """A container that this process has just started.

    Attributes:
        pid: pid of the container's init.
        started_at_ns: start time, since the epoch.
        ports: published ports with the chosen host ports.
        attachment: the stream socket of the attached streams (see "attach" in ARCHITECTURE.md), or None;
            the caller closes it.
    """

    def __init__(
        self,
        status: socket.socket,
        pid: int,
        started_at_ns: int,
        ports: tuple[PublishedPort, ...],
        attachment: socket.socket | None,
    ) -> None:
        self._status = status
        self.pid = pid
        self.started_at_ns = started_at_ns
        self.ports = ports
        self.attachment = attachment

    def fileno(self) -> int:
        """The status socket, readable when the container has ended."""
        return self._status.fileno()

    def wait(self, timeout_seconds: float | None = None) -> LaunchEnd | None:
        """Wait for the container's end; return None on a timeout.

        Postcondition: the exit is recorded, the container's cgroups and ports are gone, and the container can be
        started again or removed.

        Raises:
            UnavailableError: the supervisor was killed; ``derive_status`` tells the container's state.
        """
        self._status.settimeout(timeout_seconds)
        try:
            event: ExitedEvent | None = _receive_event(self._status)
        except (TimeoutError, BlockingIOError):  # the latter for a timeout of 0
            return None
        if event is None:
            raise UnavailableError("the container's supervisor was killed")
        return LaunchEnd(event["exit_code"], event["oom_killed"])

    def close(self) -> None:
        """Stop waiting for the container's end.  The container keeps running; with ``--rm`` its supervisor removes it.

        The attachment stays open.
        """
        self._status.close()

    def __enter__(self) -> Launch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class LaunchEnd:
    """The end of a launched container: its exit code (0 to 255), and whether memory ran out."""

    exit_code: int
    oom_killed: bool


class Zygote:
    """The zygote of one state root, started if it is missing; runs storage jobs (:class:`pydock_core.store.worker.Worker`).

    Args:
        root: whose ``run`` directory must exist (:meth:`StateRoot.ensure`).
    """

    def __init__(self, root: StateRoot) -> None:
        self._spec = zygote_spec(root)

    def ping(self) -> ServerFacts:
        """Start the zygote if it is missing; return its facts.

        Raises:
            UnsupportedError: this host does not allow user namespaces (rootless).
        """
        return cast("ServerFacts", ask_server_surely(self._spec, {"op": "ping"}))

    def supervise(self, plan: Path | Callable[[], Path], *, attach: Streams | None = None) -> Launch:
        """Start the container of a launch plan; return when its process runs.

        Args:
            plan: ``run/c/ID/plan.json``, with the bundle and the root filesystem ready; or a function that prepares them
                and returns the path.  The function is called once, while the supervisor is being forked.
            attach: attach these streams before the container starts, so that no output is missed.

        Raises:
            ConflictError: the container is already running, or a published port is in use (exit_code 125).
            PyDockError: the container did not start (exit_code 125, 126 or 127); the cause is recorded in exit.json.
                An error of ``plan`` is raised as it is; nothing has been started then.
        """
        request: SuperviseRequest = {"op": "supervise"}
        if attach is not None:
            request["attach"] = attach.to_json()

        def write_plan() -> LaunchOrder:
            return {"plan": str(plan() if callable(plan) else plan)}

        status, attachment, first = _ask_for_child(
            self._spec, request, attach=attach is not None, build_order=cache(write_plan)
        )
        event = cast("SupervisorEvent", first)
        try:
            if event["event"] == "failed":
                raise from_json(event["error"])
            if event["event"] == "exited":
                raise UnavailableError("the supervisor reported the container's end before its start")
            ports = tuple(PublishedPort(**port) for port in event["ports"])
            return Launch(status, event["pid"], event["started_at_ns"], ports, attachment)
        except BaseException:
            status.close()
            if attachment is not None:
                attachment.close()
            raise

    def call(
        self,
        function: str,
        arguments: Mapping[str, Any],
        fds: Sequence[int] = (),
        progress: Progress | None = None,
    ) -> Any:
        """Run an allowed function in a worker, with the zygote's privileges, and return its result.

        Args:
            function: "package.module:name", a member of :data:`pydock_core.store.worker.ALLOWED_FUNCTIONS`.
            arguments: JSON types.
            fds: descriptors, which the function gets copies of.
            progress: called with each progress event.

        Raises:
            PyDockError: the function's own error.
            UnavailableError: the worker was killed.
        """
        request: WorkRequest = {"op": "work", "function": function, "arguments": dict(arguments)}
        status, _, first = _ask_for_child(self._spec, request, fds)
        event = cast("WorkerEvent", first)
        with status:
            while event["event"] == "progress":
                if progress is not None:
                    progress(event["progress"])
                event = _receive_event(status) or _raise_killed(self._spec)
            if event["event"] == "failed":
                raise from_json(event["error"])
            return event["result"]


def _ask_for_child(
    spec: ServerSpec,
    request: Mapping[str, Any],
    fds: Sequence[int] = (),
    *,
    attach: bool = False,
    build_order: Callable[[], Mapping[str, Any]] | None = None,
) -> tuple[socket.socket, socket.socket | None, Mapping[str, Any]]:
    """Have a fork server fork a child; return the status socket, the attachment and the child's first event.

    The request is repeated only if the server died before it forked: there is no reply, and the status socket is at
    its end.  A killed child looks different.

    Args:
        build_order: builds the child's order, which is sent on the status socket, while the child is being forked.
    """
    for _ in range(3):
        status, status_theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        attachment, attach_theirs = socket.socketpair() if attach else (None, None)
        try:
            with status_theirs:
                ends = [status_theirs.fileno(), *([attach_theirs.fileno()] if attach_theirs else [])]
                reply = ask_server(spec, request, [*ends, *fds], build_order)
            if attach_theirs is not None:
                attach_theirs.close()
            if build_order is not None:
                # A child that is gone is noticed when its event is read.
                with suppress(BrokenPipeError, ConnectionResetError):
                    messages.send(status, build_order())
            event: Mapping[str, Any] | None = _receive_event(status)
            if event is not None:
                return status, attachment, event
            if reply is not None:
                _raise_killed(spec)
        except BaseException:
            _close(status, attachment, attach_theirs)
            raise
        _close(status, attachment, attach_theirs)
    raise UnavailableError(f"the {spec.name} ends at each request", hint=f"read {spec.log_path}")


def _close(*sockets: socket.socket | None) -> None:
    for item in sockets:
        if item is not None:
            item.close()


def _receive_event(status: socket.socket) -> Any:
    """Receive an event, whose type the caller declares; return None at the end of the connection."""
    try:
        message = messages.receive(status)
    except ConnectionResetError:
        return None
    if message is None:
        return None
    document, fds = message
    messages.close_all(fds)
    return document


def _raise_killed(spec: ServerSpec) -> NoReturn:
    raise UnavailableError(f"a child of the {spec.name} was killed", hint=f"read {spec.log_path}")


class ExecSession:
    """An additional process in a running container.

    Attributes:
        pid: in this PID namespace.
        console_fd: the master side of its terminal, which the caller closes; None without a terminal.
    """

    def __init__(self, connection: socket.socket, pid: int, console_fd: int | None) -> None:
        self._connection = connection
        self.pid = pid
        self.console_fd = console_fd

    def fileno(self) -> int:
        """The session's socket, readable when the process has ended."""
        return self._connection.fileno()

    def signal(self, number: int) -> None:
        """Send a signal to the process; ignore a process that has ended."""
        self._tell({"signal": number})

    def resize(self, rows: int, columns: int) -> None:
        """Set the size of the process's terminal."""
        self._tell({"resize": {"rows": rows, "columns": columns}})

    def _tell(self, instruction: ExecInstruction) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):
            messages.send(self._connection, instruction)

    def wait(self, timeout_seconds: float | None = None) -> int | None:
        """Wait for the process's end; return its exit code (128+n for a signal), or None on a timeout.

        Raises:
            UnavailableError: the container's supervisor was killed.
        """
        self._connection.settimeout(timeout_seconds)
        try:
            event: ExecExitedEvent | None = _receive_event(self._connection)
        except (TimeoutError, BlockingIOError):  # the latter for a timeout of 0
            return None
        if event is None:
            raise UnavailableError("the container's supervisor was killed")
        return event["exit_code"]

    def close(self) -> None:
        """Stop waiting for the process, which keeps running; the terminal's descriptor stays open."""
        self._connection.close()

    def __enter__(self) -> ExecSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class SupervisorClient:
    """The client of one container's supervisor.

    Every method raises ConflictError if the container is not running, and UnavailableError if its supervisor is killed
    during the request.

    Args:
        paths: of the container.
        name: for messages; the short id by default.
    """

    def __init__(self, paths: ContainerPaths, name: str = "") -> None:
        self._paths = paths
        self._name = name or paths.run.name[:12]

    def _connect(self) -> socket.socket:
        try:
            return messages.connect(str(self._paths.control_socket))
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            raise ConflictError(f"container {self._name} is not running") from None

    def _open(
        self, request: ControlRequest, fds: Sequence[int] = ()
    ) -> tuple[socket.socket, Mapping[str, Any], list[int]]:
        connection = self._connect()
        try:
            with suppress(ConnectionResetError, BrokenPipeError):  # it has just ended: there is no reply
                messages.send(connection, request, fds)
            return connection, *self._reply(connection)
        except BaseException:
            connection.close()
            raise

    def _reply(self, connection: socket.socket) -> tuple[Mapping[str, Any], list[int]]:
        try:
            message = messages.receive(connection)
        except ConnectionResetError:
            message = None
        if message is None:
            raise UnavailableError(f"the supervisor of container {self._name} has ended")
        document, received = message
        if not document.get("ok"):
            messages.close_all(received)
        return messages.checked(document), received

    def _ask(self, request: ControlRequest, fds: Sequence[int] = ()) -> Mapping[str, Any]:
        connection, document, received = self._open(request, fds)
        connection.close()
        messages.close_all(received)
        return document

    def state(self) -> StateReply:
        """Return the facts of the container."""
        return cast("StateReply", self._ask({"op": "state"}))

    def attach(self, streams: Streams | None = None) -> socket.socket:
        """Attach to the standard streams; return the stream socket (see "attach" in ARCHITECTURE.md)."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                choice = (streams or Streams()).to_json()
                self._ask({"op": "attach", **choice}, [theirs.fileno()])
        except BaseException:
            ours.close()
            raise
        return ours

    def resize(self, rows: int, columns: int) -> None:
        """Set the size of the container's terminal; ConflictError if it has none."""
        self._ask({"op": "resize", "rows": rows, "columns": columns})

    def signal(self, number: int, *, unpause: bool = False) -> None:
        """Send a signal to the container's first process.

        Args:
            unpause: thaw a paused container, so that the signal can end it.
        """
        self._ask({"op": "signal", "signal": number, "unpause": unpause})

    def pause(self) -> None:
        """Freeze the container until :meth:`unpause`.

        Raises:
            ConflictError: it is already paused.
            UnsupportedError: it has no control group with a freezer.
            FailedError: its processes do not stop.
        """
        self._ask({"op": "pause"})

    def unpause(self) -> None:
        """Thaw a paused container; ConflictError if it is not paused."""
        self._ask({"op": "unpause"})

    def connect(self, interface: Interface, service: NameService) -> None:
        """Attach an interface to a running container; its device is a name prefix.

        Args:
            service: the new settings of the container's name server.
        """
        self._ask({"op": "connect", "interface": interface.to_json(), "name_service": service.to_json()})

    def disconnect(
        self, network_id: str, gateways: Mapping[str, tuple[str, str]], service: NameService
    ) -> None:
        """Remove a running container's interface on a network; no effect if it has none.

        Args:
            gateways: the new default routes: gateway and IPv6 gateway by network id.
        """
        self._ask(
            {
                "op": "disconnect",
                "network_id": network_id,
                "gateways": gateways,
                "name_service": service.to_json(),
            }
        )

    def rename(self, names: Mapping[str, Sequence[str]]) -> None:
        """Change a running container's names on its networks, by network id."""
        self._ask({"op": "rename", "names": dict(names)})

    def stop(self, number: int | None = None, timeout_seconds: float | None = None) -> int:
        """Send a signal, and after the timeout SIGKILL; return the exit code when the container has ended.

        Args:
            number: of the signal; the container's own stop signal by default.
            timeout_seconds: the container's own by default; a negative one waits forever (as ``docker stop -t -1``).
        """
        reply = self._ask({"op": "stop", "signal": number, "timeout_seconds": timeout_seconds})
        return cast("ExitReply", reply)["exit_code"]

    def wait(self) -> int:
        """Wait for the container's end; return its exit code."""
        return self.begin_wait()()

    def set_restart_policy(self, name: str, most: int) -> None:
        """Change the container's restart policy.

        A zygote must be running (:meth:`Zygote.ping`), because it forks the keeper of a container without an earlier policy.

        Args:
            name, most: see :class:`pydock_core.supervision.restart_policy.RestartPolicy`.
        """
        self._ask({"op": "restart_policy", "name": name, "most": most})

    def begin_wait(self) -> Callable[[], int]:
        """Ask for the container's end now; return a function, to be called once, that waits for it and returns the exit code.

        With ``--rm`` there is no other way to learn the exit code: the container's records are gone.
        """
        connection = self._connect()
        try:
            messages.send(connection, {"op": "wait"})
        except (ConnectionResetError, BrokenPipeError):
            pass  # it has just ended, and there will be no reply
        except BaseException:
            connection.close()
            raise

        def finish() -> int:
            with connection:
                return cast("ExitReply", self._reply(connection)[0])["exit_code"]

        return finish

    def exec_(
        self,
        process: Mapping[str, Any],
        stdio: Stdio | None,
        exec_id: str = "",
        *,
        detach: bool = False,
    ) -> ExecSession:
        """Run a further process in the container.

        Args:
            process: an OCI ``process`` object (terminal, consoleSize, user, args, env, cwd, capabilities, ...).
            stdio: the process's three descriptors, copied; None if ``process`` has a terminal.
            exec_id: identifies the process in the event that the supervisor records if this client does not.
            detach: whether this client does not wait for the end.

        Raises:
            PyDockError: the command cannot be executed (exit_code 126) or was not found (127).
        """
        fds = [] if stdio is None else [stdio.stdin_fd, stdio.stdout_fd, stdio.stderr_fd]
        connection, document, received = self._open(
            {"op": "exec", "process": dict(process), "id": exec_id, "detach": detach}, fds
        )
        return ExecSession(connection, cast("ExecReply", document)["pid"], received[0] if received else None)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Freeze the container's processes until the end of the block, or of this process.

        Several clients may hold a container frozen at once.

        Raises:
            FailedError: the processes do not stop.
        """
        connection, _, _ = self._open({"op": "freeze"})
        with connection:
            yield
            with suppress(BrokenPipeError, ConnectionResetError):
                messages.send(connection, {"op": "thaw"})
            _receive_event(connection)

    def dial(self, port: int) -> socket.socket:
        """Connect to a TCP port inside the container; return the connected, non-blocking stream socket.

        Raises:
            UnavailableError: nothing listens on the port.
        """
        connection, _, received = self._open({"op": "dial", "port": port, "protocol": "tcp"})
        connection.close()
        connected = socket.socket(fileno=received[0])
        connected.setblocking(False)  # the descriptor already is; the Python object does not know
        return connected

    def follow(self) -> Iterator[None]:
        """Yield once at the beginning and each time the log has grown; end with the container.

        Read the log after every yield and once more after the end; :func:`follow_log` does.
        """
        connection, _, _ = self._open({"op": "follow"})
        with connection:
            yield None
            while _receive_event(connection) is not None:  # a LogEvent
                yield None


def wait_for_exit(paths: ContainerPaths) -> Status:
    """Wait for the end of the container's run, reap it if its supervisor was killed, and return its status.

    The status is "restarting" if the restart policy starts the container again, even if the new run has already begun.
    """
    while True:
        exit_code = None
        with suppress(ConflictError, UnavailableError):
            exit_code = SupervisorClient(paths).wait()
        status = reap_killed(paths)
        if not status.is_active:
            return status
        if exit_code is not None:
            return replace(status, status="restarting", exit_code=exit_code)
        time.sleep(
            0.01
        )  # between the lock and the control socket of a start, or a supervisor that was just killed


def follow_log(
    paths: ContainerPaths,
    *,
    tail: int | None = None,
    since_ns: int | None = None,
    until_ns: int | None = None,
) -> Iterator[LogEntry]:
    """Yield the log's entries, then new ones as they are written, until the container has ended."""
    with closing(LogReader(paths.log_file, tail=tail, since_ns=since_ns, until_ns=until_ns)) as reader:
        with suppress(ConflictError, UnavailableError):
            for _ in SupervisorClient(paths).follow():
                yield from reader.read()
        yield from reader.read()
