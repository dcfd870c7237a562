"""A container with CAP_SYS_ADMIN mounts every hierarchy of control groups, and finds its own group alone in it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pydock_core.runtime.cgroups import read_layout
from tests.integration.conftest import Dock, archive, dock

__all__ = ["archive", "dock"]

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or read_layout().version != 1, reason="only root mounts hierarchies of version 1"
)

SCRIPT = """
mkdir /tmp/m
while read -r options; do
    case $options in
        unified) mount -t cgroup2 none /tmp/m;;
        name=*) mount -t cgroup -o none,$options none /tmp/m;;
        *) mount -t cgroup -o $options none /tmp/m;;
    esac || { echo "$options refused"; continue; }
    echo "$options mounted"
    for file in release_agent victim/cgroup.procs; do
        test -e /tmp/m/$file && echo "$options $file is there"
    done
    echo 1 2>/dev/null >/tmp/m/victim/cgroup.kill
    umount /tmp/m
done <<END
{names}
END
"""


@pytest.fixture
def victim() -> Iterator[subprocess.Popen[bytes]]:
    """A process of the host in a group of its own of version 2's hierarchy, beside the containers'."""
    unified = read_layout().unified
    assert unified is not None
    group = unified / "victim"
    group.mkdir()
    with subprocess.Popen(["sleep", "1000"]) as process:
        (group / "cgroup.procs").write_text(str(process.pid))
        yield process
        process.kill()
    group.rmdir()


@pytest.mark.parametrize(
    "flags",
    [("--cap-add", "SYS_ADMIN"), ("--privileged",)],
    ids=["CAP_SYS_ADMIN", "privileged"],
)
def test_nothing_of_the_hosts_groups_is_there(
    dock: Dock, victim: subprocess.Popen[bytes], flags: tuple[str, ...]
) -> None:
    """release_agent of a root group runs as root of the host; cgroup.kill ends what another group holds."""
    names = [*read_layout().v1, "unified"]
    # The host can do what the container must not: the test looks at what matters.
    assert Path(read_layout().v1["memory"], "release_agent").exists()
    words = (
        "run",
        "--rm",
        "--network=none",
        *flags,
        "busybox",
        "sh",
        "-c",
        SCRIPT.replace("{names}", "\n".join(names)),
    )
    shown = dock.out(*words).splitlines()
    assert shown == [f"{name} mounted" for name in names]
    assert victim.poll() is None
