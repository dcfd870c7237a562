"""The most memory that a program has had in use."""

from __future__ import annotations

import sys

_RUN_AND_REPORT = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def measured(*words: object) -> list[str]:
    """Return the command that runs a program without its output, and writes the peak of its resident set.

    Files that it maps count (getrusage(2)).  A small process starts it: until it executes, a child counts what its parent
    has.
    """
    return [sys.executable, "-I", "-S", "-c", _RUN_AND_REPORT, *map(str, words)]


def peak_bytes(output: str | bytes) -> int:
    """Return what such a command has written."""
    return int(output.split()[-1]) << 10
