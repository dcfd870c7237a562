"""System operations of the API: ``_ping``, ``version`` and ``info``."""

from __future__ import annotations

from pydock_core.api.handler import API_VERSION, MIN_API_VERSION, ApiHandler

_API_VERSION = f"{API_VERSION[0]}.{API_VERSION[1]}"


async def ping(handler: ApiHandler) -> None:
    """Answer OK, with the API version in the headers that clients read."""
    handler.set_header("Api-Version", _API_VERSION)
    handler.set_header("Docker-Experimental", "false")
    handler.set_header("Ostype", "linux")
    handler.set_header("Cache-Control", "no-cache, no-store, must-revalidate")
    handler.set_header("Pragma", "no-cache")
    handler.set_header("Content-Type", "text/plain; charset=utf-8")
    handler.finish("OK")


async def show_version(handler: ApiHandler) -> None:
    version = await handler.engine.call(lambda engine: engine.system.version())
    handler.reply(
        version | {"ApiVersion": _API_VERSION, "MinAPIVersion": f"{MIN_API_VERSION[0]}.{MIN_API_VERSION[1]}"}
    )


async def show_info(handler: ApiHandler) -> None:
    handler.reply(await handler.engine.call(lambda engine: engine.system.info()))
