"""The supervisor: the process that stays with one container, serves its clients, and records its end.

It takes the container over from the starter (:mod:`pydock_core.supervision.starter`).  Until then it only waits, so it shares
its memory with the zygote, except for the pages that the code here changes.  ARCHITECTURE.md ("Recorded and derived state")
defines the order of the steps at the end.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydock_core import messages, syscalls
from pydock_core.errors import ConflictError, InvalidError, PyDockError
from pydock_core.paths import ContainerPaths
from pydock_core.runtime.cgroups.oom_counter import read_oom_kills
from pydock_core.runtime.console import set_window_size
from pydock_core.runtime.executor import CreatedProcess, Executor, Stdio
from pydock_core.runtime.process_identity import ProcessIdentity
from pydock_core.runtime.record_file import read_json
from pydock_core.supervision import container_status
from pydock_core.supervision.container_status import ExitRecord, StateRecord
from pydock_core.supervision.control_server import ControlServer
from pydock_core.supervision.event_loop import READ, EventLoop, Signals
from pydock_core.supervision.executor_choice import make_executor
from pydock_core.supervision.handover import Handover
from pydock_core.supervision.keeper_link import Succession
from pydock_core.supervision.log_files import LogLimits
from pydock_core.supervision.logs import LogWriter
from pydock_core.supervision.plan import PublishedPort
from pydock_core.supervision.port_forwarder import PortForwarder
from pydock_core.supervision.ports import Listener
from pydock_core.supervision.recording import NO_RUN, Recording
from pydock_core.supervision.restart_policy import RestartPolicy, Restarts
from pydock_core.supervision.stdio_relay import STDERR, STDOUT, ContainerStreams, LogSink, StdioRelay
from pydock_core.supervision.unmounting import unmount_all

if TYPE_CHECKING:
    from pydock_core.supervision.connections import Connections
    from pydock_core.supervision.health import HealthMonitor
    from pydock_core.supervision.protocol import StateReply

_JOURNAL_RETRY_SECONDS = 0.1


class Supervisor:
    """One container, from its hand-over to its end.

    Args:
        started: the container; this object closes the descriptors.
        loop, signals: call the supervisor when something happens.
    """

    def __init__(self, started: Handover, loop: EventLoop, signals: Signals) -> None:
        facts, fds = started.facts, started.fds
        self.short_id = facts.container_id[:12]
        self.hosts = facts.hosts
        self.loop = loop
        self.signals = signals
        self.relay = StdioRelay(loop)
        self._facts = facts
        self._fds = fds
        self._started = started
        self._init_code: int | None = None
        self._console_fd = fds.console if fds.console >= 0 else None
        self._log = self._open_log()
        self._connections: Connections | None = None
        self._forwarder: PortForwarder | None = None
        self._listeners: list[Listener] | None = None
        self._is_flush_due = False
        self._is_short = False
        self._is_stopping = False
        self._is_stopped_by_hand = False
        loop.watch(fds.control, READ, self._on_first_client)

    # Made on first use: each of them copies pages.

    @cached_property
    def paths(self) -> ContainerPaths:
        """The container's paths."""
        return ContainerPaths(Path(self._facts.data_dir), Path(self._facts.run_dir))

    @cached_property
    def _status(self) -> socket.socket:
        """The client of the start."""
        return socket.socket(fileno=self._fds.status)

    @cached_property
    def _control(self) -> ControlServer:
        """The control socket."""
        listener_fd = self._fds.control
        self.loop.forget(listener_fd)
        return ControlServer(self.loop, self, self._facts.control_path, socket.socket(fileno=listener_fd))

    @property
    def _has_control(self) -> bool:
        """Whether a client has connected."""
        return "_control" in self.__dict__

    def _close_control(self) -> None:
        if self._has_control:
            self._control.close_socket()
            return
        self.loop.forget(self._fds.control)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._facts.control_path)
        os.close(self._fds.control)

    def _on_first_client(self, _: int) -> None:
        if self._is_short:
            self.loop.stop()
        else:
            self._control.accept()

    @cached_property
    def _executor(self) -> Executor:
        """The executor of the container: for an exec, or at the end."""
        return make_executor(self._facts.executor, self.paths)

    @cached_property
    def _recording(self) -> Recording:
        """Records events."""
        return Recording(self.paths)

    @cached_property
    def _succession(self) -> Succession:
        """The runs after this one."""
        succession = Succession(self.paths, os.getpid())
        restarts, keeper = self._facts.restarts, self._facts.keeper
        if restarts is not None and keeper is not None:
            link = socket.socket(fileno=self._fds.keeper)
            succession.join(Restarts.from_json(restarts), link, ProcessIdentity(**keeper))
        return succession

    def run(self) -> None:
        """Serve until the container has ended, record the end, and clean up."""
        facts = self._facts
        if self._fds.network >= 0:
            syscalls.setns(self._fds.network, syscalls.CLONE_NEWNET)
            os.close(self._fds.network)
        self.begin()
        if facts.restarts is not None and self._succession.count:
            # The client records the start of the first run.
            self._recording.record_end({**NO_RUN, "started_at_ns": facts.started_at_ns})
        self.signals.on_exit(facts.pid, self._on_init_exit)
        if facts.health is None:
            self.loop.run()
        else:
            with contextlib.closing(self._begin_health(facts.health)):
                self.loop.run()
        self._finish()

    def run_shortly(self, seconds: float) -> bool:
        """Serve in the starter, for a container that may end at once; its code is warm there.

        Returns:
            Whether the container goes on, and the supervisor has to take it over: after that time, or for the first client of
            the control socket.  Otherwise this has done all that :meth:`run` does.
        """
        self._is_short = True
        self.begin()
        self.signals.on_exit(self._facts.pid, self._on_init_exit)
        self.loop.call_later(seconds, self.loop.stop)
        self.loop.run()
        if self._init_code is None:
            self._let_go()
            return True
        self._finish()
        return False

    def _let_go(self) -> None:
        """Save the state in the hand-over."""
        facts = self._facts
        if isinstance(self._log, LogWriter):
            facts.unwritten = self._log.save()
        facts.attach = {**facts.attach, "stdin": self.relay.awaits_input}
        facts.relayed = self.relay.save(self._fds)

    def _finish(self) -> None:
        facts = self._facts
        lock_fd = self._fds.lock
        ended, is_restarting = self._end(lock_fd)
        is_attended = messages.tell(
            self._status,
            {"event": "exited", "exit_code": ended.exit_code, "oom_killed": ended.oom_killed},
        )
        is_answered = self._has_control and self._control.finish(ended.exit_code)
        self.relay.finish_clients()
        # A client that waits for the end records it; one without streams may be about to leave.
        is_awaited = is_answered or (is_attended and facts.has_attachment)
        is_removed_here = facts.auto_remove and not is_attended
        if is_restarting or not (is_awaited or is_removed_here):
            self._recording.record_end(_run(ended))
        # Unmounting an overlay writes out the whole filesystem below it (ovl_sync_fs).  Only the container's next
        # start waits for that, by the lock.
        unmount_all([Path(path) for path in facts.mounted])
        os.close(lock_fd)
        if is_restarting:
            self._succession.release()
        if not is_attended:
            self._remove_unattended(ended)
        while self.relay.finish_clients():
            self.loop.run_once()
        if is_attended and facts.auto_remove and not self._was_end_read():
            self._remove_unattended(ended)
        self._status.close()
        self._recording.wait()

    def begin(self) -> None:
        """Connect the container's streams to the log and to the attached client."""
        facts, fds = self._facts, self._fds
        self.loop.before_wait = self._flush_log
        if facts.ports:
            self._forwarder = PortForwarder(
                self._list_listeners,
                self.hosts,
                self.loop,
                self.signals,
                f"container {self.short_id}",
            )
            self._forwarder.start()
        if fds.names_udp >= 0:
            self._open_connections()
        if fds.attachment >= 0:
            self.relay.attach(socket.socket(fileno=fds.attachment), facts.attach)
        if facts.relayed is not None:
            self.relay.restore(facts.relayed)
        if facts.terminal:
            outputs = {STDOUT: fds.console}
            stdin_fd = fds.console if facts.open_stdin else -1
        else:
            outputs = {STDOUT: fds.stdout, STDERR: fds.stderr}
            stdin_fd = fds.stdin
        outputs = {name: fd for name, fd in outputs.items() if fd >= 0}
        streams = ContainerStreams(
            stdin_fd if stdin_fd >= 0 else None, outputs, facts.terminal, facts.stdin_once
        )
        self.relay.begin(streams, self._log)

    def rehearse(self) -> None:
        """Run the code of a running container and of its end, without a container; closes the descriptors."""
        messages.close_all([self._fds.lock, *([self._fds.network] if self._fds.network >= 0 else [])])
        self.begin()
        if self._log is not None:
            self._log.write(STDOUT, b"rehearsal\n")
        self.loop.call_later(0, self.loop.stop)
        self.loop.run()
        self.relay.drain()
        ExitRecord(0, False, "", 0, time.time_ns()).write(self.paths.exit_file)
        self._close_control()
        self.relay.close()
        if self._log is not None:
            self._log.close()
        self._status.close()

    def _list_listeners(self) -> list[Listener]:
        """Return the sockets of the published ports, which this process closes at the end."""
        if self._listeners is None:
            self._listeners = [
                Listener(socket.socket(fileno=fd), PublishedPort(**port))
                for fd, port in zip(self._started.listener_fds, self._facts.ports, strict=True)
            ]
        return self._listeners

    def _was_end_read(self) -> bool:
        """Wait until the client closes the status socket; return whether it has read the container's end."""
        try:
            self._status.recv(1)
        except ConnectionResetError:  # it closed with the event unread (af_unix.c, unix_release_sock)
            return False
        return True

    # -- log ---------------------------------------------------------------------------------------------

    def _open_log(self) -> LogSink | None:
        facts = self._facts
        if self._fds.log < 0:
            return None
        if facts.journal_fields is not None:
            from pydock_core.supervision.journal import JournalWriter  # late: few containers log there

            connection = socket.socket(fileno=self._fds.log)
            return JournalWriter(facts.journal_fields, facts.journal_bytes, connected=connection)
        limits = LogLimits(facts.log_file_bytes, facts.log_files)
        log = LogWriter(facts.log_path, limits, facts.log_attributes, self._fds.log)
        if facts.unwritten is not None:
            log.restore(facts.unwritten)
        return log

    def _flush_log(self) -> None:
        if self._log is None:
            return
        if self._log.flush() and self._has_control:
            self._control.on_log_growth()
        if self._log.has_waiting and not self._is_flush_due:
            self._is_flush_due = True
            self.loop.call_later(_JOURNAL_RETRY_SECONDS, self._on_flush_due)

    def _on_flush_due(self) -> None:
        self._is_flush_due = False  # the loop flushes before it sleeps

    # -- requests ----------------------------------------------------------------------------------------

    def describe(self) -> StateReply:
        """Return the reply to the control request "state"."""
        return {
            "pid": self._facts.pid,
            "started_at_ns": self._facts.started_at_ns,
            "ports": self._facts.ports,
            "status": "running" if self._init_code is None else "exited",
        }

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
        if number in (signal.SIGKILL, self._facts.stop_signal):
            self._is_stopping = self._is_stopped_by_hand = True
        self._signal_init(number)

    def _signal_init(self, number: int) -> None:
        """Send a signal to init, which is a child of this process, so its pid cannot mean another one."""
        if self._init_code is not None:
            return
        os.kill(self._facts.pid, number)
        if number == signal.SIGKILL:
            # The container ends with its init.  One that has frozen itself can be killed only through its control group.
            try:
                self._executor.kill(self._facts.container_id, signal.SIGKILL, all_processes=True)
            except PyDockError as error:
                print(f"container {self.short_id}: {error.message}", file=sys.stderr)

    def stop(self, number: int | None = None, timeout_seconds: float | None = None) -> None:
        """Ask init to end; after the timeout (negative: never) kill everything in the container."""
        if number is not None and number not in signal.valid_signals():
            raise InvalidError(f"unknown signal {number}")
        self._is_stopped_by_hand = True
        self._end_init(number, timeout_seconds)

    def on_term(self) -> None:
        """End at a shutdown of the host: the container is restarted after the reboot."""
        self._end_init(None, None)

    def _end_init(self, number: int | None, timeout_seconds: float | None) -> None:
        self._is_stopping = True
        timeout = self._facts.stop_timeout_seconds if timeout_seconds is None else timeout_seconds
        self._signal_init(self._facts.stop_signal if number is None else number)
        if timeout >= 0:
            self.loop.call_later(timeout, partial(self._signal_init, signal.SIGKILL))

    def open_connections(self) -> Connections:
        """Return the container's connections to its networks; they are made on first use.

        Raises:
            ConflictError: the container is not on a bridge or not running.
        """
        if self._connections is None:
            if self._init_code is not None:
                raise ConflictError(f"container {self.short_id} cannot be connected to a network")
            self._open_connections().enter()
        assert self._connections is not None
        return self._connections

    def _open_connections(self) -> Connections:
        from pydock_core.supervision import open_connections  # late: most containers have none

        self._connections = open_connections.open_connections(
            self.paths, (self.loop, self.signals), self._started, self._list_listeners()
        )
        return self._connections

    def execute(self, process_document: Mapping[str, Any], stdio: Stdio | None) -> CreatedProcess:
        """Run an additional process in the container."""
        if self._init_code is not None:
            raise ConflictError(f"container {self.short_id} is not running")
        return self._executor.execute(self._facts.container_id, process_document, stdio)

    def record_pause(self, *, is_paused: bool) -> None:
        """Record whether the container is paused."""
        state = StateRecord.read(self.paths.state_file)
        if state is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        replace(state, is_paused=is_paused).write(self.paths.state_file)

    def set_restart_policy(self, policy: RestartPolicy) -> None:
        """Change the restart policy."""
        self._succession.set_policy(policy)

    def _begin_health(self, plan: Mapping[str, Any]) -> HealthMonitor:
        from pydock_core.supervision.health import HealthMonitor  # late: few containers have a check
        from pydock_core.supervision.health_plan import HealthPlan

        return HealthMonitor(
            HealthPlan.from_json(plan),
            self.loop,
            self.signals,
            self._execute_probe,
            lambda: self._control.is_held,
            lambda status: self.report(f"health_status: {status}", {}),
            self.paths.health_file,
            self._facts.started_at_ns,
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

    def _end(self, lock_fd: int) -> tuple[ExitRecord, bool]:
        """Clean up after init's end, record it, and hand over to the keeper.

        Returns:
            The end, and whether the container is restarted.
        """
        # When init has been reaped, every process of its PID namespace is gone (pid_namespaces(7)): all of their
        # output is in the pipes.
        self.relay.drain()
        assert self._init_code is not None
        facts = self._facts
        oom_killed = bool(facts.oom_file) and read_oom_kills(facts.oom_file) > 0
        ended = ExitRecord(
            self._init_code,
            oom_killed,
            "",
            facts.started_at_ns,
            time.time_ns(),
            self._succession.count,
            self._is_stopped_by_hand,
        )
        if self._log is not None:
            self._log.flush()
        try:
            ended.write(self.paths.exit_file)
        except OSError as error:
            # A full disk: state.json stays, so the next reader reports "killed" rather than nothing.
            print(f"container {self.short_id}: the exit is not recorded: {error}", file=sys.stderr)
        if self._has_control:
            self._control.on_log_growth()
        try:
            self._undo()
        except Exception as error:  # noqa: BLE001 - the exit is recorded; the state stays for the reaper
            print(f"container {self.short_id}: not everything was removed: {error}", file=sys.stderr)
            self._succession.dismiss()
        else:
            if not self._is_stopping and self._succession.hand_over(ended, facts.executor, lock_fd):
                return ended, True
            self._succession.dismiss()
            self.paths.state_file.unlink(missing_ok=True)
        return ended, False

    def _undo(self) -> None:
        """Remove everything that is visible from outside; a failed step does not keep the others from being taken."""
        with contextlib.ExitStack() as undo:  # in reverse order
            undo.callback(messages.close_all, self._started.listener_fds)
            undo.callback(self.signals.reap)
            if self._log is not None:
                undo.callback(self._log.close)
            undo.callback(self.relay.close)
            if self._connections is not None:
                undo.callback(self._connections.end)
            undo.callback(self._delete)
            undo.callback(self._close_control)
            if self._forwarder is not None:
                undo.callback(self._forwarder.end)

    def _delete(self) -> None:
        self._executor.delete(self._facts.container_id)

    def _on_init_exit(self, code: int) -> None:
        self._init_code = code
        self.loop.stop()

    def _remove_unattended(self, ended: ExitRecord) -> None:
        """Remove the container if it has ``--rm``, because its client is gone."""
        # If it has been started again, its next supervisor removes it.
        if self._facts.auto_remove and not container_status.is_locked(self.paths.lock_file):
            self._recording.remove_container(_run(ended))


def _run(ended: ExitRecord) -> dict[str, Any]:
    """Return the fields of a run in the state database."""
    return {
        "started_at_ns": ended.started_at_ns,
        "finished_at_ns": ended.finished_at_ns,
        "exit_code": ended.exit_code,
        "oom_killed": ended.oom_killed,
    }
