"""Describes how a container ended if its exit code alone does not tell: signals, out of memory.  Pure functions."""

from __future__ import annotations

import contextlib
import signal

from pydock_core.engine import signal_name

_SIGNAL_BASE = 128
_KILLED = 137


def describe_exit(exit_code: int, *, oom_killed: bool = False, memory_bytes: int | None = None) -> str:
    """Return the reason behind an exit code; "" if there is none to tell.

    Args:
        exit_code: 0 to 255; 128+n is the death by signal n, as docker-run(1) has it.
        oom_killed: the kernel killed a process of the container because memory ran out.
        memory_bytes: the container's limit, None without one.
    """
    if oom_killed:
        limit = "" if memory_bytes is None else f" (-m {spell_memory(memory_bytes)})"
        subject = "" if exit_code == _KILLED else "a process of the container was "
        return f"{subject}killed: out of memory{limit}"
    return describe_signal(exit_code)


def describe_signal(exit_code: int) -> str:
    """Return "killed by SIGKILL" for 137, and so on; "" if the code does not stand for a signal."""
    number = exit_code - _SIGNAL_BASE
    with contextlib.suppress(ValueError):  # no such signal
        if 0 < number <= signal.SIGRTMAX:
            return f"killed by SIG{signal_name(number)}"
    return ""


def spell_memory(size_bytes: int) -> str:
    """Return a size as the option ``-m`` takes it: "64m", "1536k"."""
    for unit, letter in ((1 << 30, "g"), (1 << 20, "m"), (1 << 10, "k")):
        if size_bytes and size_bytes % unit == 0:
            return f"{size_bytes // unit}{letter}"
    return str(size_bytes)
