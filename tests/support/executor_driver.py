"""A process that uses an executor as a supervisor does: single-threaded, a subreaper, in a mount namespace of
its own.  It takes one JSON object a line on standard input and answers with one on standard output.

Usage: executor_driver.py STATE_DIR PROGRAM|embedded [--user-namespace]
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydock_core import syscalls
from pydock_core.errors import PyDockError
from pydock_core.runtime import reaping
from pydock_core.runtime.command_executor import CommandExecutor
from pydock_core.runtime.embedded import EmbeddedExecutor
from pydock_core.runtime.executor import CreatedProcess, Executor, Stdio


class Driver:
    """The operations; each takes the request's keywords."""

    def __init__(self, state_dir: Path, program: str) -> None:
        self._executor: Executor = (
            EmbeddedExecutor(state_dir, state_dir / "cache", exec_patience_seconds=3.0)
            if program == "embedded"
            else CommandExecutor(program, state_dir, exec_patience_seconds=3.0)
        )
        self._consoles: dict[int, int] = {}
        self._outputs: dict[int, dict[int, str]] = {}
        self._read: dict[int, dict[str, bytes]] = {}

    def _make(
        self, stdin: str, terminal: bool, make: Callable[[Stdio | None], CreatedProcess]
    ) -> dict[str, Any]:
        """Make a process with a terminal, or with two pipes and standard input from a file."""
        if terminal:
            created = make(None)
            assert created.console_fd is not None
            self._outputs[created.pid] = {created.console_fd: "out"}
            self._consoles[created.pid] = created.console_fd
            self._read[created.pid] = {"out": b"", "err": b""}
            return {"pid": created.pid}
        out_read, out_write = os.pipe()
        err_read, err_write = os.pipe()
        stdin_fd = os.open(stdin or "/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        try:
            created = make(Stdio(stdin_fd, out_write, err_write))
        except BaseException:
            os.close(out_read)
            os.close(err_read)
            raise
        finally:
            for descriptor in (stdin_fd, out_write, err_write):
                os.close(descriptor)
        assert created.console_fd is None
        self._outputs[created.pid] = {out_read: "out", err_read: "err"}
        self._read[created.pid] = {"out": b"", "err": b""}
        return {"pid": created.pid}

    def _pump(self, pid: int, seconds: float | None) -> bool:
        """Read what a process has written; False once nobody can write any more."""
        outputs = self._outputs[pid]
        if not outputs:
            return False
        for descriptor in select.select(list(outputs), [], [], seconds)[0]:
            try:
                data = os.read(descriptor, 65536)
            except OSError:
                data = b""  # EIO: nobody has the other side of the terminal open
            if data:
                self._read[pid][outputs[descriptor]] += data
            else:
                os.close(descriptor)
                del outputs[descriptor]
        return True

    def create(self, bundle: str, id: str, stdin: str, terminal: bool) -> dict[str, Any]:
        return self._make(stdin, terminal, lambda stdio: self._executor.create(Path(bundle), id, stdio))

    def start(self, id: str) -> dict[str, Any]:
        self._executor.start(id)
        return {}

    def execute(self, id: str, process: dict[str, Any]) -> dict[str, Any]:
        terminal = bool(process.get("terminal"))
        return self._make("", terminal, lambda stdio: self._executor.execute(id, process, stdio))

    def kill(self, id: str, signal: int, everything: bool) -> dict[str, Any]:
        self._executor.kill(id, signal, all_processes=everything)
        return {}

    def delete(self, id: str) -> dict[str, Any]:
        self._executor.delete(id)
        return {}

    def oom(self, id: str) -> dict[str, Any]:
        executor = self._executor
        assert isinstance(executor, EmbeddedExecutor | CommandExecutor)
        return {"oom": executor.is_oom_killed(id), "pids": executor.read_stats(id).pids}

    def type(self, pid: int, text: str) -> dict[str, Any]:
        os.write(self._consoles[pid], text.encode())
        return {}

    def output(self, pid: int) -> dict[str, Any]:
        """Wait until a process has written something to standard output."""
        while not self._read[pid]["out"] and self._pump(pid, 10):
            pass
        return {"out": self._read[pid]["out"].decode()}

    def wait(self, pid: int) -> dict[str, Any]:
        """Wait for a child, reading what it writes meanwhile; the exit code is as shells have it."""
        while self._pump(pid, 30):
            pass
        self._consoles.pop(pid, None)
        while not self.ended(pid, 0.02)["ended"]:
            self._reap_strangers()  # an init waits for all of its PID namespace
        self._reap_strangers()
        del self._outputs[pid]
        reaped, status = os.waitpid(pid, os.WNOHANG)
        code = os.waitstatus_to_exitcode(status if reaped else reaping.read_held_status(pid))
        out, err = (data.decode(errors="replace") for data in self._read.pop(pid).values())
        return {"code": code if code >= 0 else 128 - code, "out": out, "err": err}

    def _reap_strangers(self) -> None:
        """Reap what has ended and is no process of a test, as a supervisor does: a failed exec may leave it."""
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        for pid in {int(word) for word in children} - self._outputs.keys():
            os.waitpid(pid, os.WNOHANG)

    def mount_tmpfs(self, path: str) -> dict[str, Any]:
        syscalls.mount("tmpfs", path, "tmpfs")
        return {}

    def unmount(self, path: str) -> dict[str, Any]:
        syscalls.umount(path)
        return {}

    def ended(self, pid: int, seconds: float) -> dict[str, Any]:
        pidfd = os.pidfd_open(pid)
        try:
            return {"ended": bool(select.select([pidfd], [], [], seconds)[0])}
        finally:
            os.close(pidfd)

    def census(self, base: str) -> dict[str, Any]:
        """What this process holds, for leak checks."""
        mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if base in line]
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        descriptors = sorted(
            os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd") if _is_open(name)
        )
        return {"mounts": mounts, "children": children, "descriptors": descriptors}


def _is_open(name: str) -> bool:
    # The descriptor of the listing itself is in the list, and closed by now.
    return os.path.lexists(f"/proc/self/fd/{name}")


def _enter_user_namespace() -> None:
    """Be root of a user namespace, as everything below a rootless zygote is."""
    read_fd, write_fd = os.pipe()
    ready_fd, mapped_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.read(read_fd, 1)
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{os.getppid()}/{name}").write_text("0 100000 65536\n")
        os.write(mapped_fd, b"x")
        os._exit(0)
    syscalls.unshare(syscalls.CLONE_NEWUSER)
    os.write(write_fd, b"x")
    os.read(ready_fd, 1)
    os.waitpid(pid, 0)
    for descriptor in (read_fd, write_fd, ready_fd, mapped_fd):
        os.close(descriptor)
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    # As the zygote does: only what has been executed in the namespace owns its own files in /proc.
    words = [word for word in sys.argv if word != "--user-namespace"]
    os.execv(sys.executable, [sys.executable, *words])


def main() -> None:
    state_dir, program = Path(sys.argv[1]), sys.argv[2]
    if "--user-namespace" in sys.argv:
        _enter_user_namespace()
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount("none", "/", "", syscalls.MS_REC | syscalls.MS_SLAVE)
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
    driver = Driver(state_dir, program)
    for line in sys.stdin:
        request = json.loads(line)
        operation = getattr(driver, request.pop("op"))
        begin = time.monotonic()
        try:
            answer = {"ok": True, **operation(**request)}
        except PyDockError as error:
            answer = {"ok": False, "error": error.to_json(), "kind": type(error).__name__}
        answer["seconds"] = time.monotonic() - begin
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
