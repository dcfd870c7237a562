"""Mounts of a container: the Engine API's Binds, Mounts, Tmpfs and Volumes, read into one form.  Pure."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from pydock_core.errors import InvalidError, UnsupportedError

if TYPE_CHECKING:
    from pydock_core.spec.definition import CreateRequest

PROPAGATIONS = ("rprivate", "private", "rshared", "shared", "rslave", "slave")
_VOLUME_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*\Z")
_KEYS = {
    "bind": {"BindOptions"},
    "volume": {"VolumeOptions"},
    "tmpfs": {"TmpfsOptions"},
}


class Mount(NamedTuple):
    """One mount.

    Attributes:
        kind: "bind", "volume" or "tmpfs".
        source: host path of a bind, name of a volume (empty for an anonymous one), empty for a tmpfs.
        target: absolute path in the container, normalized.
        propagation: of a bind.
        create_source: a missing source directory of a bind is created.
        no_copy: a new volume is not filled with the image's files at the target.
        options: of a tmpfs, in mount(8)'s form: "size=64m", "mode=1777".
    """

    kind: str
    source: str
    target: str
    read_only: bool = False
    propagation: str = "rprivate"
    create_source: bool = False
    no_copy: bool = False
    options: tuple[str, ...] = ()


def read_mounts(request: CreateRequest, volumes: Mapping[str, str]) -> list[Mount]:
    """Return the mounts of a request: Binds, Mounts, Tmpfs, and the Volumes at none of their targets.

    Args:
        request: complete and valid.
        volumes: the names of anonymous volumes, by target.
    """
    host = request["HostConfig"]
    mounts = [
        *(parse_bind(text) for text in host["Binds"] or ()),
        *(parse_mount(document) for document in host["Mounts"]),
        *(parse_tmpfs(target, options) for target, options in host["Tmpfs"].items()),
    ]
    if request["Volumes"]:
        targets = {mount.target for mount in mounts}
        mounts += [
            Mount("volume", "", target)
            for target in (_check_target(path, path) for path in request["Volumes"])
            if target not in targets
        ]
    return [
        mount._replace(source=volumes.get(mount.target, ""))
        if mount.kind == "volume" and not mount.source
        else mount
        for mount in mounts
    ]


def parse_bind(text: str) -> Mount:
    """Parse an entry of Binds: SOURCE:TARGET[:OPTIONS]; a source that begins with a slash is a host path, else a volume.

    Raises:
        InvalidError, UnsupportedError: malformed; exit code 125.
    """
    parts = text.split(":")
    if not 2 <= len(parts) <= 3 or not all(parts):
        raise _invalid(text, "malformed", "write SOURCE:TARGET[:ro]")
    read_only, propagation, no_copy = False, "rprivate", False
    for option in parts[2].split(",") if len(parts) == 3 else ():
        if option in ("ro", "rw"):
            read_only = option == "ro"
        elif option in PROPAGATIONS:
            propagation = option
        elif option == "nocopy":
            no_copy = True
        elif option in ("z", "Z"):
            raise UnsupportedError(
                f"mount {text}: SELinux labels are not supported", "leave out z and Z", exit_code=125
            )
        elif option:
            raise _invalid(text, f"unknown option {option}", "there are ro, rw, nocopy and the propagations")
    target = _check_target(parts[1], text)
    if parts[0].startswith("/"):
        return Mount("bind", posixpath.normpath(parts[0]), target, read_only, propagation, create_source=True)
    return Mount("volume", _check_name(parts[0], text), target, read_only, no_copy=no_copy)


def parse_mount(document: Mapping[str, Any]) -> Mount:
    """Parse an entry of Mounts.

    Raises:
        InvalidError, UnsupportedError: malformed; exit code 125.
    """
    kind, target = document.get("Type"), document.get("Target") or ""
    spelling = ",".join(f"{key}={value}" for key, value in document.items())
    source, read_only = document.get("Source") or "", document.get("ReadOnly") or False
    if not (isinstance(target, str) and isinstance(source, str) and isinstance(read_only, bool)):
        raise _invalid(spelling, "a field has another type", "see the Engine API")
    if not isinstance(kind, str) or kind not in _KEYS:
        raise _invalid(spelling, f"unknown type {kind}", "there are bind, volume and tmpfs")
    allowed = {"Type", "Source", "Target", "ReadOnly", *_KEYS[kind]}
    for key, value in document.items():
        if key not in allowed and value and (key, value) != ("Consistency", "default"):
            raise UnsupportedError(
                f"mount {spelling}: {key} is not supported for the type {kind}",
                f"there are {', '.join(sorted(allowed))}",
                exit_code=125,
            )
    if not target:
        raise _invalid(spelling, "target is missing", "add target=/PATH")
    target = _check_target(target, spelling)
    if kind == "bind":
        options = _options(document, "BindOptions", {"Propagation": str, "CreateMountpoint": bool}, spelling)
        propagation = options.get("Propagation") or "rprivate"
        if not source:
            raise _invalid(spelling, "source is missing", "add source=PATH")
        if not source.startswith("/"):
            raise _invalid(spelling, f"{source!r} is not an absolute path of the host", "begin it with /")
        if propagation not in PROPAGATIONS:
            raise _invalid(
                spelling, f"unknown propagation {propagation}", f"there are {', '.join(PROPAGATIONS)}"
            )
        created = bool(options.get("CreateMountpoint"))
        return Mount("bind", posixpath.normpath(source), target, read_only, propagation, created)
    if kind == "volume":
        options = _options(document, "VolumeOptions", {"NoCopy": bool}, spelling)
        name = _check_name(source, spelling) if source else ""
        return Mount("volume", name, target, read_only, no_copy=bool(options.get("NoCopy")))
    if source:
        raise _invalid(spelling, "a tmpfs has no source", "leave source out")
    options = _options(document, "TmpfsOptions", {"SizeBytes": int, "Mode": int}, spelling)
    size = [f"size={options['SizeBytes']}"] if options.get("SizeBytes") else []
    return Mount("tmpfs", "", target, read_only, options=(*size, f"mode={options.get('Mode') or 0o1777:o}"))


def parse_tmpfs(target: str, options: str) -> Mount:
    """Parse an entry of Tmpfs: a target, and options in mount(8)'s form."""
    words = tuple(option for option in options.split(",") if option)
    return Mount("tmpfs", "", _check_target(target, target), "ro" in words, options=words)


def _options(
    document: Mapping[str, Any], name: str, types: Mapping[str, type], spelling: str
) -> dict[str, Any]:
    options = document.get(name) or {}
    if not isinstance(options, dict):
        raise _invalid(spelling, f"{name} is not an object", "see the Engine API")
    for key, value in options.items():
        if key not in types and value:
            raise UnsupportedError(
                f"mount {spelling}: {name}.{key} is not supported",
                f"there is {', '.join(types)}",
                exit_code=125,
            )
        if key in types and value is not None and type(value) is not types[key]:
            raise _invalid(
                spelling, f"{name}.{key} is not of the type {types[key].__name__}", "see the Engine API"
            )
    return dict(options)


def _check_target(path: str, spelling: str) -> str:
    if not path.startswith("/"):
        raise _invalid(spelling, f"{path!r} is not an absolute path", "a path in the container begins with /")
    normal = posixpath.normpath("/" + path.lstrip("/"))
    if normal == "/":
        raise _invalid(spelling, "/ cannot be a target", "mount below /")
    return normal


def _check_name(name: str, spelling: str) -> str:
    if not _VOLUME_NAME.match(name):
        raise _invalid(
            spelling,
            f"{name!r} is neither a path nor a name of a volume",
            "begin a path with / or ./; a name has letters, digits, '_', '.' and '-'",
        )
    return name


def _invalid(spelling: str, reason: str, hint: str) -> InvalidError:
    return InvalidError(f"invalid mount {spelling}: {reason}", hint, exit_code=125)
