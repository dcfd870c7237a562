"""Links from a notebook's output to a container's port, through the kernel's Jupyter server."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from urllib.parse import quote


def server_base_url(environ: Mapping[str, str], runtime_directory: Path) -> str:
    """Return the base URL path of the Jupyter server that started this kernel, "/" or "/user/me/".

    JupyterHub sets JUPYTERHUB_SERVICE_PREFIX.  Otherwise the server, whose process id the kernel has as
    JPY_PARENT_PID, has written it to ``jpserver-PID.json`` in its runtime directory (jupyter_server,
    ServerApp.write_server_info_file).  The fallback is "/"; the JupyterLab extension does not need it.
    """
    prefix = environ.get("JUPYTERHUB_SERVICE_PREFIX")
    if prefix is None:
        try:
            info = json.loads((runtime_directory / f"jpserver-{environ['JPY_PARENT_PID']}.json").read_text())
            prefix = str(info["base_url"])
        except (OSError, KeyError, ValueError, TypeError):
            prefix = "/"
    return f"/{prefix.strip('/')}/" if prefix.strip("/") else "/"


def port_url(base_url: str, name: str, port: int) -> str:
    """Return the URL path of a container's port on the server."""
    return f"{base_url}pydock/c/{quote(name, safe='')}/{port}/"


def port_link(base_url: str, name: str, port: int, title: str) -> str:
    """Return the HTML of a link that opens a port in a browser tab.

    The JupyterLab extension finds it by its class and data attributes, and opens a tab of JupyterLab instead.
    """
    # Inline: JupyterLab's rules for links in outputs (colour, underline) would win over a style sheet.
    style = (
        "border:1px solid var(--jp-brand-color1,#1976d2);border-radius:2px;font-size:85%;padding:1px 5px;"
        "text-decoration:none;color:var(--jp-content-font-color1,inherit)"
    )
    href = port_url(base_url, name, port)
    return (
        f'<a class="pydock-port" href="{escape(href)}" target="_blank" rel="noopener" title="{escape(title)}"'
        f' data-pydock-name="{escape(name)}" data-pydock-port="{port}" style="{style}">{port}</a>'
    )
