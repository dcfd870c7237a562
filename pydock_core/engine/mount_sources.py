"""The sources of a container's mounts: host paths, and sources to mount first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from pydock_core.engine.volume_files import volume_directory
from pydock_core.oci.mount_source import MountSource
from pydock_core.oci.root_mount import RootMount
from pydock_core.paths import ContainerPaths, StateRoot
from pydock_core.spec.mount import Mount
from pydock_core.spec.volume import is_bind


def build_sources(
    root: StateRoot,
    paths: ContainerPaths,
    mounts: Iterable[Mount],
    options_of: Callable[[str], dict[str, str]],
    image_mounts: Callable[[str], Sequence[RootMount]],
) -> tuple[dict[str, str], list[MountSource]]:
    """Return the host paths of a container's volumes and images, by mount target, and the sources to mount there first.

    Args:
        options_of: returns the options of a volume.
        image_mounts: returns the mounts of an image's file system, read-only.
    """
    places: dict[str, str] = {}
    sources: list[MountSource] = []
    for mount in mounts:
        if mount.kind not in ("volume", "image"):
            continue
        place = str(paths.bundle / "mounts" / str(len(sources)))
        source = _source(root, place, mount, options_of, image_mounts)
        if source is None:
            places[mount.target] = str(volume_directory(root, mount.source))
        else:
            sources.append(source)
            places[mount.target] = source.path
    return places, sources


def _source(
    root: StateRoot,
    place: str,
    mount: Mount,
    options_of: Callable[[str], dict[str, str]],
    image_mounts: Callable[[str], Sequence[RootMount]],
) -> MountSource | None:
    """Return the source to mount for a volume or an image; None for a plain volume."""
    if mount.kind == "image":
        return MountSource(
            f"image {mount.source[:19]}",
            place,
            "image",
            root_mounts=tuple(image_mounts(mount.source)),
            subpath=mount.subpath,
        )
    subject, options = f"volume {mount.source}", options_of(mount.source)
    if options:
        words = tuple(word for word in options.get("o", "").split(",") if word)
        kind = "bind" if is_bind(options) else options["type"]
        records = str(root.run / "v" / mount.source) if kind == "tmpfs" else ""
        return MountSource(
            subject, place, kind, options["device"], words, subpath=mount.subpath, records=records
        )
    if mount.subpath:
        directory = str(volume_directory(root, mount.source))
        return MountSource(subject, place, "bind", directory, subpath=mount.subpath)
    return None
