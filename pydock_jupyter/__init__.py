"""PyDock in Jupyter: ``%dock`` magics, widgets, a server extension and a JupyterLab panel.

    %load_ext pydock_jupyter
    %dock run IMAGE COMMAND

What is imported here is imported by every kernel, server and notebook that loads any part: nothing, until it
is needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydock_jupyter.display.port import PortView
    from pydock_jupyter.display.store_pictures import ChangesView, LayersView
    from pydock_jupyter.widgets.panel import Panel


def load_ipython_extension(shell: Any) -> None:
    """Make ``%dock`` known to an IPython shell (``%load_ext pydock_jupyter``)."""
    from pydock_jupyter.magics.extension import load

    load(shell)


def unload_ipython_extension(shell: Any) -> None:
    """Take ``%dock`` away again (``%unload_ext pydock_jupyter``)."""
    from pydock_jupyter.magics.extension import unload

    unload(shell)


def panel() -> Panel:
    """Return a widget that shows containers and images live; display it as a cell's last value."""
    from pydock_jupyter.widgets.panel import Panel

    return Panel()


def open_port(container: str, port: int, path: str = "", height: int = 480) -> PortView:
    """Show what a container serves on a port: display the result as a cell's last value.

    Args:
        container: name or id.
        port: 1 to 65535; nothing needs to be published, and the container needs no network.
        path: below the application's root, with its query.
        height: of the frame in pixels; 0 for a link alone.

    Raises:
        NotFoundError: there is no such container.
        ConflictError: the container is not running.
        InvalidError: the port or the height is not a whole number in its range.
    """
    from pydock_jupyter.display.port import see_port

    return see_port(container, port, path, height)


def layers(*names: str) -> LayersView:
    """Show the layers of images and containers as a picture: display the result as a cell's last value.

    Layers that several images have are drawn once, names and the writable layers of containers on top.

    Args:
        names: of a container, shown with its image; or of an image, shown with all of its containers.  Without any
            all images are shown.

    Raises:
        NotFoundError: there is neither a container nor an image of a name.
    """
    from pydock_jupyter.display.store_pictures import see_layers

    return see_layers(names)


def changes(container: str) -> ChangesView:
    """Show what a container has written to its own layer, as a tree: display the result as a cell's last value.

    Args:
        container: name or id.

    Raises:
        NotFoundError: there is no such container.
    """
    from pydock_jupyter.display.store_pictures import see_changes

    return see_changes(container)


def _jupyter_labextension_paths() -> list[dict[str, str]]:
    """Where the built JupyterLab extension is, for ``jupyter labextension develop``."""
    return [{"src": "labextension", "dest": "pydock-jupyter"}]


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    """Name the module that Jupyter's server loads as an extension: this one."""
    return [{"module": "pydock_jupyter"}]


def _load_jupyter_server_extension(server_app: Any) -> None:
    """Add the port proxy and the API to a Jupyter server."""
    from pydock_jupyter.server.extension import load_extension

    load_extension(server_app)
