"""Network operations of the API."""

from __future__ import annotations

from pydock_core.api.handler import ApiHandler
from pydock_core.errors import InvalidError, UnsupportedError

_FIELDS = frozenset(
    "Name CheckDuplicate Driver Scope Internal Attachable Ingress ConfigOnly ConfigFrom IPAM EnableIPv4 EnableIPv6 "
    "Options Labels".split()
)


async def list_networks(handler: ApiHandler) -> None:
    handler.allow("filters")
    filters = handler.filters()
    handler.reply(await handler.engine.call(lambda engine: engine.networks.list(filters)))


async def create_network(handler: ApiHandler) -> None:
    """NetworkCreate.  An unsupported field is refused by name unless it is empty."""
    handler.allow()
    document = handler.document()
    if unknown := [key for key, value in document.items() if value and key not in _FIELDS]:
        raise UnsupportedError(f"field {unknown[0]} is not supported", "leave it out")
    network_id, warnings = await handler.engine.call_long(lambda engine: engine.networks.create(document))
    handler.reply({"Id": network_id, "Warning": "\n".join(warnings)}, 201)


async def inspect_network(handler: ApiHandler, name: str) -> None:
    handler.allow("scope")
    handler.reply(await handler.engine.call(lambda engine: engine.networks.inspect(name)))


async def remove_network(handler: ApiHandler, name: str) -> None:
    handler.allow()
    await handler.engine.call_long(lambda engine: engine.networks.remove(name))
    handler.reply_nothing()


async def connect_network(handler: ApiHandler, name: str) -> None:
    handler.allow()
    document = handler.document()
    container, settings = document.get("Container"), document.get("EndpointConfig") or {}
    if not isinstance(container, str) or not isinstance(settings, dict):
        raise InvalidError("invalid connection: a field has another type", "see the Engine API")
    await handler.engine.call_long(lambda engine: engine.networks.connect(name, container, settings))
    handler.reply(None)


async def disconnect_network(handler: ApiHandler, name: str) -> None:
    handler.allow()
    document = handler.document()
    container, force = document.get("Container"), bool(document.get("Force"))
    if not isinstance(container, str):
        raise InvalidError("invalid disconnection: Container is not a string", "see the Engine API")
    await handler.engine.call_long(lambda engine: engine.networks.disconnect(name, container, force=force))
    handler.reply(None)


async def prune_networks(handler: ApiHandler) -> None:
    handler.allow("filters")
    filters = handler.filters()
    handler.reply(await handler.engine.call_long(lambda engine: engine.networks.prune(filters)))
