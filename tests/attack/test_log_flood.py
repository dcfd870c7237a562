"""A container that prints without end fills neither the host's disk nor anything but its own log."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.conftest import Dock, archive, dock

__all__ = ["archive", "dock"]

DEFAULT_BYTES = 30_000_000


def size_of(directory: Path) -> int:
    """The bytes that the files below a directory take on the disk."""
    return sum(path.lstat().st_blocks * 512 for path in directory.rglob("*"))


@pytest.mark.parametrize(
    "flood",
    [
        "yes | head -c 2000000",
        "yes | tr -d '\\n' | head -c 80000000",
    ],  # an entry of the log takes some 70 bytes
    ids=["lines", "one line without end"],
)
def test_the_disk_holds_a_bounded_log(dock: Dock, flood: str) -> None:
    before = size_of(dock.base)
    container_id = dock.out("run", "-d", "busybox", "sh", "-c", flood)
    assert dock.out("wait", container_id) == "0"
    log = list((dock.base / "data" / "containers" / container_id).glob("log.json*"))
    assert len(log) == 3
    # Half a file is certain to be there: the flood reached the log, and was cut.
    assert DEFAULT_BYTES / 2 < sum(path.stat().st_size for path in log) <= DEFAULT_BYTES
    assert size_of(dock.base) - before < DEFAULT_BYTES + 2_000_000
    dock("rm", container_id)
    assert size_of(dock.base) - before < 2_000_000
