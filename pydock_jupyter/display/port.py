"""Shows a container's port in a notebook: a link, and a frame with the application.

The JupyterLab extension finds the frame by its class and data attributes.  It shows above the frame that the container
has exited, and reloads the application after a restart (labextension/src/frames.ts).
"""

from __future__ import annotations

import os
from contextlib import closing
from html import escape
from pathlib import Path

from jupyter_core.paths import jupyter_runtime_dir

from pydock_core.errors import ConflictError
from pydock_jupyter.display.argument import check_number, check_text
from pydock_jupyter.display.link import port_link, port_url, server_base_url

DEFAULT_HEIGHT_PIXELS = 480
MAX_HEIGHT_PIXELS = 32_767
"""Browsers differ beyond this height."""


class PortView:
    """The result of :func:`pydock_jupyter.open_port`: a link and a frame.

    Args:
        container: name or id.
        port: 1 to 65535; it need not be published.
        path: path and query below the application's root: "lab?token=...".
        height: height of the frame in pixels; 0 shows only the link.

    Raises:
        InvalidError: the port or the height is not an integer in its range, or another argument is not a string.
    """

    def __init__(
        self, container: str, port: int, path: str = "", height: int = DEFAULT_HEIGHT_PIXELS
    ) -> None:
        self.container = check_text(container, "container name")
        self.port = check_number(port, "port", 1, 65535)
        self.path = check_text(path, "path").lstrip("/")
        self.height = check_number(height, "height", 0, MAX_HEIGHT_PIXELS)

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
            f'class="pydock-frame" data-pydock-name="{escape(self.container)}" data-pydock-port="{self.port}" '
            f'style="width:100%;height:{self.height}px;border:1px solid var(--jp-border-color2,#ccc)"></iframe>'
        )


def see_port(container: str, port: int, path: str, height: int) -> PortView:
    """See :func:`pydock_jupyter.open_port`."""
    from pydock_core.engine import Engine

    view = PortView(container, port, path, height)
    with closing(Engine()) as engine:
        if not engine.containers.is_running(container):
            raise ConflictError(
                f"cannot open port {view.port} of {container}: the container is not running",
                f"start it: %dock start {container}",
            )
    return view
