"""Asks a fork server, and starts it if it is missing; the client's half of :mod:`pydock_core.supervision.forkserver`."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydock_core import messages
from pydock_core.errors import DeniedError, FailedError, NotFoundError, UnavailableError
from pydock_core.paths import StateRoot
from pydock_core.private_files import open_private

IDLE_SECONDS = 600.0
_START_TIMEOUT_SECONDS = 30.0
_PACKAGE = Path(__file__).resolve().parent.parent
_SERVED_PACKAGES = (
    *("supervision", "supervision/names", "runtime", "runtime/cgroups", "runtime/reaper", "network", "oci"),
    *("store", "store/database", "store/erofs", "store/snapshots"),
)
"""Packages whose code a fork server and its children execute."""

_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_KEPT_VARIABLES = ("HOME", "USER", "LOGNAME", "XDG_RUNTIME_DIR", "XDG_DATA_HOME", "PYDOCK_ROOT")


@dataclass(frozen=True, slots=True)
class ServerSpec:
    """A fork server that may have to be started.

    Attributes:
        name: for messages, "zygote".
        module: its ``main(arguments)`` runs the server.
        socket_path: the socket that it listens on.
        idle_seconds: it exits after this time without a request.
    """

    name: str
    module: str
    socket_path: Path
    idle_seconds: float = IDLE_SECONDS

    @property
    def lock_path(self) -> Path:
        """Held by the process that starts the server or unlinks its socket."""
        return self.socket_path.with_suffix(".lock")

    @property
    def log_path(self) -> Path:
        """The file of the server's own errors."""
        return self.socket_path.with_suffix(".log")


def zygote_spec(root: StateRoot) -> ServerSpec:
    """The zygote of a state root."""
    return ServerSpec("zygote", "pydock_core.supervision.zygote", root.zygote_socket())


def network_spec(root: StateRoot) -> ServerSpec:
    """The network service of a state root."""
    return ServerSpec("network service", "pydock_core.network.service", root.network_socket())


@cache
def code_version() -> str:
    """Identify the code of a server that this process would start: the interpreter, and the state of the package's files."""
    import hashlib  # late: listing asks no server

    # "python" in a notebook and "python3" in the dock program's first line are one interpreter.  Its directory stands for
    # the environment, because sys.prefix differs under -S (without site), as in the program server.
    interpreter = os.path.realpath(sys.executable)
    environment = os.path.dirname(os.path.abspath(sys.executable))
    digest = hashlib.sha256(f"{interpreter}\0{environment}\0{sys.version}".encode())
    for folder in (_PACKAGE, *(_PACKAGE / name for name in _SERVED_PACKAGES)):
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda item: item.name):
                if entry.name.endswith(".py"):
                    facts = entry.stat()
                    digest.update(f"{entry.path}\0{facts.st_mtime_ns}\0{facts.st_size}\0".encode())
    return digest.hexdigest()[:16]


def ask_server(
    spec: ServerSpec,
    request: Mapping[str, Any],
    fds: Sequence[int] = (),
    prepare: Callable[[], object] | None = None,
) -> Mapping[str, Any] | None:
    """Send one request to a server, starting or replacing it as needed; return its reply.

    Returns None if the server ended without a reply; the request may or may not have been carried out.

    Args:
        request: a request of :mod:`pydock_core.supervision.protocol`.
        prepare: called after each sending of the request, before the wait for the reply.

    Raises:
        PyDockError: the server's own error, or the failure of its start.
    """
    document = {**request, "version": code_version()}
    for _ in range(5):
        connection = _connect(spec)
        if connection is None:
            _start(spec)
            continue
        with connection:
            try:
                messages.send(connection, document, fds)
                if prepare is not None:
                    prepare()
                message = messages.receive(connection)
            except (ConnectionResetError, BrokenPipeError):
                return None
        if message is None:
            return None
        reply, received = message
        messages.close_all(received)
        if reply.get("stale"):
            continue  # its code differs from this process's, and it has unlinked its socket
        return messages.checked(reply)
    raise UnavailableError(f"cannot reach the {spec.name}", hint=f"read {spec.log_path}")


def ask_server_surely(
    spec: ServerSpec, request: Mapping[str, Any], fds: Sequence[int] = ()
) -> Mapping[str, Any]:
    """Like :func:`ask_server`, for a request that may be carried out twice: repeat it if there is no reply."""
    for _ in range(3):
        reply = ask_server(spec, request, fds)
        if reply is not None:
            return reply
    raise UnavailableError(f"the {spec.name} ends at each request", hint=f"read {spec.log_path}")


def _connect(spec: ServerSpec) -> socket.socket | None:
    try:
        connection = messages.connect(str(spec.socket_path))
    except (FileNotFoundError, ConnectionRefusedError):
        return None
    except PermissionError as error:
        raise DeniedError(f"the {spec.name} at {spec.socket_path} belongs to another user") from error
    _, uid = messages.peer(connection)
    # A server in a user namespace has the uid of the user who made the namespace, which is this process's.
    if uid != os.geteuid():
        connection.close()
        raise DeniedError(f"the {spec.name} at {spec.socket_path} belongs to another user")
    return connection


@contextmanager
def start_lock(spec: ServerSpec) -> Iterator[None]:
    """Hold the lock for starting a server or unlinking its socket."""
    try:
        lock_fd = open_private(str(spec.lock_path), os.O_RDWR | os.O_CREAT)
    except FileNotFoundError as error:
        raise NotFoundError(f"the directory {spec.lock_path.parent} is missing") from error
    except PermissionError as error:
        raise DeniedError(f"cannot open {spec.lock_path}: permission denied") from error
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock_fd)


def _start(spec: ServerSpec) -> None:
    """Start the server, unless another process has just done so; return when it listens."""
    with start_lock(spec):
        connection = _connect(spec)
        if connection is not None:
            connection.close()
            return
        ready, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ready:
            with theirs:
                _spawn(spec, theirs.fileno())
            ready.settimeout(_START_TIMEOUT_SECONDS)
            try:
                message = messages.receive(ready)
            except (TimeoutError, ConnectionResetError):
                message = None
    if message is None:
        raise FailedError(f"the {spec.name} did not start", hint=f"read {spec.log_path}")
    messages.checked(message[0])


def _spawn(spec: ServerSpec, ready_fd: int) -> None:
    import subprocess  # late: not needed if the server is running

    if not sys.executable:
        raise FailedError(f"cannot start the {spec.name}: the Python interpreter does not know its own path")
    arguments = json.dumps(
        {
            "socket_path": str(spec.socket_path),
            "lock_path": str(spec.lock_path),
            "idle_seconds": spec.idle_seconds,
            "version": code_version(),
            "paths": _import_paths(),
        }
    )
    program = "import sys, json; a = json.loads(sys.argv[1]); sys.path += a['paths']; "
    program += f"from {spec.module} import main; main(a)"
    environment = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    environment["PATH"] = os.environ.get("PATH") or _DEFAULT_PATH
    environment["LANG"] = "C.UTF-8"
    with open(spec.log_path, "ab", opener=open_private) as log:
        # -I: no PYTHON* variables, no user site, no current directory; -S: no site (it costs 10 ms).
        child = subprocess.Popen(
            [sys.executable, "-I", "-S", "-X", "utf8", "-c", program, arguments],
            stdin=ready_fd,
            stdout=subprocess.DEVNULL,
            stderr=log,
            cwd="/",
            env=environment,
            start_new_session=True,
        )
    child.wait()  # it forks the server and exits, so the server is not a child of this process


def _import_paths() -> list[str]:
    """Return the directories of this package and of its dependencies."""
    paths = [str(_PACKAGE.parent)]
    paths += [
        path for path in sys.path if path.endswith(("site-packages", "dist-packages")) and path not in paths
    ]
    return paths
