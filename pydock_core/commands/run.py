"""The commands that run something: run, create, start, attach, exec."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from pydock_core.commands.context import Context
from pydock_core.commands.create_words import build_request, parse_environment, read_lines
from pydock_core.commands.dispatch import for_each
from pydock_core.commands.ending import describe_exit, describe_signal
from pydock_core.commands.ensure_image import ensure_image
from pydock_core.commands.foreground import DEFAULT_DETACH_KEYS, Foreground, FrameDecoder, parse_detach_keys
from pydock_core.commands.interrupts import (
    TERMINAL_STEPS,
    Step,
    steps_that_ask,
    steps_that_leave,
    steps_that_stop,
)
from pydock_core.engine import (
    DEFAULT_STOP_SECONDS,
    KILLED_EXIT_CODE,
    CreateRequest,
    ExecRequest,
    Execution,
    Launch,
    Streams,
    signal_number,
)
from pydock_core.errors import ConflictError, InvalidError, NotFoundError, PyDockError, UnsupportedError

Sink = Callable[[bytes], object]
LEFT_EXIT_CODE = 128 + signal.SIGINT
"""Of a command that an interrupt has ended, while the container goes on."""
TERMINAL_HINT = "leave out -t, or run it in a terminal"


def run(context: Context, words: Namespace) -> int:
    """Create a container and run it; return its exit code, or 0 in the background."""
    request = build_request(words, os.environ, os.getcwd())
    auto_remove = request["HostConfig"]["AutoRemove"]
    streams = _streams(words.attach)
    if words.detach and words.attach:
        raise InvalidError("-d and -a contradict each other", "leave one of the two out", exit_code=125)
    keys = parse_detach_keys(words.detach_keys or DEFAULT_DETACH_KEYS)
    stdin = request["OpenStdin"] if streams is None else streams.stdin
    if not words.detach:
        _check_terminal(context, request["Tty"], request["OpenStdin"])
    container_id = _create(context, request, words)
    with _given_up(context, container_id, remove=auto_remove):
        try:
            attached = None if words.detach else replace(streams or Streams(), stdin=stdin)
            launch = context.engine.containers.start(
                container_id, attach=attached, size=_size(context, request["Tty"])
            )
        except PyDockError as error:
            if auto_remove:
                _remove(context, container_id)
            error.exit_code = 125 if error.exit_code is None else error.exit_code
            raise
        if words.detach:
            launch.close()
            context.print(container_id)
            return 0
        return _stay(
            context, container_id, request, launch, keys, attach_stdin=stdin, proxy_signals=words.sig_proxy
        )


def create(context: Context, words: Namespace) -> int:
    """Create a container and print its id."""
    request = build_request(words, os.environ, os.getcwd())
    if words.attach:
        raise UnsupportedError(
            "dock create: option -a comes with a later version of PyDock",
            "choose at start: dock start -a",
            exit_code=125,
        )
    context.print(_create(context, request, words))
    return 0


def _create(context: Context, request: CreateRequest, words: Namespace) -> str:
    if words.cidfile and os.path.exists(words.cidfile):
        raise ConflictError(
            f"--cidfile {words.cidfile}: the file exists",
            "remove it, or name another",
            exit_code=125,
        )
    ensure_image(context, request["Image"], words.pull, words.platform, quiet=words.quiet)
    try:
        container_id, warnings = context.engine.containers.create(
            request, words.name, any_platform=bool(words.platform)
        )
    except PyDockError as error:
        error.exit_code = 125 if error.exit_code is None else error.exit_code
        raise
    for warning in warnings:
        context.warn(warning)
    if words.cidfile:
        with open(words.cidfile, "w", encoding="ascii") as file:
            file.write(container_id)
    return container_id


def start(context: Context, words: Namespace) -> int:
    """Start containers; with -a or -i stay with the one, and return its exit code."""
    containers = context.engine.containers

    def start_one(name: str) -> None:
        containers.start(name).close()
        context.print(name)

    if not (words.attach or words.interactive):
        return for_each(context, words.CONTAINER, start_one)
    if len(words.CONTAINER) > 1:
        raise InvalidError("only one container can be attached to", "name one, or leave out -a and -i")
    name = words.CONTAINER[0]
    container_id = containers.resolve(name)
    request = containers.definition(container_id)
    keys = parse_detach_keys(words.detach_keys or DEFAULT_DETACH_KEYS)
    attach_stdin = words.interactive and request["OpenStdin"]
    _check_terminal(context, request["Tty"], attach_stdin)
    if containers.is_running(container_id):
        return _attach(context, container_id, request, keys, attach_stdin=attach_stdin, proxy_signals=True)
    with _given_up(context, container_id, remove=request["HostConfig"]["AutoRemove"]):
        launch = containers.start(
            container_id, attach=Streams(stdin=attach_stdin), size=_size(context, request["Tty"])
        )
        return _stay(
            context, container_id, request, launch, keys, attach_stdin=attach_stdin, proxy_signals=True
        )


def attach(context: Context, words: Namespace) -> int:
    """Attach to a running container; return its exit code."""
    container_id = context.engine.containers.resolve(words.CONTAINER)
    request = context.engine.containers.definition(container_id)
    if not context.engine.containers.is_running(container_id):
        raise ConflictError(
            f"container {words.CONTAINER} is not running", f"start it: dock start -a {words.CONTAINER}"
        )
    attach_stdin = request["OpenStdin"] and not words.no_stdin
    _check_terminal(context, request["Tty"], attach_stdin)
    attach_stdin = attach_stdin and not context.notebook
    return _attach(
        context,
        container_id,
        request,
        parse_detach_keys(words.detach_keys or DEFAULT_DETACH_KEYS),
        attach_stdin=attach_stdin,
        proxy_signals=words.sig_proxy,
    )


def exec_(context: Context, words: Namespace) -> int:
    """Run a command in a running container; return its exit code."""
    if not words.COMMAND:
        raise InvalidError("dock exec: a command is missing", "dock exec CONTAINER COMMAND", exit_code=125)
    if not words.detach:
        _check_terminal(context, words.tty, words.interactive)
    request = ExecRequest(
        command=tuple(words.COMMAND),
        env=tuple(parse_environment([*read_lines(words.env_file, "--env-file"), *words.env], os.environ)),
        working_directory=words.workdir,
        user=words.user,
        terminal=words.tty and not words.detach,
        privileged=words.privileged,
        size=_size(context, words.tty),
    )
    keys = parse_detach_keys(words.detach_keys or DEFAULT_DETACH_KEYS)
    execution = context.engine.containers.exec(
        words.CONTAINER, request, stdin=words.interactive, detach=words.detach
    )
    if words.detach:
        execution.close()
        return 0
    return _follow_execution(context, execution, keys, interactive=words.interactive)


# -- staying with it -----------------------------------------------------------------------------------


def _stay(
    context: Context,
    container_id: str,
    request: CreateRequest,
    launch: Launch,
    keys: bytes,
    *,
    attach_stdin: bool,
    proxy_signals: bool,
) -> int:
    """Stay with a container that was just started; 0 if the person detached.  One with ``--rm`` goes at its end."""
    code = _follow_launch(
        context, container_id, request, launch, keys, attach_stdin=attach_stdin, proxy_signals=proxy_signals
    )
    if code is None:
        return LEFT_EXIT_CODE if context.was_interrupted else 0
    if request["HostConfig"]["AutoRemove"]:
        _remove(context, container_id)
    return code


def _follow_launch(
    context: Context,
    container_id: str,
    request: CreateRequest,
    launch: Launch,
    keys: bytes,
    *,
    attach_stdin: bool,
    proxy_signals: bool,
) -> int | None:
    """Relay a container that was just started until it ends; None if the person detached."""
    attachment = launch.attachment
    assert attachment is not None
    with launch, attachment:
        foreground = _foreground(
            context,
            container_id,
            request,
            keys,
            proxy_signals=proxy_signals,
            interrupts=_steps(context, container_id, proxy_signals=proxy_signals, has_started=True),
        )
        if _relay(
            context, foreground, attachment, request["Tty"], launch.fileno(), attach_stdin=attach_stdin
        ):
            return None
        try:
            end = launch.wait()
        except PyDockError:  # the supervisor was killed; what is known stands in the status
            return _exit_code(context, container_id)
    assert end is not None  # no timeout was given
    context.ending = describe_exit(
        end.exit_code, oom_killed=end.oom_killed, memory_bytes=request["HostConfig"]["Memory"] or None
    )
    return end.exit_code


def _attach(
    context: Context,
    container_id: str,
    request: CreateRequest,
    keys: bytes,
    *,
    attach_stdin: bool,
    proxy_signals: bool,
) -> int:
    exit_code = context.engine.containers.follow_exit(container_id)
    attachment = context.engine.containers.attach(container_id, Streams(stdin=attach_stdin))
    with attachment:
        foreground = _foreground(
            context,
            container_id,
            request,
            keys,
            proxy_signals=proxy_signals,
            interrupts=_steps(context, container_id, proxy_signals=proxy_signals, has_started=False),
        )
        if _relay(context, foreground, attachment, request["Tty"], attach_stdin=attach_stdin):
            return LEFT_EXIT_CODE if context.was_interrupted else 0
        code = exit_code()
    context.ending = describe_exit(
        code,
        oom_killed=_is_oom_killed(context, container_id),
        memory_bytes=request["HostConfig"]["Memory"] or None,
    )
    return code


def _exit_code(context: Context, container_id: str) -> int:
    """The exit code of a container that ended; somebody may have tidied up one that was to be removed then."""
    try:
        return context.engine.containers.wait(container_id)
    except NotFoundError:
        return KILLED_EXIT_CODE


def _is_oom_killed(context: Context, container_id: str) -> bool:
    """Whether memory ran out in a container that has ended; False for one that is gone with its end."""
    try:
        return bool(context.engine.containers.inspect(container_id)["State"]["OOMKilled"])
    except NotFoundError:
        return False


@contextlib.contextmanager
def _given_up(context: Context, container_id: str, *, remove: bool) -> Iterator[None]:
    """Kill a container that this command starts if a person interrupts what is not relayed to it."""
    try:
        yield
    except KeyboardInterrupt:
        with contextlib.suppress(PyDockError):  # it does not run yet, or has ended
            context.engine.containers.kill(container_id)
        if remove:
            _remove(context, container_id)
        raise


def _remove(context: Context, container_id: str) -> None:
    with contextlib.suppress(NotFoundError):  # another process tidied up first
        context.engine.containers.remove(container_id, force=True, volumes=True)


def _foreground(
    context: Context,
    container_id: str,
    request: CreateRequest,
    keys: bytes,
    *,
    proxy_signals: bool,
    interrupts: Sequence[Step],
) -> Foreground:
    def resize(rows: int, columns: int) -> None:
        with contextlib.suppress(PyDockError):  # it has just ended
            context.engine.containers.resize(container_id, rows, columns)

    return Foreground(
        context,
        terminal=request["Tty"],
        detach_keys=keys,
        send_signal=lambda number: _send_quietly(context, container_id, number),
        resize=resize,
        proxy_signals=proxy_signals and not request["Tty"],
        interrupts=interrupts,
    )


def _steps(context: Context, container_id: str, *, proxy_signals: bool, has_started: bool) -> Sequence[Step]:
    """Return what interrupts do to a container, which this command has started, or not."""
    containers = context.engine.containers
    if not proxy_signals:
        return steps_that_leave(containers.name(container_id) if context.notebook else "")
    if not context.notebook:
        return TERMINAL_STEPS
    if not has_started:
        return steps_that_ask(containers.name(container_id))
    stored = containers.definition(container_id)  # merged with the image's configuration
    seconds = stored["StopTimeout"]
    return steps_that_stop(
        "the container",
        signal_number(stored["StopSignal"] or "TERM"),
        DEFAULT_STOP_SECONDS if seconds is None else seconds,
    )


def _relay(
    context: Context,
    foreground: Foreground,
    attachment: socket.socket,
    terminal: bool,
    end_fd: int | None = None,
    *,
    attach_stdin: bool,
) -> bool:
    attachment.setblocking(False)

    def close_input() -> None:
        with contextlib.suppress(OSError):
            attachment.shutdown(socket.SHUT_WR)

    sink: Sink = context.stdout.write_bytes if terminal else FrameDecoder(context.stdout, context.stderr)
    return foreground.run(
        {attachment.fileno(): sink}, attachment.fileno() if attach_stdin else None, close_input, end_fd
    )


def _follow_execution(context: Context, execution: Execution, keys: bytes, *, interactive: bool) -> int:
    def send_signal(number: int) -> None:
        with contextlib.suppress(PyDockError):
            execution.signal(number)

    with execution:
        foreground = Foreground(
            context,
            terminal=execution.terminal,
            detach_keys=keys,
            send_signal=send_signal,
            resize=execution.resize if execution.terminal else None,
            interrupts=steps_that_stop("the command", signal.SIGTERM, DEFAULT_STOP_SECONDS)
            if context.notebook
            else TERMINAL_STEPS,
        )
        outputs: dict[int, Sink] = {execution.stdout_fd: context.stdout.write_bytes}
        if execution.stderr_fd is not None:
            outputs[execution.stderr_fd] = context.stderr.write_bytes
        detached = foreground.run(
            outputs,
            execution.stdin_fd if interactive else None,
            execution.close_stdin,
            execution.fileno(),
            leaves_orphans=True,
        )
        code = 0 if detached else execution.wait()
    context.ending = describe_signal(code)
    return code


def _send_quietly(context: Context, container_id: str, number: int) -> None:
    with contextlib.suppress(PyDockError):  # it has just ended
        context.engine.containers.signal(container_id, number)


# -- small parts ---------------------------------------------------------------------------------------


def _streams(names: list[str]) -> Streams | None:
    if not names:
        return None
    wanted = {name.lower() for name in names}
    if unknown := wanted - {"stdin", "stdout", "stderr"}:
        raise InvalidError(
            f"-a {sorted(unknown)[0]}: no such stream", "there are stdin, stdout and stderr", exit_code=125
        )
    return Streams(stdin="stdin" in wanted, stdout="stdout" in wanted, stderr="stderr" in wanted)


def _check_terminal(context: Context, terminal: bool, stdin: bool) -> None:
    """Refuse to connect a container's terminal to an input that is not one."""
    if not (terminal and stdin) or context.interactive:
        return
    if context.notebook:
        raise InvalidError(
            "-t with -i needs a terminal, and a cell is not a terminal",
            "type the same line in a terminal (in JupyterLab: File, New, Terminal) with dock in place of %dock; "
            "or leave out -t, and give the input in the cell: %%dock",
            exit_code=1,
        )
    raise InvalidError(
        "-t with -i needs a terminal, and standard input is not a terminal", TERMINAL_HINT, exit_code=1
    )


def _size(context: Context, terminal: bool) -> tuple[int, int]:
    """Rows and columns of the person's terminal, (0, 0) where there is none."""
    if not (terminal and context.interactive and context.stdin is not None):
        return 0, 0
    try:
        size = os.get_terminal_size(context.stdin.fileno())
    except OSError:
        return 0, 0
    return size.lines, size.columns
