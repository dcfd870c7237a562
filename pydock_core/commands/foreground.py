"""Connects a person's terminal, pipe or notebook cell with a container's streams while it runs in the foreground.

One loop over poll(2) relays the container's output, standard input, signals and window sizes.  With a terminal, standard
input is in raw mode, and the detach keys are detected.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import termios
import threading
import tty
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

from pydock_core.commands.context import Context, Writer
from pydock_core.commands.interrupts import TERMINAL_STEPS, Escalation, Step
from pydock_core.errors import InvalidError

if TYPE_CHECKING:
    from pydock_core.engine import InputStream, OutputStream, SessionProtocol

DEFAULT_DETACH_KEYS = "ctrl-p,ctrl-q"
_CHUNK_BYTES = 64 * 1024
_READABLE = select.POLLIN | select.POLLHUP | select.POLLERR
_PROXIED = (
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGCONT,
)


def parse_detach_keys(text: str) -> bytes:
    """Return the bytes of a key sequence: "ctrl-p,ctrl-q", "a,b", "ctrl-@"; empty text for none.

    Raises:
        InvalidError: a key is neither a character nor ctrl-CHARACTER.
    """
    keys = bytearray()
    for key in filter(None, text.split(",")):
        name = key.strip()
        if len(name) == 1 and name.isascii():
            keys += name.encode()
        elif name.lower().startswith("ctrl-") and len(name) == 6 and "@" <= name[-1].upper() <= "_":
            keys.append(ord(name[-1].upper()) & 0x1F)
        else:
            raise InvalidError(
                f"--detach-keys {text}: unknown key {name!r}",
                "write characters or ctrl-LETTER: ctrl-p,ctrl-q",
                exit_code=125,
            )
    return bytes(keys)


class DetachWatcher:
    """Detects the detach keys in typed bytes."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._matched = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """Return the bytes to forward, and whether to detach; keys of an incomplete sequence are held back."""
        if not self._keys:
            return data, False
        passed = bytearray()
        for byte in data:
            if byte == self._keys[self._matched]:
                self._matched += 1
                if self._matched == len(self._keys):
                    self._matched = 0
                    return bytes(passed), True
                continue
            passed += self._keys[: self._matched]
            self._matched = 1 if byte == self._keys[0] else 0
            if not self._matched:
                passed.append(byte)
        return bytes(passed), False


class Foreground:
    """One session in the foreground.

    Args:
        context: provides the front end's streams.
        session: of the process; if that has a terminal, the person's terminal is put in raw mode.
        detach_keys: bytes that end the session without ending the container.
        proxy_signals: forward this process's signals.
        interrupts: the effect of ctrl-c, or of a notebook's stop button.
    """

    def __init__(
        self,
        context: Context,
        session: SessionProtocol,
        *,
        detach_keys: bytes,
        proxy_signals: bool = True,
        interrupts: Sequence[Step] = TERMINAL_STEPS,
    ) -> None:
        self._context = context
        self._session = session
        self._terminal = session.terminal and context.interactive
        self._watcher = DetachWatcher(detach_keys if self._terminal else b"")
        self._writers: dict[str, Writer] = {"stdout": context.stdout, "stderr": context.stderr}
        self._proxy_signals = proxy_signals
        self._pending: list[int] = []
        self._escalation = Escalation(interrupts)
        self._has_let_go = False

    def run(self, *, stdin: bool, leaves_orphans: bool = False) -> bool:
        """Relay until every output has ended, and the process with them.

        Args:
            stdin: forward the front end's standard input to the process.
            leaves_orphans: children of the process may hold the outputs open after its end; after an interrupt, do not
                wait for them.

        Returns:
            True if the person detached, or an interrupt released the process; False if the process ended.
        """
        with self._raw_mode(), self._signals() as wake_fd:
            self._send_size()
            return self._loop(self._session.stdin if stdin else None, wake_fd, leaves_orphans)

    def _loop(self, sink: InputStream | None, wake_fd: int, leaves_orphans: bool) -> bool:
        outputs = {stream.fileno(): stream for stream in self._session.outputs}
        end_fd = self._session.fileno()
        source = _Source(self._context.stdin) if sink is not None else None
        buffer = b""
        while outputs or end_fd >= 0:
            poll = select.poll()
            for fd in outputs:
                poll.register(fd, select.POLLIN)
            poll.register(wake_fd, select.POLLIN)
            if end_fd >= 0:
                poll.register(end_fd, select.POLLIN)
            if buffer and sink is not None:
                # The same descriptor may be an output too (a socket, a terminal's master).
                poll.register(
                    sink.fileno(), select.POLLOUT | (select.POLLIN if sink.fileno() in outputs else 0)
                )
            elif source is not None and source.fd is not None:
                poll.register(source.fd, select.POLLIN)
            ready = dict(poll.poll(self._patience(source, buffer)))
            if wake_fd in ready:
                os.read(wake_fd, 4096)
                self._forward_pending()
            elif self._escalation.remaining_seconds() == 0:
                self._interrupt()
            if self._has_let_go:
                return True
            if (
                sink is not None
                and source is not None
                and not buffer
                and (source.fd is None or source.fd in ready)
            ):
                data = source.read()
                if not data:
                    source = None
                    sink.close()
                else:
                    buffer, detach = self._watcher.feed(data)
                    if detach:
                        return True
            if buffer and sink is not None and ready.get(sink.fileno(), select.POLLOUT) & ~select.POLLIN:
                buffer = buffer[sink.write(buffer) :]
            for fd in [fd for fd in outputs if ready.get(fd, 0) & _READABLE]:
                if self._relay(outputs[fd]):
                    del outputs[fd]
            if end_fd in ready:
                end_fd = -1
            if end_fd < 0 and leaves_orphans and self._escalation.has_begun:
                for stream in outputs.values():  # once: an orphan may write forever
                    self._relay(stream)
                return False
        return False

    def _relay(self, stream: OutputStream) -> bool:
        """Write the available data of an output; return whether it has ended."""
        pieces = stream.read()
        for name, data in pieces or ():
            self._writers[name].write_bytes(data)
        return pieces is not None and not pieces

    def _patience(self, source: _Source | None, buffer: bytes) -> float | None:
        """Return the timeout of the next poll(2) in milliseconds; None for no limit."""
        if source is not None and source.fd is None and not buffer:
            return 0
        seconds = self._escalation.remaining_seconds()
        return None if seconds is None else seconds * 1000

    def _interrupt(self) -> None:
        """Take the next step, after an interrupt or because the grace period is over."""
        self._context.was_interrupted = True
        step = self._escalation.advance()
        if step.signal is None:
            self._has_let_go = True
        else:
            self._session.signal(step.signal)
        if step.notice:
            self._context.stderr.write(f"note: {step.notice}\n")
            self._context.stderr.flush()

    def _forward_pending(self) -> None:
        while self._pending:
            number = self._pending.pop(0)
            if number == signal.SIGWINCH:
                self._send_size()
            elif number == signal.SIGINT:
                self._interrupt()
            else:
                self._session.signal(number)

    def _send_size(self) -> None:
        if self._terminal:
            with contextlib.suppress(OSError):
                size = os.get_terminal_size(self._stdin_fd())
                self._session.resize(size.lines, size.columns)

    def _stdin_fd(self) -> int:
        return self._context.stdin.fileno() if self._context.stdin is not None else 0

    @contextlib.contextmanager
    def _raw_mode(self) -> Iterator[None]:
        if not self._terminal:
            yield
            return
        fd = self._stdin_fd()
        before = termios.tcgetattr(fd)
        try:
            tty.setraw(fd, termios.TCSADRAIN)  # input that was typed ahead goes to the container
            yield
        finally:
            termios.tcsetattr(fd, termios.TCSADRAIN, before)

    def _wanted_signals(self) -> list[signal.Signals]:
        if threading.current_thread() is not threading.main_thread():
            return []  # only the main thread can set handlers, and only it is interrupted
        proxied = _PROXIED if self._proxy_signals and self._context.owns_process else ()
        # SIGINT always: a KeyboardInterrupt in the middle of a step would tear the stream apart.
        return [signal.SIGINT, *proxied, *([signal.SIGWINCH] if self._terminal else [])]

    @contextlib.contextmanager
    def _signals(self) -> Iterator[int]:
        """Collect signals while the loop runs, and wake it; only the main thread can (signal(2) in Python)."""
        wake_fd, write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        before: dict[int, Any] = {}

        def note(number: int, _frame: object) -> None:
            self._pending.append(number)
            with contextlib.suppress(BlockingIOError):
                os.write(write_fd, b"s")

        try:
            for number in self._wanted_signals():
                before[number] = signal.signal(number, note)
            yield wake_fd
        finally:
            for handled, handler in before.items():
                signal.signal(handled, handler)
            os.close(wake_fd)
            os.close(write_fd)


class _Source:
    """Standard input: a descriptor to poll, or a stream without one, which is read at once (a cell's body)."""

    def __init__(self, stream: BinaryIO | None) -> None:
        self._stream = stream
        self.fd: int | None = None
        if stream is not None:
            with contextlib.suppress(OSError, AttributeError):
                self.fd = stream.fileno()

    def read(self) -> bytes:
        if self.fd is not None:
            try:
                return os.read(self.fd, _CHUNK_BYTES)
            except OSError:  # a terminal that has gone away
                return b""
        return self._stream.read(_CHUNK_BYTES) if self._stream is not None else b""
