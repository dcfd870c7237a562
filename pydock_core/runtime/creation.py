"""The verb "create" of the embedded executor: from a checked bundle to an init that waits for its start.

The caller forks init, or uses the spare one (:mod:`pydock_core.runtime.spare_init`), makes the control group while init
mounts, and answers init's messages until it says "created".
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydock_core import messages, syscalls
from pydock_core.errors import FailedError, PyDockError
from pydock_core.runtime import capabilities, reaping
from pydock_core.runtime.cgroups import ContainerCgroup, plan_cgroup
from pydock_core.runtime.cgroups.conversion import has_limits
from pydock_core.runtime.container_config import ContainerPlan
from pydock_core.runtime.container_state import ContainerRecord, build_oci_state
from pydock_core.runtime.executor import CreatedProcess, Stdio
from pydock_core.runtime.hooks import run_hooks
from pydock_core.runtime.init_process import InitContext, InitTask, run_init
from pydock_core.runtime.killing import kill_and_reap
from pydock_core.runtime.namespaces import is_in_user_namespace, write_id_maps
from pydock_core.runtime.process_identity import ProcessIdentity
from pydock_core.runtime.spare_init import SpareInit

START_SOCKET = "start.sock"
"""The name of the socket, in the container's directory, on which init waits for its start."""
PID_FILE = "first-pid"
"""The file there by which init tells the pid of its successor in another container's PID namespace."""
_BETWEEN_SECONDS = 10.0


def plan_group(plan: ContainerPlan, container_id: str) -> ContainerCgroup | None:
    """Return the control group of a container; None if the bundle does not require one."""
    if not plan.cgroups_path and not has_limits(plan.resources):
        return None
    process = plan.process
    # Without a seccomp filter, a process can get CAP_SYS_ADMIN by making a user namespace (CVE-2022-0492).
    can_mount = (
        process.masks is None
        or process.seccomp is None
        or capabilities.holds(process.masks["bounding"], "CAP_SYS_ADMIN")
    )
    return plan_cgroup(plan.cgroups_path or f"/pydock/{container_id}", plan.resources, can_mount=can_mount)


def make(
    plan: ContainerPlan,
    record: ContainerRecord,
    group: ContainerCgroup | None,
    directory: Path,
    stdio: Stdio | None,
    spare: SpareInit | None,
    *,
    die_with_parent: bool,
) -> CreatedProcess:
    """Create a container in its existing directory; on an error, init is dead and the caller removes the other parts."""
    with messages.listen(str(directory / START_SOCKET), 1) as listener:
        task = InitTask(
            plan=plan,
            state=build_oci_state(record, "creating", plan.document),
            cgroup_directories=record.cgroup,
            is_in_user_namespace=is_in_user_namespace(),
            pid_file=str(directory / PID_FILE) if plan.namespaces.joins_pid else "",
        )
        if spare is not None and spare.take(task, listener, stdio):
            pid, link = spare.pid, spare.link
        else:
            if spare is not None:
                spare.discard()
            pid, link = _fork(task, listener, stdio, spare, die_with_parent=die_with_parent)
    with link:
        making = Making(plan, record, directory, group, link, pid)
        try:
            making.begin()
            return making.follow()
        except BaseException as error:
            with noting_failure(error):
                making.abandon()
            raise


def _fork(
    task: InitTask,
    listener: socket.socket,
    stdio: Stdio | None,
    spare: SpareInit | None,
    *,
    die_with_parent: bool,
) -> tuple[int, socket.socket]:
    """Fork init, as a child of the spare's parent if there is a spare; return its pid and the connection to it."""
    namespaces = task.plan.namespaces
    # A user namespace must own the PID namespace, so init then makes that later, and forks again.
    own_pids = "pid" in namespaces.new and not namespaces.needs_two_steps
    flags = (syscalls.CLONE_NEWPID if own_pids else 0) | (syscalls.CLONE_PARENT if spare is not None else 0)
    link, child_link = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    parent_pidfd = -1
    try:
        if spare is not None:
            parent_pidfd = os.dup(spare.parent_pidfd)
        elif die_with_parent:
            parent_pidfd = os.pidfd_open(os.getpid())
        pid = syscalls.fork(flags)
        if pid == 0:
            run_init(InitContext(child_link, parent_pidfd), task, listener, stdio)
    except BaseException:
        link.close()
        raise
    finally:
        child_link.close()
        if parent_pidfd >= 0:
            os.close(parent_pidfd)
    return pid, link


class Making:
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
        # Written before the control group is made, so that delete() finds everything after a crash.
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
            # It ends at once.  If init is a child of the caller's parent, so is this process, and the parent reaps it.
            reaping.has_ended(between, _BETWEEN_SECONDS)
            reaping.reap(between)
            self._write_record()
            self._say("forked")
        elif event == "hooks":
            state = build_oci_state(self._record, "creating", self._plan.document)
            run_hooks(self._plan.hooks, "prestart", state)
            run_hooks(self._plan.hooks, "createRuntime", state)
            self._say("hooks")

    def _write_record(self) -> None:
        with contextlib.suppress(ProcessLookupError):  # init has ended; its error is still to be read
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
            return  # init has ended; its error is still to be read

    def abandon(self) -> None:
        messages.close_all([self._console_fd] if self._console_fd is not None else [])
        kill_and_reap([self._pid], self._group)


@contextlib.contextmanager
def noting_failure(primary: BaseException) -> Iterator[None]:
    """Run a clean-up after an error, and note the clean-up's own failure on that error."""
    try:
        yield
    except (PyDockError, OSError) as failure:
        primary.add_note(f"and the clean-up failed: {failure}")
