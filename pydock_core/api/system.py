"""System operations of the API: ``_ping``, ``version``, ``info`` and ``events``."""

from __future__ import annotations

import json

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


async def show_events(handler: ApiHandler) -> None:
    """SystemEvents: one JSON document per line.  The response headers are sent as soon as following has begun."""
    handler.allow("since", "until", "filters")
    since_ns, until_ns, filters = handler.moment("since"), handler.moment("until"), handler.filters()
    events = await handler.engine.call(lambda engine: engine.events.stream(since_ns, until_ns, filters))
    stream = handler.engine.stream(lambda _: events)

    def close() -> None:
        stream.close()
        events.close()

    handler.on_gone = close
    handler.set_header("Content-Type", "application/json")
    try:
        await handler.flush()
        async for batch in stream.batches():
            for message in batch:
                handler.write(json.dumps(message, separators=(",", ":")) + "\n")
            await handler.flush()
    finally:
        close()
    handler.finish()
