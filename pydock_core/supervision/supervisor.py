"""The supervisor: the process that makes one container, stays with it, and records its end.

ARCHITECTURE.md ("The processes", "Recorded and derived state") defines the order of the steps, and when their
results become visible.  Each step pushes its undo action; a failed start runs them in reverse.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pydock_core import messages, syscalls
from pydock_core.errors import ConflictError, FailedError, InvalidError, PyDockError
from pydock_core.oci.mount_source import BASE, PART
from pydock_core.paths import ContainerPaths
from pydock_core.runtime.cgroups.oom_counter import read_oom_kills
from pydock_core.runtime.console import set_window_size
from pydock_core.runtime.executor import CreatedProcess, Executor, Stdio
from pydock_core.runtime.mounts import make_tmpfs
from pydock_core.runtime.process_identity import ProcessIdentity, boot_id
from pydock_core.runtime.record_file import read_json, write_whole
from pydock_core.runtime.rehearsal import rehearse
from pydock_core.supervision import container_status, dial, ports
from pydock_core.supervision.container_status import ExitRecord, StateRecord
from pydock_core.supervision.control_server import ControlServer
from pydock_core.supervision.event_loop import EventLoop, Signals
from pydock_core.supervision.executor_choice import make_executor
from pydock_core.supervision.forkserver import Request
from pydock_core.supervision.keeper_link import Succession
from pydock_core.supervision.log_files import LogLimits
from pydock_core.supervision.logs import LogWriter
from pydock_core.supervision.maker import Made
from pydock_core.supervision.plan import LaunchPlan, PublishedPort, read_plan
from pydock_core.supervision.port_forwarder import PortForwarder
from pydock_core.supervision.publication import publish
from pydock_core.supervision.reaper import record_killed
from pydock_core.supervision.recording import Recording
from pydock_core.supervision.restart_policy import NO, RestartPolicy, Restarts
from pydock_core.supervision.stdio_relay import STDERR, STDOUT, ContainerStreams, LogSink, StdioRelay
from pydock_core.supervision.surroundings import Surroundings

if TYPE_CHECKING:
    from pydock_core.supervision.connections import Connections
    from pydock_core.supervision.health import HealthMonitor
    from pydock_core.supervision.protocol import (
        LaunchOrder,
        PortDocument,
        StateReply,
        StreamChoice,
        SuperviseRequest,
        SupervisorEvent,
    )

_EMPTY_PLAN = (
    b'{"container_id": "rehearsal", "data_dir": "%b", "run_dir": "%b", "log_path": "%b/log.json",'
    b' "root_mounts": [], "network": {}, "ports": []}'
)
"""A literal, because building it would copy pages that supervisors do not need otherwise."""
_SPECIALIZING_RUNS = 10
_COLLECTION_THRESHOLD = 5000
"""Allocations between two collections: a start makes fewer, and a supervisor's garbage stays below 1 MiB."""
_LOCK_PATIENCE_SECONDS = 30.0
_LOCK_INTERVAL_SECONDS = 0.002
_FAILED_EXIT_CODE = 125
_JOURNAL_RETRY_SECONDS = 0.1
_NO_RUN = {"started_at_ns": 0, "finished_at_ns": 0, "exit_code": 0, "oom_killed": False}


def prepare(*, ahead: bool) -> Callable[[Request], None]:
    """Prepare everything that all containers have in common; return a function that carries out a "supervise" request.

    The request's descriptors are the status socket and, with "attach", a stream.  The status socket then delivers the
    path of the launch plan, once the client has written it.

    Args:
        ahead: no client is waiting yet, so pages are copied too (:mod:`pydock_core.runtime.rehearsal`).
    """
    loop = EventLoop()
    signals = Signals(loop)
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
    surroundings = Surroundings(rehearse if ahead else None)
    surroundings.enter()
    if ahead:
        _rehearse(loop, signals, surroundings)

    def supervise(request: Request) -> None:
        _supervise(request, loop, signals, surroundings)

    return supervise


def _supervise(request: Request, loop: EventLoop, signals: Signals, surroundings: Surroundings) -> None:
    status = socket.socket(fileno=request.fds.pop(0))
    attachment = socket.socket(fileno=request.fds.pop(0)) if request.fds else None
    try:
        message = messages.receive(status)
    except OSError:
        message = None
    if message is None:
        return  # the client could not write the plan, and knows the cause
    order = cast("LaunchOrder", message[0])
    try:
        plan = read_plan(Path(order["plan"]))
    except PyDockError as error:
        _tell(status, {"event": "failed", "error": error.to_json()})
        return
    supervisor = Supervisor(plan, status, loop, signals, surroundings)
    document = cast("SuperviseRequest", request.document)
    supervisor.run(attachment, document.get("attach", {}), request.settle)


def supervise_again(plan: LaunchPlan, restarts: Restarts, lock_fd: int, link: socket.socket) -> None:
    """Supervise a further run of a container; its keeper has forked this process.

    Args:
        restarts: the policy and its progress, including this restart.
        lock_fd: descriptor that holds the container's lock; this process closes it.
        link: the connection to the keeper.
    """
    loop = EventLoop()
    signals = Signals(loop)
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
    surroundings = Surroundings()
    surroundings.enter()
    status, client = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    client.close()
    supervisor = Supervisor(plan, status, loop, signals, surroundings)
    supervisor.succession.join(restarts, link, ProcessIdentity.of(os.getppid()))
    supervisor.run(None, {}, lambda: None, lock_fd)


def _rehearse(loop: EventLoop, signals: Signals, surroundings: Surroundings) -> None:
    """Run most of a start's code on an empty container in a tmpfs, to copy its pages: :mod:`pydock_core.runtime.rehearsal`."""
    status, client = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    root_fd = -1
    with status, client, contextlib.suppress(PyDockError, OSError):
        root_fd = make_tmpfs(0, size="256k", mode="700")
        base = f"/proc/self/fd/{root_fd}"
        write_whole(Path(f"{base}/plan.json"), _EMPTY_PLAN % (base.encode(), base.encode(), base.encode()))
        plan = read_plan(Path(f"{base}/plan.json"))
        Supervisor(plan, status, loop, signals, surroundings).rehearse()
        messages.receive(client)
    if root_fd >= 0:
        os.close(root_fd)


def _tell(status: socket.socket, event: SupervisorEvent) -> bool:
    """Send an event; return whether the client has received it."""
    try:
        messages.send(status, event)
    except OSError:
        return False
    return True


class Supervisor:
    """One container, from its start to its end.

    Args:
        plan: the container's launch plan.
        status: the status socket of the client.
        loop, signals: call the supervisor when something happens.
        surroundings: the namespaces and the maker, made ahead.
    """

    def __init__(
        self,
        plan: LaunchPlan,
        status: socket.socket,
        loop: EventLoop,
        signals: Signals,
        surroundings: Surroundings,
    ) -> None:
        self.plan = plan
        self.paths = ContainerPaths(Path(plan.data_dir), Path(plan.run_dir))
        self.short_id = plan.container_id[:12]
        self.hosts = dial.addresses(plan.network.address)
        self.loop = loop
        self.signals = signals
        self.relay = StdioRelay(self.loop)
        self._surroundings = surroundings
        self._status = status
        self._undo = contextlib.ExitStack()
        self._mounts = contextlib.ExitStack()
        self._init_pid = 0
        self._init_code: int | None = None
        self._console_fd: int | None = None
        self._started_at_ns = 0
        self._ports: tuple[PublishedPort, ...] = ()
        self._log: LogSink | None = None
        self._listeners: list[ports.Listener] = []
        self._control: ControlServer | None = None
        self._connections: Connections | None = None
        self._oom_file = ""
        self._is_flush_due = False
        self._pipes: tuple[int | None, dict[str, int]] = (None, {})  # to be relayed
        self.succession = Succession(self.paths)
        self._state: StateRecord | None = None
        self._is_stopping = False
        self._is_stopped_by_hand = False

    @cached_property
    def _executor(self) -> Executor:
        """The executor of the container, created on first use: for an exec, or at the end."""
        return make_executor(self.plan.executor, self.paths)

    @cached_property
    def _recording(self) -> Recording:
        """Records events; created on first use."""
        return Recording(self.paths)

    def run(
        self,
        attachment: socket.socket | None,
        choice: StreamChoice,
        settle: Callable[[], None],
        lock_fd: int = -1,
    ) -> None:
        """Start the container, serve until it has ended, record the end, and clean up.

        Args:
            choice: the streams that ``attachment`` carries.
            settle: called when the client has received the result of the start.
            lock_fd: descriptor that holds the container's lock, for a further run; the first run takes the lock here.
        """
        try:
            lock_fd = lock_fd if lock_fd >= 0 else self._take_lock()
        except PyDockError as error:
            _tell(self._status, {"event": "failed", "error": error.to_json()})
            return
        failure = self._start(attachment, choice)
        if failure is not None:
            os.close(lock_fd)
            self.succession.dismiss()
            is_attended = _tell(self._status, {"event": "failed", "error": failure.to_json()})
            if not is_attended:
                self._remove_unattended(None)
            return
        settle()
        if self.succession.count:  # the client records the start of the first run
            self._recording.record_end({**_NO_RUN, "started_at_ns": self._started_at_ns})
        ended, is_restarting = self._serve(lock_fd)
        assert self._control is not None
        is_attended = _tell(
            self._status,
            {"event": "exited", "exit_code": ended.exit_code, "oom_killed": ended.oom_killed},
        )
        is_answered = self._control.finish(ended.exit_code)
        self.relay.finish_clients()
        # A client that waits for the end records it; one without streams may be about to leave.
        is_awaited = is_answered or (is_attended and attachment is not None)
        is_removed_here = self.plan.auto_remove and not is_attended
        if is_restarting or not (is_awaited or is_removed_here):
            self._recording.record_end(_run(ended))
        # Unmounting an overlay writes out the whole filesystem below it (ovl_sync_fs).  Only the container's next
        # start waits for that, by the lock.
        self._mounts.close()
        os.close(lock_fd)
        if is_restarting:
            self.succession.release()
        if not is_attended:
            self._remove_unattended(ended)
        while self.relay.finish_clients():
            self.loop.run_once()
        if is_attended and self.plan.auto_remove and not self._was_end_read():
            self._remove_unattended(ended)
        self._status.close()
        self._recording.wait()

    def _was_end_read(self) -> bool:
        """Wait until the client closes the status socket; return whether it has read the container's end."""
        try:
            self._status.recv(1)
        except ConnectionResetError:  # it closed with the event unread (af_unix.c, unix_release_sock)
            return False
        return True

    def _take_lock(self) -> int:
        """Take the container's lock; wait for a previous supervisor that is about to release it."""
        deadline = time.monotonic() + _LOCK_PATIENCE_SECONDS
        while True:
            try:
                lock_fd = container_status.take_lock(self.paths.lock_file)
            except OSError as error:
                raise FailedError(
                    f"cannot take the lock {self.paths.lock_file}: {error.strerror}", exit_code=125
                ) from error
            if lock_fd is not None:
                return lock_fd
            state = StateRecord.read(self.paths.state_file)
            runs = state is not None and state.init is not None and not self.paths.exit_file.exists()
            if state is not None and state.is_restarting:
                raise ConflictError(f"container {self.short_id} is restarting", exit_code=125)
            if runs or time.monotonic() > deadline:
                raise ConflictError(f"container {self.short_id} is already running", exit_code=125)
            time.sleep(_LOCK_INTERVAL_SECONDS)

    def rehearse(self) -> None:
        """Run the code before a container's start and after its end, without a container."""
        lock_fd = self._take_lock()
        self._undo.callback(os.close, lock_fd)
        record_killed(self.paths)
        identity = ProcessIdentity.of(os.getpid())
        StateRecord(identity, identity, 0, (), self.plan.executor).write(self.paths.state_file)
        self._open_log()
        with contextlib.ExitStack() as child_ends:
            self._make_pipes(child_ends)
        self._listen()
        self._begin_relay()
        _tell(self._status, {"event": "started", "pid": 0, "started_at_ns": 0, "ports": self._ports_json()})
        ExitRecord(0, False, "", 0, time.time_ns()).write(self.paths.exit_file)
        self._undo.close()

    # -- start -------------------------------------------------------------------------------------------

    def _start(self, attachment: socket.socket | None, choice: StreamChoice) -> PyDockError | None:
        """Start the container; on a failure, undo and record everything and return the error."""
        if not self.succession.count:  # otherwise the keeper has done it
            record_killed(self.paths)  # an earlier supervisor may have been killed
        try:
            self._launch(attachment, choice)
        except PyDockError as error:
            failure = error
        except Exception as error:  # noqa: BLE001 - every failure must be undone and reported
            traceback.print_exc()
            failure = FailedError(f"cannot start container {self.short_id}: {error}")
        else:
            return None
        if failure.exit_code is None:
            failure.exit_code = _FAILED_EXIT_CODE
        try:
            self._undo.close()
        except Exception as error:  # noqa: BLE001 - a cleanup failure is attached to the cause, and never replaces it
            failure.add_note(f"and the clean-up failed: {error}")
        self._mounts.close()
        last = ExitRecord.read(self.paths.exit_file)
        record = ExitRecord(
            failure.exit_code,
            False,
            failure.line,
            last.started_at_ns if last else 0,
            last.finished_at_ns if last else 0,
            self.succession.count,
        )
        try:
            record.write(self.paths.exit_file)
            self.paths.state_file.unlink(missing_ok=True)
        except (
            OSError
        ) as error:  # a full disk: state.json stays, and the next command on the container reaps it
            failure.add_note(f"and the failure was not recorded: {error.strerror}")
        return failure

    def _launch(self, attachment: socket.socket | None, choice: StreamChoice) -> None:
        supervisor = ProcessIdentity.of(os.getpid())
        count = self.succession.count
        StateRecord(None, supervisor, 0, (), self.plan.executor, count, is_restarting=count > 0).write(
            self.paths.state_file
        )
        if self.plan.restart_policy != NO and not count:
            self.succession.set_policy(RestartPolicy(self.plan.restart_policy, self.plan.restart_most))
        if self.plan.ports and self.plan.network.mode == "host":
            raise InvalidError("cannot publish ports with the host's network", exit_code=125)
        listeners: list[ports.Listener] = []
        if self.plan.ports:
            with self._surroundings.in_host_network():
                listeners = ports.listen(self.plan.ports)
        self._listeners = listeners
        self._ports = tuple(listener.port for listener in listeners)
        for listener in listeners:
            self._undo.callback(listener.socket.close)
        self._undo.callback(self.signals.reap)
        self.signals.on(signal.SIGTERM, self._on_term)
        self._open_log()
        made = self._make(listeners)
        if attachment is not None:
            self.relay.attach(attachment, choice)
        self._init_pid = made.pid
        self._oom_file = made.oom_file
        self._console_fd = made.console_fd
        self._begin_relay()
        self._started_at_ns = time.time_ns()
        init = ProcessIdentity.of(self._init_pid)
        self.paths.exit_file.unlink(missing_ok=True)
        self._state = StateRecord(
            init, supervisor, self._started_at_ns, self._ports, self.plan.executor, self.succession.count
        )
        self._state.write(self.paths.state_file)
        _tell(
            self._status,
            {
                "event": "started",
                "pid": self._init_pid,
                "started_at_ns": self._started_at_ns,
                "ports": self._ports_json(),
            },
        )

    def _open_log(self) -> None:
        if self.plan.log_path:
            try:
                limits = LogLimits(self.plan.log_file_bytes, self.plan.log_files)
                self._log = LogWriter(self.plan.log_path, limits, self.plan.log_attributes)
            except OSError as error:
                raise FailedError(f"cannot open the log {self.plan.log_path}: {error.strerror}") from error
            self._undo.callback(self._log.close)
        if self.plan.journal_fields is not None:
            self._log = self._open_journal(self.plan.journal_fields)
            self._undo.callback(self._log.close)
        self._undo.callback(self.relay.close)
        self.loop.before_wait = self._flush_log

    def _open_journal(self, fields: Mapping[str, str]) -> LogSink:
        from pydock_core.supervision.journal import JournalWriter  # late: few containers log there

        try:
            return JournalWriter(fields, self.plan.journal_bytes)
        except OSError as error:
            raise FailedError(f"cannot reach the journal of systemd: {error.strerror}") from error

    def _flush_log(self) -> None:
        if self._log is None:
            return
        if self._log.flush() and self._control is not None:
            self._control.on_log_growth()
        if self._log.has_waiting and not self._is_flush_due:
            self._is_flush_due = True
            self.loop.call_later(_JOURNAL_RETRY_SECONDS, self._on_flush_due)

    def _on_flush_due(self) -> None:
        self._is_flush_due = False  # the loop flushes before it sleeps

    def _make(self, listeners: list[ports.Listener]) -> Made:
        """Have the maker create and start the container, and set up the network and the control socket at the same time."""
        with contextlib.ExitStack() as child_ends:
            stdio = None if self.plan.terminal else self._make_pipes(child_ends)
            maker = self._surroundings.take_maker()
            with maker:
                maker.begin(self.paths.plan_file, stdio)
                if self.plan.root_mounts:
                    self._mounts.callback(_unmount, self.paths.rootfs)
                for source in self.plan.sources:
                    for name in (BASE, PART):
                        self._mounts.callback(_unmount, Path(source.place) / name)
                self._surroundings.enter_network(
                    self.plan, self.paths.network_namespace, self.paths.user_namespace
                )
                if self.plan.uid_mappings:
                    self._mounts.callback(_unmount, self.paths.user_namespace)
                if self.plan.network.mode != "host":
                    self._mounts.callback(_unmount, self.paths.network_namespace)
                if self.plan.network.name_service is not None:
                    self._connections = self._make_connections()
                if self.plan.shared:
                    from pydock_core.supervision.shared_namespaces import bind_shared  # late: few containers

                    for point in bind_shared(self.plan.shared, self.paths):
                        self._mounts.callback(_unmount, point)
                publish(self.plan, self.plan.network.interfaces, listeners)
                # Even a maker that is killed may leave parts of a container.
                self._undo.callback(self._delete)
                maker.go()
                try:
                    self._listen()
                    if self._connections is not None:
                        self._connections.enter()
                    if listeners:
                        self._start_forwarder(listeners)
                finally:
                    made = maker.finish()
        return made

    def _begin_relay(self) -> None:
        """Connect the container's streams to the log and to the attached clients."""
        stdin_fd, outputs = self._pipes
        if self._console_fd is not None:
            outputs = {STDOUT: self._console_fd}
            stdin_fd = self._console_fd if self.plan.open_stdin else None
        self._pipes = (None, {})
        streams = ContainerStreams(stdin_fd, outputs, self.plan.terminal, self.plan.stdin_once)
        self.relay.begin(streams, self._log)

    def _delete(self) -> None:
        self._executor.delete(self.plan.container_id)

    def _listen(self) -> None:
        """Serve the control socket; clients are answered once the container runs."""
        self._control = ControlServer(self.loop, self, str(self.paths.control_socket))
        self._undo.callback(self._control.close_socket)

    def _make_pipes(self, child_ends: contextlib.ExitStack) -> Stdio:
        """Make the container's three descriptors, closed with ``child_ends``, and the relay's ends of them."""
        outputs: dict[str, int] = {}
        ends = []
        for name in (STDOUT, STDERR):
            outputs[name], write_fd = os.pipe2(os.O_CLOEXEC)
            child_ends.callback(os.close, write_fd)
            ends.append(write_fd)
        stdin_fd: int | None = None
        if self.plan.open_stdin:
            in_fd, stdin_fd = os.pipe2(os.O_CLOEXEC)
        else:
            in_fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        child_ends.callback(os.close, in_fd)
        self._pipes = (stdin_fd, outputs)
        self._undo.callback(self._close_pipes)
        return Stdio(in_fd, ends[0], ends[1])

    def _close_pipes(self) -> None:
        """Close the relay's ends of the pipes, if the relay has not taken them."""
        stdin_fd, outputs = self._pipes
        messages.close_all([*outputs.values(), *([] if stdin_fd is None else [stdin_fd])])

    def _start_forwarder(self, listeners: list[ports.Listener]) -> None:
        subject = f"container {self.short_id}"
        forwarder = PortForwarder(listeners, self.hosts, self.loop, self.signals, subject)
        self._undo.callback(forwarder.end)
        forwarder.start()

    # -- requests ----------------------------------------------------------------------------------------

    def describe(self) -> StateReply:
        """Return the reply to the control request "state"."""
        return {
            "pid": self._init_pid,
            "started_at_ns": self._started_at_ns,
            "ports": self._ports_json(),
            "status": "exited"
            if self._init_code is not None
            else "running"
            if self._started_at_ns
            else "starting",
        }

    def _ports_json(self) -> list[PortDocument]:
        return [port.to_json() for port in self._ports]

    def resize(self, rows: int, columns: int) -> None:
        """Set the size of the container's terminal."""
        if self._console_fd is None:
            raise ConflictError(f"container {self.short_id} has no terminal")
        set_window_size(self._console_fd, rows, columns)

    def send_signal(self, number: int) -> None:
        """Send a client's signal to init; SIGKILL and the stop signal end the restart policy too.

        Init is a child of this process, so its pid cannot be another process's.
        """
        if number not in signal.valid_signals():
            raise InvalidError(f"unknown signal {number}")
        if number in (signal.SIGKILL, self.plan.stop_signal):
            self._is_stopping = self._is_stopped_by_hand = True
        self._signal_init(number)

    def _signal_init(self, number: int) -> None:
        """Send a signal to init, which is a child of this process, so its pid cannot mean another one."""
        if self._init_code is not None:
            return
        os.kill(self._init_pid, number)
        if number == signal.SIGKILL:
            # The container ends with its init.  One that has frozen itself can be killed only through its control group.
            try:
                self._executor.kill(self.plan.container_id, signal.SIGKILL, all_processes=True)
            except PyDockError as error:
                print(f"container {self.short_id}: {error.message}", file=sys.stderr)

    def stop(self, number: int | None = None, timeout_seconds: float | None = None) -> None:
        """Ask init to end; after the timeout (negative: never) kill everything in the container."""
        if number is not None and number not in signal.valid_signals():
            raise InvalidError(f"unknown signal {number}")
        self._is_stopped_by_hand = True
        self._end_init(number, timeout_seconds)

    def _on_term(self) -> None:
        """End at a shutdown of the host: the container is restarted after the reboot."""
        self._end_init(None, None)

    def _end_init(self, number: int | None, timeout_seconds: float | None) -> None:
        self._is_stopping = True
        timeout = self.plan.stop_timeout_seconds if timeout_seconds is None else timeout_seconds
        self._signal_init(self.plan.stop_signal if number is None else number)
        if timeout >= 0:
            self.loop.call_later(timeout, partial(self._signal_init, signal.SIGKILL))

    def open_connections(self) -> Connections:
        """Return the container's connections to its networks; they are made on first use.

        Raises:
            ConflictError: the container is not on a bridge or not running.
        """
        if self._connections is None:
            if self.plan.network.mode != "bridge" or self._init_code is not None:
                raise ConflictError(f"container {self.short_id} cannot be connected to a network")
            self._connections = self._make_connections()
            self._connections.enter()
        return self._connections

    def _make_connections(self) -> Connections:
        from pydock_core.supervision.connections import Connections  # late: most containers have none

        made = Connections(
            self.plan, self.paths, self.loop, self.signals, self._surroundings.go_outside, self._listeners
        )
        self._undo.callback(made.end)
        made.begin()
        return made

    def execute(self, process_document: Mapping[str, Any], stdio: Stdio | None) -> CreatedProcess:
        """Run an additional process in the container."""
        if self._init_code is not None or not self._started_at_ns:
            raise ConflictError(f"container {self.short_id} is not running")
        return self._executor.execute(self.plan.container_id, process_document, stdio)

    def record_pause(self, *, is_paused: bool) -> None:
        """Record whether the container is paused."""
        assert self._state is not None  # it is running
        self._state = replace(self._state, is_paused=is_paused)
        self._state.write(self.paths.state_file)

    def set_restart_policy(self, policy: RestartPolicy) -> None:
        """Change the restart policy."""
        self.succession.set_policy(policy)

    def _begin_health(self, plan: Mapping[str, Any]) -> HealthMonitor:
        from pydock_core.supervision.health import HealthMonitor  # late: few containers have a check
        from pydock_core.supervision.health_plan import HealthPlan

        control = self._control
        assert control is not None
        return HealthMonitor(
            HealthPlan.from_json(plan),
            self.loop,
            self.signals,
            self._execute_probe,
            lambda: control.is_held,
            lambda status: self.report(f"health_status: {status}", {}),
            self.paths.health_file,
            self._started_at_ns,
        )

    def _execute_probe(self, words: Sequence[str], stdio: Stdio) -> int:
        """Execute a command with the identity and environment of the container's own process; return the pid."""
        process = (read_json(self.paths.config_file) or {})["process"]
        process.pop("consoleSize", None)
        return self.execute({**process, "args": list(words), "terminal": False}, stdio).pid

    def report(self, action: str, attributes: Mapping[str, str]) -> None:
        """Record an event of the container in place of a client."""
        self._recording.record(action, attributes)

    # -- end ---------------------------------------------------------------------------------------------

    def _serve(self, lock_fd: int) -> tuple[ExitRecord, bool]:
        """Relay and serve until init has ended; clean up, record the end, and hand over to the keeper.

        Returns:
            The end, and whether the container is restarted.
        """
        self.signals.on_exit(self._init_pid, self._on_init_exit)
        if self.plan.health is None:
            self.loop.run()
        else:
            with contextlib.closing(self._begin_health(self.plan.health)):
                self.loop.run()
        # When init has been reaped, every process of its PID namespace is gone (pid_namespaces(7)): all of their
        # output is in the pipes.
        self.relay.drain()
        assert self._init_code is not None
        oom_killed = bool(self._oom_file) and read_oom_kills(self._oom_file) > 0
        ended = ExitRecord(
            self._init_code,
            oom_killed,
            "",
            self._started_at_ns,
            time.time_ns(),
            self.succession.count,
            self._is_stopped_by_hand,
        )
        if self._log is not None:
            self._log.flush()
        try:
            ended.write(self.paths.exit_file)
        except OSError as error:
            # A full disk: state.json stays, so the next reader reports "killed" rather than nothing.
            print(f"container {self.short_id}: the exit is not recorded: {error}", file=sys.stderr)
        assert self._control is not None
        self._control.on_log_growth()
        try:
            self._undo.close()
        except Exception as error:  # noqa: BLE001 - the exit is recorded; the state stays for the reaper
            print(f"container {self.short_id}: not everything was removed: {error}", file=sys.stderr)
            self.succession.dismiss()
        else:
            if not self._is_stopping and self.succession.hand_over(ended, self.plan.executor, lock_fd):
                return ended, True
            self.succession.dismiss()
            self.paths.state_file.unlink(missing_ok=True)
        return ended, False

    def _on_init_exit(self, code: int) -> None:
        self._init_code = code
        self.loop.stop()

    def _remove_unattended(self, ended: ExitRecord | None) -> None:
        """Remove the container if it has ``--rm``, because its client is gone; ``ended`` is None if it never ran."""
        if not self.plan.auto_remove:
            return
        if container_status.is_locked(self.paths.lock_file):
            return  # it has been started again: its next supervisor removes it
        try:
            # A worker function, which loads the database only here, at the very end.
            from pydock_core.store.worker import perform

            run = _run(ended) if ended is not None else _NO_RUN
            perform(
                "pydock_core.store.container_removal:remove_container", {**self._recording.subject, **run}
            )
        except Exception:  # noqa: BLE001 - the next command tidies up; the log has the reason
            traceback.print_exc()


def _run(ended: ExitRecord) -> dict[str, Any]:
    """Return the fields of a run in the state database."""
    return {
        "started_at_ns": ended.started_at_ns,
        "finished_at_ns": ended.finished_at_ns,
        "exit_code": ended.exit_code,
        "oom_killed": ended.oom_killed,
    }


def _unmount(path: Path) -> None:
    """Detach a mount at once: the container's next start must not find the overlay's directories in use."""
    with contextlib.suppress(OSError):
        syscalls.umount(str(path), syscalls.MNT_DETACH)


def preload() -> None:
    """Import the modules that supervisors import late, so that they are shared after the zygote's fork."""
    import fcntl  # noqa: F401 - loads the module
    import struct  # noqa: F401 - loads the module
    import termios  # noqa: F401 - loads the module

    from pydock_core.runtime import embedded  # noqa: F401 - loads the module


def warm_up() -> None:
    """Prepare the zygote's memory, which its forks share until they write to it.

    Postcondition: facts that are the same for all processes below the zygote are cached.  Supervisors' code has run as
    often as CPython 3.11 needs to specialize it (PEP 659), so forks do not specialize it again.  All objects are frozen
    (gc.freeze), so a collection in a fork does not write to them.  Collections are rare, because each one writes to the
    fork's own objects.
    """
    from pydock_core.runtime.cgroups import read_layout
    from pydock_core.runtime.namespaces import is_in_user_namespace
    from pydock_core.supervision import connections  # noqa: F401 - to have been imported is the point

    boot_id()
    read_layout()
    is_in_user_namespace()
    loop = EventLoop()
    signals = Signals(loop)
    for _ in range(_SPECIALIZING_RUNS):
        rehearse()
        _rehearse(loop, signals, Surroundings())
    signals.close()
    loop.close()
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECTION_THRESHOLD)
