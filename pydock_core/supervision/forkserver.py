"""A server that forks a child per request: the base of the zygote, the network service and the program server.

It is single-threaded and stateless: killing it loses nothing.  It never waits for a client: it reads a connection only
when the connection is readable, and closes a silent one after a few seconds.
"""

from __future__ import annotations

import contextlib
import enum
import fcntl
import gc
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from pydock_core import messages, syscalls
from pydock_core.errors import CorruptError, DeniedError, FailedError, InvalidError, PyDockError
from pydock_core.supervision.rest_of_process import run_and_exit
from pydock_core.supervision.template import Template

if TYPE_CHECKING:
    from pydock_core.supervision.protocol import ServerFacts

_SILENT_SECONDS = 5.0
_SPARES = 1
_REFILL_SECONDS = 0.05
"""The delay between a settled request and the next spare, which leaves the processors to the client."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request: its document, and the descriptors that came with it.

    Attributes:
        settle: called when the client has its answer, so that the server may make a spare for the next request.
    """

    document: Mapping[str, Any]
    fds: list[int]
    settle: Callable[[], None] = lambda: None


class Kind(enum.Enum):
    """The process that carries out an operation."""

    SESSION = "session"
    """A child that outlives the server; the server replies ``{"ok": true, "pid"}``."""
    JOB = "job"
    """A child that the server waits for before it exits; the server replies, and results go to a descriptor of the request."""
    CALL = "call"
    """A child that the server waits for before it exits, and which itself replies with the function's result."""
    IMMEDIATE = "immediate"
    """The server, which replies with the function's result; for functions that return at once."""


class Refusal(enum.Enum):
    """The reason for refusing a request that a client can carry out itself."""

    STALE = "stale"
    """The server's code no longer matches the client's; the server unlinks its socket."""
    ELSEWHERE = "elsewhere"
    """The client has another namespace, user or installation than the server."""


Function = Callable[[Request], "Mapping[str, Any] | None"]


@dataclass(frozen=True, slots=True)
class Operation:
    """A server's implementation of one ``op``.

    Attributes:
        function: carries out a request; its result is the reply, for CALL and IMMEDIATE.
        refuse: called first, with the request and the client's process id.
        prepare: does, in a child, the work that is the same for all requests, and returns the function.  Its first argument
            tells whether the child is forked before any request, so that there is time.  It calls the second one, which
            unblocks signals, in the process that returns: it may fork before.  At most one operation of a server has it.
    """

    kind: Kind
    function: Function | None = None
    refuse: Callable[[Request, int], Refusal | None] | None = None
    prepare: Callable[[bool, Callable[[], None]], Function] | None = None


BuildOperations = Callable[[], Mapping[str, Operation]]


def take_ready() -> socket.socket:
    """Move the socket that the starter waits on from standard input to another descriptor."""
    return socket.socket(fileno=fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, 3))


def detach(*kept_fds: int) -> None:
    """Detach from the starter: new session, and no descriptors except ``kept_fds`` and the log (standard error).

    The caller has forked, so this process is not a group leader.
    """
    os.setsid()
    os.chdir("/")
    os.umask(0o022)
    null_fd = os.open(os.devnull, os.O_RDWR)
    os.dup2(null_fd, 0)
    os.dup2(null_fd, 1)
    syscalls.close_except(*kept_fds)


def fork_and_serve(arguments: Mapping[str, Any], build_operations: BuildOperations) -> NoReturn:
    """Run a server in a detached child, and end this process; standard input is the socket on which the starter waits.

    Args:
        arguments: see :class:`ForkServer`.
        build_operations: loads the modules of the server and returns its operations.
    """
    ready = take_ready()
    if os.fork():
        os._exit(0)
    detach(ready.fileno())
    serve_to_end(ready, arguments, build_operations)


def serve_to_end(
    ready: socket.socket, arguments: Mapping[str, Any], build_operations: BuildOperations
) -> NoReturn:
    """Run a server in this process, then end it; report a failed start to the starter, which waits on ``ready``."""
    code = 1
    try:
        ForkServer(build_operations(), arguments).serve(ready)
        code = 0
    except BaseException as error:  # noqa: BLE001 - every error is reported to the starter
        report_failure(ready, error)
    finally:
        sys.stderr.flush()
        os._exit(code)


def answer_ping(facts: ServerFacts) -> Operation:
    """Return the operation "ping" of a server with these facts."""
    return Operation(Kind.IMMEDIATE, lambda request: facts)


def report_failure(ready: socket.socket, error: BaseException) -> None:
    """Tell the starter why the server does not start."""
    if not isinstance(error, PyDockError):
        traceback.print_exception(error)
        error = FailedError(f"the server did not start: {error}")
    messages.send_error(ready, error)


@dataclass(frozen=True, slots=True)
class Spare:
    """A child that waits for a request on a connection.

    Only the server knows it.  It ends with the connection, and so with the server, even if the server is killed.
    """

    pid: int
    link: socket.socket


class ForkServer:
    """The loop.

    Args:
        operations: by ``op``.
        arguments: as :mod:`pydock_core.supervision.server_start` passes them: socket_path, lock_path,
            idle_seconds, version.
    """

    def __init__(self, operations: Mapping[str, Operation], arguments: Mapping[str, Any]) -> None:
        self._operations = operations
        self._socket_path = str(arguments["socket_path"])
        self._lock_path = str(arguments["lock_path"])
        self._idle_seconds = float(arguments["idle_seconds"])
        self._version = str(arguments["version"])
        self._uid = os.geteuid()
        self._jobs: set[int] = set()
        self._prepared = next((op for op in operations.values() if op.prepare is not None), None)
        self._spares: list[Spare] = []
        self._template: Template | None = None
        self._unsettled: dict[int, socket.socket] = {}  # links to spares that carry out a request
        self._spare_due: float | None = None
        self._waiting: dict[int, tuple[socket.socket, float]] = {}  # connections that have not asked yet
        self._leaving = False

    def serve(self, ready: socket.socket) -> None:
        """Serve until idle or replaced; tell ``ready`` that the socket listens, and close it."""
        self._listener = messages.listen(self._socket_path)
        self._inode = os.stat(self._socket_path).st_ino
        self._wake_read_fd, self._wake_write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._wake_write_fd, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._on_term)
        self._poll = select.epoll()
        self._poll.register(self._listener, select.EPOLLIN)
        self._poll.register(self._wake_read_fd, select.EPOLLIN)
        messages.send(ready, {"ok": True})
        ready.close()
        # The objects that exist now are shared with every child and never freed.  The collector must not see them, or
        # it would touch, and so copy, their pages in every child.
        gc.collect()
        gc.freeze()
        self._last_use = time.monotonic()
        self._schedule_spare(0.0)
        while self._serve_once():
            pass
        self._drop_spares()

    def _on_term(self, *_: object) -> None:
        self._leaving = True

    def _serve_once(self) -> bool:
        """Wait for events and handle them; return False when the server may end."""
        for fd, _ in self._poll.poll(self._timeout_seconds()):
            if fd == self._wake_read_fd:
                self._reap()
                continue
            if fd in self._unsettled:
                self._on_settled(fd)
                continue
            self._last_use = time.monotonic()
            if fd == self._listener.fileno():
                self._accept_all()
            else:
                self._read(fd)
        now = time.monotonic()
        if self._spare_due is not None and now >= self._spare_due:
            self._spare_due = None
            self._make_spare()
        for fd, (_, since) in list(self._waiting.items()):
            if now - since >= _SILENT_SECONDS:
                self._take(fd).close()
        if not self._jobs and not self._waiting and now - self._last_use >= self._idle_seconds:
            self._leaving = True
        if not self._leaving:
            return True
        self._drop_spares()
        self._leave_place()
        self._accept_all()  # those who had connected before
        return bool(self._jobs or self._waiting)

    def _timeout_seconds(self) -> float | None:
        if self._spare_due is not None:
            return max(0.0, self._spare_due - time.monotonic())
        if self._waiting:
            return 1.0
        if self._jobs:
            return None
        return max(0.0, self._idle_seconds - (time.monotonic() - self._last_use))

    # -- spares ------------------------------------------------------------------------------------------

    def _schedule_spare(self, seconds: float) -> None:
        """Make a spare after that time, if one is still missing."""
        if self._prepared is not None and not self._leaving:
            self._spare_due = time.monotonic() + seconds

    def _make_spare(self) -> None:
        """Make the missing spare; during a burst of requests, wait until they are settled."""
        if len(self._spares) >= _SPARES or self._unsettled or self._leaving:
            return
        with contextlib.suppress(FailedError):  # the next request reports the cause
            self._spares.append(self._fork_spare(ahead=True))
        if len(self._spares) < _SPARES:
            self._schedule_spare(_REFILL_SECONDS)

    def _fork_spare(self, *, ahead: bool) -> Spare:
        """Fork a spare.

        Args:
            ahead: no client is waiting yet.

        Raises:
            FailedError: the fork failed.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            while True:
                is_new = self._template is None
                template = self._template or Template.fork(self._fork, self._shed, self._run_spare)
                self._template = template
                try:
                    return Spare(template.fork_spare(theirs, ahead=ahead), ours)
                except EOFError:  # it was killed
                    self._drop_template()
                    problem = "its template was killed"
                except OSError as error:
                    is_new, problem = True, str(error.strerror)
                if is_new:
                    ours.close()
                    raise FailedError(f"cannot fork the server: {problem}")

    def _drop_template(self) -> None:
        if self._template is not None:
            self._template.close()
            self._template = None

    def _drop_spares(self) -> None:
        for spare in self._spares:
            spare.link.close()
        self._spares.clear()
        self._drop_template()

    def _hand_over(self, request: Request, connection: socket.socket) -> int:
        """Give a request to the spare, or to a new one if there is none; return its pid."""
        while True:
            is_new = not self._spares
            spare = self._fork_spare(ahead=False) if is_new else self._spares.pop()
            try:
                messages.send(spare.link, request.document, request.fds)
            except OSError:  # it has been killed
                spare.link.close()
                if is_new:
                    raise FailedError("the server's child has ended") from None
                continue
            self._unsettled[spare.link.fileno()] = spare.link
            self._poll.register(spare.link, select.EPOLLIN)
            return spare.pid

    def _on_settled(self, fd: int) -> None:
        """Forget a spare that has settled its request or has ended; make the next one."""
        self._poll.unregister(fd)
        self._unsettled.pop(fd).close()
        self._schedule_spare(_REFILL_SECONDS)

    def _run_spare(self, link_fd: int, ahead: bool) -> NoReturn:
        def serve() -> None:
            if self._prepared is None or self._prepared.prepare is None:
                raise AssertionError("only a prepared operation has spares")
            os.setsid()
            function = self._prepared.prepare(ahead, _unblock_signals)
            link = socket.socket(fileno=link_fd)
            message = messages.receive(link)
            if message is not None:
                function(Request(*message, settle=link.close))

        run_and_exit(serve)

    def _fork(self) -> int:
        # The child unblocks signals when it is ready for them: Python drops those that are pending when it
        # returns from fork, and an exception that a handler raises in a function of os.register_at_fork.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        pid = -1
        try:
            pid = os.fork()
        except OSError as error:
            raise FailedError(f"cannot fork the server: {error.strerror}") from error
        finally:
            if pid != 0:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return pid

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read_fd, 4096)
        with contextlib.suppress(ChildProcessError):
            while (pid := os.waitpid(-1, os.WNOHANG)[0]) != 0:
                if pid in self._jobs:
                    self._jobs.discard(pid)
                    self._last_use = time.monotonic()

    def _leave_place(self) -> None:
        """Unlink the socket, so that the next client starts a server; the lock ensures that it is this server's socket."""
        lock_fd = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX)
            if os.stat(self._socket_path).st_ino == self._inode:
                os.unlink(self._socket_path)
        except FileNotFoundError:
            pass
        finally:
            os.close(lock_fd)
        self._leaving = True

    def _accept_all(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                # Out of descriptors, or the client is gone: the next round accepts the others.
                print(f"accept: {error}", file=sys.stderr)
                return
            _, uid = messages.peer(connection)
            if uid != self._uid:
                messages.send_error(connection, DeniedError("this server belongs to another user"))
                connection.close()
                continue
            connection.setblocking(False)
            self._waiting[connection.fileno()] = (connection, time.monotonic())
            self._poll.register(connection, select.EPOLLIN)
            self._read(connection.fileno())  # usually the request is already there

    def _take(self, fd: int) -> socket.socket:
        self._poll.unregister(fd)
        return self._waiting.pop(fd)[0]

    def _read(self, fd: int) -> None:
        try:
            message = messages.receive(self._waiting[fd][0])
        except BlockingIOError:
            return
        except (ConnectionError, CorruptError):
            message = None
        connection = self._take(fd)
        with connection:
            if message is None:
                return
            connection.setblocking(True)
            request = Request(*message)
            try:
                reply = self._handle(request, connection)
                if reply is not None:
                    with contextlib.suppress(OSError):
                        messages.send(connection, reply)
            except PyDockError as error:
                messages.send_error(connection, error)
            finally:
                messages.close_all(request.fds)

    def _handle(self, request: Request, connection: socket.socket) -> Mapping[str, Any] | None:
        """Carry out a request; return the server's reply, None if a child replies."""
        # A supervisor sends no version: it runs the code that was current when it started.
        if request.document.get("version") not in (None, self._version):
            self._leave_place()
            return {"ok": False, "stale": True}
        operation = self._operations.get(str(request.document.get("op")))
        if operation is None:
            raise InvalidError(f"unknown request {request.document.get('op')!r}")
        if operation.refuse is not None:
            refusal = operation.refuse(request, messages.peer(connection)[0])
            if refusal is Refusal.STALE:
                self._leave_place()
            if refusal is not None:
                return {"ok": False, refusal.value: True}
        if operation.prepare is not None:
            return {"ok": True, "pid": self._hand_over(request, connection)}
        assert operation.function is not None
        if operation.kind is Kind.IMMEDIATE:
            return {"ok": True, **(operation.function(request) or {})}
        pid = self._fork()
        if pid == 0:
            self._run_child(operation, operation.function, request, connection)
        if operation.kind is not Kind.SESSION:
            self._jobs.add(pid)
        return None if operation.kind is Kind.CALL else {"ok": True, "pid": pid}

    def _run_child(
        self, operation: Operation, function: Function, request: Request, connection: socket.socket
    ) -> NoReturn:
        def carry_out() -> None:
            self._shed()
            _unblock_signals()
            if operation.kind is Kind.CALL:
                try:
                    messages.send(connection, {"ok": True, **(function(request) or {})})
                except PyDockError as error:
                    messages.send_error(connection, error)
            else:
                connection.close()
                if operation.kind is Kind.SESSION:
                    os.setsid()
                function(request)

        run_and_exit(carry_out)

    def _shed(self) -> None:
        """In a child: close the server's descriptors and reset its signal handlers; its signals are still blocked."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self._listener.close()
        self._poll.close()
        os.close(self._wake_read_fd)
        os.close(self._wake_write_fd)
        for connection, _ in self._waiting.values():
            connection.close()
        self._waiting.clear()
        for link in (*(spare.link for spare in self._spares), *self._unsettled.values()):
            link.close()
        if self._template is not None:
            self._template.close()


def _unblock_signals() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
