"""Derives the CDI specifications amd.com/gpu and intel.com/gpu: render nodes of the kernel's DRM.

The image contains the user-space driver (ROCm, oneAPI, Mesa); a container needs only the nodes.
"""

from __future__ import annotations

import posixpath
import re

from pydock_core.cdi.edit import CdiSpec, ContainerEdits, DeviceNodeEdit
from pydock_core.cdi.host_tree import HostTree

AMD, INTEL = "amd.com/gpu", "intel.com/gpu"
_VENDORS = {AMD: "0x1002", INTEL: "0x8086"}
_CONTROL = {AMD: ("/dev/kfd",), INTEL: ()}
_RENDER_NODE = re.compile(r"renderD(\d+)")
_CARD = re.compile(r"card\d+")


def derive(host: HostTree, kind: str) -> CdiSpec | None:
    """Return the specification of a vendor's GPUs; None if there is none.

    Args:
        kind: :data:`AMD` or :data:`INTEL`.
    """
    found: list[tuple[int, str, tuple[str, ...]]] = []
    for name in host.list("/sys/class/drm"):
        match = _RENDER_NODE.fullmatch(name)
        device = f"/sys/class/drm/{name}/device"
        if not match or host.read(f"{device}/vendor").strip() != _VENDORS[kind]:
            continue
        cards = [card for card in host.list(f"{device}/drm") if _CARD.fullmatch(card)]
        nodes = tuple(f"/dev/dri/{node}" for node in (name, *cards) if host.exists(f"/dev/dri/{node}"))
        if f"/dev/dri/{name}" in nodes:
            found.append((int(match[1]), posixpath.basename(host.resolve(device)), nodes))
    if not found:
        return None
    devices: dict[str, ContainerEdits] = {}
    for index, (_, bus, nodes) in enumerate(sorted(found)):
        edits = ContainerEdits(device_nodes=tuple(map(_node, nodes)))
        devices[str(index)] = edits
        if re.fullmatch(r"[0-9a-fA-F]{4,}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-7]", bus):
            devices[bus] = edits
    every = [node for _, _, nodes in sorted(found) for node in nodes]
    devices["all"] = ContainerEdits(device_nodes=tuple(map(_node, every)))
    control = tuple(_node(path) for path in _CONTROL[kind] if host.exists(path))
    return CdiSpec(kind, devices, ContainerEdits(device_nodes=control))


def _node(path: str) -> DeviceNodeEdit:
    return DeviceNodeEdit(path, path, access="rw")
