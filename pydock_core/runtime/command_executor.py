"""The OCI-command executor: has a program with runc's command line (crun, runc, ...) create the containers.

The program writes its own messages to a log file (``--log``), so that the container's streams carry only the container's
output.  Whether a command is missing (127) or cannot be executed (126) is decided by a look-up in the root filesystem,
never by the program's messages.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydock_core import messages, syscalls
from pydock_core.errors import (
    ConflictError,
    FailedError,
    InvalidError,
    NotFoundError,
    PyDockError,
    UnavailableError,
)
from pydock_core.private_files import make_directories, open_private
from pydock_core.runtime import reaping
from pydock_core.runtime.cgroups import CgroupStats, ContainerCgroup, plan_cgroup, read_layout
from pydock_core.runtime.container_config import read_config
from pydock_core.runtime.executor import CreatedProcess, Stdio
from pydock_core.runtime.inside import find_executable
from pydock_core.runtime.process_setup import DEFAULT_PATH, command_hint

_CONSOLE_TIMEOUT_SECONDS = 10.0
_DEATH_TIMEOUT_SECONDS = 1.0
_HYBRID_HINT = (
    "crun refuses the hybrid cgroup mode while controllers are left to version 2: mkdir -p"
    " /sys/fs/cgroup/hugetlb && mount -t cgroup -o hugetlb hugetlb /sys/fs/cgroup/hugetlb"
)


class CommandExecutor:
    """See :class:`pydock_core.runtime.executor.Executor`, the protocol.

    Args:
        program: path or name of the program.
        state_dir: holds the program's state and this class's files; created if it is missing (0700).
        exec_patience_seconds: the time limit for the program's ``exec``; a container can delay the process that enters
            it.
    """

    def __init__(self, program: str, state_dir: Path, *, exec_patience_seconds: float = 10.0) -> None:
        self._exec_patience_seconds = exec_patience_seconds
        self.name = os.path.basename(program)
        self._program = program
        self._state_dir = state_dir

    # -- the protocol ------------------------------------------------------------------------------------

    def create(self, bundle: Path, container_id: str, stdio: Stdio | None) -> CreatedProcess:
        """Create the container of ``bundle``.

        Raises:
            UnavailableError: the program is missing.
            ConflictError: a container with this id exists.
            NotFoundError, FailedError: the command was not found (exit code 127) or cannot be executed (126).
            FailedError: the program failed; carries its message.
        """
        config = read_config(bundle)
        process = config.get("process") or {}
        _check_streams(process, stdio)
        directory = self._directory(container_id)
        if directory.exists():
            raise ConflictError(f"container {container_id} exists already", "delete it first")
        make_directories(directory)
        try:
            (directory / "bundle").symlink_to(bundle.absolute())
            root = bundle / str((config.get("root") or {}).get("path") or "rootfs")
            arguments = ["create", "--bundle", str(bundle.absolute())]
            return self._run_process(container_id, arguments, process, stdio, root)
        except BaseException as error:
            try:
                self.delete(container_id)
            except PyDockError as failure:
                error.add_note(f"and the clean-up failed: {failure}")
            raise

    def start(self, container_id: str) -> None:
        """Let the created container's init execute the user's process."""
        self._require(container_id)
        self._run(container_id, ["start", container_id])

    def execute(self, container_id: str, process: Mapping[str, Any], stdio: Stdio | None) -> CreatedProcess:
        """Run an additional process; ``process`` is an OCI process object."""
        directory = self._require(container_id)
        _check_streams(process, stdio)
        state = self._state(container_id)
        if state.get("status") != "running":
            raise ConflictError(f"container {container_id} is not running", "start it first")
        path = directory / f"process.{os.getpid()}.json"
        with open(path, "w", encoding="utf-8", opener=open_private) as file:
            json.dump(process, file)
        try:
            arguments = ["exec", "--detach", "--process", str(path)]
            root = Path(f"/proc/{state['pid']}/root")
            return self._run_process(container_id, arguments, process, stdio, root)
        finally:
            path.unlink()

    def kill(self, container_id: str, signal_number: int, *, all_processes: bool = False) -> None:
        """Send a signal to init, or to every process of the container; ignore a stopped container."""
        self._require(container_id)
        if all_processes and signal_number == signal.SIGKILL:
            self._kill_group(container_id)
        arguments = ["kill", *(["--all"] if all_processes else []), container_id, str(signal_number)]
        try:
            self._run(container_id, arguments)
        except FailedError:
            if self._state(container_id).get("status") in ("running", "created", "paused"):
                raise

    def delete(self, container_id: str) -> None:
        """Remove the container, and kill its remaining processes; ignore a container that is gone."""
        directory = self._directory(container_id)
        if (self._root / container_id).exists():
            self._kill_group(container_id)
            self._run(container_id, ["delete", "--force", container_id])
        for path in directory.glob("*"):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
        with contextlib.suppress(FileNotFoundError):
            directory.rmdir()

    def read_stats(self, container_id: str) -> CgroupStats:
        """Read the statistics of the container's control group; all None if the group is not known."""
        group = self._find_group(container_id)
        return group.read_stats() if group is not None else CgroupStats()

    def _find_group(self, container_id: str) -> ContainerCgroup | None:
        config = read_config(self._require(container_id) / "bundle")
        path = (config.get("linux") or {}).get("cgroupsPath")
        return plan_cgroup(path, {}) if path else None

    def _kill_group(self, container_id: str) -> None:
        """Kill the processes in the container's control group: crun and runc would wait for frozen ones."""
        with contextlib.suppress(PyDockError):  # the bundle, or the group, has gone before the container
            if (group := self._find_group(container_id)) is not None:
                group.kill()

    def is_oom_killed(self, container_id: str) -> bool:
        """Whether a process of the container was killed because memory ran out; call this before :meth:`delete`."""
        return bool(self.read_stats(container_id).oom_kills)

    # -- state -------------------------------------------------------------------------------------------

    @property
    def _root(self) -> Path:
        return self._state_dir / "runtime"

    def _directory(self, container_id: str) -> Path:
        if not container_id or "/" in container_id or container_id.startswith("."):
            raise InvalidError(f"{container_id!r} cannot name a container")
        return self._state_dir / f"c-{container_id}"

    def _require(self, container_id: str) -> Path:
        directory = self._directory(container_id)
        if not directory.exists():
            raise NotFoundError(f"there is no container {container_id}")
        return directory

    def _state(self, container_id: str) -> dict[str, Any]:
        """Return the program's ``state`` document; empty if it knows no such container."""
        output_fd = os.memfd_create("state", os.MFD_CLOEXEC)
        try:
            self._run(container_id, ["state", container_id], stdout_fd=output_fd)
            document = json.loads(os.pread(output_fd, 1 << 20, 0))
        except (FailedError, ValueError):
            return {}
        finally:
            os.close(output_fd)
        return document if isinstance(document, dict) else {}

    # -- running the program -----------------------------------------------------------------------------

    def _run_process(
        self,
        container_id: str,
        arguments: Sequence[str],
        process: Mapping[str, Any],
        stdio: Stdio | None,
        root: Path,
    ) -> CreatedProcess:
        """Run ``create`` or ``exec``; return the pid and the terminal of the process that the program leaves behind."""
        directory = self._directory(container_id)
        pid_file = directory / f"pid.{os.getpid()}"
        with contextlib.ExitStack() as stack:
            stack.callback(pid_file.unlink, missing_ok=True)
            more = ["--pid-file", str(pid_file)]
            listener: socket.socket | None = None
            if stdio is None:
                listener, address = stack.enter_context(_console_listener(directory))
                more += ["--console-socket", address]
            before = _list_children()
            try:
                self._run(container_id, [*arguments, *more, container_id], stdio=stdio)
            except FailedError as error:
                _reap_orphans(before)
                raise _judge(error, root, process) from error
            pid = int(pid_file.read_text())
            return CreatedProcess(pid, _receive_console(listener) if listener is not None else None)

    def _run(
        self,
        container_id: str,
        arguments: Sequence[str],
        *,
        stdio: Stdio | None = None,
        stdout_fd: int | None = None,
    ) -> None:
        """Run the program to its end; FailedError carries the last line of its log."""
        make_directories(self._root)
        log = self._state_dir / f"log.{container_id}.{os.getpid()}"
        command = [
            self._program,
            "--root",
            str(self._root),
            "--log",
            str(log),
            "--log-format",
            "json",
            *arguments,
        ]
        null_fd = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        try:
            streams = stdio or Stdio(null_fd, null_fd if stdout_fd is None else stdout_fd, null_fd)
            code = self._spawn(
                command, streams, self._exec_patience_seconds if arguments[0] == "exec" else None
            )
            if code != 0:
                raise self._explain(arguments[0], code, _read_last_message(log))
        finally:
            os.close(null_fd)
            log.unlink(missing_ok=True)

    def _spawn(self, command: list[str], streams: Stdio, patience_seconds: float | None) -> int:
        # Move them above the standard streams first: one of the three may be 0, 1 or 2 already.
        import fcntl

        sources = (streams.stdin_fd, streams.stdout_fd, streams.stderr_fd)
        copies = [fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, 3) for source in sources]
        try:
            pid = os.posix_spawnp(
                command[0],
                command,
                os.environ,
                file_actions=[(os.POSIX_SPAWN_DUP2, copy, target) for target, copy in enumerate(copies)],
                setsigmask=(),
                setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
            )
        except (FileNotFoundError, PermissionError) as error:
            raise UnavailableError(
                f"cannot run the OCI runtime {self._program}: {error.strerror}",
                f"install it (Debian: apt install {self.name}), or leave --runtime out",
            ) from error
        finally:
            messages.close_all(copies)
        if patience_seconds is not None and not reaping.has_ended(pid, patience_seconds):
            reaping.kill_and_reap(pid, _DEATH_TIMEOUT_SECONDS)
            raise FailedError(
                "the process did not start its program in time",
                "the container may have frozen its control group, or stopped or traced the process",
            )
        # The program itself is in the host's PID namespace: no tracer of the container finds it.
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def _explain(self, verb: str, code: int, message: str) -> FailedError:
        hint = ""
        unified = read_layout().unified
        if self.name == "crun" and read_layout().version == 1 and unified is not None:
            with contextlib.suppress(OSError):
                hint = _HYBRID_HINT if (unified / "cgroup.controllers").read_text().strip() else ""
        return FailedError(f"{self.name} {verb}: {message or f'ended with exit code {code}'}", hint)


def _check_streams(process: Mapping[str, Any], stdio: Stdio | None) -> None:
    if bool(process.get("terminal")) != (stdio is None):
        raise InvalidError("a process has either a terminal or three streams")


def _list_children() -> set[int]:
    with contextlib.suppress(FileNotFoundError):  # a kernel without CONFIG_PROC_CHILDREN
        return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}
    return set()


def _reap_orphans(before: set[int]) -> None:
    """Reap the processes that a failed program left to this subreaper: the init of a PID namespace would wait for them."""
    killed: set[int] = set()
    while orphans := _list_children() - before - killed:  # again: an orphan's children come when it is reaped
        for pid in orphans:
            reaping.kill_and_reap(pid, _DEATH_TIMEOUT_SECONDS)
        killed |= orphans


def _judge(error: FailedError, root: Path, process: Mapping[str, Any]) -> PyDockError:
    """Turn the program's failure into "not found" or "cannot be executed", according to the root filesystem."""
    arguments = process.get("args") or [""]
    environment = dict(str(entry).partition("=")[::2] for entry in process.get("env") or ())
    try:
        root_fd = os.open(root, syscalls.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return error
    try:
        search_path = environment.get("PATH", DEFAULT_PATH)
        verdict = find_executable(root_fd, str(arguments[0]), search_path, str(process.get("cwd") or "/"))
    finally:
        os.close(root_fd)
    if verdict == 127:
        where = "no such file or directory" if "/" in arguments[0] else "executable file not found in $PATH"
        return NotFoundError(f'exec: "{arguments[0]}": {where}', command_hint(arguments[0]), exit_code=127)
    if verdict == 126:
        return FailedError(
            f'exec: "{arguments[0]}": permission denied', "it is not an executable file", exit_code=126
        )
    return error


def _read_last_message(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return ""
    for line in reversed(lines):
        try:
            document = json.loads(line)
        except ValueError:
            if line.strip():
                return line.strip()
            continue
        if isinstance(document, dict) and document.get("msg"):
            return str(document["msg"]).strip()
    return ""


@contextlib.contextmanager
def _console_listener(directory: Path) -> Any:
    """Listen for the terminal that the program sends; yield the socket and an address that fits sun_path."""
    path = directory / f"console.{os.getpid()}"
    directory_fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    # Through this process's own descriptor: the program runs in the same PID namespace.
    address = f"/proc/{os.getpid()}/fd/{directory_fd}/{path.name}"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        os.fchmod(listener.fileno(), 0o600)
        listener.bind(address)
        listener.listen(1)
        yield listener, address
    finally:
        listener.close()
        path.unlink(missing_ok=True)
        os.close(directory_fd)


def _receive_console(listener: socket.socket) -> int:
    if not select.select([listener], [], [], _CONSOLE_TIMEOUT_SECONDS)[0]:
        raise FailedError("the OCI runtime sent no terminal")
    connection, _ = listener.accept()
    with connection:
        _, fds, _, _ = socket.recv_fds(connection, 4096, 1)
    if not fds:
        raise FailedError("the OCI runtime sent no terminal")
    os.set_inheritable(fds[0], False)
    return fds[0]
