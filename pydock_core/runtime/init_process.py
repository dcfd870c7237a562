"""The role of a container's first process, init: from the fork to execve(2) of the user's program.

Its steps (the *caller* is the process that called ``create``):

1. in the caller's namespaces: die with the caller, take the standard streams and limits, open the mounts' sources;
2. make and join namespaces (with a user namespace, the caller writes the id maps, and init is forked again, as the
   caller's child);
3. mount everything below the new root, while the caller makes the control group; enter the control group;
4. run hooks, edit the root for devices, pivot_root(2), tell the caller "created";
5. wait for a connection on the start socket; then give up privileges and execute the program.  An error is sent on that
   connection; its end without an error means that execve(2) succeeded (close-on-exec).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gc
import mmap
import os
import signal
import socket
import termios
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from pydock_core import messages, syscalls
from pydock_core.errors import ConflictError, FailedError, PyDockError
from pydock_core.runtime import exec_report
from pydock_core.runtime.cgroups.group import enter
from pydock_core.runtime.cgroups.mount import mount_cgroup
from pydock_core.runtime.console import make_controlling, mount_console, open_console
from pydock_core.runtime.container_config import ContainerPlan
from pydock_core.runtime.devices import make_devices, make_links, open_host_devices
from pydock_core.runtime.executor import Stdio
from pydock_core.runtime.hooks import run_hooks
from pydock_core.runtime.inside import make_inside
from pydock_core.runtime.mount_options import MountPlan
from pydock_core.runtime.mounts import (
    enter_root,
    make_read_only,
    mask_paths,
    mount_plan,
    open_bind_source,
    open_root,
)
from pydock_core.runtime.namespaces import become_root, join_path, map_to_parent, open_path
from pydock_core.runtime.process_setup import (
    ProcessPlan,
    die_with_parent,
    enter_working_directory,
    execute_program,
    give_stdio,
    give_up_privileges,
    set_oom_score_adj,
    set_rlimits,
)

FAILURE = 125
_CATCHABLE = [number for number in range(1, 32) if number not in (signal.SIGKILL, signal.SIGSTOP)]


@dataclass(frozen=True, slots=True)
class InitContext:
    """The state of init from its fork on.

    Attributes:
        link: connection to the caller while the container is being created.
        parent_pidfd: of the process that init must not outlive; negative for none.
    """

    link: socket.socket
    parent_pidfd: int


@dataclass(frozen=True, slots=True)
class InitTask:
    """The container that init becomes.

    Attributes:
        state: OCI state for hooks; their runner fills in ``pid``.
        cgroup_directories: of the container's control group; empty if it has none.
        is_in_user_namespace: the caller cannot make device nodes.
        pid_file: file for the pid of the first process in another container's PID namespace; empty if none is joined.
    """

    plan: ContainerPlan
    state: Mapping[str, Any]
    cgroup_directories: Mapping[str, str]
    is_in_user_namespace: bool
    pid_file: str = ""


Received = tuple[InitTask, socket.socket, "Stdio | None"]
"""A task, the start socket (listening), and the streams of a process without a terminal."""


def guard_role(tell: Callable[[PyDockError], None], role: Callable[[], None]) -> NoReturn:
    """Run a forked process's role and end the process; pass every error to ``tell``."""
    try:
        gc.disable()  # a collection would touch, and so copy, every page that is shared with the parent
        role()
    except PyDockError as error:
        tell(error)
    except BaseException as error:  # noqa: BLE001 - no error may reach the inherited frames
        detail = error.strerror if isinstance(error, OSError) else repr(error)
        tell(FailedError(f"the container's process failed: {detail}"))
    finally:
        os._exit(FAILURE)


def run_init(context: InitContext, task: InitTask, listener: socket.socket, stdio: Stdio | None) -> NoReturn:
    """Run a container's init, in a process that the caller has just forked; never return."""

    def role() -> None:
        begin_process(context.parent_pidfd)
        take_stdio(stdio)
        _Init(context, task, listener).run()

    guard_role(partial(messages.send_error, context.link), role)


def run_waiting_init(context: InitContext, receive: Callable[[socket.socket], Received | None]) -> NoReturn:
    """Wait for a task as a spare init, then run a container's init; never return."""

    def role() -> None:
        begin_process(context.parent_pidfd)
        syscalls.close_except(*(fd for fd in (context.link.fileno(), context.parent_pidfd) if fd >= 0))
        received = receive(context.link)
        if received is None:
            return
        task, listener, stdio = received
        take_stdio(stdio)
        _Init(context, task, listener).run()

    guard_role(partial(messages.send_error, context.link), role)


def begin_process(parent_pidfd: int) -> None:
    """Give a forked process a clean state: undumpable, its own session, default signals."""
    # Before the container can see this process: CVE-2016-9962, CVE-2019-5736.
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    if parent_pidfd >= 0:
        die_with_parent(parent_pidfd)
    os.setsid()
    # Ignored signals stay ignored across execve(2); Python ignores two, and the caller may ignore more.
    for number in _CATCHABLE:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def take_stdio(stdio: Stdio | None) -> None:
    """Make three descriptors the standard streams; None leaves them for a terminal."""
    if stdio is not None:
        sources = (stdio.stdin_fd, stdio.stdout_fd, stdio.stderr_fd)
        # Copy them first: one of them may be 0, 1 or 2 itself.
        copies = [fcntl_dup(source) for source in sources]
        for target, copy in enumerate(copies):
            os.dup2(copy, target)


def fcntl_dup(descriptor: int) -> int:
    """Duplicate a descriptor to one above the standard streams, close-on-exec."""
    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)


def give_stdio_to_mapped(process: ProcessPlan, uid_mappings: Sequence[Mapping[str, Any]]) -> None:
    """Make the process's user the owner of the streams, before entering its user namespace, where that is not permitted."""
    uid = map_to_parent(process.uid, uid_mappings)
    if uid is not None and not process.terminal:
        give_stdio(uid, terminal=False)


def new_keyring() -> None:
    """Leave the caller's session keyring, if the kernel has keyrings."""
    try:
        syscalls.join_new_session_keyring()
    except OSError as error:
        if error.errno == errno.EDQUOT:
            raise FailedError(
                "the user's quota of keyrings is used up", "see /proc/sys/kernel/keys/maxkeys"
            ) from None
        if error.errno not in (errno.ENOSYS, errno.EPERM):
            raise


class _Init:
    def __init__(self, context: InitContext, task: InitTask, listener: socket.socket) -> None:
        self._context = context
        self._task = task
        self._plan = task.plan
        self._listener = listener
        self._bound: dict[int, int] = {}  # index in plan.mounts to detached mount
        self._devices: dict[str, int] = {}
        self._entrances: list[int] | None = None if task.cgroup_directories else []
        self._root_fd = -1
        self._slave_fd = -1
        self._reaper_fd = -1
        self._pid_fd = -1
        self._first_pid: mmap.mmap | None = None

    def run(self) -> None:
        plan, context = self._plan, self._context
        set_rlimits(plan.process)
        set_oom_score_adj(plan.process)
        new_keyring()
        if plan.uid_mappings:
            give_stdio_to_mapped(plan.process, plan.uid_mappings)
        if plan.personality is not None:
            syscalls.personality(plan.personality)
        if plan.has_reaper:
            # Late: few containers have one.  The import precedes the container's root filesystem and seccomp filter.
            from pydock_core.runtime.reaper.image import open_image

            self._reaper_fd = open_image()
        if self._task.pid_file:
            self._first_pid = _map_pid_file(self._task.pid_file)
        tree_fd = self._open_sources()
        self._enter_namespaces()
        master_fd = self._furnish(tree_fd)
        self._hooks_of_creation()
        enter_root(self._root_fd, read_only=plan.read_only, propagation=plan.propagation)
        messages.send(context.link, {"ok": True, "event": "created"}, [master_fd] if master_fd >= 0 else [])
        if master_fd >= 0:
            os.close(master_fd)
        # The caller no longer reads this end; its own end closes when it ends or gives up.
        connection = self._wait_for_start()
        context.link.close()
        guard_role(partial(messages.send_error, connection), partial(self._execute, connection))

    # -- 1: in the caller's namespaces -------------------------------------------------------------------

    def _open_sources(self) -> int:
        plan = self._plan
        tree_fd = open_root(plan.root, plan.propagation)
        for index, mount in enumerate(plan.mounts):
            if mount.is_bind:
                self._bound[index] = open_bind_source(mount, plan.bundle)
        if plan.namespaces.has("user") or self._task.is_in_user_namespace:
            self._devices = open_host_devices(plan.devices)
        return tree_fd

    # -- 2: namespaces -----------------------------------------------------------------------------------

    def _enter_namespaces(self) -> None:
        namespaces = self._plan.namespaces
        # Before the user namespace, which need not own them.
        for kind, path in namespaces.joined.items():
            if kind == "pid":
                self._pid_fd = open_path(kind, path)
            elif kind not in ("user", "cgroup"):
                join_path(kind, path)
        if namespaces.has("user"):
            self._enter_user_namespace()
        # A PID namespace came with the fork, or comes with the next one; the control group's after joining it.
        try:
            syscalls.unshare(namespaces.flags_of_new("user", "cgroup", "pid"))
        except OSError as error:
            raise _explain_unshare(error) from error
        if namespaces.needs_two_steps:
            self._fork_again()
        # Mounts made from here on must not propagate to the mount namespace that this one was copied from.
        syscalls.mount("none", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
        if self._plan.hostname:
            socket.sethostname(self._plan.hostname)
        if self._plan.domain_name:
            syscalls.set_domain_name(self._plan.domain_name)

    def _enter_user_namespace(self) -> None:
        namespaces = self._plan.namespaces
        if "user" in namespaces.joined:
            join_path("user", namespaces.joined["user"])
        else:
            try:
                syscalls.unshare(syscalls.CLONE_NEWUSER)
            except OSError as error:
                raise _explain_unshare(error) from error
            self._ask("map")
        become_root()
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
        if self._context.parent_pidfd >= 0:
            die_with_parent(self._context.parent_pidfd)

    def _fork_again(self) -> None:
        """Fork the real init, in the new PID and time namespaces, as a child of the caller."""
        flags = self._plan.namespaces.flags_of_new() & syscalls.CLONE_NEWPID
        pid = syscalls.fork(flags | syscalls.CLONE_PARENT)
        if pid:
            messages.send(self._context.link, {"ok": True, "event": "forked", "pid": pid})
            os._exit(0)
        os.setsid()
        if self._context.parent_pidfd >= 0:
            die_with_parent(self._context.parent_pidfd)
        self._expect("forked")

    # -- talking to the caller ---------------------------------------------------------------------------

    def _ask(self, event: str) -> None:
        messages.send(self._context.link, {"ok": True, "event": event})
        self._expect(event)

    def _expect(self, event: str) -> None:
        while True:
            received = messages.receive(self._context.link)
            if received is None:
                os._exit(FAILURE)  # the caller is gone or has given up
            answer = received[0].get("event")
            if answer == "group":
                self._entrances = received[1]
            if answer == event:
                return

    def _enter_cgroup_namespace(self) -> None:
        """Enter the control group, which the caller has made by now; it becomes the root of the cgroup namespace."""
        if self._entrances is None:
            self._expect("group")
        enter(self._entrances or ())
        messages.close_all(self._entrances or ())
        namespaces = self._plan.namespaces
        if "cgroup" in namespaces.joined:
            join_path("cgroup", namespaces.joined["cgroup"])
        elif "cgroup" in namespaces.new:
            syscalls.unshare(syscalls.CLONE_NEWCGROUP)

    # -- 3: mounts and devices ---------------------------------------------------------------------------

    def _furnish(self, tree_fd: int) -> int:
        """Mount everything below the root; return the terminal's master, or -1."""
        plan = self._plan
        self._attach_root(tree_fd)
        own_dev = False
        later_read_only: list[str] = []
        groups: list[MountPlan] = []
        for index, mount in enumerate(plan.mounts):
            if mount.kind in ("cgroup", "cgroup2"):
                groups.append(mount)
                continue
            attributes = None
            if mount.destination.rstrip("/") == "/dev":
                own_dev = not mount.is_bind
                if own_dev and mount.attributes_set & syscalls.MOUNT_ATTR_RDONLY:
                    attributes = mount.attributes_set & ~syscalls.MOUNT_ATTR_RDONLY
                    later_read_only.append(mount.destination)
            mount_plan(self._root_fd, mount, self._bound.get(index), attributes=attributes)
        if own_dev:
            make_devices(self._root_fd, plan.devices, self._devices)
            make_links(self._root_fd)
        master_fd = -1
        if plan.process.terminal:
            master_fd, self._slave_fd = open_console(self._root_fd, plan.process.console_size)
            if own_dev:
                mount_console(self._root_fd, self._slave_fd)
        self._make_working_directory()
        for key, value in plan.sysctl.items():
            _write_sysctl(key, value)
        self._enter_cgroup_namespace()
        for mount in groups:
            mount_cgroup(self._root_fd, mount, self._task.cgroup_directories)
        mask_paths(self._root_fd, plan.masked_paths)
        make_read_only(self._root_fd, (*later_read_only, *plan.read_only_paths))
        return master_fd

    def _make_working_directory(self) -> None:
        """Create a missing working directory, as crun and runc do; entering it reports a failure."""
        cwd = self._plan.process.cwd
        if cwd != "/":
            with contextlib.suppress(OSError):
                os.close(make_inside(self._root_fd, cwd, directory=True))

    def _attach_root(self, tree_fd: int) -> None:
        """Attach the root's tree at the bundle's root path, which hooks use; if that is impossible, on "/"."""
        flags = syscalls.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
        try:
            target_fd = os.open(self._plan.root, flags)
        except PermissionError:
            # In a user namespace, root may lack permission to traverse the host's directories.
            target_fd = os.open("/", flags)
        try:
            syscalls.move_mount(tree_fd, target_fd)
        except OSError as error:
            raise FailedError(f"the root filesystem {self._plan.root}: {error.strerror}") from error
        finally:
            os.close(target_fd)
        self._root_fd = tree_fd

    # -- 4: hooks ----------------------------------------------------------------------------------------

    def _hooks_of_creation(self) -> None:
        hooks = self._plan.hooks
        if hooks.get("prestart") or hooks.get("createRuntime"):
            self._ask("hooks")
        if self._plan.root_edits is not None:
            from pydock_core.runtime.root_edit import apply_edits  # late: few containers have devices

            apply_edits(self._root_fd, self._plan.root_edits)
        run_hooks(hooks, "createContainer", {**self._task.state, "pid": os.getpid()})

    # -- 5: start ----------------------------------------------------------------------------------------

    def _wait_for_start(self) -> socket.socket:
        self._listener.setblocking(True)
        connection, _ = self._listener.accept()
        return connection

    def _execute(self, connection: socket.socket) -> None:
        plan = self._plan
        state = {**self._task.state, "status": "created", "pid": os.getpid()}
        run_hooks(plan.hooks, "startContainer", state)
        if self._pid_fd >= 0:
            # For its children only, and after the hooks.
            syscalls.setns(self._pid_fd, syscalls.CLONE_NEWPID)
        if self._slave_fd >= 0:
            make_controlling(self._slave_fd, has_session=self._pid_fd < 0)
        has_entered = become_process(plan.process, self._context.parent_pidfd)
        if self._pid_fd >= 0:
            self._execute_inside(connection, has_entered)
        syscalls.close_range(3, flags=syscalls.CLOSE_RANGE_CLOEXEC)
        if plan.has_reaper:
            run_below_reaper(plan.process, self._reaper_fd, has_entered=has_entered)
        run_program(plan.process, has_entered=has_entered)

    def _execute_inside(self, connection: socket.socket, has_entered: bool) -> NoReturn:
        """Execute the program in a child, which is born in another container's PID namespace.

        As in :mod:`pydock_core.runtime.exec_process`, that container sees only the child, in its final form and without
        descriptors of the host; what it writes to the pipe is hostile.
        """
        assert self._first_pid is not None
        self._first_pid.madvise(mmap.MADV_DONTFORK)
        report_fd, write_fd = os.pipe2(os.O_CLOEXEC)
        messages.send(connection, {"ok": True, "event": "executing"}, [report_fd])
        syscalls.close_except(write_fd, *([self._reaper_fd] if self._reaper_fd >= 0 else []))
        guard_role(partial(exec_report.send, write_fd), partial(self._fork_inside, has_entered))

    def _fork_inside(self, has_entered: bool) -> None:
        plan = self._plan
        try:
            pid = syscalls.fork(syscalls.CLONE_PARENT)
        except OSError as error:
            if error.errno == errno.ENOMEM:
                # The PID namespace accepts no more processes, because its init has ended.
                raise ConflictError("the container whose PID namespace is joined has just ended") from None
            raise
        if pid:
            assert self._first_pid is not None
            self._first_pid[:4] = pid.to_bytes(4, "little")
            os._exit(0)
        os.setsid()
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid():  # the parent, which has no pid in this namespace, has ended before
            os._exit(FAILURE)
        if plan.process.terminal:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        if plan.has_reaper:
            run_below_reaper(plan.process, self._reaper_fd, has_entered=has_entered)
        run_program(plan.process, has_entered=has_entered)


def _map_pid_file(path: str) -> mmap.mmap:
    """Make the file by which the caller learns a pid, and map it: the mapping outlives the change of the root."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.ftruncate(fd, mmap.PAGESIZE)
        return mmap.mmap(fd, mmap.PAGESIZE)
    finally:
        os.close(fd)


def read_pid_file(path: Path) -> int:
    """Return the pid of the container's first process in another container's PID namespace; 0 if there is none."""
    return int.from_bytes(path.read_bytes()[:4], "little")


def become_process(process: ProcessPlan, parent_pidfd: int) -> bool:
    """Apply all settings of the process object.

    Returns:
        Whether the working directory has been entered; otherwise :func:`run_program` enters it.
    """
    give_stdio(process.uid, terminal=process.terminal)
    has_entered = False
    # As in runc: a directory that only root may enter is entered before the privileges are given up, one that
    # only the user may enter (on a network filesystem) afterwards.
    with contextlib.suppress(PyDockError):
        enter_working_directory(process)
        has_entered = True
    give_up_privileges(process, parent_pidfd)
    return has_entered


def run_program(process: ProcessPlan, *, has_entered: bool) -> NoReturn:
    """Execute the program after :func:`become_process`; raises on failure."""
    if not has_entered:
        enter_working_directory(process)
    raise execute_program(process)


def run_below_reaper(process: ProcessPlan, image_fd: int, *, has_entered: bool) -> NoReturn:
    """Execute the program in a child and the reaper in this process; an error is raised in the failing process.

    See :mod:`pydock_core.runtime.reaper.image`.
    """
    from pydock_core.runtime.reaper.image import (
        finish_image,
    )  # loaded already, with the host's files in reach

    # It waits for signals; a blocked signal stays pending, even one that the first process would ignore by default.
    signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
    if os.getpid() != 1:  # in a shared PID namespace
        syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
    # The protection ends at the reaper's execution; before, the program could read this process (proc_pid_mem(5)).
    executed_fd, executes_fd = os.pipe2(os.O_CLOEXEC)
    try:
        pid = os.fork()
    except OSError as error:
        raise FailedError(
            f"--init: the container takes no second process: {error.strerror}", "raise --pids-limit"
        ) from error
    if pid == 0:
        os.close(executes_fd)
        os.read(executed_fd, 1)
        os.setpgid(0, 0)
        if process.terminal:
            os.tcsetpgrp(0, os.getpid())
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        run_program(process, has_entered=has_entered)
    finish_image(image_fd, pid)
    try:
        os.execve(image_fd, ["init", "--", *process.arguments], {})
    except OSError as error:
        raise FailedError(f"--init: cannot execute the init: {error.strerror}", "leave --init out") from error


def _write_sysctl(key: str, value: str) -> None:
    path = f"/proc/sys/{key.replace('.', '/')}"
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
    except OSError as error:
        raise FailedError(
            f"sysctl {key}={value} is refused: {error.strerror}",
            "check its name and value: sysctl -a lists those of the host",
        ) from error


def _explain_unshare(error: OSError) -> PyDockError:
    hint = {
        errno.EPERM: "run as root, or let this user make user namespaces; `dock doctor` says how",
        errno.ENOSPC: "the limits in /proc/sys/user/max_*_namespaces are reached",
        errno.EUSERS: "user namespaces are nested too deeply",
        errno.EINVAL: "the kernel was built without one of the kinds of namespaces",
    }.get(error.errno or 0, "")
    return FailedError(f"cannot make the container's namespaces: {error.strerror}", hint)
