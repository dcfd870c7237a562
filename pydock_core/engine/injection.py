"""Finds the devices that a container's definition requests: DeviceRequests, and ``--runtime nvidia``."""

from __future__ import annotations

from collections.abc import Iterable

from pydock_core.cdi import nvidia_driver
from pydock_core.cdi.gpu_request import no_gpu, select
from pydock_core.cdi.injection import Injection, build_injection, make_registry
from pydock_core.cdi.spec_directory import find_specs, list_directories
from pydock_core.spec.definition import CreateRequest
from pydock_core.spec.mount import Mount


def inject(
    request: CreateRequest, mounts: Iterable[Mount], *, nvidia_runtime: bool, is_start: bool
) -> Injection:
    """Return the devices of a container.

    Args:
        request: the request, merged with the image's configuration.
        mounts: the container's mounts.
        nvidia_runtime: whether the variables of NVIDIA's runtime are evaluated.
        is_start: also compute the edits for a start.

    Raises:
        UnavailableError: this host has no GPU; exit code 125.
        PyDockError: a device does not exist or cannot be used; the error names the CDI file; exit code 125.
    """
    found = find_specs(list_directories())
    registry = make_registry(found)
    if nvidia_runtime and not registry.names(nvidia_driver.KIND):
        raise no_gpu("--runtime nvidia", "nvidia")
    selection = select(
        request["HostConfig"]["DeviceRequests"] or (),
        request["Env"],
        registry.names,
        nvidia_runtime=nvidia_runtime,
    )
    own_dev = all(mount.target != "/dev" or mount.kind == "tmpfs" for mount in mounts)
    return build_injection(
        selection, make_registry(found, selection.capabilities), own_dev=own_dev, is_start=is_start
    )
