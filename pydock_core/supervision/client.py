"""The client of the zygote and the supervisors, for the engine.

Synchronous and thread-safe (every request has a connection of its own), usable in a process with threads and
a
running event loop: nothing here forks.  Errors of the other side arrive as the same
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
from typing import Any, NoReturn

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


@dataclass(frozen=True, slots=True)
class Streams:
    """An attached client's choice of the container's standard streams."""

    stdin: bool = True
    stdout: bool = True
    stderr: bool = True

    def to_json(self) -> dict[str, bool]:
        return {"stdin": self.stdin, "stdout": self.stdout, "stderr": self.stderr}


class Launch:
    """A container that has just been started, by this process.

    Attributes:
        pid: of the container's init.
        started_at_ns: when it began, since the epoch.
        ports: published ports with the host ports that were chosen.
        attachment: the stream socket of the attached streams (see "attach" in ARCHITECTURE.md), or None;
            the caller's to close.
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
        """Wait for the container's end; None if the time is up first.

        When it returns, the exit is recorded, the container's cgroups and ports are gone, and it can
        be started again or removed.

        Raises:
            UnavailableError: the supervisor was killed; ``derive_status`` says the rest.
        """
        self._status.settimeout(timeout_seconds)
        try:
            message = messages.receive(self._status)
        except (TimeoutError, BlockingIOError):  # the latter for a timeout of 0
            return None
        except ConnectionResetError:
            message = None
        if message is None:
            raise UnavailableError("the container's supervisor was killed")
        document, fds = message
        messages.close_all(fds)
        return LaunchEnd(document["exit_code"], document["oom_killed"])

    def close(self) -> None:
        """Stop listening to the container's end (the container goes on); with ``--rm`` the supervisor then tidies up.

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
    """The zygote of one state root; started if it is missing.

    Args:
        root: whose ``run`` directory must exist (:meth:`StateRoot.ensure`).
    """

    def __init__(self, root: StateRoot) -> None:
        self._spec = zygote_spec(root)

    def ping(self) -> dict[str, Any]:
        """Start the zygote if need be; return {"pid", "version", "mapping": "root" | "full" | "single"}.

        Raises:
            UnsupportedError: this host does not allow user namespaces (rootless).
        """
        return ask_server_surely(self._spec, {"op": "ping"})

    def supervise(self, plan: Path | Callable[[], Path], *, attach: Streams | None = None) -> Launch:
        """Start the container of a launch plan; returns when its process runs.

        Args:
            plan: ``run/c/ID/plan.json``; bundle and root filesystem must be ready.  Or what makes all that ready and
                returns the path: it is called once, while the supervisor is being forked.
            attach: attach these streams before the container starts, so that no output is missed.

        Raises:
            ConflictError: the container runs already, or a published port is in use (exit_code 125).
            PyDockError: whatever kept the container from starting, exit_code 125, 126 or 127; recorded in
                exit.json.  What ``plan`` raises passes through; nothing has been started then.
        """
        request: dict[str, Any] = {"op": "supervise"}
        if attach is not None:
            request["attach"] = attach.to_json()
        prepare = cache(lambda: {"plan": str(plan() if callable(plan) else plan)})
        status, attachment, message = _ask_for_child(
            self._spec, request, attach=attach is not None, order=prepare
        )
        try:
            if message["event"] == "failed":
                raise from_json(message["error"])
            ports = tuple(PublishedPort(**port) for port in message["ports"])
            return Launch(status, message["pid"], message["started_at_ns"], ports, attachment)
        except BaseException:
            status.close()
            if attachment is not None:
                attachment.close()
            raise

    def work(
        self,
        function: str,
        arguments: Mapping[str, Any],
        fds: Sequence[int] = (),
        progress: Progress | None = None,
    ) -> Any:
        """Run an allowed function in a worker, with the zygote's privileges, and return its result.

        Args:
            function: "package.module:name", one of those that the store allows.
            arguments: JSON types.
            fds: descriptors that the function gets copies of.
            progress: called with each progress message.

        Raises:
            PyDockError: what the function raised.
            UnavailableError: the worker was killed.
        """
        request = {"op": "work", "function": function, "arguments": dict(arguments)}
        status, _, message = _ask_for_child(self._spec, request, fds)
        with status:
            while message["event"] == "progress":
                if progress is not None:
                    progress(message["progress"])
                message = _event(status) or _killed(self._spec)
            if message["event"] == "failed":
                raise from_json(message["error"])
            return message.get("result")


class ZygoteWorker:
    """Runs storage jobs in workers of the zygote: the store's Worker protocol."""

    def __init__(self, root: StateRoot) -> None:
        self._zygote = Zygote(root)

    def call(
        self,
        function: str,
        arguments: Mapping[str, Any],
        fds: Sequence[int] = (),
        progress: Progress | None = None,
    ) -> Any:
        """See :meth:`Zygote.work`."""
        return self._zygote.work(function, arguments, fds, progress)


def _ask_for_child(
    spec: ServerSpec,
    request: Mapping[str, Any],
    fds: Sequence[int] = (),
    *,
    attach: bool = False,
    order: Callable[[], Mapping[str, Any]] | None = None,
) -> tuple[socket.socket, socket.socket | None, dict[str, Any]]:
    """Have a fork server make a child; return the status socket, the attachment and the child's first message.

    Where the child needs an ``order``, it gets it on the status socket; it is made while the child is.

    A server that died before it forked is told from a child that was killed: without a reply, and with the
    status socket at its end, no child was made, and asking again is safe.
    """
    for _ in range(3):
        status, status_theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        attachment, attach_theirs = socket.socketpair() if attach else (None, None)
        try:
            with status_theirs:
                ends = [status_theirs.fileno(), *([attach_theirs.fileno()] if attach_theirs else [])]
                reply = ask_server(spec, request, [*ends, *fds], order)
            if attach_theirs is not None:
                attach_theirs.close()
            if order is not None:
                with suppress(
                    BrokenPipeError, ConnectionResetError
                ):  # the child is gone, as the next line finds
                    messages.send(status, order())
            message = _event(status)
            if message is not None:
                return status, attachment, message
            if reply is not None:
                _killed(spec)
        except BaseException:
            _close(status, attachment, attach_theirs)
            raise
        _close(status, attachment, attach_theirs)
    raise UnavailableError(f"the {spec.name} ends as soon as it is asked", hint=f"read {spec.log_path}")


def _close(*sockets: socket.socket | None) -> None:
    for item in sockets:
        if item is not None:
            item.close()


def _event(status: socket.socket) -> dict[str, Any] | None:
    try:
        message = messages.receive(status)
    except ConnectionResetError:
        return None
    if message is None:
        return None
    document, fds = message
    messages.close_all(fds)
    return document


def _killed(spec: ServerSpec) -> NoReturn:
    raise UnavailableError(f"a child of the {spec.name} was killed", hint=f"read {spec.log_path}")


class ExecSession:
    """A process that was started in a running container.

    Attributes:
        pid: in this PID namespace.
        console_fd: the master side of its terminal, the caller's to close; None without a terminal.
    """

    def __init__(self, connection: socket.socket, pid: int, console_fd: int | None) -> None:
        self._connection = connection
        self.pid = pid
        self.console_fd = console_fd

    def fileno(self) -> int:
        """The session's socket, readable when the process has ended."""
        return self._connection.fileno()

    def signal(self, number: int) -> None:
        """Send a signal to the process; one that has ended is not an error."""
        self._tell({"signal": number})

    def resize(self, rows: int, columns: int) -> None:
        """Set the size of the process's terminal."""
        self._tell({"resize": {"rows": rows, "columns": columns}})

    def _tell(self, document: Mapping[str, Any]) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):
            messages.send(self._connection, document)

    def wait(self, timeout_seconds: float | None = None) -> int | None:
        """Wait for the process's end; return its exit code, 128+n for a signal; None if the time is up first.

        Raises:
            UnavailableError: the container's supervisor was killed.
        """
        self._connection.settimeout(timeout_seconds)
        try:
            message = _event(self._connection)
        except (TimeoutError, BlockingIOError):  # the latter for a timeout of 0
            return None
        if message is None:
            raise UnavailableError("the container's supervisor was killed")
        return int(message["exit_code"])

    def close(self) -> None:
        """Stop listening; the process goes on (and the terminal's descriptor stays the caller's)."""
        self._connection.close()

    def __enter__(self) -> ExecSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class SupervisorClient:
    """One running container, as its supervisor shows it.

    Every method raises ConflictError where the container does not run, and UnavailableError where its
    supervisor is killed during the request.

    Args:
        paths: of the container.
        name: for messages; the short id without one.
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
        self, request: Mapping[str, Any], fds: Sequence[int] = ()
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

    def _ask(self, request: Mapping[str, Any], fds: Sequence[int] = ()) -> Mapping[str, Any]:
        connection, document, received = self._open(request, fds)
        connection.close()
        messages.close_all(received)
        return document

    def state(self) -> dict[str, Any]:
        """Return {"pid", "started_at_ns", "ports": [...], "status": "starting" | "running" | "exited"}."""
        return dict(self._ask({"op": "state"}))

    def attach(self, streams: Streams | None = None) -> socket.socket:
        """Attach to the standard streams; return the stream socket (see "attach" in ARCHITECTURE.md)."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                self._ask({"op": "attach", **(streams or Streams()).to_json()}, [theirs.fileno()])
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
            unpause: let a paused container go on, so that the signal can end it.
        """
        self._ask({"op": "signal", "signal": number, "unpause": unpause})

    def pause(self) -> None:
        """Freeze the container until :meth:`unpause`.

        Raises:
            ConflictError: it is paused.
            UnsupportedError: it has no control group with a freezer.
            FailedError: its processes do not stop.
        """
        self._ask({"op": "pause"})

    def unpause(self) -> None:
        """Let a paused container go on; ConflictError if it is not paused."""
        self._ask({"op": "unpause"})

    def connect(self, interface: Interface, service: NameService) -> None:
        """Attach an interface to a running container; its device is the prefix of a name.

        Args:
            service: the settings of the container's name server from now on.
        """
        document = {"interface": interface.to_json(), "name_service": service.to_json()}
        self._ask({"op": "connect", **document})

    def disconnect(
        self, network_id: str, gateways: Mapping[str, tuple[str, str]], service: NameService
    ) -> None:
        """Remove a running container's interface on a network; harmless if it has none.

        Args:
            gateways: the default routes from now on: gateway and IPv6 gateway by network id.
        """
        document = {"network_id": network_id, "gateways": dict(gateways), "name_service": service.to_json()}
        self._ask({"op": "disconnect", **document})

    def rename(self, names: Mapping[str, Sequence[str]]) -> None:
        """Give a running container other names on its networks, by network id."""
        self._ask({"op": "rename", "names": dict(names)})

    def stop(self, number: int | None = None, timeout_seconds: float | None = None) -> int:
        """Stop the container: a signal, then after the timeout SIGKILL; return its exit code when it has ended.

        Args:
            number: of the signal; the container's own stop signal by default.
            timeout_seconds: the container's own by default; negative waits for ever (as ``docker stop -t
                -1``).
        """
        return int(
            self._ask({"op": "stop", "signal": number, "timeout_seconds": timeout_seconds})["exit_code"]
        )

    def wait(self) -> int:
        """Wait for the container's end; return its exit code."""
        return self.begin_wait()()

    def set_restart_policy(self, name: str, most: int) -> None:
        """Have the container follow another restart policy from now on.

        There must be a zygote (:meth:`Zygote.ping`), because a container that has had no policy gets a keeper from it.

        Args:
            name, most: see :class:`pydock_core.supervision.restart_policy.RestartPolicy`.
        """
        self._ask({"op": "restart_policy", "name": name, "most": most})

    def begin_wait(self) -> Callable[[], int]:
        """Ask now for the container's end; return what waits for it and gives the exit code, to be called once.

        With ``--rm`` nothing else tells the exit code afterwards: the container is gone.
        """
        connection = self._connect()
        try:
            messages.send(connection, {"op": "wait"})
        except (ConnectionResetError, BrokenPipeError):
            pass  # it has just ended, as the reply's lack tells
        except BaseException:
            connection.close()
            raise

        def finish() -> int:
            with connection:
                return int(self._reply(connection)[0]["exit_code"])

        return finish

    def exec_(self, process: Mapping[str, Any], stdio: Stdio | None, exec_id: str = "") -> ExecSession:
        """Run a further process in the container.

        Args:
            process: an OCI ``process`` object (terminal, consoleSize, user, args, env, cwd, capabilities,
                ...).
            stdio: the process's three descriptors, copied; None if ``process`` has a terminal.
            exec_id: the name under which the supervisor records its end if this client does not hear of it.

        Raises:
            PyDockError: with exit_code 126 or 127 where the command cannot be executed or is not there.
        """
        fds = [] if stdio is None else [stdio.stdin_fd, stdio.stdout_fd, stdio.stderr_fd]
        connection, document, received = self._open(
            {"op": "exec", "process": dict(process), "id": exec_id}, fds
        )
        return ExecSession(connection, int(document["pid"]), received[0] if received else None)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Hold the container's processes stopped; they go on at the block's end, and when this process dies.

        Several may hold it at once.

        Raises:
            FailedError: they do not stop.
        """
        connection, _, _ = self._open({"op": "freeze"})
        with connection:
            yield
            with suppress(BrokenPipeError, ConnectionResetError):
                messages.send(connection, {"op": "thaw"})
            _event(connection)

    def dial(self, port: int) -> socket.socket:
        """Connect to a TCP port inside the container; return the connected, non-blocking stream socket.

        Raises:
            UnavailableError: nothing listens on the port.
        """
        connection, _, received = self._open({"op": "dial", "port": port, "protocol": "tcp"})
        connection.close()
        connected = socket.socket(fileno=received[0])
        connected.setblocking(False)  # the descriptor is; the object has to be told
        return connected

    def follow(self) -> Iterator[None]:
        """Yield once at the beginning and each time the log has grown; end with the container.

        Read the log after every yield and once more after the end; :func:`follow_log` does.
        """
        connection, _, _ = self._open({"op": "follow"})
        with connection:
            yield None
            while _event(connection) is not None:
                yield None


def wait_for_exit(paths: ContainerPaths) -> Status:
    """Wait for the end of the container's run, and reap it if its supervisor was killed; return its status then.

    The status is "restarting" if the restart policy starts the container again, even if that has happened by now.
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
    """Yield the log's entries and then new ones as they come, until the container has ended."""
    with closing(LogReader(paths.log_file, tail=tail, since_ns=since_ns, until_ns=until_ns)) as reader:
        with suppress(ConflictError, UnavailableError):
            for _ in SupervisorClient(paths).follow():
                yield from reader.read()
        yield from reader.read()
