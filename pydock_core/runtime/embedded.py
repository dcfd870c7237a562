"""The embedded executor: creates containers from OCI bundles with system calls, in the calling process.

The caller must be single-threaded, because it forks without execve(2), and should be a child subreaper.  Slow
computations happen before the fork, and the control group is made while init mounts.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pydock_core import messages
from pydock_core.errors import ConflictError, FailedError, InvalidError, NotFoundError, PyDockError
from pydock_core.private_files import make_directories
from pydock_core.runtime import exec_report
from pydock_core.runtime.cgroups import CgroupStats
from pydock_core.runtime.container_config import compile_filter, load_plan, read_config
from pydock_core.runtime.container_state import ContainerRecord, build_oci_state
from pydock_core.runtime.creation import PID_FILE, START_SOCKET, make, noting_failure, plan_group
from pydock_core.runtime.exec_caller import ExecTarget, read_report
from pydock_core.runtime.exec_caller import execute as execute_process
from pydock_core.runtime.executor import CreatedProcess, Stdio
from pydock_core.runtime.hooks import run_hooks_quietly
from pydock_core.runtime.init_process import read_pid_file
from pydock_core.runtime.killing import GONE, child_state, kill_and_reap, kill_and_wait
from pydock_core.runtime.namespaces import NamespacePlan
from pydock_core.runtime.process_identity import ProcessIdentity
from pydock_core.runtime.process_setup import ProcessPlan
from pydock_core.runtime.spare_init import SpareInit


class EmbeddedExecutor:
    """See :class:`pydock_core.runtime.executor.Executor`, the protocol.

    Args:
        state_dir: holds one directory per container; created if it is missing (0700).
        cache_dir: keeps compiled seccomp filters; None keeps them in memory only.
        die_with_parent: the container's processes are killed when the process that created them ends.
        exec_patience_seconds: the time limit for an exec process until it executes its program.
    """

    name = "embedded"

    def __init__(
        self,
        state_dir: Path,
        cache_dir: Path | None = None,
        *,
        die_with_parent: bool = True,
        exec_patience_seconds: float = 10.0,
    ) -> None:
        self._state_dir = state_dir
        self._cache_dir = cache_dir
        self._die_with_parent = die_with_parent
        self._exec_patience_seconds = exec_patience_seconds
        self._executed: dict[
            str, set[int]
        ] = {}  # container to pids of further processes, children of this one

    # -- create ------------------------------------------------------------------------------------------

    def create(
        self,
        bundle: Path,
        container_id: str,
        stdio: Stdio | None,
        spare: SpareInit | None = None,
        on_planned: Callable[[], None] | None = None,
    ) -> CreatedProcess:
        """Create the container of ``bundle``; its init waits for :meth:`start`.

        Args:
            spare: a process that becomes init if it fits the bundle, and ends otherwise.  Init is then a child of the
                spare's parent.
            on_planned: called after the bundle has been read, before anything is created.

        Raises:
            ConflictError: a container with this id exists.
            PyDockError: the creation failed, and all its parts have been removed.
        """
        plan = load_plan(bundle.absolute(), self._cache_dir)
        if plan.process.terminal != (stdio is None):
            raise InvalidError("a process has either a terminal or three streams")
        group = plan_group(plan, container_id)
        if on_planned is not None:
            on_planned()
        directory = self._directory(container_id)
        make_directories(directory.parent)
        try:
            directory.mkdir(mode=0o700)
        except FileExistsError:
            raise ConflictError(f"container {container_id} exists already", "delete it first") from None
        record = ContainerRecord(
            container_id=container_id,
            bundle=str(plan.bundle),
            init=None,
            namespaces=tuple(sorted(plan.namespaces.new | plan.namespaces.joined.keys())),
            cgroup=group.directories if group is not None else {},
            has_hooks=bool(plan.hooks),
            joins_pid=plan.namespaces.joins_pid,
        )
        try:
            return make(plan, record, group, directory, stdio, spare, die_with_parent=self._die_with_parent)
        except BaseException as error:
            with noting_failure(error):
                self._remove(ContainerRecord.read(directory) or record, directory)
            if isinstance(error, OSError):
                raise FailedError(f"cannot create container {container_id}: {error.strerror}") from error
            raise

    # -- start, execute, kill ----------------------------------------------------------------------------

    def start(self, container_id: str) -> None:
        """Let the created container's init execute the user's process.

        Raises:
            NotFoundError: no such container; or, with exit code 127, no such command.
            ConflictError: the container has been started already, or has ended.
            PyDockError: with exit code 126, the command cannot be executed.
        """
        record, directory = self._read(container_id)
        try:
            connection = messages.connect(str(directory / START_SOCKET))
        except OSError:
            raise ConflictError(f"container {container_id} is not waiting to be started") from None
        with connection:
            # One start only: a second one finds no socket.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(directory / START_SOCKET)
            report_fd = _read_until_end(connection)
        if report_fd >= 0:
            self._finish_inside(record, directory, report_fd)
        config = self._read_hooks(record)
        if config.get("hooks"):
            run_hooks_quietly(config["hooks"], "poststart", build_oci_state(record, "running", config))

    def _finish_inside(self, record: ContainerRecord, directory: Path, report_fd: int) -> None:
        """Wait until the process in another container's PID namespace executes its program; it is the container's init.

        That container may stop it, and write to its report pipe.
        """
        try:
            report = read_report(report_fd, time.monotonic() + self._exec_patience_seconds)
        finally:
            os.close(report_fd)
        if report:
            raise exec_report.parse(report)
        pid = read_pid_file(directory / PID_FILE)
        if not pid:
            raise FailedError("the container's first process ended before it executed its program")
        with contextlib.suppress(ProcessLookupError):  # it has ended, and its parent has reaped it
            record.with_init(ProcessIdentity.of(pid)).write(directory)

    def init_pid(self, container_id: str) -> int:
        """Return the pid of a container's init, which :meth:`start` replaces in another container's PID namespace."""
        record, _ = self._read(container_id)
        return record.init.pid if record.init is not None else 0

    def execute(self, container_id: str, process: Mapping[str, Any], stdio: Stdio | None) -> CreatedProcess:
        """Run an additional process; ``process`` is an OCI process object.

        Raises:
            NotFoundError: no such container; or, with exit code 127, no such command.
            ConflictError: the container is not running.
            PyDockError: with exit code 126, the command cannot be executed.
        """
        record, directory = self._read(container_id)
        config = read_config(Path(record.bundle))
        try:
            plan = ProcessPlan.from_config(
                process, compile_filter(config.get("linux") or {}, self._cache_dir)
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidError(f"the process object is malformed: {error!r}") from error
        if plan.terminal != (stdio is None):
            raise InvalidError("a process has either a terminal or three streams")
        # An init that waits for its start still has all privileges: no process of the container may run beside it.
        is_started = not os.path.exists(f"{directory}/{START_SOCKET}")
        init_pidfd = record.init.open() if record.init is not None and is_started else None
        if init_pidfd is None:
            raise ConflictError(f"container {container_id} is not running", "start it first")
        try:
            mappings = (config.get("linux") or {}).get("uidMappings") or ()
            return self._execute(record, plan, init_pidfd, mappings, stdio)
        except OSError as error:
            raise FailedError(f"container {container_id}: exec failed: {error.strerror}") from error
        finally:
            os.close(init_pidfd)

    def _execute(
        self,
        record: ContainerRecord,
        plan: ProcessPlan,
        init_pidfd: int,
        uid_mappings: Sequence[Mapping[str, Any]],
        stdio: Stdio | None,
    ) -> CreatedProcess:
        group = record.find_cgroup()
        if group is not None and group.is_frozen():
            raise ConflictError(
                f"container {record.container_id} is frozen: a process that enters it would stop",
                "it has frozen its own control group; dock kill ends it",
            )
        entrances = group.open_entrances() if group is not None else []
        executed = self._executed.setdefault(record.container_id, set())
        target = ExecTarget(
            init_pidfd=init_pidfd,
            namespaces=NamespacePlan(frozenset(record.namespaces), {}).flags_of_all(),
            cgroup_entrances=entrances,
            uid_mappings=uid_mappings,
            patience_seconds=self._exec_patience_seconds,
            kill=partial(kill_and_reap, group=group, left=executed),
        )
        try:
            created = execute_process(target, plan, stdio, die_with_caller=self._die_with_parent)
        finally:
            messages.close_all(entrances)
        executed -= {other for other in executed if child_state(other) == GONE}
        executed.add(created.pid)
        return created

    def kill(self, container_id: str, signal_number: int, *, all_processes: bool = False) -> None:
        """Send a signal to init, or to every process of the container; ignore a stopped container."""
        record, _ = self._read(container_id)
        group = record.find_cgroup() if all_processes or signal_number == signal.SIGKILL else None
        if group is not None and signal_number == signal.SIGKILL:
            # The container ends with its init, so kill all of it; only the control group kills frozen processes.
            group.kill()  # init may have left the group: it gets the signal below
        elif group is not None:
            for pid in group.list_pids():
                try:
                    os.kill(pid, signal_number)
                except ProcessLookupError:
                    continue
                except OSError as error:
                    raise FailedError(f"container {container_id}: process {pid}: {error.strerror}") from error
            return
        init_pidfd = record.init.open() if record.init is not None else None
        if init_pidfd is None:
            return
        try:
            signal.pidfd_send_signal(init_pidfd, signal_number)
        except ProcessLookupError:
            pass
        except OSError as error:
            raise FailedError(
                f"container {container_id}: signal {signal_number}: {error.strerror}"
            ) from error
        finally:
            os.close(init_pidfd)

    # -- delete, figures ---------------------------------------------------------------------------------

    def delete(self, container_id: str) -> None:
        """Remove the container, and kill its remaining processes; ignore a container that is gone."""
        directory = self._directory(container_id)
        record = ContainerRecord.read(directory)
        if record is None:
            import shutil  # late: it loads every compression, and is rarely needed

            shutil.rmtree(directory, ignore_errors=True)
            return
        config = self._read_hooks(record)
        try:
            self._remove(record, directory, self._executed.pop(container_id, set()))
        except OSError as error:
            raise FailedError(f"cannot delete container {container_id}: {error.strerror}") from error
        if config.get("hooks"):
            run_hooks_quietly(config["hooks"], "poststop", build_oci_state(record, "stopped", config))

    def _remove(self, record: ContainerRecord, directory: Path, executed: Collection[int] = ()) -> None:
        init_pidfd = record.init.open() if record.init is not None else None
        group = record.find_cgroup()
        if init_pidfd is not None:
            try:
                kill_and_wait(init_pidfd, group, executed)
            finally:
                os.close(init_pidfd)
        if group is not None:
            # With a PID namespace of its own nothing survived init: pid_namespaces(7).
            if "pid" not in record.namespaces or record.joins_pid or record.init is None:
                group.kill()
            group.delete()
        ContainerRecord.remove(directory, START_SOCKET, PID_FILE)

    def read_stats(self, container_id: str) -> CgroupStats:
        """Read the statistics of the container's control group; all None if it has none."""
        group = self._read(container_id)[0].find_cgroup()
        return group.read_stats() if group is not None else CgroupStats()

    def is_oom_killed(self, container_id: str) -> bool:
        """Whether a process of the container was killed because memory ran out; call this before :meth:`delete`."""
        return bool(self.read_stats(container_id).oom_kills)

    # -- state -------------------------------------------------------------------------------------------

    def _directory(self, container_id: str) -> Path:
        if not container_id or "/" in container_id or container_id in (".", ".."):
            raise InvalidError(f"{container_id!r} cannot name a container")
        return self._state_dir / container_id

    def _read(self, container_id: str) -> tuple[ContainerRecord, Path]:
        directory = self._directory(container_id)
        record = ContainerRecord.read(directory)
        if record is None:
            raise NotFoundError(f"there is no container {container_id}")
        return record, directory

    def _read_hooks(self, record: ContainerRecord) -> dict[str, Any]:
        if not record.has_hooks:
            return {}
        try:
            return read_config(Path(record.bundle))
        except PyDockError:
            return {}  # the bundle has gone before the container


def _read_until_end(connection: socket.socket) -> int:
    """Read until the other side executes its program, or sends the pipe for the rest; raise the error that it sent.

    Returns:
        the pipe; -1 if there is none.
    """
    report_fd = -1
    with contextlib.suppress(ConnectionResetError):  # it was killed
        while (received := messages.receive(connection)) is not None:
            document, fds = received
            if document.get("event") == "executing" and fds:
                report_fd = fds.pop()
            messages.close_all(fds)
            messages.checked(document)
    return report_fd
