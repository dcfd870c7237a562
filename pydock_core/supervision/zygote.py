"""The zygote: a fork server that makes supervisors and storage workers, as root of the host or of a user namespace.

It starts in two steps.  The first makes the namespaces and a read-only copy of the mount tree, makes that copy its root
directory and executes the interpreter again; the second loads the modules of supervisors and returns to the real root.  So
``/proc/PID/exe`` and ``/proc/PID/map_files`` of every process that it forks lead to read-only mounts, during the process's
life and after it (CVE-2019-5736).
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from pydock_core import syscalls
from pydock_core.errors import FailedError, UnsupportedError
from pydock_core.supervision import forkserver, user_namespace, user_network
from pydock_core.supervision.forkserver import Kind, Operation, Request

if TYPE_CHECKING:
    from pydock_core.supervision.protocol import ServerFacts


def main(arguments: Mapping[str, Any]) -> NoReturn:
    """Start the zygote; standard input is the socket on which the starter waits."""
    if "mapping" in arguments:
        _second_step(arguments)
    ready = forkserver.take_ready()
    mapper, served = socket.socketpair()
    pid = os.fork()
    if pid:
        mapper.close()
        user_namespace.serve_mapping(served, pid)  # returns at once if the child does not ask
        os._exit(0)
    served.close()
    try:
        forkserver.detach(ready.fileno(), mapper.fileno())
        _first_step(ready, mapper, arguments)
    finally:
        os._exit(1)


def _first_step(ready: socket.socket, mapper: socket.socket, arguments: Mapping[str, Any]) -> None:
    try:
        if os.geteuid() == 0:
            mapping = user_namespace.ROOT
            _unshare_mounts()
        elif user_network.join_user_namespace(Path(arguments["socket_path"]).parent):
            # The bridges take containers of their own user namespace only.
            syscalls.unshare(syscalls.CLONE_NEWNS)
            mapping = user_namespace.own_mapping()
        else:
            mapping = user_namespace.enter(mapper)
        mapper.close()
        syscalls.mount("none", "/", "", syscalls.MS_REC | syscalls.MS_SLAVE)
        interpreter = os.readlink("/proc/self/exe")
        try:
            roots = _enter_read_only_root()
        except OSError as error:
            raise FailedError(f"cannot mount / read-only: {error.strerror}") from error
        os.set_inheritable(ready.fileno(), True)
        passed = {**arguments, "mapping": mapping, "ready_fd": ready.fileno(), "roots": roots}
        program = "import sys, json; a = json.loads(sys.argv[1]); sys.path += a['paths']; "
        program += f"from {__name__} import main; main(a)"
        argv = [interpreter, "-I", "-S", "-X", "utf8", "-c", program, json.dumps(passed)]
        os.execv(interpreter, argv)
    except BaseException as error:  # noqa: BLE001 - every error is reported to the starter
        forkserver.report_failure(ready, error)


def _unshare_mounts() -> None:
    try:
        syscalls.unshare(syscalls.CLONE_NEWNS)
    except OSError as error:
        raise UnsupportedError(
            f"cannot make namespaces, although this process is root: {error.strerror}",
            hint="give the surrounding container CAP_SYS_ADMIN, or run as an ordinary user; see `dock doctor`",
            exit_code=125,
        ) from error


def _enter_read_only_root() -> tuple[int, int]:
    """Make a read-only copy of the mount tree the root directory of this process.

    Returns:
        Descriptors of the real root and of the copy, both inherited by the next program.  The copy lasts as long as its
        descriptor, and each mount of it as long as a file that is mapped from it.
    """
    real_fd = os.open("/", os.O_PATH | os.O_DIRECTORY)
    copy_fd = syscalls.open_tree(syscalls.AT_FDCWD, "/", syscalls.OPEN_TREE_CLONE | syscalls.AT_RECURSIVE)
    syscalls.mount_setattr(copy_fd, attributes_set=syscalls.MOUNT_ATTR_RDONLY, recursive=True)
    for fd in (real_fd, copy_fd):
        os.set_inheritable(fd, True)
    os.fchdir(copy_fd)
    os.chroot(".")
    return real_fd, copy_fd


def _second_step(arguments: Mapping[str, Any]) -> NoReturn:
    ready = socket.socket(fileno=int(arguments["ready_fd"]))
    ready.set_inheritable(False)
    forkserver.serve_to_end(ready, arguments, lambda: _build_operations(arguments))


def _build_operations(arguments: Mapping[str, Any]) -> Mapping[str, Operation]:
    _load(*arguments["roots"])
    from pydock_core.supervision.supervisor_process import prepare

    facts: ServerFacts = {
        "pid": os.getpid(),
        "version": arguments["version"],
        "mapping": arguments["mapping"],
        "ids": [user_namespace.read_extents("uid"), user_namespace.read_extents("gid")],
    }
    return {
        "ping": forkserver.answer_ping(facts),
        "supervise": Operation(Kind.SESSION, prepare=prepare),
        "work": Operation(Kind.JOB, _work),
        "keep": Operation(Kind.SESSION, _keep),
    }


def _load(real_fd: int, copy_fd: int) -> None:
    """Import the modules that every supervisor needs, so that forks share them; return to the real root."""
    from pydock_core.supervision import supervisor_process

    supervisor_process.preload()
    os.fchdir(real_fd)
    os.chroot(".")
    os.close(real_fd)
    os.close(copy_fd)
    supervisor_process.warm_up()


def _keep(request: Request) -> None:
    from pydock_core.supervision.keeper import keep

    keep(request)


def _work(request: Request) -> None:
    from pydock_core.supervision.worker_process import run

    run(request.document, request.fds)
