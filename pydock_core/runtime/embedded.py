"""The embedded executor: makes containers out of OCI bundles with system calls, in the calling process.

The caller must have one thread (it forks without executing anew) and should be a child subreaper.  What is
slow to find out is found out before the fork, and the control group is made while init mounts.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pydock_core import messages, syscalls
from pydock_core.errors import ConflictError, FailedError, InvalidError, NotFoundError, PyDockError
from pydock_core.private_files import make_directories
from pydock_core.runtime import capabilities, reaping
from pydock_core.runtime.cgroups import CgroupStats, ContainerCgroup, plan_cgroup
from pydock_core.runtime.cgroups.conversion import has_limits
from pydock_core.runtime.container_config import ContainerPlan, compile_filter, load_plan, read_config
from pydock_core.runtime.container_state import ContainerRecord, build_oci_state
from pydock_core.runtime.exec_caller import ExecTarget
from pydock_core.runtime.exec_caller import execute as execute_process
from pydock_core.runtime.executor import CreatedProcess, Stdio, do_nothing
from pydock_core.runtime.hooks import run_hooks, run_hooks_quietly
from pydock_core.runtime.init_process import InitContext, run_init
from pydock_core.runtime.namespaces import (
    NamespacePlan,
    is_in_user_namespace,
    write_id_maps,
)
from pydock_core.runtime.process_identity import ProcessIdentity
from pydock_core.runtime.process_setup import ProcessPlan

_DEATH_TIMEOUT_SECONDS = 10.0
_DEATH_POLL_MS = 5
_START_SOCKET = "start.sock"


class EmbeddedExecutor:
    """See :class:`pydock_core.runtime.executor.Executor`, the protocol.

    Args:
        state_dir: holds one directory for each container; made where it is missing (0700).
        cache_dir: keeps compiled seccomp filters; None keeps them in memory only.
        die_with_parent: the container's processes are killed when the process that made them ends.
        exec_patience_seconds: how long a further process may take until it executes its program.
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
        meanwhile: Callable[[], None] = do_nothing,
    ) -> CreatedProcess:
        """Make the container of ``bundle``; its init waits for :meth:`start`.

        Raises:
            ConflictError: a container of this name exists.
            PyDockError: why it could not be made; what had been made is gone again.
        """
        plan = load_plan(bundle.absolute(), self._cache_dir)
        if plan.process.terminal != (stdio is None):
            raise InvalidError("a process has either a terminal or three streams")
        group = self._plan_group(plan, container_id)
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
        )
        try:
            return self._make(plan, record, group, directory, stdio, meanwhile)
        except BaseException as error:
            with _noting_failure(error):
                self._remove(ContainerRecord.read(directory) or record, directory)
            if isinstance(error, OSError):
                raise FailedError(f"container {container_id} cannot be made: {error.strerror}") from error
            raise

    def _plan_group(self, plan: ContainerPlan, container_id: str) -> ContainerCgroup | None:
        if not plan.cgroups_path and not has_limits(plan.resources):
            return None
        process = plan.process
        # Without a filter, a process gets CAP_SYS_ADMIN in a user namespace that it makes (CVE-2022-0492).
        can_mount = (
            process.masks is None
            or process.seccomp is None
            or capabilities.holds(process.masks["bounding"], "CAP_SYS_ADMIN")
        )
        return plan_cgroup(
            plan.cgroups_path or f"/pydock/{container_id}", plan.resources, can_mount=can_mount
        )

    def _make(
        self,
        plan: ContainerPlan,
        record: ContainerRecord,
        group: ContainerCgroup | None,
        directory: Path,
        stdio: Stdio | None,
        meanwhile: Callable[[], None],
    ) -> CreatedProcess:
        link, child_link = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        parent_pidfd = os.pidfd_open(os.getpid()) if self._die_with_parent else -1
        try:
            with link, child_link, messages.listen(str(directory / _START_SOCKET), 1) as listener:
                context = InitContext(
                    plan=plan,
                    link=child_link,
                    start_listener=listener,
                    parent_pidfd=parent_pidfd,
                    stdio=stdio,
                    state=build_oci_state(record, "creating", plan.document),
                    cgroup_directories=record.cgroup,
                    is_in_user_namespace=is_in_user_namespace(),
                )
                # A user namespace has to own the PID namespace: then init makes it later, and forks again.
                own_pids = "pid" in plan.namespaces.new and not plan.namespaces.needs_two_steps
                pid = syscalls.fork(syscalls.CLONE_NEWPID if own_pids else 0)
                if pid == 0:
                    run_init(context)
                child_link.close()
                listener.close()
                making = _Making(plan, record, directory, group, link, pid)
                try:
                    making.begin()
                    meanwhile()
                    return making.follow()
                except BaseException as error:
                    with _noting_failure(error):
                        making.abandon()
                    raise
        finally:
            if parent_pidfd >= 0:
                os.close(parent_pidfd)

    # -- start, execute, kill ----------------------------------------------------------------------------

    def start(self, container_id: str) -> None:
        """Let the created container's init execute the user's process.

        Raises:
            NotFoundError: no such container; or, with exit code 127, no such command.
            ConflictError: it has been started already, or has ended.
            PyDockError: with exit code 126, the command cannot be executed.
        """
        record, directory = self._read(container_id)
        try:
            connection = messages.connect(str(directory / _START_SOCKET))
        except OSError:
            raise ConflictError(f"container {container_id} is not waiting to be started") from None
        with connection:
            # One start only: a second one finds no socket.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(directory / _START_SOCKET)
            _read_until_end(connection)
        config = self._read_hooks(record)
        if config.get("hooks"):
            run_hooks_quietly(config["hooks"], "poststart", build_oci_state(record, "running", config))

    def execute(self, container_id: str, process: Mapping[str, Any], stdio: Stdio | None) -> CreatedProcess:
        """Run a further process; ``process`` is an OCI process object.

        Raises:
            NotFoundError: no such container; or, with exit code 127, no such command.
            ConflictError: the container does not run.
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
        # An init that waits for its start still has all rights: nothing of the container may run beside it.
        is_started = not os.path.exists(f"{directory}/{_START_SOCKET}")
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
                "it has frozen its own control group; dock kill ends it all the same",
            )
        entrances = group.open_entrances() if group is not None else []
        executed = self._executed.setdefault(record.container_id, set())
        target = ExecTarget(
            init_pidfd=init_pidfd,
            namespaces=NamespacePlan(frozenset(record.namespaces), {}).flags_of_all(),
            cgroup_entrances=entrances,
            uid_mappings=uid_mappings,
            patience_seconds=self._exec_patience_seconds,
            kill=partial(_kill_and_reap, group=group, left=executed),
        )
        try:
            created = execute_process(target, plan, stdio, die_with_caller=self._die_with_parent)
        finally:
            messages.close_all(entrances)
        executed -= {other for other in executed if _child_state(other) == _GONE}
        executed.add(created.pid)
        return created

    def kill(self, container_id: str, signal_number: int, *, all_processes: bool = False) -> None:
        """Send a signal to init, or to every process of the container; a stopped one is not an error."""
        record, _ = self._read(container_id)
        group = record.find_cgroup() if all_processes or signal_number == signal.SIGKILL else None
        if group is not None and signal_number == signal.SIGKILL:
            # With init the container ends, so all of it is meant; and only the group kills what is frozen.
            group.kill()  # and init below, which may have left the group
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
        """Remove what is left of the container; kills what still runs.  One that is gone is not an error."""
        directory = self._directory(container_id)
        record = ContainerRecord.read(directory)
        if record is None:
            import shutil  # late: it brings every compression along, and this is rare

            shutil.rmtree(directory, ignore_errors=True)
            return
        config = self._read_hooks(record)
        try:
            self._remove(record, directory, self._executed.pop(container_id, set()))
        except OSError as error:
            raise FailedError(f"container {container_id} cannot be deleted: {error.strerror}") from error
        if config.get("hooks"):
            run_hooks_quietly(config["hooks"], "poststop", build_oci_state(record, "stopped", config))

    def _remove(self, record: ContainerRecord, directory: Path, executed: Collection[int] = ()) -> None:
        init_pidfd = record.init.open() if record.init is not None else None
        group = record.find_cgroup()
        if init_pidfd is not None:
            try:
                _kill_and_wait(init_pidfd, group, executed)
            finally:
                os.close(init_pidfd)
        if group is not None:
            # With a PID namespace of its own nothing survived init: pid_namespaces(7).
            if "pid" not in record.namespaces or record.init is None:
                group.kill()
            group.delete()
        ContainerRecord.remove(directory, _START_SOCKET)

    def read_stats(self, container_id: str) -> CgroupStats:
        """Read the figures of the container's control group; all None where it has none."""
        group = self._read(container_id)[0].find_cgroup()
        return group.read_stats() if group is not None else CgroupStats()

    def is_oom_killed(self, container_id: str) -> bool:
        """Whether a process of the container was killed for memory; ask before :meth:`delete`."""
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


class _Making:
    """The caller's side of a creation: answers init's messages until it says "created"."""

    def __init__(
        self,
        plan: ContainerPlan,
        record: ContainerRecord,
        directory: Path,
        group: ContainerCgroup | None,
        link: socket.socket,
        pid: int,
    ) -> None:
        self._plan = plan
        self._record = record
        self._directory = directory
        self._group = group
        self._link = link
        self._pid = pid
        self._console_fd: int | None = None

    def begin(self) -> None:
        # Written before the control group is made, so that delete() finds all there is after a crash.
        self._write_record()
        if self._group is not None:
            self._group.create()
            self._open_group(self._group)

    def follow(self) -> CreatedProcess:
        while True:
            received = messages.receive(self._link)
            if received is None:
                raise FailedError("the container's first process ended before it was ready")
            document, fds = received
            self._console_fd = fds[0] if fds else None
            event = messages.checked(document)["event"]
            if event == "created":
                return CreatedProcess(self._pid, self._console_fd)
            self._answer(event, document)

    def _answer(self, event: str, document: Mapping[str, Any]) -> None:
        if event == "map":
            write_id_maps(self._pid, self._plan.uid_mappings, self._plan.gid_mappings)
            self._say("map")
        elif event == "forked":
            between, self._pid = self._pid, int(document["pid"])
            os.waitpid(between, 0)
            self._write_record()
            self._say("forked")
        elif event == "hooks":
            state = build_oci_state(self._record, "creating", self._plan.document)
            run_hooks(self._plan.hooks, "prestart", state)
            run_hooks(self._plan.hooks, "createRuntime", state)
            self._say("hooks")

    def _write_record(self) -> None:
        with contextlib.suppress(ProcessLookupError):  # init has ended: why is still to be read
            self._record = self._record.with_init(ProcessIdentity.of(self._pid))
        self._record.write(self._directory)

    def _open_group(self, group: ContainerCgroup) -> None:
        entrances = group.open_entrances()
        try:
            self._say("group", entrances)
        finally:
            messages.close_all(entrances)

    def _say(self, event: str, fds: Sequence[int] = ()) -> None:
        try:
            messages.send(self._link, {"event": event}, fds)
        except BrokenPipeError:
            return  # init has ended: what it had to say is still to be read

    def abandon(self) -> None:
        messages.close_all([self._console_fd] if self._console_fd is not None else [])
        _kill_and_reap([self._pid], self._group)


def _read_until_end(connection: socket.socket) -> None:
    """Read until the other side executes its program; raise the error that came."""
    with contextlib.suppress(ConnectionResetError):  # it was killed
        while (received := messages.receive(connection)) is not None:
            messages.close_all(received[1])
            messages.checked(received[0])


def _kill_and_wait(pidfd: int, group: ContainerCgroup | None, executed: Collection[int] = ()) -> None:
    """Kill a process of a container and wait until it runs no more; reaping is its parent's business.

    An init waits for every process of its PID namespace to be reaped.  Those that ``execute`` made are children
    of this process, whose caller reaps them after this: where they are all that is left, init is as good as dead.
    """
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    deadline = time.monotonic() + _DEATH_TIMEOUT_SECONDS
    while not poll.poll(_DEATH_POLL_MS):
        states = {_child_state(pid) for pid in executed}
        if _ENDED in states and _RUNNING not in states:
            return
        if group is not None:
            group.thaw()  # each time: the container's processes may freeze one another while they die
        if time.monotonic() > deadline:
            raise FailedError(
                f"a process of the container does not die within {_DEATH_TIMEOUT_SECONDS:.0f} seconds"
            )


_GONE, _ENDED, _RUNNING = range(3)


def _child_state(pid: int) -> int:
    """Say whether a child of this process has been reaped, waits for that, or runs."""
    try:
        found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return _GONE
    return _RUNNING if found is None else _ENDED


def _kill_and_reap(pids: Iterable[int], group: ContainerCgroup | None, left: set[int] | None = None) -> None:
    """Kill children of this process and reap them, though they be frozen in a control group.

    Args:
        left: takes the pid of a child that has ended but that its tracer holds: the caller reaps it later, as it
            reaps every process that ``execute`` made.
    """
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            pidfd = os.pidfd_open(pid)
            try:
                _kill_and_wait(pidfd, group)
            finally:
                os.close(pidfd)
            if not reaping.reap(pid) and left is not None:
                left.add(pid)


@contextlib.contextmanager
def _noting_failure(primary: BaseException) -> Any:
    """Do the clean-up after an error; a failure of it becomes a note of that error."""
    try:
        yield
    except (PyDockError, OSError) as failure:
        primary.add_note(f"and the clean-up failed: {failure}")
