"""PyDock in Jupyter: ``%dock`` magics, widgets, a server extension and a JupyterLab panel.

    %load_ext pydock_jupyter
    %dock run IMAGE COMMAND

Kernels, servers and notebooks import this module first, so it imports each part only on use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydock_jupyter.display.network_pictures import NetworksView
    from pydock_jupyter.display.port import PortView
    from pydock_jupyter.display.store_pictures import ChangesView, LayersView
    from pydock_jupyter.widgets.panel import Panel


def load_ipython_extension(shell: Any) -> None:
    """Register ``%dock`` in an IPython shell (``%load_ext pydock_jupyter``)."""
    from pydock_jupyter.magics.extension import load

    load(shell)


def unload_ipython_extension(shell: Any) -> None:
    """Remove ``%dock`` from an IPython shell (``%unload_ext pydock_jupyter``)."""
    from pydock_jupyter.magics.extension import unload

    unload(shell)


def panel() -> Panel:
    """Return a live widget of containers and images; display it as the last value of a cell."""
    from pydock_jupyter.widgets.panel import Panel

    return Panel()


def open_port(container: str, port: int, path: str = "", height: int = 480) -> PortView:
    """Return a view of a container's port; display it as the last value of a cell.

    Args:
        container: name or id.
        port: 1 to 65535; it need not be published, and the container needs no network.
        path: path and query below the application's root.
        height: height of the frame in pixels; 0 shows only a link.

    Raises:
        NotFoundError: the container does not exist.
        ConflictError: the container is not running.
        InvalidError: the port or the height is not an integer in its range.
    """
    from pydock_jupyter.display.port import see_port

    return see_port(container, port, path, height)


def layers(*names: str) -> LayersView:
    """Return a diagram of the layers of images and containers; display it as the last value of a cell.

    Layers that images share are drawn once, below the images' names and the containers' writable layers.

    Args:
        names: containers, each drawn with its image, and images, each drawn with its containers; all images by
            default.

    Raises:
        NotFoundError: a name matches neither a container nor an image.
    """
    from pydock_jupyter.display.store_pictures import see_layers

    return see_layers(names)


def network_graph(*names: str) -> NetworksView:
    """Return a diagram of networks, with the addresses, names and ports of their running containers.

    Args:
        names: names of networks; by default all user-defined ones and those with a running container.

    Raises:
        NotFoundError: there is no such network.
    """
    from pydock_jupyter.display.network_pictures import see_networks

    return see_networks(names)


def changes(container: str) -> ChangesView:
    """Return the changes in a container's writable layer as a tree; display it as the last value of a cell.

    Args:
        container: name or id.

    Raises:
        NotFoundError: the container does not exist.
    """
    from pydock_jupyter.display.store_pictures import see_changes

    return see_changes(container)


def _jupyter_labextension_paths() -> list[dict[str, str]]:
    """Return the directory of the built JupyterLab extension, for ``jupyter labextension develop``."""
    return [{"src": "labextension", "dest": "pydock-jupyter"}]


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    """Return this module as the one that Jupyter Server loads as an extension."""
    return [{"module": "pydock_jupyter"}]


def _load_jupyter_server_extension(server_app: Any) -> None:
    """Add the port proxy and the API to a Jupyter server."""
    from pydock_jupyter.server.extension import load_extension

    load_extension(server_app)
