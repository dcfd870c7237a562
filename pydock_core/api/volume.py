"""Volume operations of the API."""

from __future__ import annotations

from pydock_core.api.handler import ApiHandler
from pydock_core.errors import InvalidError, UnsupportedError


async def list_volumes(handler: ApiHandler) -> None:
    handler.allow("filters")
    filters = handler.filters()
    volumes = await handler.engine.call(lambda engine: engine.volumes.list(filters))
    handler.reply({"Volumes": volumes, "Warnings": None})


async def create_volume(handler: ApiHandler) -> None:
    """VolumeCreate.  An unsupported field is refused by name unless it is empty."""
    handler.allow()
    document = handler.document() if handler.request.body else {}
    name, driver, labels, options = (
        document.pop(key, None) for key in ("Name", "Driver", "Labels", "DriverOpts")
    )
    if further := [key for key, value in document.items() if value]:
        raise UnsupportedError(f"field {further[0]} is not supported", "leave it out")
    texts = all(value is None or isinstance(value, str) for value in (name, driver))
    if not texts or not all(value is None or _is_text_map(value) for value in (labels, options)):
        raise InvalidError("invalid volume: a field has another type", "see the Engine API")
    volume = await handler.engine.call(
        lambda engine: engine.volumes.create(
            name or None, driver=driver or "local", labels=labels, options=options
        )
    )
    handler.reply(volume, 201)


async def inspect_volume(handler: ApiHandler, name: str) -> None:
    handler.allow()
    handler.reply(await handler.engine.call(lambda engine: engine.volumes.inspect(name)))


async def update_volume(handler: ApiHandler, name: str) -> None:
    """VolumeUpdate is for cluster volumes."""
    raise UnsupportedError(
        f"volume {name}: only cluster volumes can be updated, which need a swarm; PyDock has none"
    )


async def remove_volume(handler: ApiHandler, name: str) -> None:
    handler.allow("force")
    force = handler.flag("force")
    await handler.engine.call_long(lambda engine: engine.volumes.remove(name, force=force))
    handler.reply_nothing()


async def prune_volumes(handler: ApiHandler) -> None:
    handler.allow("filters")
    filters = handler.filters()
    handler.reply(await handler.engine.call_long(lambda engine: engine.volumes.prune(filters)))


def _is_text_map(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for pair in value.items() for text in pair)
