"""The keeper: starts one container again after its end, as its restart policy demands.

A container with a restart policy has two processes outside of it: the supervisor of the current run, and the keeper, which
the zygote forks for the supervisor's request ``keep``.  The keeper retains the resources that a supervisor gives up at its start:
the host's network namespace and the zygote's mounts.  It forks a new supervisor for each run, by the same steps as for the
first one.

The supervisor applies the policy (:mod:`pydock_core.supervision.restart_policy`), because its final reply to clients contains
the container's new status.  Messages to the keeper:

- ``{"plan", "restarts", "supervisor"}`` first; ``{"restarts"}`` when the policy has changed.
- ``{"restart": restarts}`` with the descriptor of the lock: the run is over, and recorded.  The keeper serves the control
  socket until the delay has passed.  ``{"event": "free"}`` follows when the last mount of the run is gone.
- ``{"event": "done"}``: there is no further run.
- The end of the connection without either message: the supervisor was killed.  The keeper reaps the container and applies the
  policy.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from pydock_core import messages, syscalls
from pydock_core.errors import ConflictError, CorruptError
from pydock_core.paths import ContainerPaths
from pydock_core.runtime.executor import CreatedProcess, Stdio
from pydock_core.runtime.process_identity import ProcessIdentity
from pydock_core.supervision import container_status
from pydock_core.supervision.container_status import ExitRecord, StateRecord
from pydock_core.supervision.control_server import ControlServer
from pydock_core.supervision.event_loop import READ, EventLoop, Signals
from pydock_core.supervision.forkserver import Request
from pydock_core.supervision.plan import LaunchPlan, read_plan
from pydock_core.supervision.reaper import record_killed_run
from pydock_core.supervision.recording import Recording
from pydock_core.supervision.restart_policy import RestartPolicy, Restarts

if TYPE_CHECKING:
    from pydock_core.supervision.connections import Connections
    from pydock_core.supervision.protocol import StateReply, StreamChoice

_LOCK_PATIENCE_SECONDS = 10.0
_LOCK_INTERVAL_SECONDS = 0.01


def keep(request: Request) -> None:
    """Run as the keeper of a container; the zygote has forked this process for the request "keep"."""
    link = socket.socket(fileno=request.fds.pop(0))
    received = messages.receive(link)
    if received is None:
        return  # the supervisor ended at once
    document = received[0]
    plan = read_plan(Path(document["plan"]))
    Keeper(plan, Restarts.from_json(document["restarts"]), link, int(document["supervisor"])).run()


def has_successor(state: StateRecord | None, killed_pid: int) -> bool:
    """Whether another supervisor has started the container again after one was killed.

    The kernel closes the descriptors of the killed supervisor one by one, and sends init its signal last.  So its record
    may still describe a live init when its keeper already sees the end of the connection.
    """
    if state is None or state.supervisor.pid == killed_pid:
        return False
    return state.init is not None and state.init.is_alive()


class _NoStreams:
    """The standard streams of a container between two runs."""

    def __init__(self, refusal: ConflictError) -> None:
        self._refusal = refusal

    def attach(self, connection: socket.socket, choice: StreamChoice) -> None:
        connection.close()
        raise self._refusal


class Keeper:
    """One container with a restart policy, over all its runs.

    Args:
        restarts: the policy and its progress at the current run.
        link: the connection to the current run's supervisor.
        supervisor_pid: of this supervisor.
    """

    def __init__(
        self, plan: LaunchPlan, restarts: Restarts, link: socket.socket, supervisor_pid: int
    ) -> None:
        self.plan = plan
        self.short_id = plan.container_id[:12]
        self.hosts: tuple[str, ...] = ()
        self.relay = _NoStreams(self._refusal())
        self.loop = EventLoop()
        self.signals = Signals(self.loop)
        self.signals.on(signal.SIGTERM, self._on_term)
        self._paths = ContainerPaths(Path(plan.data_dir), Path(plan.run_dir))
        self._restarts = restarts
        self._supervisor_pid = supervisor_pid
        self._link: socket.socket | None = None
        self._control: ControlServer | None = None
        self._lock_fd = -1
        self._last: ExitRecord | None = None
        self._is_due = self._is_free = False
        self._watch(link)

    def run(self) -> None:
        """Serve until there is no further run."""
        self.loop.run()

    def _watch(self, link: socket.socket) -> None:
        link.setblocking(False)
        self._link = link
        self.loop.watch(link.fileno(), READ, lambda _: self._on_message())

    def _on_message(self) -> None:
        assert self._link is not None
        try:
            received = messages.receive(self._link)
        except BlockingIOError:
            return
        except (OSError, CorruptError):
            received = None
        document = received[0] if received else {}
        if "restarts" in document:
            self._restarts = Restarts.from_json(document["restarts"])
        elif "restart" in document and received is not None:
            self._restarts = Restarts.from_json(document["restart"])
            self._begin_delay(received[1].pop(0))
        elif document.get("event") == "done":
            self.loop.stop()
        else:
            self._drop_link()
            if self._lock_fd < 0:
                self._on_killed()
            else:
                self._is_free = True
                self._start_if_due()

    def _drop_link(self) -> None:
        if self._link is not None:
            self.loop.forget(self._link.fileno())
            self._link.close()
            self._link = None

    def _on_term(self) -> None:
        """End at a shutdown of the host or an administrator's request; a current run is not restarted."""
        if self._lock_fd >= 0:
            self._cancel(by_hand=False)
        self.loop.stop()

    # -- between two runs --------------------------------------------------------------------------------

    def _begin_delay(self, lock_fd: int) -> None:
        self._lock_fd = lock_fd
        self._is_due = self._is_free = False
        self._last = ExitRecord.read(self._paths.exit_file)
        self._control = ControlServer(self.loop, self, str(self._paths.control_socket))
        self.loop.call_later(self._restarts.delay_seconds, self._on_due)

    def _on_killed(self) -> None:
        """Reap the container of a killed supervisor, and apply the policy in its place."""
        lock_fd = self._take_lock()
        if lock_fd is None:
            self.loop.stop()  # another process acts on the container
            return
        self._lock_fd = lock_fd
        record_killed_run(self._paths)
        ended = ExitRecord.read(self._paths.exit_file)
        restarts = None
        if ended is not None and ended.started_at_ns:
            Recording(self._paths).record_end(
                {
                    "started_at_ns": ended.started_at_ns,
                    "finished_at_ns": ended.finished_at_ns,
                    "exit_code": ended.exit_code,
                    "oom_killed": ended.oom_killed,
                }
            )
        if ended is not None and not ended.stopped_by_hand:
            ran_seconds = (ended.finished_at_ns - ended.started_at_ns) / 1e9
            restarts = self._restarts.after(ended.exit_code, ran_seconds)
        if restarts is None or not ended or not ended.started_at_ns:
            self._paths.state_file.unlink(missing_ok=True)
            self._give_up_lock()
            self.loop.stop()
            return
        self._restarts = restarts
        self.write_restarting(ended.started_at_ns)
        self._begin_delay(lock_fd)
        self._is_free = True

    def write_restarting(self, started_at_ns: int) -> None:
        """Record that the container waits for its next run."""
        identity = ProcessIdentity.of(os.getpid())
        StateRecord(
            None, identity, started_at_ns, (), self.plan.executor, self._restarts.count, is_restarting=True
        ).write(self._paths.state_file)

    def _take_lock(self) -> int | None:
        """Take the lock of the killed supervisor, which another process may briefly hold to reap."""
        deadline = time.monotonic() + _LOCK_PATIENCE_SECONDS
        while time.monotonic() < deadline:
            try:
                lock_fd = container_status.take_lock(self._paths.lock_file, create=False)
            except OSError:
                return None  # the container has been removed
            if lock_fd is not None:
                if self._paths.data.is_dir():
                    return lock_fd
                os.close(lock_fd)
                return None
            if has_successor(StateRecord.read(self._paths.state_file), self._supervisor_pid):
                return None
            time.sleep(_LOCK_INTERVAL_SECONDS)
        return None

    def _give_up_lock(self) -> None:
        os.close(self._lock_fd)
        self._lock_fd = -1

    def _close_control(self) -> None:
        """Accept no more requests; a waiting client finds the next supervisor."""
        if self._control is not None:
            self._control.close_socket()
            for connection in list(self._control.connections):
                connection.close()
            self._control = None

    def _cancel(self, *, by_hand: bool) -> None:
        """Cancel further runs: record the end, and answer."""
        ended = self._last or ExitRecord(0, False, "", 0, 0)
        if by_hand:
            with suppress(OSError):  # a full disk
                replace(ended, stopped_by_hand=True).write(self._paths.exit_file)
        control, self._control = self._control, None
        if control is not None:
            control.close_socket()
        self._paths.state_file.unlink(missing_ok=True)
        self._give_up_lock()
        if control is not None:
            control.finish(ended.exit_code)
        self.loop.stop()

    def _on_due(self) -> None:
        if self._lock_fd >= 0:
            self._is_due = True
            self._start_if_due()

    def _start_if_due(self) -> None:
        if not (self._is_due and self._is_free):
            return
        self._close_control()
        link, child_link = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            pid = os.fork()
        except OSError as error:
            print(f"container {self.short_id}: not started again: {error.strerror}", file=sys.stderr)
            link.close()
            child_link.close()
            self._cancel(by_hand=False)
            return
        if pid == 0:
            link.close()
            self._supervise(child_link)
        child_link.close()
        self._supervisor_pid = pid
        self._give_up_lock()
        self._watch(link)

    def _supervise(self, link: socket.socket) -> NoReturn:
        """In the child: run as the supervisor of the next run."""
        try:
            # Only closed, not emptied: both processes share the loop's epoll instance (epoll(7)).
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            syscalls.close_except(link.fileno(), self._lock_fd)
            os.setsid()
            from pydock_core.supervision.supervisor_process import start_again

            # Read again: the last run may have been connected to other networks.
            start_again(read_plan(self._paths.plan_file), self._restarts, self._lock_fd, link)
        except BaseException:  # noqa: BLE001 - the process ends here; its log gets the traceback
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(0)

    # -- requests (control_server.Supervised) ------------------------------------------------------------

    def _refusal(self) -> ConflictError:
        return ConflictError(
            f"container {self.short_id} is restarting",
            f"wait until it runs, or end it: dock stop {self.short_id}",
        )

    def describe(self) -> StateReply:
        """Return the reply to "state"."""
        started = self._last.started_at_ns if self._last else 0
        return {"pid": 0, "started_at_ns": started, "ports": [], "status": "restarting"}

    def resize(self, rows: int, columns: int) -> None:
        """Refuse: there is no terminal between two runs."""
        raise self._refusal()

    def send_signal(self, number: int) -> None:
        """Cancel further runs on SIGKILL and the stop signal; refuse other signals."""
        if number not in (signal.SIGKILL, self.plan.stop_signal):
            raise self._refusal()
        self.loop.call_later(0, partial(self._cancel_once, by_hand=True))

    def stop(self, number: int | None, timeout_seconds: float | None) -> None:
        """Cancel further runs; the requester waits for the end, which follows."""
        self.loop.call_later(0, partial(self._cancel_once, by_hand=True))

    def _cancel_once(self, *, by_hand: bool) -> None:
        if self._lock_fd >= 0:
            self._cancel(by_hand=by_hand)

    def execute(self, process_document: Mapping[str, Any], stdio: Stdio | None) -> CreatedProcess:
        """Refuse: the container is between two runs."""
        raise self._refusal()

    def open_connections(self) -> Connections:
        """Refuse: there are no interfaces between two runs."""
        raise self._refusal()

    def record_pause(self, *, is_paused: bool) -> None:
        """Refuse: the container is between two runs."""
        raise self._refusal()

    def report(self, action: str, attributes: Mapping[str, str]) -> None:
        """Record an event of the container."""
        Recording(self._paths).record(action, attributes)

    def set_restart_policy(self, policy: RestartPolicy) -> None:
        """Change the policy for later ends; the pending run still starts."""
        self._restarts = replace(self._restarts, policy=policy)
