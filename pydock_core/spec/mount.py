"""Mounts of a container: the Engine API's Binds, Mounts, Tmpfs and Volumes, read into one form.  Pure."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from pydock_core.errors import InvalidError, UnsupportedError
from pydock_core.spec.volume import check_driver, check_name

if TYPE_CHECKING:
    from pydock_core.spec.definition import CreateRequest, Definition

PROPAGATIONS = ("rprivate", "private", "rshared", "shared", "rslave", "slave")
WHERE_POSSIBLE, TOP_ONLY, FORCED = "", "top", "forced"
"""Which submounts of a read-only bind are read-only: all if possible (Docker's default), none, or all with an error otherwise."""
_MODES = ("ro", "rw")
_CONSISTENCIES = ("default", "consistent", "cached", "delegated")
"""They concern hosts whose containers run in a virtual machine; Docker on Linux treats all of them alike."""
_KEYS = {
    "bind": {"BindOptions"},
    "volume": {"VolumeOptions"},
    "tmpfs": {"TmpfsOptions"},
    "image": {"ImageOptions"},
}


class Mount(NamedTuple):
    """One mount.

    Attributes:
        kind: "bind", "volume", "tmpfs" or "image".
        source: host path of a bind, name of a volume (empty for an anonymous one), name or id of an image, empty for a tmpfs.
        target: absolute path in the container, normalized.
        propagation: propagation of a bind.
        create_source: whether to create a missing source directory of a bind.
        no_copy: whether to leave an empty volume empty instead of filling it with the image's files.
        options: options of a tmpfs, in mount(8)'s form: "size=64m", "mode=1777".
        is_recursive: whether a bind includes the mounts below its source.
        read_only_below: submounts of a read-only bind; see WHERE_POSSIBLE.
        subpath: the mounted part of a volume or an image; empty for the whole.
        labels, volume_options: labels and options of a new volume, as (key, value).
        unnamed: whether the volume's name was generated.
    """

    kind: str
    source: str
    target: str
    read_only: bool = False
    propagation: str = "rprivate"
    create_source: bool = False
    no_copy: bool = False
    options: tuple[str, ...] = ()
    is_recursive: bool = True
    read_only_below: str = WHERE_POSSIBLE
    subpath: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    volume_options: tuple[tuple[str, str], ...] = ()
    unnamed: bool = False


def definition_mounts(definition: Definition) -> list[Mount]:
    """Return the mounts of a stored definition, volumes with their names and images with their ids."""
    return read_mounts(definition.request, definition.volumes, definition.inherited)


def read_mounts(
    request: CreateRequest, volumes: Mapping[str, str], inherited: Iterable[Mapping[str, Any]] = ()
) -> list[Mount]:
    """Return the mounts of a request: Binds, Mounts, Tmpfs, the inherited ones, and the Volumes at other targets.

    Args:
        request: a complete, valid request.
        volumes: the names of anonymous volumes and the ids of images, by target.
        inherited: the mounts of VolumesFrom; see :func:`inherit_mounts`.
    """
    host = request["HostConfig"]
    mounts = [
        *(parse_bind(text) for text in host["Binds"] or ()),
        *(parse_mount(document) for document in host["Mounts"]),
        *(parse_tmpfs(target, options) for target, options in host["Tmpfs"].items()),
    ]
    if inherited:
        targets = {mount.target for mount in mounts}
        mounts += [mount for mount in map(decode_mount, inherited) if mount.target not in targets]
    if request["Volumes"]:
        targets = {mount.target for mount in mounts}
        mounts += [
            Mount("volume", "", target)
            for target in (_check_target(path, path) for path in request["Volumes"])
            if target not in targets
        ]
    return [
        mount._replace(source=volumes.get(mount.target, ""), unnamed=True)
        if mount.kind == "volume" and not mount.source
        else mount._replace(source=volumes.get(mount.target, mount.source))
        if mount.kind == "image"
        else mount
        for mount in mounts
    ]


def inherit_mounts(
    sources: Iterable[str], mounts_of: Callable[[str], Iterable[Mount]]
) -> list[dict[str, Any]]:
    """Return the mounts of VolumesFrom, in their stored form; of two at one target the later one wins.

    Args:
        sources: CONTAINER[:ro|rw].
        mounts_of: returns the mounts of a container.
    """
    found: dict[str, Mount] = {}
    for text in sources:
        name, mode = parse_volumes_from(text)
        for mount in mounts_of(name):
            if mount.kind != "tmpfs":
                # The volume was filled for the other container.
                found[mount.target] = mount._replace(
                    read_only=mount.read_only or mode == "ro", no_copy=True, create_source=False
                )
    return [mount._asdict() for mount in found.values()]


def decode_mount(document: Mapping[str, Any]) -> Mount:
    """Read a mount in its stored form: the fields of :class:`Mount`."""
    pairs = {
        name: tuple((key, value) for key, value in document[name]) for name in ("labels", "volume_options")
    }
    return Mount(**{**document, "options": tuple(document["options"]), **pairs})


def parse_volumes_from(text: str) -> tuple[str, str]:
    """Split an entry of VolumesFrom into the container and the mode, "rw" by default.

    Raises:
        InvalidError, UnsupportedError: malformed; exit code 125.
    """
    name, colon, mode = text.partition(":")
    if mode in ("z", "Z"):
        raise UnsupportedError(
            f"--volumes-from {text}: SELinux labels are not supported", "leave out z and Z", exit_code=125
        )
    if not name or (colon and mode not in _MODES):
        raise InvalidError(
            f"--volumes-from {text}: malformed", "write --volumes-from CONTAINER[:ro]", exit_code=125
        )
    return name, mode or "rw"


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
        elif option in _CONSISTENCIES:
            continue
        elif option in ("z", "Z"):
            raise UnsupportedError(
                f"mount {text}: SELinux labels are not supported", "leave out z and Z", exit_code=125
            )
        elif option:
            raise _invalid(
                text, f"unknown option {option}", f"there are ro, rw, nocopy, {', '.join(PROPAGATIONS)}"
            )
    target = _check_target(parts[1], text)
    if parts[0].startswith("/"):
        return Mount("bind", posixpath.normpath(parts[0]), target, read_only, propagation, create_source=True)
    return Mount("volume", _check_name(parts[0], text), target, read_only, no_copy=no_copy)


_NAMING = ("Type", "Source", "Target")
"""The fields that an error shows, as `--mount` spells them."""


def parse_mount(document: Mapping[str, Any]) -> Mount:
    """Parse an entry of Mounts.

    Raises:
        InvalidError, UnsupportedError: malformed; exit code 125.
    """
    kind, target = document.get("Type"), document.get("Target") or ""
    spelling = ",".join(f"{key.lower()}={document[key]}" for key in _NAMING if document.get(key))
    source, read_only = document.get("Source") or "", document.get("ReadOnly") or False
    if not (isinstance(target, str) and isinstance(source, str) and isinstance(read_only, bool)):
        raise _invalid(spelling, "a field has another type", "see the Engine API")
    if not isinstance(kind, str) or kind not in _KEYS:
        raise _invalid(spelling, f"unknown type {kind}", "there are bind, volume, tmpfs and image")
    allowed = {"Type", "Source", "Target", "ReadOnly", *_KEYS[kind]}
    for key, value in document.items():
        if key not in allowed and value and not (key == "Consistency" and value in _CONSISTENCIES):
            raise UnsupportedError(
                f"mount {spelling}: {key} is not supported for the type {kind}",
                f"there are {', '.join(sorted(allowed))}",
                exit_code=125,
            )
    if not target:
        raise _invalid(spelling, "target is missing", "add target=/PATH")
    target = _check_target(target, spelling)
    return _PARSERS[kind](document, spelling, source, target, read_only)


def _parse_bind_mount(
    document: Mapping[str, Any], spelling: str, source: str, target: str, read_only: bool
) -> Mount:
    types = {
        "Propagation": str,
        "CreateMountpoint": bool,
        "NonRecursive": bool,
        "ReadOnlyNonRecursive": bool,
        "ReadOnlyForceRecursive": bool,
    }
    options = _options(document, "BindOptions", types, spelling)
    propagation = options.get("Propagation") or "rprivate"
    if not source:
        raise _invalid(spelling, "source is missing", "add source=PATH")
    if not source.startswith("/"):
        raise _invalid(spelling, f"{source!r} is not an absolute path of the host", "begin it with /")
    if propagation not in PROPAGATIONS:
        raise _invalid(spelling, f"unknown propagation {propagation}", f"there are {', '.join(PROPAGATIONS)}")
    is_top, is_forced = (
        bool(options.get(name)) for name in ("ReadOnlyNonRecursive", "ReadOnlyForceRecursive")
    )
    if (is_top or is_forced) and not read_only:
        raise _invalid(
            spelling, "bind-recursive=writable and =readonly are for read-only mounts", "add readonly"
        )
    if is_forced and (is_top or options.get("NonRecursive") or propagation != "rprivate"):
        raise _invalid(
            spelling,
            "bind-recursive=readonly needs a recursive, private mount",
            "add bind-propagation=rprivate",
        )
    return Mount(
        "bind",
        posixpath.normpath(source),
        target,
        read_only,
        propagation,
        bool(options.get("CreateMountpoint")),
        is_recursive=not options.get("NonRecursive"),
        read_only_below=FORCED if is_forced else TOP_ONLY if is_top else WHERE_POSSIBLE,
    )


def _parse_volume_mount(
    document: Mapping[str, Any], spelling: str, source: str, target: str, read_only: bool
) -> Mount:
    types = {"NoCopy": bool, "Labels": dict, "DriverConfig": dict, "Subpath": str}
    options = _options(document, "VolumeOptions", types, spelling)
    driver = _options(options, "DriverConfig", {"Name": str, "Options": dict}, spelling)
    check_driver(driver.get("Name") or "")
    labels, driver_options = options.get("Labels") or {}, driver.get("Options") or {}
    if not all(isinstance(value, str) for value in (*labels.values(), *driver_options.values())):
        raise _invalid(spelling, "a label or an option of the driver is not text", "see the Engine API")
    if source:
        _check_name(source, spelling)
    return Mount(
        "volume",
        source,
        target,
        read_only,
        no_copy=bool(options.get("NoCopy")),
        subpath=_check_subpath(options.get("Subpath") or "", spelling),
        labels=tuple(labels.items()),
        volume_options=tuple(driver_options.items()),
    )


def _parse_tmpfs_mount(
    document: Mapping[str, Any], spelling: str, source: str, target: str, read_only: bool
) -> Mount:
    if source:
        raise _invalid(spelling, "a tmpfs has no source", "leave source out")
    options = _options(document, "TmpfsOptions", {"SizeBytes": int, "Mode": int, "Options": list}, spelling)
    size = [f"size={options['SizeBytes']}"] if options.get("SizeBytes") else []
    words = []
    for pair in options.get("Options") or ():
        if not (
            isinstance(pair, list) and 1 <= len(pair) <= 2 and all(isinstance(word, str) for word in pair)
        ):
            raise _invalid(
                spelling, "TmpfsOptions.Options is not a list of words and pairs", "see the Engine API"
            )
        words.append("=".join(pair))
    mode = f"mode={options.get('Mode') or 0o1777:o}"
    return Mount("tmpfs", "", target, read_only, options=(*size, mode, *words))


def _parse_image_mount(
    document: Mapping[str, Any], spelling: str, source: str, target: str, read_only: bool
) -> Mount:
    if not source:
        raise _invalid(spelling, "source is missing", "add source=IMAGE")
    options = _options(document, "ImageOptions", {"Subpath": str}, spelling)
    # An image mount is always read-only, whatever the request says.
    return Mount(
        "image", source, target, True, subpath=_check_subpath(options.get("Subpath") or "", spelling)
    )


_PARSERS = {
    "bind": _parse_bind_mount,
    "volume": _parse_volume_mount,
    "tmpfs": _parse_tmpfs_mount,
    "image": _parse_image_mount,
}


_SIZE = ("[0-9]+[kmgtpeKMGTPE]?", "a size")
_TMPFS_VALUES: Mapping[str, tuple[str, str, str]] = {
    "size": (f"{_SIZE[0]}|[0-9]+%", _SIZE[1], "size=64m"),
    "nr_blocks": (*_SIZE, "nr_blocks=1k"),
    "nr_inodes": (*_SIZE, "nr_inodes=10k"),
    "mode": ("[0-7]+", "an octal number", "mode=1777"),
    "uid": ("[0-9]+", "a user id", "uid=1000"),
    "gid": ("[0-9]+", "a group id", "gid=1000"),
}
"""By option of tmpfs(5): the form of its value, what it is, and an example."""


def parse_tmpfs(target: str, options: str) -> Mount:
    """Parse an entry of Tmpfs: a target, and options in mount(8)'s form."""
    words = tuple(option for option in options.split(",") if option)
    for word in words:
        name, _, value = word.partition("=")
        form = _TMPFS_VALUES.get(name)
        if form is not None and not re.fullmatch(form[0], value):
            raise InvalidError(
                f"invalid --tmpfs {target}:{options}: {value!r} is not {form[1]}",
                f"write {form[2]}",
                exit_code=125,
            )
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


def _check_subpath(path: str, spelling: str) -> str:
    """Return a path below a volume or an image, without a leading slash; as in Docker, it must not lead outside."""
    if path.startswith("/") or ".." in path.split("/"):
        raise _invalid(
            spelling, f"subpath {path!r} is not a path below the source", "give DIRECTORY/FILE without .."
        )
    return "" if not path else posixpath.normpath(path).removeprefix(".")


def _check_target(path: str, spelling: str) -> str:
    if not path.startswith("/"):
        raise _invalid(spelling, f"{path!r} is not an absolute path", "a path in the container begins with /")
    normal = posixpath.normpath("/" + path.lstrip("/"))
    if normal == "/":
        raise _invalid(spelling, "/ cannot be a target", "mount below /")
    return normal


def _check_name(name: str, spelling: str) -> str:
    try:
        check_name(name)
    except InvalidError:
        raise _invalid(
            spelling,
            f"{name!r} is neither a path nor a name of a volume",
            "begin a path with / or ./; a name has letters, digits, '_', '.' and '-'",
        ) from None
    return name


def _invalid(spelling: str, reason: str, hint: str) -> InvalidError:
    return InvalidError(f"invalid mount {spelling}: {reason}", hint, exit_code=125)
