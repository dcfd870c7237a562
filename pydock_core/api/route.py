"""The routing table of the HTTP API."""

from __future__ import annotations

from pydock_core.api import container, image, system
from pydock_core.api.handler import route

ROUTES = (
    route("GET", "/_ping", system.ping),
    route("HEAD", "/_ping", system.ping),
    route("GET", "/version", system.show_version),
    route("GET", "/info", system.show_info),
    route("GET", "/containers/json", container.list_containers),
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
