"""The HTTP API in the shapes of the Docker Engine API 1.51, as Tornado handlers for any server to mount."""

from __future__ import annotations

from pydock_core.api.access import EngineAccess, make_default_engine
from pydock_core.api.handler import ApiHandler, Operation
from pydock_core.api.route import ARCHIVE_PATTERN, build_archive_handler, build_handler, route

__all__ = [
    "ARCHIVE_PATTERN",
    "ApiHandler",
    "EngineAccess",
    "Operation",
    "build_archive_handler",
    "build_handler",
    "make_default_engine",
    "route",
]
