"""Images in the shapes of the Docker Engine API 1.51, and the ``--filter`` of image listings.  Pure data."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydock_core.errors import InvalidError
from pydock_core.oci.documents import ImageConfig
from pydock_core.store.database.images import ImageRow, TagRow

_FILTERS = ("before", "dangling", "label", "reference", "since")
_TRUE, _FALSE = ("1", "true"), ("0", "false")


@dataclass(frozen=True, slots=True)
class SeenImage:
    """An image with what belongs to it."""

    row: ImageRow
    tags: tuple[TagRow, ...]
    config: ImageConfig
    containers: int

    @property
    def labels(self) -> Mapping[str, str]:
        labels = self.config.config.get("Labels")
        return labels if isinstance(labels, Mapping) else {}


def build_summary(seen: SeenImage) -> dict[str, Any]:
    """Return the Engine API's ImageSummary."""
    return {
        "Id": seen.row.id,
        "ParentId": "",
        "RepoTags": [tag.reference for tag in seen.tags],
        "RepoDigests": [],
        "Created": seen.row.created_ns // 10**9,
        "Size": seen.row.size_bytes,
        "SharedSize": -1,
        "Labels": dict(seen.labels),
        "Containers": seen.containers,
    }


def build_inspect(seen: SeenImage, driver: str) -> dict[str, Any]:
    """Return the Engine API's ImageInspect; ``driver`` is the snapshot driver's name."""
    config = seen.config
    document: dict[str, Any] = {
        "Id": seen.row.id,
        "RepoTags": [tag.reference for tag in seen.tags],
        "RepoDigests": [],
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
        "Metadata": {"LastTagTime": None},
    }
    if config.created:
        document["Created"] = config.created
    if config.variant:
        document["Variant"] = config.variant
    return document


def parse_image_filters(
    filters: Mapping[str, Sequence[str]], created_ns: Callable[[str], int]
) -> Callable[[SeenImage], bool]:
    """Return what ``filters`` ask of an image: all keys, and of one key any value (of ``label`` every value).

    Args:
        filters: key to values, as the Engine API has them.
        created_ns: finds the time of the image that ``before`` or ``since`` names.

    Raises:
        InvalidError: an unknown key, or a malformed value.
    """
    conditions: list[Callable[[SeenImage], bool]] = []
    for key, values in filters.items():
        conditions.append(_condition(key, list(values), created_ns))
    return lambda seen: all(condition(seen) for condition in conditions)


def _condition(
    key: str, values: Sequence[str], created_ns: Callable[[str], int]
) -> Callable[[SeenImage], bool]:
    if key == "dangling":
        wanted = _boolean(values[-1])
        return lambda seen: (not seen.tags) == wanted
    if key == "label":
        return lambda seen: all(_has_label(seen.labels, value) for value in values)
    if key == "reference":
        return lambda seen: any(_names(tag, value) for tag in seen.tags for value in values)
    if key == "before":
        limits = [created_ns(value) for value in values]
        return lambda seen: all(seen.row.created_ns < limit for limit in limits)
    if key == "since":
        limits = [created_ns(value) for value in values]
        return lambda seen: all(seen.row.created_ns > limit for limit in limits)
    raise InvalidError(f"--filter {key}: unknown key", f"there are {', '.join(_FILTERS)}")


def _boolean(text: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise InvalidError(f"--filter dangling={text}: neither true nor false", "write dangling=true")


def _has_label(labels: Mapping[str, str], wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)


def _names(tag: TagRow, pattern: str) -> bool:
    """Docker matches the pattern with the name, with and without the tag."""
    return fnmatch.fnmatchcase(tag.reference, pattern) or fnmatch.fnmatchcase(tag.repository, pattern)
