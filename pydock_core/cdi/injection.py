"""Checks the edits of a container's devices against the host, and completes them for its start."""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from pydock_core import syscalls
from pydock_core.cdi import drm_driver, nvidia_driver
from pydock_core.cdi.edit import ContainerEdits, DeviceNodeEdit, MountEdit, merge_edits
from pydock_core.cdi.elf_library import read_library
from pydock_core.cdi.gpu_request import Selection, no_gpu
from pydock_core.cdi.host_tree import HostTree
from pydock_core.cdi.registry import ChosenEdits, Registry
from pydock_core.cdi.spec_directory import FoundSpecs
from pydock_core.cdi.well_known_hook import NativeHooks, read_hooks
from pydock_core.errors import InvalidError, NotFoundError, UnsupportedError
from pydock_core.loader_cache import parse_cache
from pydock_core.runtime.root_edit import Cover, Link, RootEdits

PARAMS = "/proc/driver/nvidia/params"
_KINDS = {"c": stat.S_ISCHR, "u": stat.S_ISCHR, "b": stat.S_ISBLK, "p": stat.S_ISFIFO}


@dataclass(frozen=True, slots=True)
class Injection:
    """The devices of one start.

    Attributes:
        edits: checked edits: device nodes have numbers, and only hooks to be executed remain.
        root_edits: edits of the root filesystem; None if there are none.
        params: the text that covers /proc/driver/nvidia/params; empty for none.
        warnings: features that a program in the container may lack.
    """

    edits: ContainerEdits
    root_edits: RootEdits | None = None
    params: str = ""
    warnings: tuple[str, ...] = ()


def make_registry(found: FoundSpecs, capabilities: Iterable[str] = nvidia_driver.CAPABILITIES) -> Registry:
    """Return the devices of this host.

    Args:
        found: the CDI files.
        capabilities: capabilities of NVIDIA's driver, for devices without a CDI file.
    """
    host, machine, chosen = HostTree(), syscalls.MACHINE, frozenset(capabilities)
    return Registry(
        found,
        {
            nvidia_driver.KIND: lambda: nvidia_driver.derive(host, chosen, machine),
            drm_driver.AMD: lambda: drm_driver.derive(host, drm_driver.AMD),
            drm_driver.INTEL: lambda: drm_driver.derive(host, drm_driver.INTEL),
        },
    )


def build_injection(selection: Selection, registry: Registry, *, own_dev: bool, is_start: bool) -> Injection:
    """Return the devices of a selection.

    Args:
        registry: a registry with the selection's capabilities.
        own_dev: whether the container has its own /dev.
        is_start: compute the edits of the root filesystem too, which requires a look into each library.

    Raises:
        NotFoundError: no such device, or a path in a CDI file does not exist (the error names the file); exit code 125.
        InvalidError: the type of a device node differs from the file's; exit code 125.
        UnsupportedError: PyDock does not support an edit; exit code 125.
    """
    chosen = registry.choose(selection.names)
    if selection.driver_only:
        derived = registry.derive(nvidia_driver.KIND)
        if derived is None:
            raise no_gpu("NVIDIA_VISIBLE_DEVICES=none", "nvidia")
        chosen.append(ChosenEdits("", derived.edits))
    for part in chosen:
        check_paths(part)
    edits = merge_edits(part.edits for part in chosen)
    hooks = read_hooks(edits.hooks)
    nodes = tuple(map(_complete, edits.device_nodes))
    return Injection(
        replace(
            edits,
            env=(*edits.env, *selection.env),
            device_nodes=nodes,
            hooks=tuple(hooks.others),
            mounts=tuple(map(_with_bind, edits.mounts)),
        ),
        _build_root_edits(hooks, edits.mounts, own_dev=own_dev) if hooks.is_needed and is_start else None,
        _build_params() if hooks.cover_params else "",
        tuple(_find_weaknesses(selection, nodes)),
    )


def check_paths(part: ChosenEdits) -> None:
    """Check that the host has the paths of the edits.

    Raises:
        UnsupportedError, NotFoundError: see :func:`build_injection`.
    """
    if part.edits.unsupported:
        reason = {
            "intelRdt": "PyDock does not manage the cache and memory bandwidth of resctrl",
            "netDevices": "PyDock does not move network devices of the host into containers",
        }[part.edits.unsupported[0]]
        raise UnsupportedError(
            f"CDI file {part.origin}: {part.edits.unsupported[0]} is not supported: {reason}",
            "take the field out of the file, if the device works without it",
            exit_code=125,
        )
    paths = [mount.source for mount in part.edits.mounts if mount.is_bind]
    # The path of a startContainer hook is one of the container (runtime specification, config.md, "POSIX-platform Hooks").
    others = read_hooks(part.edits.hooks).others
    paths += [hook.path for hook in others if hook.step != "startContainer"]
    for path in paths:
        if not os.path.exists(path):
            raise _missing(part.origin, path)
    for node in part.edits.device_nodes:
        if not _is_complete(node) or os.geteuid() != 0:
            _check_node(part.origin, node)


def _check_node(origin: str, node: DeviceNodeEdit) -> None:
    try:
        mode = os.stat(node.host_path).st_mode
    except OSError as error:
        raise _missing(origin, node.host_path) from error
    if not any(is_kind(mode) for kind, is_kind in _KINDS.items() if node.kind in ("", kind)):
        where = f"CDI file {origin}: " if origin else ""
        raise InvalidError(
            f"{where}{node.host_path} is not a device{f' of type {node.kind}' if node.kind else ''}",
            "see whether its driver is loaded: dock doctor",
            exit_code=125,
        )


def _missing(origin: str, path: str) -> NotFoundError:
    if not origin:
        return NotFoundError(
            f"device file {path} is not there",
            "see whether the GPU's driver is loaded: dock doctor",
            exit_code=125,
        )
    return NotFoundError(
        f"CDI file {origin} is stale: {path} is not there",
        f"have it made again (NVIDIA: nvidia-ctk cdi generate --output={origin}), or remove it",
        exit_code=125,
    )


def _is_complete(node: DeviceNodeEdit) -> bool:
    """Whether root can make a node without reading the host's; in a user namespace the host's node is bound."""
    return bool(node.kind and (node.major or node.kind == "p"))


def _complete(node: DeviceNodeEdit) -> DeviceNodeEdit:
    """Complete a checked node with the attributes of the host's node."""
    if _is_complete(node):
        return replace(node, mode=0o666 if node.mode is None else node.mode & 0o777)
    status = os.stat(node.host_path)
    kind = next(kind for kind in "cbp" if _KINDS[kind](status.st_mode))
    return replace(
        node,
        kind=kind,
        major=os.major(status.st_rdev),
        minor=os.minor(status.st_rdev),
        mode=stat.S_IMODE(status.st_mode) & 0o777 if node.mode is None else node.mode & 0o777,
    )


def _with_bind(mount: MountEdit) -> MountEdit:
    """Turn a mount of a host path without a type into a bind mount."""
    if mount.is_bind and not {"bind", "rbind"} & set(mount.options):
        return replace(mount, options=(*mount.options, "rbind"))
    return mount


def _find_weaknesses(selection: Selection, nodes: Sequence[DeviceNodeEdit]) -> Iterator[str]:
    paths = {node.path for node in nodes}
    wants_cuda = "compute" in selection.capabilities and nvidia_driver.CONTROL_DEVICE in paths
    if wants_cuda and "/dev/nvidia-uvm" not in paths:
        yield "CUDA does not work without /dev/nvidia-uvm; make it: sudo nvidia-modprobe -u -c 0"
    for name in selection.ignored:
        yield f"{name} has no effect: PyDock does not give containers what it asks for"
    if os.geteuid() == 0:
        return
    for node in nodes:
        try:
            status = os.stat(node.host_path)
        except OSError:
            continue
        by_others = status.st_mode & 0o006 == 0o006
        if by_others or status.st_uid == os.geteuid():
            continue
        if not os.access(node.host_path, os.R_OK | os.W_OK):
            yield f"device {node.host_path} cannot be opened by this user"
        elif status.st_gid in os.getgroups() and not _has_access_list(node.host_path):
            yield (
                f"device {node.host_path} is open to this user's group {status.st_gid} only, which containers of an "
                "ordinary user do not have"
            )


def _has_access_list(path: str) -> bool:
    try:
        return bool(os.getxattr(path, "system.posix_acl_access"))
    except OSError:
        return False


# -- the root filesystem ---------------------------------------------------------------------------------


def _build_root_edits(hooks: NativeHooks, mounts: Sequence[MountEdit], *, own_dev: bool) -> RootEdits:
    links = list(hooks.links)
    flags: dict[str, int] = {}  # flags of libraries, by path in the container
    folders = list(dict.fromkeys(hooks.folders or ()))
    files = list(_files_in(folders, mounts))
    known = _find_names(source for _, source in files)
    for path, source in files:
        folder, name = posixpath.split(path)
        names = known.get(os.path.realpath(source))
        if names is None:  # the host's loader does not know the library
            library = read_library(source)
            names = [(library.soname or name, library.flags)] if library is not None else []
        for soname, bits in names:
            flags[f"{folder}/{soname}"] = flags[path] = bits
            if soname != name:
                links.append(Link(name, f"{folder}/{soname}"))
    # As with ldconfig, a library is found by its soname and by the name of a link to it.
    for _ in range(2):  # libcuda.so, libcuda.so.1, libcuda.so.VERSION
        for link in links:
            folder = posixpath.dirname(link.path)
            target = posixpath.normpath(posixpath.join(folder, link.target))
            if folder in folders and target in flags:
                flags.setdefault(link.path, flags[target])
    driver = hooks.host_driver
    if driver == "":
        driver = nvidia_driver.find_version(HostTree())
    return RootEdits(
        links=tuple(dict.fromkeys(links)),
        modes=tuple(hooks.modes),
        own_dev=own_dev,
        update_cache=hooks.folders is not None,
        folders=tuple(folders),
        libraries=tuple((posixpath.basename(path), path, bits) for path, bits in flags.items()),
        host_driver=driver or "",
    )


def _files_in(folders: Sequence[str], mounts: Sequence[MountEdit]) -> Iterator[tuple[str, str]]:
    """Yield the mounted files directly in the folders: path in the container, and path on the host."""
    binds = [mount for mount in mounts if mount.is_bind]
    for folder in folders:
        for mount in binds:
            target = posixpath.normpath(mount.target)
            if posixpath.dirname(target) == folder and os.path.isfile(mount.source):
                yield target, mount.source
            elif folder == target or folder.startswith(f"{target}/"):
                source = mount.source + folder[len(target) :]
                if os.path.isdir(source):
                    for name in sorted(os.listdir(source)):
                        if os.path.isfile(f"{source}/{name}"):
                            yield f"{folder}/{name}", f"{source}/{name}"


def _find_names(sources: Iterable[str]) -> dict[str, list[tuple[str, int]]]:
    """Return the names and flags of libraries in the host's loader cache, by real path.

    Reading the cache takes a hundredth of the time of reading each library.
    """
    stems = {_stem(posixpath.basename(source)) for source in sources}
    names: dict[str, list[tuple[str, int]]] = {}
    for entry in parse_cache(HostTree().read_bytes(nvidia_driver.LOADER_CACHE)) if stems else ():
        if not entry.hwcap and _stem(entry.soname) in stems:
            names.setdefault(os.path.realpath(entry.path), []).append((entry.soname, entry.flags))
    return names


def _stem(name: str) -> str:
    return name.partition(".so")[0]


def _build_params() -> str:
    """Return the driver's parameters with ModifyDeviceFiles 0: programs in the container make no device nodes."""
    text = HostTree().read(PARAMS)
    lines = [
        "ModifyDeviceFiles: 0" if line.startswith("ModifyDeviceFiles:") else line
        for line in text.splitlines()
    ]
    return "".join(f"{line}\n" for line in lines)


def with_cover(edits: RootEdits, source: str) -> RootEdits:
    """Return edits that cover the driver's parameters with a file."""
    return replace(edits, covers=(*edits.covers, Cover(source, PARAMS)))
