"""The layers of images and containers: what a picture of them shows, and where in it.  Pure data."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

_SHELL = re.compile(r"(?:RUN )?(?:\|\d+ .*?)?/bin/sh -c (?:#\(nop\) +)?")
"""What Docker's builders put before the words of a Dockerfile."""
_BUILDKIT = " # buildkit"
_CAPTURE = "dock image "
"""Before "capture: interpreter" and its like."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A read-only layer.

    Attributes:
        diff_id: digest of its uncompressed tar.
        size_bytes: of its contents; None where it is not here.
        made_by: the step of the image's history that made it; empty where the history does not tell.
    """

    diff_id: str
    size_bytes: int | None
    made_by: str


@dataclass(frozen=True, slots=True)
class Image:
    """An image: its id, its names (repository:tag), and its layers, bottom first."""

    id: str
    names: tuple[str, ...]
    layers: tuple[Layer, ...]

    @property
    def diff_ids(self) -> tuple[str, ...]:
        return tuple(layer.diff_id for layer in self.layers)


@dataclass(frozen=True, slots=True)
class Container:
    """A container: its name, the id of its image, its state, and what its writable layer holds, in bytes."""

    name: str
    image_id: str
    state: str
    size_bytes: int | None


@dataclass(frozen=True, slots=True)
class LayerGraph:
    """Images, and containers of these."""

    images: tuple[Image, ...]
    containers: tuple[Container, ...] = ()

    @property
    def layers(self) -> Mapping[str, Layer]:
        """Every layer once, by diff id, the lower ones first."""
        return {layer.diff_id: layer for image in self.images for layer in image.layers}

    def owners(self, diff_id: str) -> int:
        """Return how many of the images have a layer."""
        return sum(diff_id in image.diff_ids for image in self.images)


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the picture: what ends on top of it, an image or one of its containers."""

    image: Image
    container: Container | None = None


@dataclass(frozen=True, slots=True)
class Slab:
    """A layer in its place.

    Attributes:
        layer: the layer.
        level: 0 at the bottom.
        first, last: columns over which it reaches, inclusive.
        owners: how many of the images have the layer.
        is_repeated: it is drawn more than once, since it lies on different layers below it.
    """

    layer: Layer
    level: int
    first: int
    last: int
    owners: int
    is_repeated: bool


def read_steps(history: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what made each layer, bottom first, from an image config's "history" (config.md): steps that made
    none are left out.
    """
    made = [step for step in history if not step.get("empty_layer")]
    return [tidy_step(str(step.get("created_by") or step.get("comment") or "")) for step in made]


def tidy_step(created_by: str) -> str:
    """Return a step of a history without what builders put around it: "RUN apt-get install …"."""
    words = " ".join(created_by.split())
    shell = _SHELL.match(words)
    if shell:
        # Only the classic builder's "#(nop)" is followed by an instruction; all else was a RUN.
        words = ("" if "#(nop)" in shell[0] else "RUN ") + words[shell.end() :]
    return words.removesuffix(_BUILDKIT).removeprefix(_CAPTURE)


def arrange_columns(graph: LayerGraph) -> list[Column]:
    """Return the columns, those with the same layers at the bottom next to each other: of each image first its
    own, then its containers'.
    """
    rank = {diff_id: number for number, diff_id in enumerate(graph.layers)}
    images = sorted(graph.images, key=lambda image: [rank[diff_id] for diff_id in image.diff_ids])
    return [
        column
        for image in images
        for column in (
            Column(image),
            *(Column(image, container) for container in graph.containers if container.image_id == image.id),
        )
    ]


def place_layers(graph: LayerGraph, columns: Sequence[Column]) -> list[Slab]:
    """Return the layers in their places, the lowest level first; what is shared from the bottom up is one slab."""
    places = list(_places(columns))
    drawn = [layer.diff_id for layer, *_ in places]
    return [
        Slab(layer, level, first, last, graph.owners(layer.diff_id), drawn.count(layer.diff_id) > 1)
        for layer, level, first, last in places
    ]


def _places(columns: Sequence[Column]) -> Iterator[tuple[Layer, int, int, int]]:
    height = max((len(column.image.layers) for column in columns), default=0)
    for level in range(height):
        # What has the same layers up to this level stands side by side.
        reaching = [
            (number, column.image)
            for number, column in enumerate(columns)
            if len(column.image.layers) > level
        ]
        for _, group in groupby(reaching, key=lambda item: item[1].diff_ids[: level + 1]):
            members = list(group)
            yield members[0][1].layers[level], level, members[0][0], members[-1][0]
