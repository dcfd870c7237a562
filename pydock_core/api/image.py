"""Image operations of the API."""

from __future__ import annotations

from pydock_core.api.handler import ApiHandler


async def list_images(handler: ApiHandler) -> None:
    handler.allow("all", "filters")
    all_images, filters = handler.flag("all"), handler.filters()
    handler.reply(
        await handler.engine.call(lambda engine: engine.images.list(all=all_images, filters=filters))
    )


async def inspect_image(handler: ApiHandler, name: str) -> None:
    handler.allow()
    handler.reply(await handler.engine.call(lambda engine: engine.images.inspect(name)))
