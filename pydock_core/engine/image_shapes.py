"""Images in the shapes of the Docker Engine API 1.51: ImageSummary, ImageInspect, HistoryResponseItem.  Pure data."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydock_core.oci.documents import ImageConfig
from pydock_core.oci.timestamp import format_timestamp, parse_timestamp
from pydock_core.store.database.images import DigestRow, ImageRow, TagRow

MISSING = "<missing>"
"""The id of a history step without a known image, as in Docker."""
UNKNOWN = -1
"""A size that was not requested."""


@dataclass(frozen=True, slots=True)
class SeenImage:
    """An image with its names and layers; no blob is read for it."""

    row: ImageRow
    tags: tuple[TagRow, ...]
    digests: tuple[DigestRow, ...]
    containers: int

    @property
    def labels(self) -> Mapping[str, str]:
        labels = json.loads(self.row.labels)
        return labels if isinstance(labels, dict) else {}


def build_summary(seen: SeenImage, shared_bytes: int = UNKNOWN) -> dict[str, Any]:
    """Return the Engine API's ImageSummary; ``shared_bytes`` is the size of layers that other images have too."""
    return {
        "Id": seen.row.id,
        "ParentId": "",
        "RepoTags": [tag.reference for tag in seen.tags],
        "RepoDigests": [digest.reference for digest in seen.digests],
        "Created": seen.row.created_ns // 10**9,
        "Size": seen.row.size_bytes,
        "SharedSize": shared_bytes,
        "Labels": dict(seen.labels),
        "Containers": seen.containers,
    }


def build_inspect(seen: SeenImage, config: ImageConfig, driver: str) -> dict[str, Any]:
    """Return the Engine API's ImageInspect; ``driver`` is the snapshot driver's name."""
    document: dict[str, Any] = {
        "Id": seen.row.id,
        "RepoTags": [tag.reference for tag in seen.tags],
        "RepoDigests": [digest.reference for digest in seen.digests],
        "Parent": "",
        "Comment": config.comment,
        "DockerVersion": "",
        "Author": config.author,
        "Config": dict(config.config),
        "Architecture": config.architecture,
        "Os": config.os,
        "Size": seen.row.size_bytes,
        "GraphDriver": {"Name": driver, "Data": {}},
        "RootFS": {"Type": "layers", "Layers": list(config.diff_ids)},
        "Metadata": {"LastTagTime": format_timestamp(seen.row.tagged_ns) if seen.row.tagged_ns else None},
    }
    if config.created:
        document["Created"] = config.created
    if config.variant:
        document["Variant"] = config.variant
    return document


def build_history(
    image_id: str, tags: Iterable[TagRow], config: ImageConfig, layer_sizes: Sequence[int]
) -> list[dict[str, Any]]:
    """Return the Engine API's HistoryResponseItem list, the newest step first.

    A step without "empty_layer" has the next layer, from the bottom up (config.md, "history"); layers that the
    history does not mention come last, as steps without details.

    Args:
        layer_sizes: in bytes, bottom first.
    """
    sizes = list(layer_sizes)
    steps: list[dict[str, Any]] = []
    for step in config.history:
        has_layer = not step.get("empty_layer") and bool(sizes)
        steps.append(_build_step(step, sizes.pop(0) if has_layer else 0))
    steps += [_build_step({}, size) for size in sizes]
    if steps:
        steps[-1].update({"Id": image_id, "Tags": [tag.reference for tag in tags] or None})
    return steps[::-1]


def _build_step(step: Mapping[str, Any], size_bytes: int) -> dict[str, Any]:
    created_ns = parse_timestamp(str(step.get("created") or ""))
    return {
        "Id": MISSING,
        "Created": (created_ns or 0) // 10**9,
        "CreatedBy": str(step.get("created_by") or ""),
        "Tags": None,
        "Size": size_bytes,
        "Comment": str(step.get("comment") or ""),
    }
