"""The inspect commands."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydock_core.commands.context import Context
from pydock_core.commands.dispatch import show_error
from pydock_core.commands.format import write_documents
from pydock_core.errors import InvalidError, NotFoundError, PyDockError

_EMPTY_IMAGE: Mapping[str, Any] = {"Comment": "", "Created": "", "Container": "", "Variant": ""}
_EMPTY_CONFIG: Mapping[str, Any] = {
    "User": "",
    "ExposedPorts": None,
    "Env": None,
    "Cmd": None,
    "Volumes": None,
    "WorkingDir": "",
    "Entrypoint": None,
    "OnBuild": None,
    "Labels": None,
    "StopSignal": "",
    "Healthcheck": None,
    "Shell": None,
}
"""Values of fields that an image does not set.  The Engine API omits them (they are not null there); Docker's command shows
them with these values, so that a template can use them for any image.
"""


def inspect(context: Context, words: Namespace) -> int:
    """Show objects of any kind by name, in Docker's order: containers, images, networks, volumes."""
    kinds: dict[str, Callable[[str], dict[str, Any]]] = {
        "container": lambda name: context.engine.containers.inspect(name, size=words.size),
        "image": lambda name: _look_at_image(context, name),
        "network": context.engine.networks.inspect,
        "volume": context.engine.volumes.inspect,
    }
    if words.type is not None and words.type not in kinds:
        raise InvalidError(f"--type {words.type}: no such type", f"there are {', '.join(kinds)}")

    def look(name: str) -> dict[str, Any]:
        if words.type is not None:
            return kinds[words.type](name)
        for look_at in kinds.values():
            try:
                return look_at(name)
            except NotFoundError:
                continue
        raise NotFoundError(
            f"no such object: {name}",
            "dock ps -a, dock images, dock network ls and dock volume ls list what there is",
        )

    return inspect_all(context, words.NAME, words.format, look)


def inspect_container(context: Context, words: Namespace) -> int:
    """Show containers."""
    return inspect_all(
        context,
        words.CONTAINER,
        words.format,
        lambda name: context.engine.containers.inspect(name, size=words.size),
    )


def inspect_image(context: Context, words: Namespace) -> int:
    """Show images."""

    def look(name: str) -> dict[str, Any]:
        if words.platform:
            context.engine.images.require_platform(name, words.platform)
        return _look_at_image(context, name)

    return inspect_all(context, words.IMAGE, words.format, look)


def inspect_volume(context: Context, words: Namespace) -> int:
    """Show volumes."""
    return inspect_all(context, words.VOLUME, words.format, context.engine.volumes.inspect)


def _look_at_image(context: Context, name: str) -> dict[str, Any]:
    document = context.engine.images.inspect(name)
    return {**_EMPTY_IMAGE, **document, "Config": {**_EMPTY_CONFIG, **document["Config"]}}


def inspect_all(
    context: Context, names: Iterable[str], template: str | None, look: Callable[[str], dict[str, Any]]
) -> int:
    """Show documents of named objects and errors of missing ones; return the exit code."""
    documents: list[dict[str, Any]] = []
    errors: list[PyDockError] = []
    for name in names:
        try:
            documents.append(look(name))
        except PyDockError as error:
            errors.append(error)
    write_documents(context, documents, template)
    for failure in errors:
        show_error(failure, context)
    return 1 if errors else 0
