"""Waits for a change that another process signals by setting a file's times; see ``StateRoot.changed``."""

from __future__ import annotations

import errno
import os
import select
import threading
from contextlib import suppress
from pathlib import Path

from pydock_core import syscalls

_MASK = syscalls.IN_ATTRIB | syscalls.IN_DELETE_SELF
_LIMITED = (errno.EMFILE, errno.ENOSPC, errno.ENOSYS)
_FALLBACK_SECONDS = 1.0
_QUEUE_BYTES = 4096


class ChangeWatch:
    """Reports every change since its creation, without polling.

    The number of a user's inotify(7) queues is limited (fs.inotify.max_user_instances, 128).  Beyond the limit, a watch
    reports a possible change once a second.

    Args:
        path: the file; made if it is missing.

    Raises:
        OSError: the file can neither be found nor made.
    """

    def __init__(self, path: Path) -> None:
        self._wake_fd = self._queue_fd = -1
        self._path = path
        self._lock = threading.Lock()
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            self._queue_fd = syscalls.inotify_init()
            self._add()
        except OSError as error:
            if error.errno not in _LIMITED:
                self.close()
                raise
            if self._queue_fd >= 0:  # a queue, but no watch in it
                os.close(self._queue_fd)
                self._queue_fd = -1
        self._poll = select.poll()
        for fd in (self._wake_fd, self._queue_fd):
            if fd >= 0:
                self._poll.register(fd, select.POLLIN)

    def _add(self) -> None:
        try:
            syscalls.inotify_add_watch(self._queue_fd, str(self._path), _MASK)
        except FileNotFoundError:
            os.close(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
            syscalls.inotify_add_watch(self._queue_fd, str(self._path), _MASK)

    def wait(self, timeout_seconds: float | None = None) -> bool:
        """Wait for a change since the last call, for :meth:`interrupt` or for the timeout (None: no limit).

        Returns:
            Whether there may be a change.
        """
        is_limited = self._queue_fd < 0
        if is_limited:
            timeout_seconds = min(timeout_seconds or _FALLBACK_SECONDS, _FALLBACK_SECONDS)
        ready = self._poll.poll(None if timeout_seconds is None else max(timeout_seconds, 0) * 1000)
        changed = False
        for fd, _ in ready:
            with suppress(BlockingIOError):
                data = os.read(fd, _QUEUE_BYTES)
                if fd == self._queue_fd:
                    changed = True
                    if syscalls.IN_DELETE_SELF.to_bytes(2, "little") in data:
                        self._add()
        return changed or is_limited

    def interrupt(self) -> None:
        """End another thread's current :meth:`wait`, or the next one; no effect after :meth:`close`."""
        with self._lock:  # a closed descriptor's number may be another file's
            if self._wake_fd >= 0:
                os.eventfd_write(self._wake_fd, 1)

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Close the descriptors; idempotent.  No other thread may be waiting."""
        with self._lock:
            for fd in (self._wake_fd, self._queue_fd):
                if fd >= 0:
                    os.close(fd)
            self._wake_fd = self._queue_fd = -1
