"""Shows a container's port in a notebook: a link, and the application itself in the page."""

from __future__ import annotations

import os
from html import escape
from pathlib import Path

from jupyter_core.paths import jupyter_runtime_dir

from pydock_jupyter.widgets.links import port_link, port_url, server_base_url

DEFAULT_HEIGHT_PIXELS = 480


class PortView:
    """What :func:`pydock_jupyter.open_port` returns; displayed as a link and a frame.

    Args:
        container: name or id.
        port: 1 to 65535; nothing needs to be published.
        path: below the application's root, with its query: "lab?token=...".
        height: of the frame in pixels; 0 for the link alone.
    """

    def __init__(
        self, container: str, port: int, path: str = "", height: int = DEFAULT_HEIGHT_PIXELS
    ) -> None:
        if not 1 <= port <= 65535:
            raise ValueError(f"port {port} is out of range: a port is a number from 1 to 65535")
        self.container = container
        self.port = port
        self.path = path.lstrip("/")
        self.height = height

    @property
    def url(self) -> str:
        """The URL path on this Jupyter server."""
        base_url = server_base_url(os.environ, Path(jupyter_runtime_dir()))
        return port_url(base_url, self.container, self.port) + self.path

    def __repr__(self) -> str:
        return f"port {self.port} of {self.container}: {self.url} on this Jupyter server"

    def _repr_html_(self) -> str:
        base_url = server_base_url(os.environ, Path(jupyter_runtime_dir()))
        link = port_link(base_url, self.container, self.port, f"Open port {self.port} of {self.container}")
        head = f"<div>{escape(self.container)} {link}</div>"
        if not self.height:
            return head
        return (
            f'{head}<iframe src="{escape(self.url)}" title="{escape(f"{self.container}:{self.port}")}" '
            f'style="width:100%;height:{int(self.height)}px;border:1px solid var(--jp-border-color2,#ccc)"></iframe>'
        )
