"""Identifies a process, and tells it from a later one with the same pid."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydock_core.runtime.record_file import read_file


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """The unique identity of a process: pid, start time in clock ticks since boot, boot id."""

    pid: int
    start_ticks: int
    boot_id: str

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity:
        """Identify an existing process; ProcessLookupError if there is none."""
        return cls(pid, _start_ticks(pid), boot_id())

    def to_json(self) -> dict[str, Any]:
        """Return the identity as JSON types."""
        return {"pid": self.pid, "start_ticks": self.start_ticks, "boot_id": self.boot_id}

    def is_alive(self) -> bool:
        """Whether this very process exists, possibly as a zombie."""
        try:
            return self.boot_id == boot_id() and _start_ticks(self.pid) == self.start_ticks
        except ProcessLookupError:
            return False

    def is_running(self) -> bool:
        """Whether exactly this process exists and is not a zombie, which has no namespaces any more."""
        try:
            fields = _stat_fields(self.pid)
        except ProcessLookupError:
            return False
        return (
            self.boot_id == boot_id()
            and int(fields[19]) == self.start_ticks
            and fields[0] not in (b"Z", b"X")
        )

    def open(self) -> int | None:
        """Return a pidfd of this very process, or None if it is gone."""
        try:
            pidfd = os.pidfd_open(self.pid)
        except OSError as error:
            # EINVAL, with newer kernels ENOENT: the number is a thread's.  Up to Linux 6.1 at least, EINVAL also if it
            # outlives its process as the number of a session or a process group.
            if error.errno in (errno.ESRCH, errno.EINVAL, errno.ENOENT):
                return None
            raise
        # Checked after opening: the descriptor stays with the process whose start time is read here.
        if self.is_alive():
            return pidfd
        os.close(pidfd)
        return None


@cache
def boot_id() -> str:
    """Return the id of this boot of the kernel (proc_sys_kernel(5), random/boot_id)."""
    return read_file("/proc/sys/kernel/random/boot_id").decode().strip()


def _start_ticks(pid: int) -> int:
    return int(_stat_fields(pid)[19])


def _stat_fields(pid: int) -> list[bytes]:
    """Return the fields of proc_pid_stat(5) from the third on, the state; the second may contain spaces and parentheses."""
    try:
        text = read_file(f"/proc/{pid}/stat")
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessLookupError(errno.ESRCH, "no such process") from None
    return text[text.rindex(b")") + 2 :].split()
