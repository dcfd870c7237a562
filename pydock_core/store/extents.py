"""Finds the parts of a file that contain data; the rest is holes, which take no space and read as zeros."""

from __future__ import annotations

import errno
import os

SMALLEST_HOLE_BYTES = 64 << 10
"""A smaller hole counts as data: it costs less to copy than to describe."""
_SEGMENTS_LIMIT = 10_000


def data_segments(fd: int, size_bytes: int) -> list[tuple[int, int]]:
    """Return (offset, length) of each part of a file that holds data, ascending.

    A file system without holes reports one part (lseek(2), SEEK_DATA).  The number of parts is bounded: in a file with
    more, the smaller holes count as data.

    Args:
        fd: the file, open for reading; its position changes.
        size_bytes: the part of the file to examine.
    """
    parts: list[tuple[int, int]] = []
    smallest = SMALLEST_HOLE_BYTES
    position = 0
    while position < size_bytes:
        try:
            start = os.lseek(fd, position, os.SEEK_DATA)
            end = min(os.lseek(fd, start, os.SEEK_HOLE), size_bytes)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole up to the end
                break
            if error.errno == errno.EINVAL:
                return [(0, size_bytes)]
            raise
        if start >= size_bytes:
            break
        parts.append((start, end))
        position = end
        while len(parts) > 2 * _SEGMENTS_LIMIT:
            parts = _joined(parts, smallest)
            smallest *= 2
    while len(parts := _joined(parts, smallest)) > _SEGMENTS_LIMIT:
        smallest *= 2
    return [(start, end - start) for start, end in parts]


def _joined(parts: list[tuple[int, int]], smallest: int) -> list[tuple[int, int]]:
    """Join the parts with less than ``smallest`` bytes between them."""
    joined: list[tuple[int, int]] = []
    for start, end in parts:
        if joined and start - joined[-1][1] < smallest:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined
