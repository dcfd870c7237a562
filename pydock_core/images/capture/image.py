"""Makes an image of a Python environment of this host: the files that it needs, at their paths here.

It has four layers, the most stable first: the system (shell, tools, shared libraries, certificates), the interpreter with
its standard library, the installed packages, and additional files.  Order, owners and times of the entries depend only on
the files, so that an unchanged environment gives the same layers.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydock_core.images.capture.host_tree import HostTree
from pydock_core.images.capture.python_environment import (
    EnvironmentCollector,
    PythonEnvironment,
    check_paths,
    probe_environment,
    skip_secrets,
)
from pydock_core.images.capture.system_files import LibraryCollector, add_data, add_skeleton, add_tools
from pydock_core.images.stored import StoredImage, store_image
from pydock_core.oci.digest import short_id
from pydock_core.oci.documents import ImageConfig, encode, layer_media_type
from pydock_core.oci.platform import host_architecture
from pydock_core.oci.reference import Reference
from pydock_core.oci.timestamp import format_timestamp
from pydock_core.progress import Event, Progress
from pydock_core.store.blobs import BlobStore, BlobWriter
from pydock_core.store.database.images import LayerRow

_SYSTEM, _INTERPRETER, _SITE, _EXTRA = range(4)
_LAYER_NAMES = ("system", "interpreter", "packages", "files")
_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
_PROGRESS_BYTES = 8 << 20
_LABEL = "io.pydock.capture."


@dataclass(frozen=True, slots=True)
class Captured:
    """A captured image.

    Attributes:
        notes: on omitted and missing files, one line each.
        layer_names: by short diff id.
    """

    image: StoredImage
    notes: tuple[str, ...]
    layer_names: Mapping[str, str]

    def name_layers(self, progress: Progress) -> Progress:
        """Return a receiver of events that passes them on under the layers' names, like those of the capture."""

        def report(event: Event) -> None:
            name = self.layer_names.get(event.get("id", ""))
            progress({**event, "id": name} if name else event)

        return report


def capture_environment(
    prefix: Path,
    paths: Sequence[Path],
    blobs: BlobStore,
    directory: Path,
    references: Sequence[Reference] = (),
    progress: Progress | None = None,
) -> Captured:
    """Put the image of a Python environment into the blob store.

    Args:
        prefix: ``sys.prefix`` of the environment: of a virtual or conda environment, or an installation.
        paths: additional files and directories, absolute; the same paths in the image.
        blobs: the blob store; the caller holds its lock, shared.
        directory: a workspace on the blob store's file system.
        references: names for the image.
        progress: receives {"status": "Capturing", "id": layer's name, "current"} (bytes).

    Returns:
        the image, not recorded, its layers not applied.  It contains nothing of the process's environment variables
        or, beyond ``prefix`` and ``paths``, of a home directory.

    Raises:
        NotFoundError: there is no Python at ``prefix``, or a path is missing.
        UnavailableError: the disk is full.
    """
    extra = [str(path) for path in paths]
    check_paths(extra)
    environment = probe_environment(prefix)
    tree = _collect(environment, extra)
    layers: dict[str, LayerRow] = {}
    for number, name in enumerate(_LAYER_NAMES):
        if number == _EXTRA and not extra:
            continue
        layers[name] = _write_layer(tree, number, name, blobs, directory, progress)
    rows = list(layers.values())
    config = _config(environment, [row.diff_id for row in rows])
    image = store_image(blobs, directory, encode(config.to_json()), config, rows, references)
    return Captured(image, tuple(tree.notes), {short_id(row.diff_id): name for name, row in layers.items()})


def _collect(environment: PythonEnvironment, extra: Sequence[str]) -> HostTree:
    tree = HostTree()
    if any(path.startswith("/root/") for path in (environment.prefix, environment.base_prefix)):
        # Root's home directory must be passable, or only root could use the interpreter.
        tree.put_directory("/root", _SYSTEM, 0o711)
    add_skeleton(tree, _SYSTEM)
    add_tools(tree, _SYSTEM)
    add_data(tree, _SYSTEM, environment.certificates)
    EnvironmentCollector(environment, tree, _INTERPRETER, _SITE).collect()
    if not any(name in tree for name in (f"{environment.prefix}/bin/python", "/usr/bin/python")):
        tree.put_link("/usr/local/bin/python", _INTERPRETER, environment.executable)
    for path in extra:
        if os.path.isdir(path) and not os.path.islink(path):
            tree.add_tree(path, _EXTRA, skip_secrets(tree.notes))
        else:
            tree.add(path, _EXTRA)
    _follow_outward(tree)
    LibraryCollector(tree, _SYSTEM, environment.multiarch).collect()
    return tree


def _follow_outward(tree: HostTree) -> None:
    """Add the system's files that the environment's links lead to, and note the other targets."""
    for link, target in tree.outward:
        if target in tree or not os.path.exists(target):
            continue
        if os.path.isfile(target) and target.startswith(("/usr/", "/etc/python", "/lib", "/opt/")):
            tree.add(target, tree.items[link].layer)
        else:
            tree.notes.append(f"{link} leads to {target}, which is left out; name it to include it")
    tree.outward.clear()


def _write_layer(
    tree: HostTree, number: int, name: str, blobs: BlobStore, directory: Path, progress: Progress | None
) -> LayerRow:
    reported = 0

    def report(written: int) -> None:
        nonlocal reported
        if progress is not None and written - reported >= _PROGRESS_BYTES:
            reported = written
            progress({"status": "Capturing", "id": name, "current": written})

    with BlobWriter(directory / f"{name}.tar", f"layer {name!r}") as writer:
        tree.write_layer(number, writer, report)
        if progress is not None:
            progress({"status": "Capturing", "id": name, "current": writer.size_bytes})
        known = blobs.has(writer.digest)
        diff_id = writer.digest if known else blobs.put(writer, subject=f"layer {name!r}")
    return LayerRow(diff_id, diff_id, layer_media_type(""))


def _config(environment: PythonEnvironment, diff_ids: Sequence[str]) -> ImageConfig:
    created = format_timestamp(time.time_ns())
    architecture, variant = host_architecture()
    binaries = os.path.dirname(environment.executable)
    env = [f"PATH={':'.join(dict.fromkeys((binaries, *_PATH)))}", "LANG=C.UTF-8"]
    if environment.is_virtual:
        env.append(f"VIRTUAL_ENV={environment.prefix}")
    if environment.user_site in environment.site_directories:
        # Root runs the image, and has another site-packages directory of its own.
        env.append(f"PYTHONPATH={environment.user_site}")
    names = [name for name, diff_id in zip(_LAYER_NAMES, diff_ids, strict=False) if diff_id]
    execution: dict[str, Any] = {
        "Env": env,
        "Cmd": ["python3"],
        "WorkingDir": "/root",
        "Labels": {_LABEL + "prefix": environment.prefix, _LABEL + "python": environment.version},
    }
    return ImageConfig(
        architecture=architecture,
        os="linux",
        variant=variant,
        diff_ids=tuple(diff_ids),
        config=execution,
        created=created,
        comment=f"captured from {environment.prefix}",
        history=tuple({"created": created, "created_by": f"dock image capture: {name}"} for name in names),
    )
