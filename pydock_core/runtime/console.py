"""Pseudo-terminals of a container, taken from the container's own /dev/pts."""

from __future__ import annotations

import fcntl
import os
import struct
import termios
from collections.abc import Mapping
from typing import Any

from pydock_core import syscalls
from pydock_core.errors import FailedError
from pydock_core.runtime.inside import make_inside, open_inside

_TIOCSPTLCK = 0x40045431
_TIOCGPTPEER = 0x5441  # Linux 4.13: the other side of a master, with no path looked up


def open_console(root_fd: int, size: Mapping[str, Any] | None) -> tuple[int, int]:
    """Open a new pseudo-terminal of the container.

    Args:
        root_fd: the container's root, with its /dev/pts mounted.
        size: OCI ``process.consoleSize`` (height, width), or None.

    Returns:
        The master and the slave descriptor, both close-on-exec.

    Raises:
        FailedError: the container has no /dev/pts of its own.
    """
    try:
        master_fd = open_inside(root_fd, "/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY)
    except OSError as error:
        raise FailedError(f"a terminal needs /dev/pts in the container: {error.strerror}") from error
    try:
        # An image could have any file there; only a devpts filesystem makes terminals.
        if syscalls.filesystem_magic(master_fd) != syscalls.DEVPTS_SUPER_MAGIC:
            raise FailedError("a terminal needs /dev/pts in the container to be of type devpts")
        fcntl.ioctl(master_fd, _TIOCSPTLCK, struct.pack("i", 0))
        slave_fd = fcntl.ioctl(master_fd, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        if size:
            rows, columns = int(size.get("height") or 0), int(size.get("width") or 0)
            fcntl.ioctl(master_fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    except BaseException:
        os.close(master_fd)
        raise
    return master_fd, slave_fd


def mount_console(root_fd: int, slave_fd: int) -> None:
    """Bind the terminal on the container's /dev/console (config-linux.md, "/dev/console")."""
    copy_fd = syscalls.open_tree(slave_fd, "", syscalls.OPEN_TREE_CLONE | syscalls.AT_EMPTY_PATH)
    try:
        target_fd = make_inside(root_fd, "/dev/console", directory=False, mode=0o600)
        try:
            syscalls.move_mount(copy_fd, target_fd)
        finally:
            os.close(target_fd)
    finally:
        os.close(copy_fd)


def make_controlling(slave_fd: int, *, has_session: bool = True) -> None:
    """Make the terminal 0, 1, 2 and the controlling terminal of this process, which leads a session.

    Args:
        has_session: a later child leads the terminal's session otherwise.
    """
    if has_session:
        fcntl.ioctl(slave_fd, termios.TIOCSCTTY, 0)
    for descriptor in (0, 1, 2):
        os.dup2(slave_fd, descriptor)


def set_window_size(console_fd: int, rows: int, columns: int) -> None:
    """Set a terminal's size (TIOCSWINSZ, ioctl_tty(2)); the kernel sends SIGWINCH.

    Raises:
        FailedError: it is not a terminal, or a number is out of range.
    """
    try:
        fcntl.ioctl(console_fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    except (OSError, struct.error) as error:
        raise FailedError(f"cannot set the terminal's size to {rows} by {columns}: {error}") from error
