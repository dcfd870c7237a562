"""The two processes of a supervisor: the supervisor itself, which stays, and its child, the starter, which ends after the start.

CPython writes a reference count into every object that it uses, so a forked process copies every page of its code that it
executes.  The supervisor waits for the starter's hand-over in one receive, and has copied nothing of the start.

- A starter that is killed takes the container along: the supervisor ends in the same way, and every process that the start has
  made dies with the supervisor.
- A killed supervisor takes the starter along (PR_SET_PDEATHSIG), which releases the lock.
- After a failed start the starter has undone everything; the supervisor reaps and ends.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the functions of signal make sets of enumeration members
import contextlib
import gc
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, cast

from pydock_core import messages, syscalls
from pydock_core.errors import FailedError, PyDockError
from pydock_core.runtime.mounts import make_tmpfs
from pydock_core.runtime.process_identity import ProcessIdentity, boot_id
from pydock_core.runtime.record_file import write_whole
from pydock_core.runtime.rehearsal import rehearse
from pydock_core.supervision import handover
from pydock_core.supervision.event_loop import EventLoop, Signals
from pydock_core.supervision.forkserver import Request
from pydock_core.supervision.plan import LaunchPlan, read_plan
from pydock_core.supervision.restart_policy import Restarts
from pydock_core.supervision.starter import Starter
from pydock_core.supervision.supervisor import Supervisor
from pydock_core.supervision.surroundings import Surroundings

if TYPE_CHECKING:
    from pydock_core.supervision.protocol import LaunchOrder, SuperviseRequest

_EMPTY_PLAN = (
    b'{"container_id": "rehearsal", "data_dir": "%b", "run_dir": "%b", "log_path": "%b/log.json",'
    b' "root_mounts": [], "network": {}, "ports": []}'
)
"""A literal, because building it would copy pages that starters do not need otherwise."""
_SPECIALIZING_RUNS = 10
_COLLECTION_THRESHOLD = 5000
"""Allocations between two collections: a start makes fewer, and a supervisor's garbage stays below 1 MiB."""
_REAPING_SECONDS = 2.0
_MOST_FDS = 1 << 20


def prepare(ahead: bool, unblock: Callable[[], None]) -> Callable[[Request], None]:
    """Prepare everything that all containers have in common; return, in the starter, the function for a "supervise" request.

    The calling process becomes the supervisor, and does not return.  The request's descriptors are the status socket and,
    with "attach", a stream.  The status socket then delivers the path of the launch plan, once the client has written it.

    Args:
        ahead: no client is waiting yet, so pages are copied too (:mod:`pydock_core.runtime.rehearsal`).
        unblock: called in the starter; see :class:`pydock_core.supervision.forkserver.Operation`.
    """
    try:
        link, problem = _fork_starter()
    except OSError as error:
        unblock()
        failure = FailedError(f"cannot fork the process that starts the container: {error.strerror}")
        return lambda request: _refuse(request, failure)
    unblock()
    surroundings = Surroundings(rehearse if ahead else None, problem)
    surroundings.enter()
    if ahead:
        _rehearse(surroundings)

    def start(request: Request) -> None:
        _start(request, link, surroundings)

    return start


def start_again(plan: LaunchPlan, restarts: Restarts, lock_fd: int, link: socket.socket) -> None:
    """Supervise a further run of a container; its keeper has forked this process, which becomes the supervisor.

    Args:
        restarts: the policy and its progress, including this restart.
        lock_fd: descriptor that holds the container's lock.
        link: the connection to the keeper.
    """
    keeper = ProcessIdentity.of(os.getppid())
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    supervisor_link, problem = _fork_starter()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    surroundings = Surroundings(problem=problem)
    surroundings.enter()
    status, client = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    client.close()
    starter = Starter(plan, status, supervisor_link, surroundings)
    starter.succession.join(restarts, link, keeper)
    starter.run(None, {}, lambda: None, lock_fd)


def _fork_starter() -> tuple[socket.socket, OSError | None]:
    """Fork the starter, and return there; the calling process, whose signals are blocked, becomes the supervisor.

    Returns:
        The connection to the supervisor, and the reason why both have no mount namespace of their own.

    Raises:
        OSError: the fork failed; the calling process goes on.
    """
    problem: OSError | None = None
    try:
        syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
        syscalls.unshare(syscalls.CLONE_NEWNS)
    except OSError as error:
        problem = error
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    supervisor_pid = os.getpid()
    pid = os.fork()
    if pid:
        _run_supervisor(ours, pid)
    ours.close()
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != supervisor_pid:
        os._exit(1)
    return theirs, problem


def _start(request: Request, link: socket.socket, surroundings: Surroundings) -> None:
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
        messages.tell(status, {"event": "failed", "error": error.to_json()})
        return
    document = cast("SuperviseRequest", request.document)
    Starter(plan, status, link, surroundings).run(attachment, document.get("attach", {}), request.settle)


def _refuse(request: Request, problem: FailedError) -> None:
    status = socket.socket(fileno=request.fds.pop(0))
    with contextlib.suppress(OSError):
        if messages.receive(status) is not None:
            messages.tell(status, {"event": "failed", "error": problem.to_json()})


def _run_supervisor(link: socket.socket, starter_pid: int) -> NoReturn:
    """Wait for the starter, and stay with its container."""
    code = 1
    try:
        _close_others(link.fileno())
        started = handover.receive(link)
        link.close()
        if started is None:
            code = _reap_after_failure(starter_pid)
        else:
            loop = EventLoop()
            signals = Signals(loop)
            supervisor = Supervisor(started, loop, signals)
            signals.on(signal.SIGTERM, supervisor.on_term)
            _signal.pthread_sigmask(signal.SIG_SETMASK, ())
            supervisor.run()
            code = 0
    except BaseException:  # noqa: BLE001 - the process ends here, and its log gets the whole story
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stderr.flush()
        os._exit(code)


def _close_others(kept_fd: int) -> None:
    os.closerange(3, kept_fd)
    os.closerange(kept_fd + 1, _MOST_FDS)


def _reap_after_failure(starter_pid: int) -> int:
    """Reap what a failed start has left, and return the starter's exit code; end as a killed starter did."""
    _, status = os.waitpid(starter_pid, 0)
    if os.WIFSIGNALED(status):
        os.kill(os.getpid(), signal.SIGKILL)  # init dies with its parent
    deadline = time.monotonic() + _REAPING_SECONDS
    with contextlib.suppress(ChildProcessError):
        while time.monotonic() < deadline:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                signal.sigtimedwait([signal.SIGCHLD], deadline - time.monotonic())
    return os.WEXITSTATUS(status)


def _rehearse(surroundings: Surroundings) -> None:
    """Run most of the code of a start and of a short run on an empty container in a tmpfs, to copy its pages.

    See :mod:`pydock_core.runtime.rehearsal`.
    """
    status, client = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    root_fd = -1
    with status, client, ours, theirs, contextlib.suppress(PyDockError, OSError):
        root_fd = make_tmpfs(0, size="256k", mode="700")
        base = f"/proc/self/fd/{root_fd}"
        write_whole(Path(f"{base}/plan.json"), _EMPTY_PLAN % (base.encode(), base.encode(), base.encode()))
        plan = read_plan(Path(f"{base}/plan.json"))
        sent = Starter(plan, status, theirs, surroundings).rehearse()
        messages.close_all(sent.fds.list_open("status", "host_network"))
        messages.receive(client)
        started = handover.receive(ours)
        assert started is not None
        loop = EventLoop()
        signals = Signals(loop)
        Supervisor(started, loop, signals).rehearse()
        signals.close()
        loop.close()
        messages.close_all([started.fds.host_network] if started.fds.host_network >= 0 else [])
    if root_fd >= 0:
        os.close(root_fd)


def preload() -> None:
    """Import the modules that supervisors import late, so that they are shared after the zygote's fork."""
    import fcntl  # noqa: F401 - loads the module
    import struct  # noqa: F401 - loads the module
    import termios  # noqa: F401 - loads the module

    from pydock_core.runtime import embedded  # noqa: F401 - loads the module


def warm_up() -> None:
    """Prepare the zygote's memory, which its forks share until they write to it.

    Postcondition: facts that are the same for all processes below the zygote are cached.  The code of starters and
    supervisors has run as often as CPython 3.11 needs to specialize it (PEP 659), so forks do not specialize it again.  All
    objects are frozen (gc.freeze), so a collection in a fork does not write to them.  Collections are rare, because each one
    writes to the fork's own objects.
    """
    from pydock_core.runtime.cgroups import read_layout
    from pydock_core.runtime.namespaces import is_in_user_namespace
    from pydock_core.supervision import open_connections  # noqa: F401 - to have been imported is the point

    syscalls.unshare(0)  # no effect, but later calls find the function
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 0)
    boot_id()
    read_layout()
    is_in_user_namespace()
    for _ in range(_SPECIALIZING_RUNS):
        rehearse()
        _rehearse(Surroundings())
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECTION_THRESHOLD)
