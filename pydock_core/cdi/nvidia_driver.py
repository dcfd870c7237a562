"""Derives the CDI specification nvidia.com/gpu from the NVIDIA driver of this host.

A container gets the same files as from NVIDIA's container toolkit: control devices, /dev/nvidiaN, the libraries whose suffix is
the driver's version, programs, firmware and sockets, selected by *driver capabilities* (compute, utility, graphics, ...).
User-space libraries must have exactly the kernel driver's version, so the version identifies them.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace

from pydock_core.cdi.edit import CdiSpec, ContainerEdits, DeviceNodeEdit, HookEdit, MountEdit
from pydock_core.cdi.host_tree import HostTree
from pydock_core.errors import UnavailableError
from pydock_core.loader_cache import COMPAT32_FLAGS, MACHINE_FLAGS, CacheEntry, parse_cache

KIND = "nvidia.com/gpu"
CAPABILITIES = ("compute", "compat32", "graphics", "utility", "video", "display", "ngx")
"""NVIDIA_DRIVER_CAPABILITIES, without "all"."""
DEFAULT_CAPABILITIES = frozenset({"compute", "utility"})
CONTROL_DEVICE = "/dev/nvidiactl"
LOADER_CACHE = "/etc/ld.so.cache"
HOOK = "/usr/bin/nvidia-cdi-hook"
"""The program of the toolkit's hooks, which PyDock implements itself (see :mod:`pydock_core.cdi.well_known_hook`)."""

_PROC = "/proc/driver/nvidia"
_VERSION = re.compile(r"\b(\d{3,4}\.\d+(?:\.\d+)?)\b")
_FIELD = re.compile(r"^([^:\n]+):[ \t]*(.*)$", re.MULTILINE)
_GRAPHICS = frozenset({"graphics", "display"})

_LIBRARIES: Mapping[str, tuple[str, ...]] = {
    "utility": ("libnvidia-ml", "libnvidia-cfg", "libnvidia-nscq"),
    "compute": (
        "libcuda",
        "libcudadebugger",
        "libnvidia-opencl",
        "libnvidia-gpucomp",
        "libnvidia-ptxjitcompiler",
        "libnvidia-fatbinaryloader",
        "libnvidia-allocator",
        "libnvidia-compiler",
        "libnvidia-pkcs11",
        "libnvidia-pkcs11-openssl3",
        "libnvidia-nvvm",
        "libnvidia-nvvm70",
        "libnvidia-tileiras",
    ),
    "ngx": ("libnvidia-ngx",),
    "video": ("libvdpau_nvidia", "libnvidia-encode", "libnvidia-opticalflow", "libnvcuvid"),
    "graphics": (
        "libnvidia-eglcore",
        "libnvidia-glcore",
        "libnvidia-tls",
        "libnvidia-glsi",
        "libnvidia-fbc",
        "libnvidia-ifr",
        "libnvidia-rtcore",
        "libnvoptix",
        "libGLX_nvidia",
        "libEGL_nvidia",
        "libGLESv2_nvidia",
        "libGLESv1_CM_nvidia",
        "libnvidia-glvkspirv",
        "libnvidia-cbl",
        "libnvidia-gpucomp",
        "libnvidia-allocator",
        "libnvidia-vulkan-producer",
    ),
}
_PROGRAMS: Mapping[str, tuple[str, ...]] = {
    "utility": ("nvidia-smi", "nvidia-debugdump", "nvidia-persistenced", "nv-fabricmanager"),
    "compute": ("nvidia-cuda-mps-control", "nvidia-cuda-mps-server"),
}
_PROGRAM_DIRECTORIES = ("/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin", "/bin", "/sbin")
_SOCKETS: Mapping[str, tuple[str, ...]] = {
    "utility": ("/run/nvidia-persistenced/socket", "/run/nvidia-fabricmanager/socket"),
    "compute": ("/tmp/nvidia-mps",),
}
_GRAPHICS_FILES = (
    "/etc/vulkan/icd.d/nvidia_icd.json",
    "/etc/vulkan/implicit_layer.d/nvidia_layers.json",
    "/usr/share/vulkan/icd.d/nvidia_icd.json",
    "/usr/share/vulkan/implicit_layer.d/nvidia_layers.json",
    "/usr/share/glvnd/egl_vendor.d/10_nvidia.json",
    "/usr/share/egl/egl_external_platform.d/10_nvidia_wayland.json",
    "/usr/share/egl/egl_external_platform.d/15_nvidia_gbm.json",
    "/usr/share/nvidia/nvoptix.bin",
)
_ALL_LIBRARIES = frozenset(name for names in _LIBRARIES.values() for name in names)
_FILE_OPTIONS = ("ro", "nosuid", "nodev", "rbind", "rprivate")
_SOCKET_OPTIONS = ("nosuid", "nodev", "noexec", "rbind", "rprivate")
_LINKS = ("libcuda.so:libcuda.so.1", "libnvidia-opticalflow.so:libnvidia-opticalflow.so.1")
"""Links for programs that load a library by its unversioned name: name and target."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU of the driver.

    Attributes:
        index: number by PCI address, as in nvidia-smi.
        minor: N of /dev/nvidiaN.
        uuid: "GPU-...", empty if unknown.
        bus: PCI address, empty if unknown.
        instances: the paths of the capability devices of each MIG device.
    """

    index: int
    minor: int
    uuid: str = ""
    bus: str = ""
    instances: tuple[tuple[str, ...], ...] = ()


def find_version(host: HostTree) -> str:
    """Return the version of the kernel's NVIDIA driver; empty if none is loaded."""
    line = host.read(f"{_PROC}/version").partition("\n")[0]
    match = _VERSION.search(line)
    return match[1] if match else ""


def find_gpus(host: HostTree) -> list[Gpu]:
    """Return the GPUs whose device node exists."""
    found = []
    for bus in host.list(f"{_PROC}/gpus"):
        fields = {
            name.strip(): value.strip()
            for name, value in _FIELD.findall(host.read(f"{_PROC}/gpus/{bus}/information"))
        }
        minor = fields.get("Device Minor", "")
        if minor.isdigit():
            uuid = fields.get("GPU UUID", "")
            found.append(Gpu(0, int(minor), uuid if re.fullmatch(r"GPU-[0-9a-fA-F-]+", uuid) else "", bus))
    if not found:
        names = [
            name.removeprefix("nvidia") for name in host.list("/dev") if re.fullmatch(r"nvidia\d+", name)
        ]
        found = [Gpu(0, minor) for minor in sorted(map(int, names))]
    present = [gpu for gpu in found if host.exists(f"/dev/nvidia{gpu.minor}")]
    return [
        replace(gpu, index=index, instances=tuple(_find_instances(host, gpu.minor)))
        for index, gpu in enumerate(present)
    ]


def _find_instances(host: HostTree, minor: int) -> Iterator[tuple[str, ...]]:
    """Yield the capability devices of a GPU's MIG devices: of the GPU instance, and of the compute instance."""
    base = f"{_PROC}/capabilities/gpu{minor}/mig"
    for gi in sorted(_numbers(host.list(base), "gi")):
        access = _capability_device(host, f"{base}/gi{gi}/access")
        for ci in sorted(_numbers(host.list(f"{base}/gi{gi}"), "ci")):
            own = _capability_device(host, f"{base}/gi{gi}/ci{ci}/access")
            if access and own:
                yield access, own


def _numbers(names: Collection[str], prefix: str) -> list[int]:
    return [int(name[len(prefix) :]) for name in names if re.fullmatch(rf"{prefix}\d+", name)]


def _capability_device(host: HostTree, file: str) -> str:
    fields = dict(_FIELD.findall(host.read(file)))
    minor = fields.get("DeviceFileMinor", "").strip()
    return f"/dev/nvidia-caps/nvidia-cap{minor}" if minor.isdigit() else ""


def derive(host: HostTree, capabilities: Collection[str], machine: str) -> CdiSpec | None:
    """Return the specification of the driver's GPUs; None if there is no NVIDIA GPU.

    Args:
        capabilities: values from :data:`CAPABILITIES`.
        machine: ``uname -m``.

    Raises:
        UnavailableError: the driver's libraries are not on the host; exit code 125.
    """
    version, gpus = find_version(host), find_gpus(host)
    if not version or not gpus or not host.exists(CONTROL_DEVICE):
        return None
    driver = _Driver(host, version, frozenset(capabilities), machine)
    devices = {str(gpu.index): driver.edits_of(gpu) for gpu in gpus}
    devices |= {gpu.uuid: devices[str(gpu.index)] for gpu in gpus if gpu.uuid}
    for gpu in gpus:
        node = _node(f"/dev/nvidia{gpu.minor}")
        for number, nodes in enumerate(gpu.instances):
            edits = ContainerEdits(device_nodes=(node, *map(_node, nodes)))
            devices[f"{gpu.index}:{number}"] = edits
    every = [devices[str(gpu.index)] for gpu in gpus]
    devices["all"] = ContainerEdits(
        device_nodes=tuple(node for edits in every for node in edits.device_nodes)
    )
    return CdiSpec(KIND, devices, driver.common_edits())


def _node(path: str) -> DeviceNodeEdit:
    return DeviceNodeEdit(path, path, access="rw")


class _Driver:
    def __init__(self, host: HostTree, version: str, capabilities: frozenset[str], machine: str) -> None:
        self._host = host
        self._version = version
        self._capabilities = capabilities
        self._machine = machine

    @property
    def _has_graphics(self) -> bool:
        return bool(self._capabilities & _GRAPHICS)

    def edits_of(self, gpu: Gpu) -> ContainerEdits:
        """Return the nodes of one GPU: its own, those of its MIG devices, and for graphics those of the DRM."""
        paths = [f"/dev/nvidia{gpu.minor}"]
        paths += dict.fromkeys(path for nodes in gpu.instances for path in nodes)
        if self._has_graphics and gpu.bus:
            names = self._host.list(f"/sys/bus/pci/devices/{gpu.bus}/drm")
            paths += [f"/dev/dri/{name}" for name in names if self._host.exists(f"/dev/dri/{name}")]
        return ContainerEdits(device_nodes=tuple(map(_node, paths)))

    def common_edits(self) -> ContainerEdits:
        """Return the edits of every container with one of the GPUs."""
        libraries, links = self._libraries()
        mounts = [MountEdit(source, target, "", _FILE_OPTIONS) for source, target in libraries]
        mounts += [MountEdit(source, target, "", _FILE_OPTIONS) for source, target in self._files()]
        mounts += [MountEdit(path, path, "", _SOCKET_OPTIONS) for path in self._sockets()]
        folders = dict.fromkeys(posixpath.dirname(target) for _, target in libraries)
        hooks = (
            [_hook("create-symlinks", *(word for link in links for word in ("--link", link)))]
            if links
            else []
        )
        hooks += [
            _hook("enable-cuda-compat", f"--host-driver-version={self._version}"),
            _hook("update-ldcache", *(word for folder in folders for word in ("--folder", folder))),
            _hook("disable-device-node-modification"),
        ]
        return ContainerEdits(
            device_nodes=tuple(_node(path) for path in self._control_devices()),
            mounts=tuple(mounts),
            hooks=tuple(hooks),
        )

    def _control_devices(self) -> Iterator[str]:
        yield CONTROL_DEVICE
        others = ["/dev/nvidia-uvm", "/dev/nvidia-uvm-tools"]
        if self._has_graphics:
            others.append("/dev/nvidia-modeset")
        yield from (path for path in others if self._host.exists(path))

    def _wanted(self, table: Mapping[str, tuple[str, ...]]) -> set[str]:
        chosen = set(self._capabilities)
        if self._has_graphics:
            chosen.add("graphics")
        return {name for capability in chosen for name in table.get(capability, ())}

    def _libraries(self) -> tuple[list[tuple[str, str]], list[str]]:
        """Return the libraries (source and target), and links in the form target::path.

        Raises:
            UnavailableError: there is none.
        """
        suffix = f".so.{self._version}"
        libraries = self._wanted(_LIBRARIES)
        found: dict[str, str] = {}
        links: list[str] = []
        any_is_there = False
        for entry in self._cache_entries():
            path = self._host.resolve(entry.path)
            name = posixpath.basename(path)
            if not name.endswith(suffix) or not self._host.exists(path):
                continue
            any_is_there = True
            if name.removesuffix(suffix) in libraries:
                found[path] = path
                links += self._links(posixpath.dirname(path), entry.soname, name)
        if not any_is_there:
            raise UnavailableError(
                f"NVIDIA GPU: the libraries of driver {self._version} are not in {LOADER_CACHE}",
                "install the driver's libraries of this version (nvidia-smi on the host must work), then sudo ldconfig",
                exit_code=125,
            )
        if "libvdpau_nvidia" in libraries:
            for folder in dict.fromkeys(map(posixpath.dirname, list(found))):
                path = f"{folder}/vdpau/libvdpau_nvidia{suffix}"
                if self._host.exists(path):
                    found[path] = path
        return list(found.items()), list(dict.fromkeys(links))

    def _cache_entries(self) -> list[CacheEntry]:
        flags = {MACHINE_FLAGS.get(self._machine)}
        if "compat32" in self._capabilities:
            flags.add(COMPAT32_FLAGS.get(self._machine))
        entries = parse_cache(self._host.read_bytes(LOADER_CACHE))
        return [
            entry
            for entry in entries
            if entry.flags in flags and entry.soname.partition(".so")[0] in _ALL_LIBRARIES
        ]

    def _links(self, folder: str, soname: str, name: str) -> Iterator[str]:
        if soname != name:
            yield f"{name}::{folder}/{soname}"
        for link in _LINKS:
            path, _, target = link.partition(":")
            if target == soname:
                yield f"{target}::{folder}/{path}"
        if soname == "libGLX_nvidia.so.0":
            yield f"{name}::{folder}/libGLX_indirect.so.0"

    def _files(self) -> Iterator[tuple[str, str]]:
        """Yield programs, firmware and files for graphics: source and target."""
        for name in sorted(self._wanted(_PROGRAMS)):
            path = next(
                (
                    f"{folder}/{name}"
                    for folder in _PROGRAM_DIRECTORIES
                    if self._host.exists(f"{folder}/{name}")
                ),
                None,
            )
            if path is not None:
                yield self._host.resolve(path), path
        firmware = f"/lib/firmware/nvidia/{self._version}"
        for name in self._host.list(firmware):
            if name.startswith("gsp"):
                yield self._host.resolve(f"{firmware}/{name}"), f"{firmware}/{name}"
        if self._has_graphics:
            yield from (
                (self._host.resolve(path), path) for path in _GRAPHICS_FILES if self._host.exists(path)
            )

    def _sockets(self) -> list[str]:
        return [path for path in sorted(self._wanted(_SOCKETS)) if self._host.exists(path)]


def _hook(name: str, *args: str) -> HookEdit:
    return HookEdit("createContainer", HOOK, (os.path.basename(HOOK), name, *args))
