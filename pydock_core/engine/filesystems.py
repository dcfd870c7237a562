"""The use cases of containers' file systems: commit, diff and export."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from pydock_core.engine.stillness import keep_still
from pydock_core.errors import CorruptError, NotFoundError
from pydock_core.images.committed import build_execution, build_image_config, is_same_but_for_time
from pydock_core.images.stored import store_image
from pydock_core.oci.digest import digest_of
from pydock_core.oci.documents import ImageConfig, encode, layer_media_type
from pydock_core.oci.reference import parse_tagged
from pydock_core.oci.root_mount import RootMount
from pydock_core.oci.timestamp import format_timestamp
from pydock_core.progress import Progress
from pydock_core.runtime.process_identity import ProcessIdentity
from pydock_core.spec.defaults import DEFAULT_PATH
from pydock_core.spec.definition import decode
from pydock_core.store.database import containers as table
from pydock_core.store.database import images as sql
from pydock_core.store.database.containers import ContainerRow, build_event
from pydock_core.store.database.images import LayerRow
from pydock_core.store.pipe import writing_end
from pydock_core.store.snapshots.directory import needs_user_xattrs
from pydock_core.store.upper_size import file_sizes
from pydock_core.supervision.client import Zygote
from pydock_core.supervision.container_status import derive_status

if TYPE_CHECKING:
    from pydock_core.engine.containers import Containers
    from pydock_core.engine.state import State

_EXPORT_TREE = "pydock_core.store.tree_tar:export_tree"
_LIST_CHANGES = "pydock_core.store.upper_diff:list_changes"
_WRITE_UPPER = "pydock_core.store.upper_tar:write_upper"


class Filesystems:
    """The file systems of containers; a container is named as in
    :class:`pydock_core.engine.containers.Containers`.
    """

    def __init__(self, state: State, containers: Containers) -> None:
        self._state = state
        self._containers = containers
        self._root = state.root

    # -- commit ------------------------------------------------------------------------------------------

    def commit(
        self,
        container: str,
        reference: str | None = None,
        *,
        author: str = "",
        message: str = "",
        changes: Sequence[str] = (),
        pause: bool = True,
        progress: Progress | None = None,
    ) -> str:
        """Make an image of a container: its image, and its writable layer on top; return the image's id.

        The result is reproducible: the same changes give the same layer, byte for byte, and a commit whose image would
        differ from an existing one only in its time returns that image.  SOURCE_DATE_EPOCH sets the time
        (reproducible-builds.org), for the same image on another host.  A container without changes adds no layer.

        Args:
            container: running or not.
            reference: the image's name, if any.
            author, message: for the image and its history.
            changes: Dockerfile instructions; see :func:`pydock_core.images.changes.apply_changes`.
            pause: freeze the container's processes while its layer is read.
            progress: receives {"status": "Committing", "current"}, then events of the layer's application.

        Raises:
            NotFoundError: there is no such container.
            InvalidError: a change or the reference is malformed.
            ConflictError: the container is being started; or without ``pause``, its tree changed too much to be read.
            UnavailableError: the disk is full.
        """
        references = (parse_tagged(reference),) if reference else ()
        row = table.find(self._state.database, container)
        document = self._containers.inspect(row.id)
        parent = ImageConfig.from_json(self._state.images.config(row.image_id))
        described = {**document["Config"], "Mounts": document["Mounts"]}
        execution = build_execution(described, parent.config, changes, DEFAULT_PATH)
        store = self._state.image_store
        fixed_ns = _fixed_time_ns()
        with store.adding("commit") as directory:
            # Before the long work: once they are read, the store's lock protects them even if the image is removed.
            below = sql.layers_of(self._state.database, row.image_id)
            if len(below) != len(parent.diff_ids):
                raise NotFoundError(f"the image of container {container} was removed just now", "try again")
            layer = self._keep_layer(row, container, directory, pause=pause, progress=progress)
            config = build_image_config(
                parent,
                execution,
                layer.diff_id if layer else None,
                created=format_timestamp(time.time_ns() if fixed_ns is None else fixed_ns),
                created_by=" ".join(document["Config"]["Cmd"]),
                author=author,
                comment=message,
            )
            if fixed_ns is None and (known := self._made_before(config)) is not None:
                config = known
            layers = [*below, *([layer] if layer else [])]
            image = store_image(store.blobs, directory, encode(config.to_json()), config, layers, references)
            named = references[0].familiar if references else ""
            committed = build_event(row, "commit", comment=message, imageID=image.id, imageRef=named)
            store.record([image], progress, event_of=lambda _: committed)
        return image.id

    def _made_before(self, config: ImageConfig) -> ImageConfig | None:
        """Return the config of an existing image that differs only in its time."""
        for image_id in sql.with_layers(self._state.database, config.diff_ids) if config.diff_ids else ():
            try:
                known = ImageConfig.from_json(self._state.images.config(image_id))
            except (CorruptError, NotFoundError):
                continue  # damaged, or removed just now: it is made again
            if is_same_but_for_time(known, config) and digest_of(encode(known.to_json())) == image_id:
                return known
        return None

    def _keep_layer(
        self, row: ContainerRow, name: str, directory: Path, *, pause: bool, progress: Progress | None
    ) -> LayerRow | None:
        """Put the writable layer into the blob store; None if it is empty."""
        paths = self._root.container(row.id)
        launcher = self._state.launcher
        id_maps = launcher.id_maps(launcher.kept_ids(decode(row.definition)))
        place = directory / "upper.tar"
        file_fd = os.open(place, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with keep_still(paths, name, pause=pause):
                made = self._state.worker.call(
                    _WRITE_UPPER,
                    {"upper": str(paths.upper), "user_xattrs": needs_user_xattrs(), **id_maps},
                    [file_fd],
                    progress,
                )
        finally:
            os.close(file_fd)
        if progress is not None:
            for note in made["notes"]:
                progress({"status": f"Left out: {note}"})
        if not made["entries"]:
            return None
        blobs = self._state.image_store.blobs
        if not blobs.has(made["digest"]):
            blobs.adopt(place, made["digest"], f"layer of container {name}")
        return LayerRow(made["digest"], made["digest"], layer_media_type(""))

    # -- diff and export ---------------------------------------------------------------------------------

    def diff(self, container: str) -> list[dict[str, Any]]:
        """Return a container's changes: [{"Path", "Kind"}] (Engine API, FilesystemChange), by path.

        Kind is 0 for modified, 1 for added, 2 for deleted.  A running container is not paused.
        """
        row = table.find(self._state.database, container)
        paths = self._root.container(row.id)
        with self._private(row, "diff") as arguments:
            arguments.update(upper=str(paths.upper), user_xattrs=needs_user_xattrs())
            changes = Zygote(self._root).call(_LIST_CHANGES, arguments)
        return [{"Path": path, "Kind": kind} for path, kind in changes]

    def file_sizes(self, container: str, paths: Sequence[str]) -> dict[str, int]:
        """Return the sizes in bytes of regular files of a container's writable layer; see :func:`file_sizes`."""
        return file_sizes(self._root.container(table.find(self._state.database, container).id).upper, paths)

    def export(self, container: str, stream: BinaryIO) -> None:
        """Write the whole file system of a container, running or not, as a tar.

        Mounts in it (volumes, /proc, /etc/hosts) are left out: the archive has their empty mount points.

        Args:
            stream: if it has a descriptor, the kernel writes to it directly.

        Raises:
            ConflictError: the container is being started, or has ended during the export.
            FailedError: the stream's reader is gone.
        """
        row = table.find(self._state.database, container)
        paths = self._root.container(row.id)
        launcher = self._state.launcher
        id_maps = launcher.id_maps(launcher.kept_ids(decode(row.definition)))
        with contextlib.ExitStack() as stack:
            status = derive_status(paths)
            arguments: dict[str, Any] = {"root_mounts": [], "mount_point": "", "supervisor": None, **id_maps}
            if status.is_running:
                arguments["supervisor"] = ProcessIdentity.of(status.supervisor_pid).to_json()
            else:
                stack.enter_context(keep_still(paths, container, pause=False))
                arguments.update(stack.enter_context(self._private(row, "export", paths.upper)))
            output_fd = stack.enter_context(writing_end(stream))
            Zygote(self._root).call(_EXPORT_TREE, {**arguments, "rootfs": str(paths.rootfs)}, [output_fd])
        self._state.recorder.container(row, "export")

    @contextlib.contextmanager
    def _private(self, row: ContainerRow, kind: str, upper: Path | None = None) -> Iterator[dict[str, Any]]:
        """Yield a worker's arguments for mounting a container's file system read-only.

        Args:
            kind: of the operation, for the workspace's name.
            upper: include the writable layer.
        """
        paths = self._root.container(row.id)
        diff_ids = self._state.images.layers(row.image_id)
        launcher = self._state.launcher
        kept = launcher.kept_ids(decode(row.definition))
        *others, overlay = launcher.root_mounts(diff_ids, paths, kept)
        layers = [*overlay.lower]
        if upper is not None and upper.is_dir():
            # As a lower layer: overlayfs allows an upper layer only once, and would write to it.
            layers.insert(0, str(upper))
        view = replace(overlay, lower=tuple(layers), upper="", work="", options=(*overlay.options, "ro"))
        if len(layers) == 1:  # too few for an overlay
            view = RootMount("bind", layers[0], options=("ro",))
        store = self._state.image_store
        with store.reading(), store.workspace(kind) as directory:
            mount_point = directory / "root"
            mount_point.mkdir(mode=0o700)
            yield {
                "root_mounts": [mount.to_json() for mount in (*others, view)],
                "mount_point": str(mount_point),
            }


def _fixed_time_ns() -> int | None:
    """Return the creation time from SOURCE_DATE_EPOCH, since the epoch."""
    fixed = os.environ.get("SOURCE_DATE_EPOCH", "")
    return int(fixed) * 1_000_000_000 if fixed.isdigit() else None
