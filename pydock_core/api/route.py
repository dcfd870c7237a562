"""The routing table of the HTTP API."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tornado import web

from pydock_core.api import archive, container, image, network, system, volume
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
    route("GET", "/events", system.show_events),
    route("GET", "/containers/json", container.list_containers),
    route("POST", "/containers/create", container.create_container),
    route("GET", "/containers/{id}/json", container.inspect_container),
    route("GET", "/containers/{id}/logs", container.show_logs),
    route("GET", "/containers/{id}/top", container.list_processes),
    route("GET", "/containers/{id}/stats", container.show_stats),
    route("POST", "/containers/{id}/start", container.start_container),
    route("POST", "/containers/{id}/stop", container.stop_container),
    route("POST", "/containers/{id}/restart", container.restart_container),
    route("POST", "/containers/{id}/kill", container.kill_container),
    route("POST", "/containers/{id}/pause", container.pause_container),
    route("POST", "/containers/{id}/unpause", container.unpause_container),
    route("POST", "/containers/{id}/update", container.update_container),
    route("POST", "/containers/{id}/rename", container.rename_container),
    route("POST", "/containers/{id}/wait", container.wait_for_container),
    route("DELETE", "/containers/{id}", container.remove_container),
    route("GET", "/images/json", image.list_images),
    route("GET", "/images/{name}/json", image.inspect_image),
    route("GET", "/networks", network.list_networks),
    route("POST", "/networks/create", network.create_network),
    route("POST", "/networks/prune", network.prune_networks),
    route("GET", "/networks/{name}", network.inspect_network),
    route("DELETE", "/networks/{name}", network.remove_network),
    route("POST", "/networks/{name}/connect", network.connect_network),
    route("POST", "/networks/{name}/disconnect", network.disconnect_network),
    route("GET", "/volumes", volume.list_volumes),
    route("POST", "/volumes/create", volume.create_volume),
    route("POST", "/volumes/prune", volume.prune_volumes),
    route("GET", "/volumes/{name}", volume.inspect_volume),
    route("PUT", "/volumes/{name}", volume.update_volume),
    route("DELETE", "/volumes/{name}", volume.remove_volume),
)


ARCHIVE_ROUTES = (
    route("HEAD", "/containers/{id}/archive", archive.stat_archive),
    route("GET", "/containers/{id}/archive", archive.get_archive),
    route("PUT", "/containers/{id}/archive", archive.put_archive),
)
ARCHIVE_PATTERN = r"(?:/v[0-9.]+)?/containers/[^/]+/archive"
"""The paths of :func:`build_archive_handler`, below the API's root: mount it before the other handler."""


def build_handler(base: type[web.RequestHandler], routes: Sequence[Route] = ROUTES) -> type[ApiHandler]:
    """Return a handler class for the routes.

    Args:
        base: the server's handler class; its ``prepare`` authenticates.
        routes: those of the Engine API by default.
    """
    return type("MountedApiHandler", (ApiHandler, base), {"routes": routes})


def build_archive_handler(base: type[web.RequestHandler]) -> type[ApiHandler]:
    """Return a handler class for the routes whose bodies are archives.

    Args:
        base: see :func:`build_handler`.
    """
    return type("MountedArchiveHandler", (archive.ArchiveHandler, base), {"routes": ARCHIVE_ROUTES})
