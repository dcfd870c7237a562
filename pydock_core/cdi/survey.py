"""Surveys the GPUs and CDI devices of this host, for ``dock doctor``."""

from __future__ import annotations

from dataclasses import dataclass

from pydock_core.cdi import drm_driver, nvidia_driver
from pydock_core.cdi.host_tree import HostTree
from pydock_core.cdi.injection import check_paths, make_registry
from pydock_core.cdi.registry import ChosenEdits
from pydock_core.cdi.spec_directory import find_specs, list_directories
from pydock_core.errors import PyDockError

_SHOWN_NAMES = 8


@dataclass(frozen=True, slots=True)
class Survey:
    """The devices of this host.

    Attributes:
        devices: one text for each kind.
        problems: problems with their remedies.
    """

    devices: tuple[str, ...]
    problems: tuple[tuple[str, str], ...]


def survey() -> Survey:
    """Look at the CDI files and the drivers of this host."""
    found = find_specs(list_directories())
    problems = [(error.message, error.hint) for error in found.problems]
    for _, spec in found.specs:
        try:
            for edits in (spec.edits, *spec.devices.values()):
                check_paths(ChosenEdits(spec.origin, edits))
        except PyDockError as error:
            problems.append((error.message, error.hint))
    registry = make_registry(found)
    devices = []
    described = dict.fromkeys(spec.kind for _, spec in found.specs)
    for kind in dict.fromkeys((*described, nvidia_driver.KIND, drm_driver.AMD, drm_driver.INTEL)):
        try:
            names = [name for name in registry.names(kind) if name != "all"]
        except PyDockError as error:
            problems.append((error.message, error.hint))
            continue
        if names:
            listed = ", ".join(names[:_SHOWN_NAMES]) + (", ..." if len(names) > _SHOWN_NAMES else "")
            devices.append(f"{kind} {listed} ({_source(kind, is_described=kind in described)})")
    host = HostTree()
    if nvidia_driver.find_version(host) and not nvidia_driver.find_gpus(host):
        problems.append(
            ("NVIDIA's driver is loaded, but there is no /dev/nvidiaN", "sudo nvidia-modprobe -c 0 -u")
        )
    return Survey(tuple(devices), tuple(problems))


def _source(kind: str, *, is_described: bool) -> str:
    if is_described:
        return "CDI file"
    if kind == nvidia_driver.KIND:
        return f"driver {nvidia_driver.find_version(HostTree())}"
    return "kernel driver"
