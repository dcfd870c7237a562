"""The routing table of the HTTP API."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tornado import web

from pydock_core.api import container, image, system
from pydock_core.api.handler import ApiHandler, Operation, Route


def route(method: str, template: str, operation: Operation) -> Route:
    """Build an entry of the routing table from a path of the specification, ``/containers/{id}/json``."""
    names: Sequence[str] = re.findall(r"\{(\w+)\}", template)
    pattern = re.escape(template)
    for name in names:
        # An image's name may contain slashes.
        pattern = pattern.replace(rf"\{{{name}\}}", f"(?P<{name}>{'.+' if name == 'name' else '[^/]+'})")
    return method, re.compile(pattern), operation


ROUTES = (
    route("GET", "/_ping", system.ping),
    route("HEAD", "/_ping", system.ping),
    route("GET", "/version", system.show_version),
    route("GET", "/info", system.show_info),
    route("GET", "/containers/json", container.list_containers),
    route("POST", "/containers/create", container.create_container),
    route("GET", "/containers/{id}/json", container.inspect_container),
    route("GET", "/containers/{id}/logs", container.show_logs),
    route("POST", "/containers/{id}/start", container.start_container),
    route("POST", "/containers/{id}/stop", container.stop_container),
    route("POST", "/containers/{id}/restart", container.restart_container),
    route("POST", "/containers/{id}/kill", container.kill_container),
    route("POST", "/containers/{id}/rename", container.rename_container),
    route("POST", "/containers/{id}/wait", container.wait_for_container),
    route("DELETE", "/containers/{id}", container.remove_container),
    route("GET", "/images/json", image.list_images),
    route("GET", "/images/{name}/json", image.inspect_image),
)


def build_handler(base: type[web.RequestHandler], routes: Sequence[Route] = ROUTES) -> type[ApiHandler]:
    """Return a handler class for the routes.

    Args:
        base: the server's handler class; its ``prepare`` authenticates.
        routes: those of the Engine API by default.
    """
    return type("MountedApiHandler", (ApiHandler, base), {"routes": routes})
