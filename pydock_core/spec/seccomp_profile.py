"""Resolves Docker's seccomp profile format into an OCI ``linux.seccomp`` object.  Pure, except for reading one file.

The profile (moby/profiles, ``default.json``) has conditions on capabilities, architectures and the kernel's
version; the runtime specification has none, so they are evaluated here.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pydock_core.errors import InvalidError
from pydock_core.spec.seccomp_sockets import narrow_sockets

_GO_NAMES = {"x86_64": "amd64", "aarch64": "arm64"}
_SCMP_NAMES = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}
_CARRIED = ("names", "action", "errnoRet", "args")


@cache
def read_default_profile() -> Mapping[str, Any]:
    """Return Docker's default profile, without socketcall (see seccomp_sockets); the object must not be changed."""
    document: dict[str, Any] = json.loads(Path(__file__).with_name("seccomp_default.json").read_bytes())
    return document


def resolve_profile(
    profile: Mapping[str, Any], capabilities: Collection[str], machine: str, kernel: tuple[int, int]
) -> dict[str, Any]:
    """Evaluate a profile's conditions; a profile without any (OCI's own form) stays unchanged.

    Args:
        profile: Docker's or OCI's form.
        capabilities: names of the container's bounding set.
        machine: ``uname -m``.
        kernel: major and minor version.

    Raises:
        InvalidError: no default action, or a malformed condition.
    """
    if not isinstance(profile.get("defaultAction"), str):
        raise InvalidError("the seccomp profile has no defaultAction")
    resolved: dict[str, Any] = {"defaultAction": profile["defaultAction"]}
    if profile.get("defaultErrnoRet") is not None:
        resolved["defaultErrnoRet"] = profile["defaultErrnoRet"]
    architectures = _build_architectures(profile, machine)
    if architectures:
        resolved["architectures"] = architectures
    for key in ("flags", "listenerPath", "listenerMetadata"):
        if profile.get(key):
            resolved[key] = profile[key]
    rules = [
        _build_rule(rule)
        for rule in profile.get("syscalls") or ()
        if _applies(rule, frozenset(capabilities), _GO_NAMES.get(machine, machine), kernel)
    ]
    if rules:
        resolved["syscalls"] = narrow_sockets(rules, resolved["defaultAction"])
    return resolved


def _build_architectures(profile: Mapping[str, Any], machine: str) -> list[str]:
    if profile.get("architectures"):
        return list(profile["architectures"])
    native = _SCMP_NAMES.get(machine)
    for entry in profile.get("archMap") or ():
        if entry["architecture"] == native:
            return [native, *(entry.get("subArchitectures") or ())]
    return [native] if native else []


def _build_rule(rule: Mapping[str, Any]) -> dict[str, Any]:
    names = rule.get("names") or ([rule["name"]] if rule.get("name") else [])
    if not names or not rule.get("action"):
        raise InvalidError("the seccomp profile has a rule without names or action")
    carried = {**rule, "names": names}
    return {key: carried[key] for key in _CARRIED if carried.get(key) not in (None, [])}


def _applies(
    rule: Mapping[str, Any], capabilities: frozenset[str], architecture: str, kernel: tuple[int, int]
) -> bool:
    includes: Mapping[str, Any] = rule.get("includes") or {}
    excludes: Mapping[str, Any] = rule.get("excludes") or {}
    if excludes.get("arches") and architecture in excludes["arches"]:
        return False
    if excludes.get("caps") and capabilities & set(excludes["caps"]):
        return False
    if excludes.get("minKernel") and kernel >= _parse_kernel(excludes["minKernel"]):
        return False
    if includes.get("arches") and architecture not in includes["arches"]:
        return False
    if includes.get("caps") and not capabilities >= set(includes["caps"]):
        return False
    return not (includes.get("minKernel") and kernel < _parse_kernel(includes["minKernel"]))


def _parse_kernel(text: str) -> tuple[int, int]:
    major, _, minor = str(text).partition(".")
    if not (major.isdigit() and minor.isdigit()):
        raise InvalidError(f"the seccomp profile has a malformed minKernel, {text}")
    return int(major), int(minor)


def parse_kernel_release(release: str) -> tuple[int, int]:
    """Return major and minor of ``uname -r``: "6.1.0-56-amd64" is (6, 1)."""
    major, _, rest = release.partition(".")
    minor = "".join(character for character in rest.partition(".")[0] if character.isdigit())
    return (int(major), int(minor or 0)) if major.isdigit() else (0, 0)
