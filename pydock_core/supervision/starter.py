"""The starter: the process that starts one container and hands it over to its supervisor, then ends.

It is the child of the supervisor, forked ahead of it: the supervisor, which stays, never executes the code of a start, and so
keeps its pages shared with the zygote.  ARCHITECTURE.md ("The processes", "Recorded and derived state") defines the order of
the steps, and when their results become visible.  Each step pushes its undo action; a failed start runs them in reverse.
The container's init is a child of the supervisor (CLONE_PARENT).
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
import traceback
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from pydock_core import messages
from pydock_core.errors import ConflictError, FailedError, InvalidError, PyDockError
from pydock_core.oci.mount_source import BASE, PART
from pydock_core.paths import ContainerPaths
from pydock_core.runtime.executor import Executor, Stdio
from pydock_core.runtime.process_identity import ProcessIdentity
from pydock_core.supervision import container_status, dial, log_files, network_namespace, ports
from pydock_core.supervision.container_status import ExitRecord, StateRecord
from pydock_core.supervision.event_loop import EventLoop, Signals
from pydock_core.supervision.executor_choice import make_executor
from pydock_core.supervision.handover import Descriptors, Facts, Handover, read_sibling_status
from pydock_core.supervision.keeper_link import Succession
from pydock_core.supervision.maker import Made
from pydock_core.supervision.plan import LaunchPlan, PublishedPort
from pydock_core.supervision.publication import publish
from pydock_core.supervision.reaper import record_killed
from pydock_core.supervision.recording import NO_RUN, Recording
from pydock_core.supervision.restart_policy import NO, RestartPolicy
from pydock_core.supervision.supervisor import Supervisor
from pydock_core.supervision.surroundings import Surroundings
from pydock_core.supervision.unmounting import unmount_all

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydock_core.supervision.connections import Connections
    from pydock_core.supervision.protocol import (
        PortDocument,
        StreamChoice,
    )

_LOCK_PATIENCE_SECONDS = 30.0
_LOCK_INTERVAL_SECONDS = 0.002
_FAILED_EXIT_CODE = 125
_SHORT_SECONDS = 0.1
"""The time after which the supervisor takes the container over."""


class Starter:
    """The start of one container.

    Args:
        plan: the container's launch plan.
        status: the status socket of the client.
        link: the connection to the supervisor, the parent of this process.
        surroundings: the namespaces and the maker, made ahead.
    """

    def __init__(
        self, plan: LaunchPlan, status: socket.socket, link: socket.socket, surroundings: Surroundings
    ) -> None:
        self.plan = plan
        self.paths = ContainerPaths(Path(plan.data_dir), Path(plan.run_dir))
        self.short_id = plan.container_id[:12]
        self.succession = Succession(self.paths, os.getppid())
        self._link = link
        self._surroundings = surroundings
        self._status = status
        self._hosts = dial.addresses(plan.network.address)
        self._undo = contextlib.ExitStack()
        self._mounted: list[Path] = []
        self._ports: tuple[PublishedPort, ...] = ()
        self._listeners: list[ports.Listener] = []
        self._connections: Connections | None = None
        self._fds = Descriptors(status=status.fileno())

    @cached_property
    def _executor(self) -> Executor:
        """The executor of the container, created on first use: to undo."""
        return make_executor(self.plan.executor, self.paths)

    def run(
        self,
        attachment: socket.socket | None,
        choice: StreamChoice,
        settle: Callable[[], None],
        lock_fd: int = -1,
    ) -> None:
        """Start the container and hand it over; or undo everything, and record and report the failure.

        Args:
            choice: the streams that ``attachment`` carries.
            settle: called when the client has received the result of the start.
            lock_fd: descriptor that holds the container's lock, for a further run; the first run takes the lock here.
        """
        signal.signal(
            signal.SIGTERM, signal.SIG_IGN
        )  # the supervisor receives it too, and ends the container
        try:
            lock_fd = lock_fd if lock_fd >= 0 else self._take_lock()
        except PyDockError as error:
            messages.tell(self._status, {"event": "failed", "error": error.to_json()})
            return
        self._fds.lock = lock_fd
        if attachment is not None:
            self._fds.attachment = attachment.fileno()
        started: Handover | None = None
        try:
            if not self.succession.count:  # otherwise the keeper has done it
                record_killed(self.paths)  # an earlier supervisor may have been killed
            started = self._launch(choice)
        except PyDockError as error:
            failure = error
        except Exception as error:  # noqa: BLE001 - every failure must be undone and reported
            traceback.print_exc()
            failure = FailedError(f"cannot start container {self.short_id}: {error}")
        if started is None:
            self._fail(failure, lock_fd)
            return
        settle()
        if self._is_plain():
            loop = EventLoop()
            signals = Signals(loop, partial(read_sibling_status, self._link))
            if not Supervisor(started, loop, signals).run_shortly(_SHORT_SECONDS):
                return
        with contextlib.suppress(OSError):  # the supervisor was killed, and so is this process
            started.send(self._link)
        os.close(lock_fd)  # now: the supervisor alone holds the lock

    def _is_plain(self) -> bool:
        """Whether the container has no process besides its own, and no further runs."""
        plan = self.plan
        return not (
            plan.ports
            or plan.health is not None
            or plan.journal_fields is not None
            or self._connections is not None
            or self.succession.progress is not None
        )

    def _fail(self, failure: PyDockError, lock_fd: int) -> None:
        """Undo, record and report a failed start."""
        if failure.exit_code is None:
            failure.exit_code = _FAILED_EXIT_CODE
        try:
            self._undo.close()
        except Exception as error:  # noqa: BLE001 - a cleanup failure is attached to the cause, and never replaces it
            failure.add_note(f"and the clean-up failed: {error}")
        unmount_all(self._mounted)
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
        os.close(lock_fd)
        self.succession.dismiss()
        is_attended = messages.tell(self._status, {"event": "failed", "error": failure.to_json()})
        # A container that has been started again is removed by its next supervisor.
        is_free = not container_status.is_locked(self.paths.lock_file)
        if not is_attended and self.plan.auto_remove and is_free:
            Recording(self.paths).remove_container(NO_RUN)

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
            # A killed supervisor's starter may hold the lock for a moment longer.
            runs = (
                state is not None
                and state.init is not None
                and state.supervisor.is_running()
                and not self.paths.exit_file.exists()
            )
            if state is not None and state.is_restarting:
                raise ConflictError(f"container {self.short_id} is restarting", exit_code=125)
            if runs or time.monotonic() > deadline:
                raise ConflictError(f"container {self.short_id} is already running", exit_code=125)
            time.sleep(_LOCK_INTERVAL_SECONDS)

    def rehearse(self) -> Handover:
        """Run the code of a start without a container; return a hand-over, whose descriptors the caller owns."""
        self._fds.lock = self._take_lock()
        record_killed(self.paths)
        identity = ProcessIdentity.of(os.getpid())
        StateRecord(identity, identity, 0, (), self.plan.executor).write(self.paths.state_file)
        self._open_log()
        with contextlib.ExitStack() as child_ends:
            self._make_pipes(child_ends)
        self._listen()
        facts = self._describe(Made(os.getpid(), None, ""), {}, 0)
        messages.tell(self._status, {"event": "started", "pid": 0, "started_at_ns": 0, "ports": facts.ports})
        started = Handover(facts, self._fds, ())
        started.send(self._link)
        return started

    def _launch(self, choice: StreamChoice) -> Handover:
        supervisor = ProcessIdentity.of(os.getppid())
        count = self.succession.count
        StateRecord(None, supervisor, 0, (), self.plan.executor, count, is_restarting=count > 0).write(
            self.paths.state_file
        )
        if self.plan.restart_policy != NO and not count:
            self.succession.set_policy(RestartPolicy(self.plan.restart_policy, self.plan.restart_most))
        if self.plan.ports and self.plan.network.mode == "host":
            raise InvalidError("cannot publish ports with the host's network", exit_code=125)
        if self.plan.ports:
            with self._surroundings.in_host_network():
                self._listeners = ports.listen(self.plan.ports)
        self._ports = tuple(listener.port for listener in self._listeners)
        for listener in self._listeners:
            self._undo.callback(listener.socket.close)
        self._open_log()
        made = self._make()
        started_at_ns = time.time_ns()
        init = ProcessIdentity.of(made.pid)
        self.paths.exit_file.unlink(missing_ok=True)
        StateRecord(init, supervisor, started_at_ns, self._ports, self.plan.executor, count).write(
            self.paths.state_file
        )
        facts = self._describe(made, choice, started_at_ns)
        messages.tell(
            self._status,
            {
                "event": "started",
                "pid": made.pid,
                "started_at_ns": started_at_ns,
                "ports": facts.ports,
            },
        )
        return Handover(facts, self._fds, [listener.socket.fileno() for listener in self._listeners])

    def _describe(self, made: Made, choice: StreamChoice, started_at_ns: int) -> Facts:
        """Return the facts of the hand-over, and add its last descriptors."""
        plan = self.plan
        if made.console_fd is not None:
            self._fds.console = made.console_fd
        if plan.network.mode != "host":
            self._fds.network = os.open(network_namespace.OWN_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
        if self._surroundings.host_network_fd is not None:
            self._fds.host_network = self._surroundings.host_network_fd
        progress = self.succession.progress
        if progress is not None:
            self._fds.keeper = progress[2]
        sockets = self._connections.sockets if self._connections is not None else None
        if sockets is not None:
            self._fds.names_udp, self._fds.names_tcp = (item.fileno() for item in sockets)
        return Facts(
            container_id=plan.container_id,
            data_dir=plan.data_dir,
            run_dir=plan.run_dir,
            executor=plan.executor,
            terminal=plan.terminal,
            open_stdin=plan.open_stdin,
            stdin_once=plan.stdin_once,
            stop_signal=plan.stop_signal,
            stop_timeout_seconds=plan.stop_timeout_seconds,
            log_path=plan.log_path,
            log_file_bytes=plan.log_file_bytes,
            log_files=plan.log_files,
            log_attributes=plan.log_attributes,
            journal_fields=plan.journal_fields,
            journal_bytes=plan.journal_bytes,
            auto_remove=plan.auto_remove,
            health=plan.health,
            control_path=str(self.paths.control_socket),
            hosts=self._hosts,
            ports=self._ports_json(),
            pid=made.pid,
            started_at_ns=started_at_ns,
            oom_file=made.oom_file,
            mounted=tuple(str(path) for path in self._mounted),
            attach=choice,
            has_attachment=self._fds.attachment >= 0,
            unwritten=None,
            relayed=None,
            restarts=progress[0] if progress is not None else None,
            keeper=progress[1] if progress is not None else None,
        )

    def _ports_json(self) -> list[PortDocument]:
        return [port.to_json() for port in self._ports]

    def _open_log(self) -> None:
        """Open the log, which the supervisor writes."""
        plan = self.plan
        if plan.journal_fields is not None:
            from pydock_core.supervision import journal  # late: few containers log there

            try:
                self._fds.log = journal.connect().detach()
            except OSError as error:
                raise FailedError(f"cannot reach the journal of systemd: {error.strerror}") from error
        elif plan.log_path:
            try:
                self._fds.log = log_files.open_log(plan.log_path)
            except OSError as error:
                raise FailedError(f"cannot open the log {plan.log_path}: {error.strerror}") from error

    def _make(self) -> Made:
        """Have the maker create and start the container, and set up the network and the control socket at the same time."""
        plan, paths = self.plan, self.paths
        with contextlib.ExitStack() as child_ends:
            stdio = None if plan.terminal else self._make_pipes(child_ends)
            maker = self._surroundings.take_maker()
            with maker:
                maker.begin(paths.plan_file, stdio)
                if plan.root_mounts:
                    self._mounted.append(paths.rootfs)
                self._mounted += [
                    Path(source.place) / name for source in plan.sources for name in (BASE, PART)
                ]
                self._surroundings.enter_network(plan, paths.network_namespace, paths.user_namespace)
                if plan.uid_mappings:
                    self._mounted.append(paths.user_namespace)
                if plan.network.mode != "host":
                    self._mounted.append(paths.network_namespace)
                if plan.network.name_service is not None:
                    self._connections = self._make_connections()
                if plan.shared:
                    from pydock_core.supervision.shared_namespaces import bind_shared  # late: few containers

                    self._mounted += bind_shared(plan.shared, paths)
                publish(plan, plan.network.interfaces, self._listeners)
                # Even a maker that is killed may leave parts of a container.
                self._undo.callback(self._delete)
                maker.go()
                try:
                    self._listen()
                    if self._connections is not None:
                        self._connections.enter()
                finally:
                    made = maker.finish()
        return made

    def _delete(self) -> None:
        self._executor.delete(self.plan.container_id)

    def _make_connections(self) -> Connections:
        from pydock_core.supervision.connections import Connections  # late: most containers have none

        outside = self._surroundings.go_outside
        made = Connections(self.plan, self.paths, None, outside, self._listeners)
        self._undo.callback(made.end)
        made.begin()
        return made

    def _listen(self) -> None:
        """Open the control socket; the supervisor answers its clients once the container runs."""
        path = self.paths.control_socket
        self._fds.control = messages.listen(str(path)).detach()
        self._undo.callback(path.unlink, missing_ok=True)

    def _make_pipes(self, child_ends: contextlib.ExitStack) -> Stdio:
        """Make the container's three descriptors, closed with ``child_ends``, and the relay's ends of them."""
        self._fds.stdout, stdout_fd = os.pipe2(os.O_CLOEXEC)
        child_ends.callback(os.close, stdout_fd)
        self._fds.stderr, stderr_fd = os.pipe2(os.O_CLOEXEC)
        child_ends.callback(os.close, stderr_fd)
        if self.plan.open_stdin:
            in_fd, self._fds.stdin = os.pipe2(os.O_CLOEXEC)
        else:
            in_fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        child_ends.callback(os.close, in_fd)
        return Stdio(in_fd, stdout_fd, stderr_fd)
