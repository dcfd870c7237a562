"""What a proxied URL names: a container, one of its ports, and a path; never a host.

The request target is cut, not parsed: what stands behind the port goes to the application byte for byte, with
    its
percent-encodings and its dots, because the connection that was dialled leads nowhere but to that port.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pydock_core.errors import InvalidError, NotFoundError

PROXY_SEGMENT = "pydock/c/"
"""The part of the path, below Jupyter's base URL, under which every container port appears."""

_REST = re.compile(r"(?P<container>[A-Za-z0-9][A-Za-z0-9_.-]*)/(?P<port>[0-9]+)(?P<path>/.*)?", re.DOTALL)
_MAX_PORT = 65535


@dataclass(frozen=True, slots=True)
class Target:
    """A parsed proxied URL.

    ``prefix`` is the raw path of the application's root without its trailing slash, as the browser wrote it;
    ``path`` and ``query`` are raw too.  ``path`` is empty where the URL ends with the port.
    """

    container: str
    port: int
    prefix: str
    path: str
    query: str

    @property
    def authority(self) -> str:
        """The host and port under which the application knows itself; port 80 goes unsaid, as in browsers."""
        return "localhost" if self.port == 80 else f"localhost:{self.port}"

    @property
    def origin(self) -> str:
        return f"http://{self.authority}"


def parse_target(uri: str, base_url: str) -> Target:
    """Cut a request target (``/user/me/pydock/c/web/6006/data?x=1``) into its parts.

    Args:
        uri: the request target as received, undecoded.
        base_url: Jupyter's base URL, with both slashes.

    Raises:
        NotFoundError: the URL is not below the proxy, or what stands for the container cannot be a name or an
            id.
        InvalidError: the port is not within 1 to 65535.
    """
    path, _, query = uri.partition("?")
    root = base_url + PROXY_SEGMENT
    match = _REST.fullmatch(path, len(root)) if path.startswith(root) else None
    if match is None:
        raise NotFoundError(
            "this is not the address of a container's port",
            f"Use {root}CONTAINER/PORT/ with a container's name or id.",
        )
    digits = match["port"]
    port = int(digits) if len(digits) <= 5 else 0
    if not 1 <= port <= _MAX_PORT:
        raise InvalidError(f"port {digits[:20]} is out of range", "A port is a number from 1 to 65535.")
    return Target(
        container=match["container"],
        port=port,
        prefix=path[: match.end("port")],
        path=encode_target(match["path"] or ""),
        query=encode_target(query),
    )


def encode_target(text: str) -> str:
    """Percent-encode the bytes above ASCII (read as Latin-1 by Tornado); everything else stays as it is."""
    return text if text.isascii() else "".join(c if c < "\x80" else f"%{ord(c):02X}" for c in text)
