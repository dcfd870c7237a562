"""Create requests of tests: an image, a command, no network, and fields of HostConfig."""

from __future__ import annotations

from typing import Any


def create_request(image: str, *command: str, **host: Any) -> dict[str, Any]:
    """Return the body of ``POST /containers/create``."""
    return {"Image": image, "Cmd": list(command) or None, "HostConfig": {"NetworkMode": "none", **host}}
