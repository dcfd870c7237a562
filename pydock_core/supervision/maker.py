"""Creates one container for a starter, in a process that ends once the container has started.

It reads the bundle and plans its mounts and control group while the starter sets up the network and the control socket.  Both
this process and the container's init are children of the supervisor (CLONE_PARENT).
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, cast

from pydock_core import messages, syscalls
from pydock_core.errors import FailedError, PyDockError
from pydock_core.paths import ContainerPaths
from pydock_core.runtime.cgroups.oom_counter import find_counter
from pydock_core.runtime.console import set_window_size
from pydock_core.runtime.embedded import EmbeddedExecutor
from pydock_core.runtime.executor import Stdio
from pydock_core.runtime.rootfs import mount_root
from pydock_core.runtime.spare_init import SpareInit
from pydock_core.supervision.executor_choice import make_executor
from pydock_core.supervision.plan import read_plan

if TYPE_CHECKING:
    from pydock_core.supervision.protocol import LaunchOrder, MadeReply


@dataclass(frozen=True, slots=True)
class Made:
    """A running container.

    Attributes:
        pid: of its init.
        console_fd: the master of its terminal, or None.
        oom_file: the file that counts processes killed because memory ran out (OomCounter); empty if there is none.
    """

    pid: int
    console_fd: int | None
    oom_file: str


class Maker:
    """The starter's side of a maker, which waits for its plan."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link

    @classmethod
    def fork(cls, rehearse: Callable[[], None] | None = None) -> Maker:
        """Fork a maker as a sibling; it and its spare init end when the calling process ends or closes the maker."""
        link, child_link = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        parent_pidfd = os.pidfd_open(os.getppid())
        if syscalls.fork(syscalls.CLONE_PARENT) == 0:
            _run(child_link, parent_pidfd, rehearse)
        os.close(parent_pidfd)
        child_link.close()
        return cls(link)

    def begin(self, plan_file: Path, stdio: Stdio | None) -> None:
        """Have the maker read the plan and prepare; it makes nothing before :meth:`go`."""
        request: LaunchOrder = {"plan": str(plan_file)}
        fds = [] if stdio is None else [stdio.stdin_fd, stdio.stdout_fd, stdio.stderr_fd]
        self._send(request, fds)

    def go(self) -> None:
        """Have the maker mount the root filesystem and create and start the container; its network must exist."""
        self._send({})

    def _send(self, document: Mapping[str, Any], fds: Sequence[int] = ()) -> None:
        with contextlib.suppress(BrokenPipeError):  # it has ended; finish() tells why
            messages.send(self._link, document, fds)

    def finish(self) -> Made:
        """Wait until the container's process runs; it is a child of the caller's parent.

        Raises:
            PyDockError: the container did not start; the executor may have to delete it.
        """
        try:
            received = messages.receive(self._link)
        except ConnectionResetError:
            received = None
        if received is None:
            raise FailedError("the process that makes the container was killed", "start the container again")
        document, fds = received
        reply = cast("MadeReply", messages.checked(document))
        return Made(reply["pid"], fds[0] if fds else None, reply["oom_file"])

    def close(self) -> None:
        """Let the maker end; harmless if it has."""
        self._link.close()

    def __enter__(self) -> Maker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _run(link: socket.socket, parent_pidfd: int, rehearse: Callable[[], None] | None) -> NoReturn:
    try:
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        syscalls.close_except(link.fileno(), parent_pidfd)
        spare = SpareInit.fork(parent_pidfd, rehearse)
        if rehearse is not None:
            rehearse()
        received = messages.receive(link)
        if received is not None:
            _make(link, spare, *received)
    except OSError:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(0)


def _make(link: socket.socket, spare: SpareInit, request: Mapping[str, Any], fds: list[int]) -> None:
    stdio = Stdio(*fds) if fds else None

    def wait_for_go() -> None:
        if messages.receive(link) is None:
            os._exit(0)  # the starter has given up
        # The supervisor shares this mount namespace, and unmounts the root at the end.
        if plan.root_mounts:
            mount_root(plan.root_mounts, paths.rootfs)
        if plan.sources:
            from pydock_core.runtime.mount_sources import mount_sources  # late: few containers have any

            mount_sources(plan.sources, os.getppid())

    try:
        plan = read_plan(Path(request["plan"]))
        paths = ContainerPaths(Path(plan.data_dir), Path(plan.run_dir))
        container_id = plan.container_id
        executor = make_executor(plan.executor, paths)
        if isinstance(executor, EmbeddedExecutor):
            created = executor.create(paths.bundle, container_id, stdio, spare, wait_for_go)
        else:
            spare.discard()
            wait_for_go()
            created = executor.create(paths.bundle, container_id, stdio)
        if created.console_fd is not None and plan.tty_rows and plan.tty_columns:
            set_window_size(created.console_fd, plan.tty_rows, plan.tty_columns)
        counter = find_counter(created.pid)
        executor.start(container_id)
        if "pid" in plan.shared and isinstance(executor, EmbeddedExecutor):
            created = replace(created, pid=executor.init_pid(container_id))
    except PyDockError as error:
        messages.send_error(link, error)
    except Exception as error:  # noqa: BLE001 - the starter reports every error
        traceback.print_exc()
        messages.send_error(link, FailedError(f"cannot make the container: {error}"))
    else:
        reply: MadeReply = {"ok": True, "pid": created.pid, "oom_file": counter}
        messages.send(link, reply, [] if created.console_fd is None else [created.console_fd])
