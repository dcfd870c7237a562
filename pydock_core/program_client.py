"""Delegates a command to the program server, so that ``dock`` need not import the command's modules.

The server (:mod:`pydock_core.program_server`) has everything loaded, and forks a child that runs the command with
this process's standard streams, directory, environment and umask; this process forwards signals and exits with the child's
code.  The program runs the command itself if there is no server, or if the server refuses (it has other namespaces,
credentials or code).

The program's start takes milliseconds, so this module imports only modules that are built into Python.
"""

import _signal  # type: ignore[import-not-found]  # typeshed has no stub; "signal" itself imports enum: 3 ms
import _socket
import os
import sys
from _json import encode_basestring_ascii  # the C half of json

SETTING = "PYDOCK_PROGRAM_SERVER"
"""The environment variable that turns the server off: "off"."""

COMMANDS = frozenset(
    "cp create exec history images info inspect kill logs ls pause port ps rename restart rm run start stop top unpause "
    "update version wait".split()
)
"""The commands that the server runs: short ones, and those that wait for a container."""

ATTACHING = frozenset(("exec", "run", "start"))
"""Commands that may read the terminal, which belongs to this process's session: with one, they run here."""

NO_SERVER = -1
"""There is no server, or it has just exited because its code differs from this program's."""
REFUSED = -2
"""The server refuses the command, or cannot receive it."""
_FORWARDED = ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGCONT")
_REQUEST_BYTES = 60 * 1024
_CONNECT_SECONDS = 2
"""The time to wait for a full server queue, which may belong to another user who never empties it."""


def socket_path() -> str:
    """Return the socket of the server of this user's state root; see :func:`pydock_core.paths.default_root`."""
    environ = os.environ
    moved = environ.get("PYDOCK_ROOT")
    if moved:
        run = os.path.abspath(moved) + "/run"
    elif os.geteuid() == 0:
        run = "/run/pydock"
    else:
        runtime = environ.get("XDG_RUNTIME_DIR")
        if runtime and os.path.isdir(runtime):
            run = runtime + "/pydock"
        else:
            data = environ.get("XDG_DATA_HOME") or (environ.get("HOME") or "/") + "/.local/share"
            run = data + "/pydock/run"
    return run + "/program.sock"


def installation() -> str:
    """Identify this installation: the directories of the interpreter and of the package."""
    return os.path.dirname(sys.executable) + os.pathsep + os.path.dirname(__file__)


def is_served(words: list[str]) -> bool:
    """Whether the server, if there is one, runs a command line."""
    names = words[1:] if words[:1] in (["container"], ["image"], ["volume"]) else words
    name = names[0] if names else ""
    if name not in COMMANDS or os.environ.get(SETTING) == "off":
        return False
    return name not in ATTACHING or not os.isatty(0)


def run(words: list[str]) -> int:
    """Have the server run a command; return its exit code, or NO_SERVER or REFUSED if it did not begin.

    Args:
        words: after the program's name.
    """
    path = socket_path()
    if len(os.fsencode(path)) > 107:  # sun_path: unix(7)
        return REFUSED
    try:
        os.fstat(0), os.fstat(1), os.fstat(2)  # before a socket takes the place of a closed stream
    except OSError:
        return REFUSED
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    try:
        patience = _CONNECT_SECONDS.to_bytes(8, sys.byteorder) + bytes(8)  # struct timeval
        connection.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDTIMEO, patience)
        connection.connect(path)
        credentials = connection.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)
        if int.from_bytes(credentials[4:8], sys.byteorder) != os.geteuid():
            return REFUSED
        return _ask(connection, words)
    except (FileNotFoundError, ConnectionRefusedError):
        return NO_SERVER
    except OSError:
        return REFUSED
    except KeyboardInterrupt:  # before signals are forwarded; the command ends with this process
        return 128 + int(_signal.SIGINT)
    finally:
        connection.close()


def _ask(connection: _socket.socket, words: list[str]) -> int:
    ignored = [
        number
        for name in _FORWARDED
        if _signal.getsignal(number := getattr(_signal, name)) == _signal.SIG_IGN
    ]
    umask = os.umask(0o077)
    os.umask(umask)
    request = _encode(words, ignored, umask)
    if len(request) > _REQUEST_BYTES:
        return REFUSED
    status, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    directory_fd = os.open(".", os.O_PATH | os.O_DIRECTORY)
    try:
        fds = (theirs.fileno(), 0, 1, 2, directory_fd)
        rights = b"".join(fd.to_bytes(4, sys.byteorder) for fd in fds)
        connection.sendmsg(
            [request], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)], _socket.MSG_NOSIGNAL
        )
        theirs.close()
        reply = connection.recv(4096)
        _, found, tail = reply.partition(b'"pid":')
        if not reply.startswith(b'{"ok":true') or not found:
            return NO_SERVER if b'"stale":true' in reply else REFUSED
        return _wait(status, int(tail.partition(b"}")[0].partition(b",")[0]), ignored)
    finally:
        theirs.close()
        status.close()
        os.close(directory_fd)


def _encode(words: list[str], ignored: list[int], umask: int) -> bytes:
    """Spell the request as JSON; bytes are characters of Latin-1."""

    def text(value: bytes) -> str:
        return str(encode_basestring_ascii(value.decode("latin-1")))

    environ = ",".join(f"{text(name)}:{text(value)}" for name, value in os.environb.items())
    argv = ",".join(text(os.fsencode(word)) for word in words)
    encoding = text((sys.stdout.encoding if sys.stdout else "utf-8").encode())
    home = text(os.fsencode(installation()))
    return (
        f'{{"op":"run","argv":[{argv}],"environ":{{{environ}}},"umask":{umask},"ignored":{ignored},'
        f'"encoding":{encoding},"installation":{home}}}'
    ).encode()


def _wait(status: _socket.socket, pid: int, ignored: list[int]) -> int:
    """Forward signals to the child until it ends; return its exit code."""
    try:
        child_fd = os.pidfd_open(pid)
    except ProcessLookupError:  # it has ended already, and its exit code is on the way
        return _exit_code(_receive(status), 0)
    forwarded = 0

    def forward(number: int, _frame: object) -> None:
        nonlocal forwarded
        forwarded = number
        try:  # noqa: SIM105 - contextlib is an import that this program can do without
            _signal.pidfd_send_signal(child_fd, number)
        except ProcessLookupError:
            pass  # it has ended, and its exit code is on the way

    def pause(_number: int, _frame: object) -> None:
        forward(_signal.SIGSTOP, None)
        os.kill(os.getpid(), _signal.SIGSTOP)

    for name in _FORWARDED:
        if (number := getattr(_signal, name)) not in ignored:
            _signal.signal(number, forward)
    if _signal.getsignal(_signal.SIGTSTP) != _signal.SIG_IGN:
        _signal.signal(_signal.SIGTSTP, pause)
    try:
        code = _receive(status)
    finally:
        os.close(child_fd)
    return _exit_code(code, forwarded)


def _exit_code(received: bytes, forwarded: int) -> int:
    """Return the child's exit code; without one it was killed, by a forwarded signal if there was one."""
    return received[0] if received else 128 + (forwarded or _signal.SIGKILL)


def _receive(status: _socket.socket) -> bytes:
    """Receive the exit code; "" if the child was killed."""
    try:
        return bytes(status.recv(1))
    except ConnectionError:
        return b""


def start_server() -> None:
    """Start the server in the background, for the next command; it exits after ten minutes without a request."""
    program = (
        f"import sys; sys.path += {[path for path in sys.path if path]!r}; "
        "from pydock_core.program_server import start_quietly; start_quietly()"
    )
    null = (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDWR, 0)
    streams = [null, (os.POSIX_SPAWN_DUP2, 0, 1), (os.POSIX_SPAWN_DUP2, 0, 2)]
    try:
        os.posix_spawn(
            sys.executable,
            [sys.executable, "-I", "-S", "-X", "utf8", "-c", program],
            os.environ,
            file_actions=streams,
            setsid=True,
        )
    except OSError:
        return  # the next command is as slow as this one was
