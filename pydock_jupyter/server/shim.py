"""Serves the script that adds the prefix to requests of an application's scripts; see shim.js."""

from __future__ import annotations

import hashlib
from html import escape
from importlib.resources import files

from tornado import web

from pydock_jupyter.server.target import Target

SHIM_SEGMENT = "pydock/shim.js"
"""The script's path below Jupyter's base URL."""

_SOURCE = files(__package__).joinpath("shim.js").read_bytes()
_VERSION = hashlib.sha256(_SOURCE).hexdigest()[:16]


def build_shim_element(base_url: str, target: Target) -> str:
    """Return the element that runs the shim in a page of ``target``.

    The script is a file, not inline: a page's Content-Security-Policy usually permits files of its origin, and the
    page must declare its character encoding within its first 1,024 bytes.
    """
    source = f"{base_url}{SHIM_SEGMENT}?v={_VERSION}"
    return (
        f'<script src="{escape(source)}" data-prefix="{escape(target.prefix)}"'
        f' data-authority="{escape(target.authority)}"></script>'
    )


class ShimHandler(web.RequestHandler):
    """Serves the script without authentication: it is the same everywhere and reveals nothing of the server."""

    def get(self) -> None:
        self.set_header("Content-Type", "text/javascript; charset=utf-8")
        self.set_header("Cache-Control", "public, max-age=31536000, immutable")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.finish(_SOURCE)
