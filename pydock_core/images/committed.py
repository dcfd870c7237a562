"""Builds the config of a committed image from its parent, the container's settings and the layer of its changes.  Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydock_core.images.changes import apply_changes
from pydock_core.oci.documents import ImageConfig

_ANONYMOUS = re.compile(r"[0-9a-f]{64}")


def build_execution(
    container: Mapping[str, Any], parent: Mapping[str, Any], changes: Sequence[str], default_path: str
) -> dict[str, Any]:
    """Return the ``config`` of the image: the container's, as in ``docker commit``, with ``changes`` applied.

    Args:
        container: its Config (Engine API, ContainerConfig), with "Mounts" for the names of its volumes.
        parent: the parent image's ``config``.
        changes: Dockerfile instructions.
        default_path: the PATH=... of a container whose image has none; it is left out of the image.

    Raises:
        InvalidError: a change is malformed.
    """
    execution: dict[str, Any] = {}
    for key in ("Healthcheck", "Shell", "User", "ExposedPorts", "Entrypoint", "Cmd", "Labels"):
        if container.get(key):
            execution[key] = container[key]
    parents_env = parent.get("Env") or []
    execution["Env"] = [
        entry for entry in container.get("Env") or [] if entry != default_path or entry in parents_env
    ]
    directory = container.get("WorkingDir") or ""
    if directory != "/" or parent.get("WorkingDir"):
        execution["WorkingDir"] = directory
    if container.get("StopSignal") not in (None, "", "SIGTERM") or parent.get("StopSignal"):
        execution["StopSignal"] = container["StopSignal"]
    volumes = dict(parent.get("Volumes") or {})
    # A named volume and a directory of the host belong to this container; an anonymous volume belongs to the image.
    volumes.update(
        {
            mount["Destination"]: {}
            for mount in container.get("Mounts") or ()
            if _ANONYMOUS.fullmatch(mount.get("Name", ""))
        }
    )
    if volumes:
        execution["Volumes"] = volumes
    return apply_changes(execution, changes)


def is_same_but_for_time(first: ImageConfig, second: ImageConfig) -> bool:
    """Whether two images differ only in the times of their creation and of their last steps."""
    return _without_time(first) == _without_time(second)


def _without_time(config: ImageConfig) -> ImageConfig:
    *earlier, last = config.history or ({},)
    timeless = {key: value for key, value in last.items() if key != "created"}
    return replace(config, created="", history=(*earlier, timeless))


def build_image_config(
    parent: ImageConfig,
    execution: Mapping[str, Any],
    diff_id: str | None,
    *,
    created: str,
    created_by: str,
    author: str,
    comment: str,
) -> ImageConfig:
    """Return the config document of the image.

    Args:
        parent: the parent's.
        execution: of :func:`build_execution`.
        diff_id: of the layer; None if the container changed nothing, which adds a step to the history but no layer, as in
            Docker.
        created: RFC 3339.
        created_by: the container's command.
        author, comment: free text.
    """
    step: dict[str, Any] = {"created": created, "created_by": created_by}
    if author:
        step["author"] = author
    if comment:
        step["comment"] = comment
    if diff_id is None:
        step["empty_layer"] = True
    return replace(
        parent,
        config=dict(execution),
        diff_ids=parent.diff_ids if diff_id is None else (*parent.diff_ids, diff_id),
        history=(*parent.history, step),
        created=created,
        author=author,
        comment=comment,
    )
