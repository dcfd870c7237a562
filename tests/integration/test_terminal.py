"""``-it`` in a real terminal: raw mode, window size, control characters, detach keys; through a pty."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.integration.conftest import Dock, wait_until


class Terminal:
    """A person at a terminal of 24 by 80: types, and reads the screen's bytes."""

    def __init__(self, pid: int, fd: int) -> None:
        self.pid = pid
        self.fd = fd
        self.screen = b""
        self.code: int | None = None

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def expect(self, text: str, seconds: float = 20) -> None:
        """Wait until the screen shows a text, and forget what was before it."""
        end = time.monotonic() + seconds
        wanted = text.encode()
        while wanted not in self.screen:
            assert time.monotonic() < end, f"{text!r} never came; the screen: {self.screen!r}"
            if select.select([self.fd], [], [], 0.2)[0]:
                try:
                    data = os.read(self.fd, 65536)
                except OSError:
                    data = b""
                assert data, f"{text!r} never came; the program ended: {self.screen!r}"
                self.screen += data
        self.screen = self.screen.split(wanted, 1)[1]

    def wait_for_raw_mode(self) -> None:
        wait_until(lambda: not termios.tcgetattr(self.fd)[3] & termios.ECHO, "raw mode")

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def end(self, seconds: float = 20) -> int:
        """Wait for the program's end; return its exit code."""
        limit = time.monotonic() + seconds
        while self.code is None:
            assert time.monotonic() < limit, f"the program goes on; the screen: {self.screen!r}"
            if select.select([self.fd], [], [], 0.05)[0]:
                with suppress(OSError):
                    self.screen += os.read(self.fd, 65536)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code


@contextmanager
def terminal(dock: Dock, *words: str) -> Iterator[Terminal]:
    """Run ``dock`` in a terminal."""
    command = dock.words(*words)
    environment = dock.environment()
    pid, fd = pty.fork()
    if pid == 0:
        os.execve(command[0], command, environment)
    person = Terminal(pid, fd)
    person.resize(24, 80)
    try:
        yield person
    finally:
        if person.code is None:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        os.close(fd)


def test_a_shell_in_a_terminal(dock: Dock) -> None:
    with terminal(dock, "run", "--rm", "-it", "busybox", "sh") as person:
        person.expect("#")
        person.type("test -t 0 && test -t 1 && echo is a $((1+1))tty\r")
        person.expect("is a 2tty")
        person.type("sh -c 'echo now it; exec sleep 100'\r")
        person.expect("\nnow it")
        person.type("\x03")  # ctrl-c goes to the program in the container, not to dock
        person.expect("#")
        person.type("exit 6\r")
        assert person.end() == 6


def test_the_window_size_is_the_containers(dock: Dock) -> None:
    with terminal(
        dock,
        "run",
        "--rm",
        "-it",
        "--name",
        "sized",
        "busybox",
        "sh",
        "-c",
        "trap 'stty size' WINCH; stty size; echo go; while :; do sleep 0.1; done",
    ) as person:
        person.expect("24 80")
        person.expect("go")
        person.resize(50, 120)
        person.expect("50 120")
        person.type("\x03")
        assert person.end() == 130


@pytest.mark.parametrize(("words", "keys"), [((), "\x10\x11"), (("--detach-keys", "ctrl-x,y"), "\x18y")])
def test_detach_keys_leave_it_running_and_attach_comes_back(
    dock: Dock, words: tuple[str, ...], keys: str
) -> None:
    with terminal(dock, "run", "-it", "--name", "kept", *words, "busybox", "sh") as person:
        person.expect("#")
        person.type("word=secret\r")
        person.expect("#")
        person.type(keys)
        assert person.end() == 0
    assert dock.out("inspect", "--format", "{{.State.Status}}", "kept") == "running"
    with terminal(dock, "attach", "kept") as person:
        person.wait_for_raw_mode()
        person.type("echo back with $word\r")
        person.expect("back with secret")
        person.type("exit 3\r")
        assert person.end() == 3
    dock("rm", "kept")


def test_start_interactively_in_a_terminal(dock: Dock) -> None:
    dock("create", "-it", "--name", "tf", "busybox", "sh")
    with terminal(dock, "start", "-i", "tf") as person:
        person.expect("#")
        person.type("echo $((6*7))\r")
        person.expect("42")
        person.type("exit\r")
        assert person.end() == 0


def test_exec_in_a_terminal(dock: Dock) -> None:
    dock("run", "-d", "--name", "host", "busybox", "sleep", "1000")
    with terminal(dock, "exec", "-it", "host", "sh") as person:
        person.expect("#")
        person.type("stty size; tty\r")
        person.expect("24 80")
        person.expect("/dev/")
        person.type("exit 5\r")
        assert person.end() == 5


def test_the_persons_terminal_is_given_back_as_it_was(dock: Dock) -> None:
    with terminal(dock, "run", "--rm", "-it", "busybox", "sh") as person:
        before = termios.tcgetattr(person.fd)
        person.wait_for_raw_mode()
        person.expect("#")
        person.type("exit\r")
        assert person.end() == 0
        assert termios.tcgetattr(person.fd) == before


def test_a_pipe_is_no_terminal(dock: Dock) -> None:
    result = dock("run", "--rm", "-it", "busybox", "sh", stdin=b"", code=1)
    assert "not a terminal" in result.stderr
    assert "leave out -t" in result.stderr
