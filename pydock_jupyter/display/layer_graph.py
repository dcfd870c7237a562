"""The layers of images and containers, and their places in a diagram.  Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

_SHELL = re.compile(r"(?:RUN )?(?:\|\d+ .*?)?/bin/sh -c (?:#\(nop\) +)?")
"""The prefix that Docker's builders add to a Dockerfile instruction."""
_BUILDKIT = " # buildkit"
_CAPTURE = "dock image "
"""The prefix of "capture: interpreter" and other steps of a capture."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A read-only layer.

    Attributes:
        diff_id: digest of the uncompressed tar.
        size_bytes: size of the contents; None if the layer is not stored here.
        made_by: the step of the image's history that created it; empty if the history lacks it.
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
    """A container: its name, image id and state, and the size of its writable layer."""

    name: str
    image_id: str
    state: str
    size_bytes: int | None


@dataclass(frozen=True, slots=True)
class LayerGraph:
    """Images and their containers."""

    images: tuple[Image, ...]
    containers: tuple[Container, ...] = ()

    @property
    def layers(self) -> Mapping[str, Layer]:
        """Each layer once, by diff id, from the bottom up."""
        return {layer.diff_id: layer for image in self.images for layer in image.layers}

    def owners(self, diff_id: str) -> int:
        """Return the number of images that have the layer."""
        return sum(diff_id in image.diff_ids for image in self.images)


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the diagram, with an image or one of its containers on top."""

    image: Image
    container: Container | None = None


@dataclass(frozen=True, slots=True)
class Slab:
    """The place of a layer in the diagram.

    Attributes:
        layer: the layer.
        level: 0 at the bottom.
        first, last: the range of columns that it spans, inclusive.
        owners: the number of images that have the layer.
        is_repeated: the layer is drawn more than once, on different layers below it.
    """

    layer: Layer
    level: int
    first: int
    last: int
    owners: int
    is_repeated: bool


def read_steps(history: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the step that created each layer, from the bottom up.

    Source: "history" of the image configuration (config.md); steps without a layer are omitted.
    """
    steps = [step for step in history if not step.get("empty_layer")]
    return [tidy_step(str(step.get("created_by") or step.get("comment") or "")) for step in steps]


def tidy_step(created_by: str) -> str:
    """Return a step of a history without the additions of builders: "RUN apt-get install …"."""
    words = " ".join(created_by.split())
    shell = _SHELL.match(words)
    if shell:
        # An instruction follows only the classic builder's "#(nop)"; any other step is a RUN.
        words = ("" if "#(nop)" in shell[0] else "RUN ") + words[shell.end() :]
    return words.removesuffix(_BUILDKIT).removeprefix(_CAPTURE)


def arrange_columns(graph: LayerGraph) -> list[Column]:
    """Return the columns: each image, then its containers; images that share lower layers are adjacent."""
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
    """Return the places of the layers, the lowest level first; adjacent stacks with a common base share its slabs."""
    places = list(_places(columns))
    drawn = [layer.diff_id for layer, *_ in places]
    return [
        Slab(layer, level, first, last, graph.owners(layer.diff_id), drawn.count(layer.diff_id) > 1)
        for layer, level, first, last in places
    ]


def _places(columns: Sequence[Column]) -> Iterator[tuple[Layer, int, int, int]]:
    height = max((len(column.image.layers) for column in columns), default=0)
    for level in range(height):
        # Columns with the same layers up to this level are adjacent.
        reaching = [
            (number, column.image)
            for number, column in enumerate(columns)
            if len(column.image.layers) > level
        ]
        for _, group in groupby(reaching, key=lambda item: item[1].diff_ids[: level + 1]):
            members = list(group)
            yield members[0][1].layers[level], level, members[0][0], members[-1][0]
