"""The commands that run a process: run, create, start, attach, exec."""

from __future__ import annotations

import contextlib
import os
import signal
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from pydock_core.commands.context import Context
from pydock_core.commands.create_words import build_request, parse_environment, parse_environment_files
from pydock_core.commands.dispatch import for_each
from pydock_core.commands.ending import describe_exit, describe_signal
from pydock_core.commands.ensure_image import ensure_image
from pydock_core.commands.foreground import DEFAULT_DETACH_KEYS, Foreground, parse_detach_keys
from pydock_core.commands.interrupts import (
    TERMINAL_STEPS,
    Step,
    steps_that_ask,
    steps_that_leave,
    steps_that_stop,
)
from pydock_core.engine import (
    DEFAULT_STOP_SECONDS,
    CreateRequest,
    ExecRequest,
    SessionProtocol,
    Streams,
    signal_number,
)
from pydock_core.errors import (
    ConflictError,
    FailedError,
    InvalidError,
    NotFoundError,
    PyDockError,
    UnsupportedError,
)

LEFT_EXIT_CODE = 128 + signal.SIGINT
"""The exit code of a command that an interrupt has ended while the container keeps running."""
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
            session = context.engine.containers.start(
                container_id, attach=attached, size=_size(context, request["Tty"])
            )
        except PyDockError as error:
            if auto_remove:
                _remove(context, container_id)
            error.exit_code = 125 if error.exit_code is None else error.exit_code
            raise
        if words.detach:
            session.close()
            context.print(container_id)
            return 0
        return _stay(
            context, container_id, request, session, keys, attach_stdin=stdin, proxy_signals=words.sig_proxy
        )


def create(context: Context, words: Namespace) -> int:
    """Create a container and print its id."""
    request = build_request(words, os.environ, os.getcwd())
    if words.attach:
        raise UnsupportedError(
            "dock create: option -a is not supported by this version of PyDock",
            "choose at start: dock start -a",
            exit_code=125,
        )
    context.print(_create(context, request, words))
    return 0


def _create(context: Context, request: CreateRequest, words: Namespace) -> str:
    with _id_file(words.cidfile) as write_id:
        ensure_image(context, request["Image"], words.pull, words.platform, quiet=words.quiet)
        try:
            container_id, warnings = context.engine.containers.create(
                request, words.name, any_platform=bool(words.platform)
            )
        except PyDockError as error:
            error.exit_code = 125 if error.exit_code is None else error.exit_code
            raise
        write_id(container_id)
    for warning in warnings:
        context.warn(warning)
    return container_id


@contextlib.contextmanager
def _id_file(path: str) -> Iterator[Callable[[str], object]]:
    """Yield the function that writes a container's id to a new file; without a container, the file is removed.

    Args:
        path: "" for no file.
    """
    if not path:
        yield lambda _: None
        return
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(open(path, "x", encoding="ascii"))
        except FileExistsError as error:
            raise ConflictError(
                f"--cidfile {path}: the file exists", "remove it, or name another", exit_code=125
            ) from error
        except OSError as error:
            raise FailedError(
                f"--cidfile {path}: {error.strerror}",
                "name a file in a directory that you can write to",
                exit_code=125,
            ) from error
        try:
            yield file.write
        except BaseException:
            os.unlink(path)
            raise


def start(context: Context, words: Namespace) -> int:
    """Start containers; with -a or -i, attach to the one container and return its exit code."""
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
        return _stay(
            context,
            container_id,
            request,
            containers.attach(container_id, Streams(stdin=attach_stdin)),
            keys,
            attach_stdin=attach_stdin,
            proxy_signals=True,
            has_started=False,
        )
    with _given_up(context, container_id, remove=request["HostConfig"]["AutoRemove"]):
        session = containers.start(
            container_id, attach=Streams(stdin=attach_stdin), size=_size(context, request["Tty"])
        )
        return _stay(
            context, container_id, request, session, keys, attach_stdin=attach_stdin, proxy_signals=True
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
    keys = parse_detach_keys(words.detach_keys or DEFAULT_DETACH_KEYS)
    return _stay(
        context,
        container_id,
        request,
        context.engine.containers.attach(container_id, Streams(stdin=attach_stdin)),
        keys,
        attach_stdin=attach_stdin,
        proxy_signals=words.sig_proxy,
        has_started=False,
    )


def exec_(context: Context, words: Namespace) -> int:
    """Run a command in a running container; return its exit code."""
    if not words.COMMAND:
        raise InvalidError("dock exec: a command is missing", "dock exec CONTAINER COMMAND", exit_code=125)
    if not words.detach:
        _check_terminal(context, words.tty, words.interactive)
    request = ExecRequest(
        command=tuple(words.COMMAND),
        env=(
            *parse_environment_files(words.env_file, "--env-file", os.environ),
            *parse_environment(words.env, os.environ),
        ),
        working_directory=words.workdir,
        user=words.user,
        terminal=words.tty and not words.detach,
        privileged=words.privileged,
        size=_size(context, words.tty),
    )
    keys = parse_detach_keys(words.detach_keys or DEFAULT_DETACH_KEYS)
    session = context.engine.containers.exec(
        words.CONTAINER, request, stdin=words.interactive, detach=words.detach
    )
    if words.detach:
        session.close()
        return 0
    return _follow_execution(context, session, keys, interactive=words.interactive)


# -- staying with it -----------------------------------------------------------------------------------


def _stay(
    context: Context,
    container_id: str,
    request: CreateRequest,
    session: SessionProtocol,
    keys: bytes,
    *,
    attach_stdin: bool,
    proxy_signals: bool,
    has_started: bool = True,
) -> int:
    """Relay a container until it ends and return its exit code; 0 if the person detached.

    One that this command has started with ``--rm`` is removed at its end.
    """
    with session:
        foreground = Foreground(
            context,
            session,
            detach_keys=keys,
            proxy_signals=proxy_signals and not session.terminal,
            interrupts=_steps(context, container_id, proxy_signals=proxy_signals, has_started=has_started),
        )
        if foreground.run(stdin=attach_stdin):
            return LEFT_EXIT_CODE if context.was_interrupted else 0
        end = session.wait()
    context.ending = describe_exit(
        end.exit_code, oom_killed=end.oom_killed, memory_bytes=request["HostConfig"]["Memory"] or None
    )
    if has_started and request["HostConfig"]["AutoRemove"]:
        _remove(context, container_id)
    return end.exit_code


@contextlib.contextmanager
def _given_up(context: Context, container_id: str, *, remove: bool) -> Iterator[None]:
    """Kill the container that this command starts on an interrupt that is not forwarded to it."""
    try:
        yield
    except KeyboardInterrupt:
        with contextlib.suppress(PyDockError):  # it is not running yet, or has ended
            context.engine.containers.kill(container_id)
        if remove:
            _remove(context, container_id)
        raise


def _remove(context: Context, container_id: str) -> None:
    with contextlib.suppress(NotFoundError):  # another process has removed it
        context.engine.containers.remove(container_id, force=True, volumes=True)


def _steps(context: Context, container_id: str, *, proxy_signals: bool, has_started: bool) -> Sequence[Step]:
    """Return the effects of interrupts on a container."""
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


def _follow_execution(context: Context, session: SessionProtocol, keys: bytes, *, interactive: bool) -> int:
    with session:
        foreground = Foreground(
            context,
            session,
            detach_keys=keys,
            interrupts=steps_that_stop("the command", signal.SIGTERM, DEFAULT_STOP_SECONDS)
            if context.notebook
            else TERMINAL_STEPS,
        )
        detached = foreground.run(stdin=interactive, leaves_orphans=True)
        code = 0 if detached else session.wait().exit_code
    context.ending = describe_signal(code)
    return code


# -- small parts ---------------------------------------------------------------------------------------


def _streams(names: list[str]) -> Streams | None:
    if not names:
        return None
    chosen = {name.lower() for name in names}
    if unknown := chosen - {"stdin", "stdout", "stderr"}:
        raise InvalidError(
            f"-a {sorted(unknown)[0]}: no such stream", "there are stdin, stdout and stderr", exit_code=125
        )
    return Streams(stdin="stdin" in chosen, stdout="stdout" in chosen, stderr="stderr" in chosen)


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
    """Return the rows and columns of the terminal, (0, 0) without one."""
    if not (terminal and context.interactive and context.stdin is not None):
        return 0, 0
    try:
        size = os.get_terminal_size(context.stdin.fileno())
    except OSError:
        return 0, 0
    return size.lines, size.columns
