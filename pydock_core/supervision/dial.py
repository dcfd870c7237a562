"""Connects to a container's TCP port from inside its network namespace."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable

from pydock_core.supervision.event_loop import WRITE, EventLoop, Timer

DIAL_TIMEOUT_SECONDS = 10.0

Done = Callable[[socket.socket | None, int], None]
"""Called with the connected, non-blocking socket, or with None and the errno of the first failure."""


def addresses(own_address: str) -> tuple[str, ...]:
    """Return the addresses to try inside a container: loopback first (Jupyter's default), then its own address.

    Args:
        own_address: with or without a prefix length; empty if the container has none.
    """
    own = own_address.partition("/")[0]
    return ("127.0.0.1", "::1", *([own] if own else []))


class Dial:
    """An asynchronous attempt: tries each address in turn until one connects."""

    def __init__(self, loop: EventLoop, hosts: tuple[str, ...], port: int, done: Done) -> None:
        self._loop = loop
        self._hosts = list(hosts)
        self._port = port
        self._done = done
        self._errno = 0
        self._socket: socket.socket | None = None
        self._timer: Timer | None = None

    def start(self) -> None:
        """Begin; where every address is refused at once, ``done`` is called before this returns."""
        while self._hosts:
            host = self._hosts.pop(0)
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            try:
                attempt = socket.socket(
                    family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
                )
            except OSError as error:  # a kernel without IPv6
                self._note(error.errno)
                continue
            code = attempt.connect_ex((host, self._port))
            if code in (0, errno.EINPROGRESS):
                self._socket = attempt
                self._loop.watch(attempt.fileno(), WRITE, self._on_event)
                self._timer = self._loop.call_later(DIAL_TIMEOUT_SECONDS, self._on_timeout)
                return
            attempt.close()
            self._note(code)
        self._done(None, self._errno or errno.ECONNREFUSED)

    def _note(self, code: int | None) -> None:
        # The first refusal says more than "no such address" of a family that is not there.
        if code and (not self._errno or code == errno.ECONNREFUSED):
            self._errno = code

    def _release(self) -> socket.socket:
        assert self._socket is not None
        attempt, self._socket = self._socket, None
        self._loop.forget(attempt.fileno())
        if self._timer is not None:
            self._timer.cancel()
        return attempt

    def _on_event(self, _: int) -> None:
        attempt = self._release()
        code = attempt.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code == 0 and _is_self_connected(attempt):
            code = errno.ECONNREFUSED
        if code == 0:
            self._done(attempt, 0)
            return
        attempt.close()
        self._note(code)
        self.start()

    def _on_timeout(self) -> None:
        self._release().close()
        self._note(errno.ETIMEDOUT)
        self.start()

    def cancel(self) -> None:
        """Give up without a word; harmless when it is over."""
        self._hosts.clear()
        if self._socket is not None:
            self._release().close()


def _is_self_connected(attempt: socket.socket) -> bool:
    """Whether TCP has connected the socket to itself: simultaneous open, if the kernel chose the same port as the target."""
    return bool(attempt.getsockname() == attempt.getpeername())


def describe(code: int, port: int, subject: str) -> str:
    """Say why a dial failed, in one line."""
    if code == errno.ECONNREFUSED:
        return f"nothing listens on port {port} of {subject}"
    return f"cannot reach port {port} of {subject}: {os.strerror(code)}"
