"""Serves a supervisor's control socket: the requests of ARCHITECTURE.md, "The control protocol"."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from pydock_core import messages
from pydock_core.errors import (
    ConflictError,
    CorruptError,
    FailedError,
    InvalidError,
    PyDockError,
    UnavailableError,
    UnsupportedError,
)
from pydock_core.runtime.console import set_window_size
from pydock_core.runtime.executor import CreatedProcess, Stdio
from pydock_core.supervision import dial
from pydock_core.supervision.event_loop import HANGUP, READ, EventLoop, Signals
from pydock_core.supervision.pause import Pause, choose_freezer
from pydock_core.supervision.plan import Interface, NameService
from pydock_core.supervision.restart_policy import RestartPolicy

if TYPE_CHECKING:
    from pydock_core.supervision.connections import Connections
    from pydock_core.supervision.protocol import (
        AttachRequest,
        BareRequest,
        DialRequest,
        ExecExitedEvent,
        ExecInstruction,
        ExecRequest,
        LogEvent,
        ResizeRequest,
        RestartPolicyRequest,
        SignalRequest,
        StateReply,
        StopRequest,
        StreamChoice,
    )


class Attachable(Protocol):
    """Standard streams that clients attach to."""

    def attach(self, connection: socket.socket, choice: StreamChoice) -> None:
        """Serve a client; the callee closes its socket."""
        ...


class Supervised(Protocol):
    """The container that handles the requests.

    Attributes:
        short_id: its id in messages.
        hosts: the addresses to dial a port of the container.
        relay: accepts clients of its standard streams.
        signals: reports the ends of its processes.
    """

    short_id: str
    hosts: tuple[str, ...]
    signals: Signals

    @property
    def relay(self) -> Attachable: ...

    def describe(self) -> StateReply:
        """Return the reply to "state"."""
        ...

    def resize(self, rows: int, columns: int) -> None:
        """Set the size of the container's terminal; ConflictError if it has none."""
        ...

    def send_signal(self, number: int) -> None:
        """Send a signal to the container's first process."""
        ...

    def stop(self, number: int | None, timeout_seconds: float | None) -> None:
        """Send the stop signal, and SIGKILL after the timeout; None stands for the container's own setting."""
        ...

    def execute(self, process_document: Mapping[str, Any], stdio: Stdio | None) -> CreatedProcess:
        """Run an additional process (an OCI process object)."""
        ...

    def open_connections(self) -> Connections:
        """Return the container's connections to its networks; ConflictError if it can have none."""
        ...

    def record_pause(self, *, is_paused: bool) -> None:
        """Record whether the container is paused."""
        ...

    def report(self, action: str, attributes: Mapping[str, str]) -> None:
        """Record an event of the container in place of a client."""
        ...

    def set_restart_policy(self, policy: RestartPolicy) -> None:
        """Change the restart policy."""
        ...


class Connection:
    """One client: its request, the replies, and the client's later messages."""

    def __init__(self, server: ControlServer, connection: socket.socket) -> None:
        self._server = server
        self._socket = connection
        self.fd = connection.fileno()
        self.on_message: Callable[[Mapping[str, Any], list[int]], None] = self._on_request
        self.on_close: Callable[[], None] = lambda: None

    def on_event(self, events: int) -> None:
        """Read the client's message."""
        try:
            message = messages.receive(self._socket)
        except BlockingIOError:
            if events & HANGUP:
                self.close()
            return
        except (OSError, CorruptError):
            message = None
        if message is None:
            self.close()
            return
        document, fds = message
        try:
            self.on_message(document, fds)
        except PyDockError as error:
            self.fail(error)
        except (KeyError, TypeError, ValueError) as error:
            self.fail(InvalidError(f"a malformed request: {error}"))
        finally:
            messages.close_all(fds)

    def _on_request(self, document: Mapping[str, Any], fds: list[int]) -> None:
        self.on_message = _reject_second
        self._server.handle(self, document, fds)

    def tell(self, document: Mapping[str, Any], fds: tuple[int, ...] = ()) -> bool:
        """Send a message; return whether it was sent.  A client that is gone or does not read is ignored."""
        if self._socket.fileno() >= 0:
            with suppress(OSError):
                messages.send(self._socket, document, fds)
                return True
        return False

    def reply(self, facts: Mapping[str, Any] | None = None, fds: tuple[int, ...] = ()) -> bool:
        """Send a reply, the last message of this connection; return whether it was sent."""
        is_sent = self.tell({"ok": True, **(facts or {})}, fds)
        self.close()
        return is_sent

    def fail(self, error: PyDockError) -> None:
        """Reply with an error, and close."""
        if self._socket.fileno() >= 0:
            messages.send_error(self._socket, error)
        self.close()

    def close(self) -> None:
        """Close; harmless twice."""
        if self._socket.fileno() < 0:
            return
        self._server.loop.forget(self.fd)
        self._server.connections.discard(self)
        self._socket.close()
        self.on_close()


def _reject_second(_: Mapping[str, Any], __: list[int]) -> None:
    raise InvalidError("a connection carries one request only")


class ControlServer:
    """The control socket of one supervisor.

    Args:
        listener: a socket that listens at ``path``; one is made by default.
    """

    def __init__(
        self, loop: EventLoop, supervisor: Supervised, path: str, listener: socket.socket | None = None
    ) -> None:
        self.loop = loop
        self.connections: set[Connection] = set()
        self._supervisor = supervisor
        self._path = path
        self._listener = messages.listen(path) if listener is None else listener
        self._uid = os.geteuid()
        self._followers: set[Connection] = set()
        self._waiters: set[Connection] = set()
        self._pause = Pause(
            loop, lambda: choose_freezer(supervisor.describe()["pid"], Path(path).parent.name)
        )
        self._is_paused = False
        loop.watch(self._listener.fileno(), READ, lambda _: self.accept())
        # A handler's document has the type of its request; the values come from the client, and are checked.
        self._operations: Mapping[str, Callable[[Connection, Any, list[int]], None]] = {
            "state": self._state,
            "attach": self._attach,
            "resize": self._resize,
            "signal": self._signal,
            "stop": self._stop,
            "wait": self._wait,
            "exec": self._exec,
            "dial": self._dial,
            "follow": self._follow,
            "freeze": self._freeze,
            "pause": self._pause_container,
            "unpause": self._unpause_container,
            "restart_policy": self._restart_policy,
            "connect": self._connect,
            "disconnect": self._disconnect,
            "rename": self._rename,
        }

    @property
    def is_held(self) -> bool:
        """Whether a client holds the container frozen."""
        return self._pause.is_held

    def accept(self) -> None:
        """Accept a client, if one is waiting."""
        try:
            accepted, _address = self._listener.accept()
        except OSError:
            return
        if messages.peer(accepted)[1] != self._uid:
            accepted.close()
            return
        accepted.setblocking(False)
        connection = Connection(self, accepted)
        self.connections.add(connection)
        self.loop.watch(connection.fd, READ, connection.on_event)

    def handle(self, connection: Connection, document: Mapping[str, Any], fds: list[int]) -> None:
        """Carry out a request; a handler removes the descriptors that it keeps from ``fds``."""
        operation = self._operations.get(str(document.get("op")))
        if operation is None:
            raise InvalidError(f"unknown request {document.get('op')!r}")
        operation(connection, document, fds)

    # -- operations --------------------------------------------------------------------------------------

    def _state(self, connection: Connection, _: BareRequest, __: list[int]) -> None:
        connection.reply(self._supervisor.describe())

    def _attach(self, connection: Connection, document: AttachRequest, fds: list[int]) -> None:
        if len(fds) != 1:
            raise InvalidError("attach needs one stream socket")
        self._supervisor.relay.attach(socket.socket(fileno=fds.pop()), document)
        connection.reply()

    def _resize(self, connection: Connection, document: ResizeRequest, _: list[int]) -> None:
        self._supervisor.resize(int(document["rows"]), int(document["columns"]))
        connection.reply()

    def _signal(self, connection: Connection, document: SignalRequest, _: list[int]) -> None:
        number = int(document["signal"])
        self._supervisor.send_signal(number)
        if document.get("unpause"):
            self._unpause_to_end()
        connection.reply()

    def _stop(self, connection: Connection, document: StopRequest, _: list[int]) -> None:
        number, timeout = document.get("signal"), document.get("timeout_seconds")
        self._supervisor.stop(
            None if number is None else int(number), None if timeout is None else float(timeout)
        )
        self._unpause_to_end()
        self._add_waiter(connection)

    def _wait(self, connection: Connection, _: BareRequest, __: list[int]) -> None:
        self._add_waiter(connection)

    def _add_waiter(self, connection: Connection) -> None:
        self._waiters.add(connection)
        connection.on_close = partial(self._waiters.discard, connection)

    def _follow(self, connection: Connection, _: BareRequest, __: list[int]) -> None:
        self._followers.add(connection)
        connection.on_close = partial(self._followers.discard, connection)
        connection.tell({"ok": True})

    def _restart_policy(self, connection: Connection, document: RestartPolicyRequest, _: list[int]) -> None:
        self._supervisor.set_restart_policy(RestartPolicy(str(document["name"]), int(document["most"])))
        connection.reply()

    def _dial(self, connection: Connection, document: DialRequest, _: list[int]) -> None:
        port = int(document["port"])
        if not 1 <= port <= 65535:
            raise InvalidError(f"invalid port {port}")
        if document.get("protocol", "tcp") != "tcp":
            raise UnsupportedError("only TCP ports can be dialled")

        def on_done(connected: socket.socket | None, code: int) -> None:
            if connected is None:
                subject = f"container {self._supervisor.short_id}"
                connection.fail(UnavailableError(dial.describe(code, port, subject)))
                return
            with connected:
                connection.reply({}, (connected.fileno(),))

        attempt = dial.Dial(self.loop, self._supervisor.hosts, port, on_done)
        connection.on_close = attempt.cancel
        attempt.start()

    def _freeze(self, connection: Connection, _: BareRequest, __: list[int]) -> None:
        """Freeze the container until the client says "thaw" or its connection ends."""
        self._require_running()

        def on_held(error: PyDockError | None) -> None:
            if error is None:
                connection.tell({"ok": True})
            else:
                connection.fail(error)

        def on_message(_: Mapping[str, Any], __: list[int]) -> None:
            self._pause.release(connection)
            connection.reply()

        connection.on_message = on_message
        connection.on_close = partial(self._pause.release, connection)
        self._pause.hold(connection, on_held)

    def _require_running(self) -> None:
        if self._supervisor.describe()["status"] != "running":
            raise ConflictError(f"container {self._supervisor.short_id} is not running")

    def _pause_container(self, connection: Connection, _: BareRequest, __: list[int]) -> None:
        """Freeze the container until a client unpauses it."""
        self._require_running()
        subject = f"container {self._supervisor.short_id}"
        if self._is_paused:
            raise ConflictError(f"{subject} is already paused")
        if not self._pause.is_lasting():
            raise UnsupportedError(
                f"{subject} cannot be paused: it has no control group with a freezer",
                "cgroup version 2 with delegated groups, or root, has one (dock doctor)",
            )

        def on_held(error: PyDockError | None) -> None:
            if error is None:
                try:
                    self._supervisor.record_pause(is_paused=True)
                except OSError as problem:
                    error = FailedError(f"{subject} cannot be paused: {problem.strerror}")
                    self._pause.release(self)
            self._is_paused = error is None
            if error is None:
                connection.reply()
            else:
                connection.fail(error)

        self._is_paused = True
        self._pause.hold(self, on_held)

    def _unpause_container(self, connection: Connection, _: BareRequest, __: list[int]) -> None:
        if not self._is_paused:
            raise ConflictError(f"container {self._supervisor.short_id} is not paused")
        self._unpause()
        connection.reply()

    def _unpause(self) -> None:
        """Thaw the container.  It is thawed even if the record cannot be written, and can be unpaused again."""
        self._pause.release(self)
        try:
            self._supervisor.record_pause(is_paused=False)
        except OSError as error:
            raise FailedError(
                f"container {self._supervisor.short_id} goes on, but that is not recorded: {error.strerror}"
            ) from error
        self._is_paused = False

    def _unpause_to_end(self) -> None:
        """Thaw a paused container, so that a signal can end it; its end removes the record."""
        if self._is_paused:
            with suppress(FailedError):
                self._unpause()

    def _exec_later(self, connection: Connection, document: ExecRequest, fds: list[int]) -> None:
        """Carry out a request that waited for the container to be thawed."""
        try:
            if connection in self.connections:
                self._exec(connection, document, fds)
        except PyDockError as error:
            connection.fail(error)
        except (KeyError, TypeError, ValueError) as error:
            connection.fail(InvalidError(f"a malformed request: {error}"))
        finally:
            messages.close_all(fds)

    def _exec(self, connection: Connection, document: ExecRequest, fds: list[int]) -> None:
        if self._is_paused:
            raise ConflictError(
                f"container {self._supervisor.short_id} is paused", "unpause it before exec: dock unpause"
            )
        if self._pause.is_held:
            # A process that joins a frozen group stops there, and the supervisor would wait for it.
            kept = list(fds)
            fds.clear()
            self._pause.postpone(partial(self._exec_later, connection, document, kept))
            return
        process = document["process"]
        wants_terminal = bool(process.get("terminal"))
        if len(fds) != (0 if wants_terminal else 3):
            raise InvalidError("exec needs three descriptors, or none with a terminal")
        created = self._supervisor.execute(process, None if wants_terminal else Stdio(*fds))
        exec_id = str(document.get("id", ""))
        is_awaited = not document.get("detach")
        ExecutedProcess(connection, self._supervisor, created.pid, created.console_fd, exec_id, is_awaited)

    def _connect(self, connection: Connection, document: Mapping[str, Any], _: list[int]) -> None:
        interface = Interface.from_json(document["interface"])
        service = NameService.from_json(document["name_service"])
        self._supervisor.open_connections().connect(interface, service)
        connection.reply()

    def _disconnect(self, connection: Connection, document: Mapping[str, Any], _: list[int]) -> None:
        service = NameService.from_json(document["name_service"])
        gateways = {key: (pair[0], pair[1]) for key, pair in document["gateways"].items()}
        self._supervisor.open_connections().disconnect(str(document["network_id"]), gateways, service)
        connection.reply()

    def _rename(self, connection: Connection, document: Mapping[str, Any], _: list[int]) -> None:
        self._supervisor.open_connections().rename(dict(document["names"]))
        connection.reply()

    # -- events ------------------------------------------------------------------------------------------

    def on_log_growth(self) -> None:
        """Tell the followers; the event is lost for one that has not read the last event yet, and needs no second."""
        event: LogEvent = {"event": "log"}
        for follower in list(self._followers):
            follower.tell(event)

    def close_socket(self) -> None:
        """Accept no more requests."""
        self.loop.forget(self._listener.fileno())
        with suppress(FileNotFoundError):
            os.unlink(self._path)
        self._listener.close()

    def finish(self, exit_code: int) -> bool:
        """Answer the clients that wait for the end, and close all connections; return whether a client was answered."""
        replies = [waiter.reply({"exit_code": exit_code}) for waiter in list(self._waiters)]
        for connection in list(self.connections):
            if connection.on_message != connection._on_request:
                connection.close()
            else:
                connection.fail(ConflictError("the container is not running"))
        return any(replies)


class ExecutedProcess:
    """An additional process in the container, and the connection of its exec request."""

    def __init__(
        self,
        connection: Connection,
        supervisor: Supervised,
        pid: int,
        console_fd: int | None,
        exec_id: str,
        is_awaited: bool,
    ) -> None:
        self._connection = connection
        self._supervisor = supervisor
        self._exec_id = exec_id
        self._is_awaited = is_awaited
        self._pid: int | None = pid
        self._console_fd = console_fd
        connection.on_message = self._on_message
        connection.on_close = self._close_console
        connection.tell({"ok": True, "pid": pid}, () if console_fd is None else (console_fd,))
        supervisor.signals.on_exit(pid, self._on_exit)

    def _close_console(self) -> None:
        if self._console_fd is not None:
            os.close(self._console_fd)
            self._console_fd = None

    def _on_message(self, document: Mapping[str, Any], _: list[int]) -> None:
        instruction = cast("ExecInstruction", document)
        if "signal" in instruction:
            number = int(instruction["signal"])
            if self._pid is not None and number in signal.valid_signals():
                os.kill(self._pid, number)
        elif "resize" in instruction and self._console_fd is not None:
            size = instruction["resize"]
            set_window_size(self._console_fd, int(size["rows"]), int(size["columns"]))

    def _on_exit(self, exit_code: int) -> None:
        self._pid = None  # reaped: the number may belong to another process from now on
        event: ExecExitedEvent = {"event": "exited", "exit_code": exit_code}
        heard = self._connection.tell(event)
        self._connection.close()
        if not (heard and self._is_awaited):
            self._supervisor.report("exec_die", {"execID": self._exec_id, "exitCode": str(exit_code)})
