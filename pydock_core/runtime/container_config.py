"""Reads and checks an OCI bundle's config.json, and refuses settings that the embedded executor does not support."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydock_core.errors import InvalidError, NotFoundError, UnsupportedError
from pydock_core.runtime.devices import Device, parse_devices
from pydock_core.runtime.hooks import NAMES as HOOK_NAMES
from pydock_core.runtime.mount_options import PROPAGATION, MountPlan, parse_mounts
from pydock_core.runtime.namespaces import NamespacePlan
from pydock_core.runtime.process_setup import Filter, ProcessPlan
from pydock_core.runtime.seccomp import prepare_program, read_flags

if TYPE_CHECKING:
    from pydock_core.runtime.root_edit import RootEdits

REAPER_ANNOTATION = "org.pydock.init"
"""Annotation of config.json: "true" runs the program below the embedded executor's init."""
_REFUSED_LINUX = ("intelRdt", "mountLabel", "netDevices", "memoryPolicy")
_NAMESPACED_SYSCTLS = {
    "network": ("net.",),
    "ipc": ("fs.mqueue.", "kernel.msg", "kernel.sem", "kernel.shm"),
    "uts": ("kernel.domainname", "kernel.hostname"),
}


@dataclass(frozen=True, slots=True)
class ContainerPlan:
    """A bundle, with all values that can be computed before a process is forked.

    Attributes:
        bundle: the bundle's directory.
        root: host path of the root filesystem.
        hooks: hooks, except those for root edits.
        root_edits: init's edits of the root filesystem for devices; None if there are none.
        has_reaper: whether the program runs below a small init (:mod:`pydock_core.runtime.reaper.image`).
        document: config.json itself, for hooks, annotations and cgroups.
    """

    bundle: Path
    root: Path
    read_only: bool
    propagation: str
    hostname: str
    domain_name: str
    namespaces: NamespacePlan
    uid_mappings: tuple[Mapping[str, Any], ...]
    gid_mappings: tuple[Mapping[str, Any], ...]
    mounts: tuple[MountPlan, ...]
    devices: tuple[Device, ...]
    masked_paths: tuple[str, ...]
    read_only_paths: tuple[str, ...]
    sysctl: Mapping[str, str]
    personality: int | None
    cgroups_path: str
    resources: Mapping[str, Any]
    process: ProcessPlan
    hooks: Mapping[str, Any]
    root_edits: RootEdits | None
    has_reaper: bool
    document: Mapping[str, Any]


def read_config(bundle: Path) -> dict[str, Any]:
    """Read config.json of a bundle.

    Raises:
        NotFoundError: config.json is missing.
        InvalidError: it is not a JSON object, or has an ociVersion other than 1.
    """
    path = bundle / "config.json"
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise NotFoundError(f"there is no OCI bundle at {bundle}: config.json is missing") from None
    except ValueError as error:
        raise InvalidError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidError(f"{path} is not a JSON object")
    if str(document.get("ociVersion", "")).partition(".")[0] != "1":
        raise InvalidError(f"{path}: ociVersion {document.get('ociVersion')} is not supported")
    return document


def compile_filter(linux: Mapping[str, Any], cache_dir: Path | None) -> Filter | None:
    """Compile ``linux.seccomp``, or take it from the cache; return None if there is none."""
    profile = linux.get("seccomp")
    return Filter(prepare_program(profile, cache_dir), read_flags(profile)) if profile else None


def load_plan(bundle: Path, cache_dir: Path | None) -> ContainerPlan:
    """Read and check a bundle.

    Raises:
        NotFoundError, InvalidError: the bundle is missing or malformed.
        UnsupportedError: the embedded executor does not support a setting; the message names it.
    """
    document = read_config(bundle)
    try:
        return build_plan(bundle, document, cache_dir)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidError(f"{bundle / 'config.json'} is malformed: {error!r}") from error


def build_plan(bundle: Path, document: dict[str, Any], cache_dir: Path | None) -> ContainerPlan:
    """Check config.json's document; KeyError, TypeError, ValueError or AttributeError if it is malformed."""
    linux: Mapping[str, Any] = document.get("linux") or {}
    for name in _REFUSED_LINUX:
        if linux.get(name):
            raise UnsupportedError(f"linux.{name} is not supported", "leave it out, or use --runtime crun")
    for name in document.get("hooks") or {}:
        if name not in HOOK_NAMES:
            raise InvalidError(f"hooks: unknown step {name}")
    if linux.get("timeOffsets"):
        raise UnsupportedError("linux.timeOffsets is not supported", "leave it out")
    root = document.get("root") or {}
    if not root.get("path"):
        raise InvalidError(f"{bundle / 'config.json'}: root.path is missing")
    namespaces = NamespacePlan.from_config(linux.get("namespaces") or ())
    _check_namespaces(document, linux, namespaces)
    propagation = str(linux.get("rootfsPropagation") or "")
    if propagation and propagation not in PROPAGATION:
        raise InvalidError(f"linux.rootfsPropagation: unknown propagation {propagation}")
    hooks, root_edits = document.get("hooks") or {}, None
    if hooks.get("createContainer"):
        from pydock_core.runtime.root_edit import split_hooks  # late: few containers have devices

        root_edits, hooks = split_hooks(hooks)
    return ContainerPlan(
        bundle=bundle,
        root=bundle / root["path"],
        read_only=bool(root.get("readonly")),
        propagation=propagation,
        hostname=str(document.get("hostname") or ""),
        domain_name=str(document.get("domainname") or ""),
        namespaces=namespaces,
        uid_mappings=tuple(linux.get("uidMappings") or ()),
        gid_mappings=tuple(linux.get("gidMappings") or ()),
        mounts=tuple(parse_mounts(document.get("mounts") or ())),
        devices=tuple(parse_devices(linux.get("devices") or ())),
        masked_paths=tuple(linux.get("maskedPaths") or ()),
        read_only_paths=tuple(linux.get("readonlyPaths") or ()),
        sysctl={str(key): str(value) for key, value in (linux.get("sysctl") or {}).items()},
        personality=_read_personality(linux.get("personality")),
        cgroups_path=str(linux.get("cgroupsPath") or ""),
        resources=linux.get("resources") or {},
        process=ProcessPlan.from_config(document.get("process") or {}, compile_filter(linux, cache_dir)),
        hooks=hooks,
        root_edits=root_edits,
        has_reaper=(document.get("annotations") or {}).get(REAPER_ANNOTATION) == "true",
        document=document,
    )


def _check_namespaces(document: Mapping[str, Any], linux: Mapping[str, Any], plan: NamespacePlan) -> None:
    """Refuse settings that would change the host because the container lacks a namespace."""
    if "mount" not in plan.new:
        raise UnsupportedError("a container without a mount namespace of its own is not supported")
    if document.get("hostname") and "uts" not in plan.new:
        raise InvalidError("a hostname needs a UTS namespace of its own")
    if document.get("domainname") and "uts" not in plan.new:
        raise InvalidError("a domain name needs a UTS namespace of its own")
    if "user" in plan.new and not (linux.get("uidMappings") and linux.get("gidMappings")):
        raise InvalidError("a new user namespace needs linux.uidMappings and linux.gidMappings")
    if "time" in plan.joined:
        raise UnsupportedError("joining a time namespace is not supported")
    for key in linux.get("sysctl") or {}:
        kind = next((k for k, starts in _NAMESPACED_SYSCTLS.items() if str(key).startswith(starts)), None)
        if kind is None or ".." in str(key) or "/" in str(key):
            raise InvalidError(
                f"sysctl {key} is not one of a namespace: it would change the host",
                f"leave it out, or set it on the host: sysctl -w {key}=…",
            )
        if not plan.has(kind):
            raise InvalidError(
                f"sysctl {key} needs a {kind} namespace, and this container shares the host's", "leave it out"
            )


def _read_personality(entry: Mapping[str, Any] | None) -> int | None:
    if not entry:
        return None
    if entry.get("flags"):
        raise UnsupportedError("linux.personality.flags are not supported")
    domains = {"LINUX": 0x0000, "LINUX32": 0x0008}  # personality(2)
    domain = str(entry.get("domain"))
    if domain not in domains:
        raise InvalidError(f"linux.personality: unknown domain {domain}")
    return domains[domain]
