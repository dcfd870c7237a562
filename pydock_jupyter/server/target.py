"""Parses a proxied URL: a container, a port and a path, never a host.

The path and query after the port reach the application byte for byte, including percent-encodings and dot segments.
This is safe because the connection leads only to that port.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pydock_core.errors import InvalidError, NotFoundError

PROXY_SEGMENT = "pydock/c/"
"""The path of all container ports below Jupyter's base URL."""

_REST = re.compile(r"(?P<container>[A-Za-z0-9][A-Za-z0-9_.-]*)/(?P<port>[0-9]+)(?P<path>/.*)?", re.DOTALL)
_MAX_PORT = 65535


@dataclass(frozen=True, slots=True)
class Target:
    """A parsed proxied URL.

    ``prefix`` is the raw path of the application's root without a trailing slash, as the browser sent it; ``path``
    and ``query`` are raw too.  ``path`` is empty if the URL ends with the port.
    """

    container: str
    port: int
    prefix: str
    path: str
    query: str

    @property
    def authority(self) -> str:
        """The host and port that the application sees; port 80 is omitted, as in browsers."""
        return "localhost" if self.port == 80 else f"localhost:{self.port}"

    @property
    def origin(self) -> str:
        return f"http://{self.authority}"


def parse_target(uri: str, base_url: str) -> Target:
    """Split a request target (``/user/me/pydock/c/web/6006/data?x=1``) into its parts.

    Args:
        uri: the request target as received, undecoded.
        base_url: Jupyter's base URL, with both slashes.

    Raises:
        NotFoundError: the URL is not below the proxy, or the container's name is malformed.
        InvalidError: the port is not from 1 to 65535.
    """
    path, _, query = uri.partition("?")
    root = base_url + PROXY_SEGMENT
    match = _REST.fullmatch(path, len(root)) if path.startswith(root) else None
    if match is None:
        raise NotFoundError(
            "this URL does not name a port of a container",
            f"Use {root}CONTAINER/PORT/ with a container's name or id.",
        )
    digits = match["port"]
    port = int(digits) if len(digits) <= 5 else 0
    if not 1 <= port <= _MAX_PORT:
        raise InvalidError(f"invalid port: {digits[:20]}", "A port is a number from 1 to 65535.")
    return Target(
        container=match["container"],
        port=port,
        prefix=path[: match.end("port")],
        path=encode_target(match["path"] or ""),
        query=encode_target(query),
    )


def encode_target(text: str) -> str:
    """Percent-encode the bytes above ASCII, which Tornado reads as Latin-1; others are unchanged."""
    return text if text.isascii() else "".join(c if c < "\x80" else f"%{ord(c):02X}" for c in text)
