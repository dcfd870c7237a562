"""The program server: a fork server that has the commands loaded, and runs them for ``dock`` programs.

A child runs the command with the client's standard streams, directory, environment, umask and ignored signals; the client
forwards its signals to the child.  The child ends with its client.  The server refuses a client with another root
directory, namespace, set of credentials, seccomp filter or installation.  Such a client runs the command itself.

A :class:`RunRequest` comes with the descriptors of the status socket, the three streams and the directory.  The reply is
``{"ok": true, "pid"}``; at the command's end, its exit code is sent as one byte on the status socket.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any, Literal, NoReturn, TypedDict, cast

from pydock_core.paths import StateRoot
from pydock_core.program_client import installation
from pydock_core.supervision import forkserver
from pydock_core.supervision.forkserver import Kind, Operation, Refusal, Request
from pydock_core.supervision.server_start import ServerSpec, ask_server_surely
from pydock_core.supervision.worker_process import end_with_peer

_WARM = (
    *("pydock_core.commands.program", "pydock_core.commands.containers", "pydock_core.commands.run"),
    *("pydock_core.commands.images", "pydock_core.commands.inspect", "pydock_core.commands.system"),
    *("pydock_core.engine.containers", "pydock_core.engine.images", "pydock_core.engine.launch"),
    *("pydock_core.engine.local", "pydock_core.engine.system", "pydock_core.engine.tidy"),
    *("pydock_core.store.snapshots.erofs", "pydock_core.store.snapshots.probe", "grp", "pwd"),
    *("pydock_core.spec.builder", "pydock_core.store.snapshots.layers", "pydock_core.supervision.client"),
    *("pydock_core.network.client", "argparse", "sqlite3", "hashlib", "shutil", "subprocess"),
)
"""Loaded before the first command."""

_SAME_LINKS = (
    "root",
    *(f"ns/{name}" for name in ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")),
)
_SAME_STATUS = (b"Uid:", b"Gid:", b"Groups:", b"CapEff:", b"CapBnd:", b"NoNewPrivs:", b"Seccomp:")


class RunRequest(TypedDict):
    """A command to run, from :mod:`pydock_core.program_client`; bytes are spelled as characters of Latin-1."""

    op: Literal["run"]
    argv: list[str]
    environ: dict[str, str]
    umask: int
    ignored: list[int]
    encoding: str
    installation: str


def program_server_spec(root: StateRoot) -> ServerSpec:
    """Return the program server of a state root."""
    return ServerSpec("program server", __name__, root.run / "program.sock")


def start_quietly() -> None:
    """Start the server of this user's state root if there is none; its log has the cause of a failure."""
    from pydock_core.errors import PyDockError
    from pydock_core.paths import default_root
    from pydock_core.private_files import make_private

    root = default_root()
    try:
        if root.run.is_dir():  # the command before may have made no state, or refused to use this directory
            make_private(root.run)
            ask_server_surely(program_server_spec(root), {"op": "ping"})
    except (PyDockError, OSError) as error:
        print(f"the program server did not start: {error}", file=sys.stderr)


def main(arguments: Mapping[str, Any]) -> NoReturn:
    """Start the server; standard input is the socket on which the starter waits."""
    forkserver.fork_and_serve(arguments, lambda: _build_operations(arguments))


def _build_operations(arguments: Mapping[str, Any]) -> Mapping[str, Operation]:
    for name in _WARM:
        importlib.import_module(name)
    return {
        "ping": forkserver.answer_ping({"pid": os.getpid(), "version": arguments["version"]}),
        "run": Operation(Kind.JOB, _run, _Guard().refuse),
    }


class _Guard:
    """Decides whether a client's command may run in a child of this process."""

    def __init__(self) -> None:
        self._installation = os.fsencode(installation())
        self._place = _place(os.getpid())
        self._files = {
            path: os.stat(path).st_mtime_ns
            for module in list(sys.modules.values())
            if (path := getattr(module, "__file__", None)) and "pydock_core" in path
        }

    def refuse(self, request: Request, peer_pid: int) -> Refusal | None:
        """Return the reason for refusing a request, or None."""
        document = cast("RunRequest", request.document)
        if _bytes(document["installation"]) != self._installation or _place(peer_pid) != self._place:
            return Refusal.ELSEWHERE
        try:
            is_stale = any(os.stat(path).st_mtime_ns != then for path, then in self._files.items())
        except OSError:
            is_stale = True
        return Refusal.STALE if is_stale else None


def _place(pid: int) -> tuple[object, ...]:
    """Return a process's root, namespaces, credentials and filters; two processes with equal ones can replace each other."""
    links = tuple(os.readlink(f"/proc/{pid}/{name}") for name in _SAME_LINKS)
    with open(f"/proc/{pid}/status", "rb") as file:
        lines = tuple(line for line in file if line.startswith(_SAME_STATUS))
    return links + lines


def _bytes(text: str) -> bytes:
    return text.encode("latin-1")


def _run(request: Request) -> None:
    """Run the command in this process; send the exit code after all output is written."""
    status_fd, *streams, directory_fd = request.fds
    status = socket.socket(fileno=status_fd)
    document = cast("RunRequest", request.document)
    os.setsid()
    os.fchdir(directory_fd)
    os.umask(int(document["umask"]))
    for number, fd in enumerate(streams):
        os.dup2(fd, number)
    for fd in (*streams, directory_fd):
        os.close(fd)
    request.fds.clear()
    environ = {_bytes(name): _bytes(value) for name, value in document["environ"].items()}
    os.environb.clear()
    os.environb.update(environ)
    time.tzset()
    encoding = str(document["encoding"])
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), encoding, "surrogateescape")
    sys.stdout = _writer(1, encoding, "strict")
    sys.stderr = _writer(2, encoding, "backslashreplace")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in document["ignored"]:
        signal.signal(number, signal.SIG_IGN)
    end_with_peer(status)

    from pydock_core.commands.program import main as run_program

    argv = [os.fsdecode(_bytes(word)) for word in document["argv"]]
    sys.argv = ["dock", *argv]
    code = run_program(argv)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            code = code or 1
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    with contextlib.suppress(OSError):  # the client was killed just now
        status.send(bytes([code & 0xFF]))
    # As the interpreter does at its end: a thread may be removing the files of a --rm container.
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and not thread.daemon:
            thread.join()


def _writer(fd: int, encoding: str, errors: str) -> io.TextIOWrapper:
    binary = io.BufferedWriter(io.FileIO(fd, "wb", closefd=False))
    return io.TextIOWrapper(binary, encoding, errors, line_buffering=fd == 2 or os.isatty(fd))
