"""Reads the store for diagrams: layers of images and containers, changes in a writable layer."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

from pydock_core.errors import NotFoundError
from pydock_jupyter.display import change_tree, layer_picture
from pydock_jupyter.display.argument import check_text
from pydock_jupyter.display.change_tree import DELETED, Change
from pydock_jupyter.display.layer_graph import Container, Image, Layer, LayerGraph, read_steps

if TYPE_CHECKING:
    from pydock_core.engine import EngineProtocol


class LayersView:
    """The result of :func:`pydock_jupyter.layers`: a diagram in a notebook, text elsewhere."""

    def __init__(self, graph: LayerGraph) -> None:
        self.graph = graph

    def svg(self) -> str:
        """Return the diagram as an "svg" element."""
        return layer_picture.draw_svg(self.graph)

    def __repr__(self) -> str:
        return layer_picture.describe(self.graph)

    def _repr_html_(self) -> str:
        return layer_picture.draw_html(self.graph)


class ChangesView:
    """The result of :func:`pydock_jupyter.changes`: a tree; ``changes`` holds its data, sorted by path."""

    def __init__(self, name: str, changes: Sequence[Change]) -> None:
        self.name = name
        self.changes = tuple(changes)

    def __repr__(self) -> str:
        return change_tree.draw_text(self.name, self.changes)

    def _repr_html_(self) -> str:
        return change_tree.draw_html(self.name, self.changes)


def see_layers(names: Sequence[str]) -> LayersView:
    """See :func:`pydock_jupyter.layers`."""
    from pydock_core.engine import Engine

    for name in names:
        check_text(name, "name")
    with closing(Engine()) as engine:
        return LayersView(read_graph(engine, names))


def see_changes(container: str) -> ChangesView:
    """See :func:`pydock_jupyter.changes`."""
    from pydock_core.engine import Engine

    check_text(container, "container name")
    with closing(Engine()) as engine:
        return ChangesView(engine.containers.name(container), read_changes(engine, container))


# -- layers ------------------------------------------------------------------------------------------------


def read_graph(engine: EngineProtocol, names: Sequence[str]) -> LayerGraph:
    """Return the layers of images and containers.

    Args:
        names: containers, each shown with its image, and images, each shown with its containers.  As in ``dock
            inspect``, a container's name takes precedence.  All images if empty.

    Raises:
        NotFoundError: a name matches neither a container nor an image.
    """
    containers = engine.containers.list(all=True, size=True)
    image_ids: list[str] = [] if names else [str(summary["Id"]) for summary in engine.images.list()]
    whole = set(image_ids)
    chosen = set()
    for name in names:
        found = _container_id(engine, name)
        if found:
            chosen.add(found)
            image_ids += [str(summary["ImageID"]) for summary in containers if summary["Id"] == found]
        else:
            image_ids.append(_image_id(engine, name))
            whole.add(image_ids[-1])
    images = tuple(_read_image(engine, image_id) for image_id in dict.fromkeys(image_ids))
    return LayerGraph(
        images,
        tuple(
            _read_container(summary)
            for summary in reversed(containers)  # the oldest first
            if summary["Id"] in chosen or summary["ImageID"] in whole
        ),
    )


def _container_id(engine: EngineProtocol, name: str) -> str:
    try:
        return engine.containers.resolve(name)
    except NotFoundError:
        return ""


def _image_id(engine: EngineProtocol, name: str) -> str:
    try:
        return engine.images.resolve(name).id
    except NotFoundError as error:
        raise NotFoundError(
            f"no such container or image: {name}", "list them: dock ps -a, dock images"
        ) from error


def _read_image(engine: EngineProtocol, image_id: str) -> Image:
    diff_ids = engine.images.layers(image_id)
    steps = read_steps(engine.images.config(image_id).get("history") or ())
    steps += [""] * (
        len(diff_ids) - len(steps)
    )  # a history may be shorter than the list of layers, or longer
    layers = tuple(
        Layer(diff_id, size_bytes, made_by)
        for diff_id, size_bytes, made_by in zip(
            diff_ids, engine.images.layer_sizes(image_id), steps, strict=False
        )
    )
    return Image(image_id, tuple(engine.images.inspect(image_id)["RepoTags"]), layers)


def _read_container(summary: dict[str, Any]) -> Container:
    name = str(summary["Names"][0]).removeprefix("/")
    return Container(name, str(summary["ImageID"]), str(summary["State"]), summary.get("SizeRw"))


# -- changes -----------------------------------------------------------------------------------------------


def read_changes(engine: EngineProtocol, container: str) -> list[Change]:
    """Return the changes in a container's writable layer, sorted by path, with the sizes of regular files.

    Raises:
        NotFoundError: the container does not exist.
    """
    found = engine.filesystems.diff(container)
    sizes = engine.filesystems.file_sizes(
        container, [entry["Path"] for entry in found if entry["Kind"] != DELETED]
    )
    return [Change(entry["Path"], entry["Kind"], sizes.get(entry["Path"])) for entry in found]
