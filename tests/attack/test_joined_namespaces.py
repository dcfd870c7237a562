"""Attacks by a container on those that join its namespaces: it has replaced what belongs to them."""

from __future__ import annotations

import os

import pytest

from pydock_core.runtime.cgroups import probe_cgroups
from tests.integration.conftest import Dock, archive, dock, nothing_is_left

__all__ = ["archive", "dock", "nothing_is_left"]  # fixtures
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: such a container has CAP_SYS_ADMIN"),
    pytest.mark.skipif(not probe_cgroups().available, reason="needs control groups"),
]
PARTS = (
    (("--pid",), "umount -l /proc", "has no /proc of its own"),
    (("--pid",), "mount -t tmpfs none /proc", "has no /proc of its own"),
    (("--ipc",), "umount -l /dev/shm; rmdir /dev/shm; ln -s /secret /dev/shm", "has no /dev/shm of its own"),
    (("--ipc",), "mount --bind /proc /dev/shm", "has no /dev/shm of its own"),
)


@pytest.mark.parametrize(("options", "change", "message"), PARTS, ids=[change for _, change, _ in PARTS])
def test_a_replaced_mount_is_not_taken(
    dock: Dock, options: tuple[str, ...], change: str, message: str
) -> None:
    words = ("--network", "none", "--privileged", "--ipc", "shareable", "busybox", "sleep", "1000")
    dock("run", "-d", "--name", "hostile", *words)
    dock("exec", "--privileged", "hostile", "sh", "-c", change)
    join = [f"{option}=container:hostile" for option in options]
    refused = dock("run", "--rm", "--network", "none", *join, "busybox", "true", code=125).stderr
    assert message in refused
    assert "hint: it has replaced or unmounted it; restart it" in refused


def test_the_proc_of_another_namespace_is_not_taken(dock: Dock) -> None:
    """The container has mounted the /proc of a namespace below its own over its own."""
    words = ("--network", "none", "--privileged", "busybox", "sh", "-c")
    script = "unshare -pf sh -c 'mount -t proc none /proc; touch /tmp/ready; sleep 1000'"
    dock("run", "-d", "--name", "nested", *words, script)
    dock("exec", "nested", "sh", "-c", "until [ -e /tmp/ready ]; do sleep 0.01; done")
    refused = dock("run", "--rm", "--network", "none", "--pid=container:nested", "busybox", "true", code=125)
    assert "is not that of its PID namespace" in refused.stderr
