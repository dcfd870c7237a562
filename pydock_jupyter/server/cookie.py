"""Which cookies an application behind the proxy sees, and how its own are kept apart from Jupyter's.

Application and Jupyter share one host, so the browser sends Jupyter's cookies along.  They must not reach the
application; yet a Jupyter server in a container sets cookies of the very same names.  Therefore the value of
such a cookie is *marked* on its way to the browser, and of the cookies with reserved names only marked ones
are handed on, their mark removed.  The mark ends with a letter because JupyterLab reads ``_xsrf`` from
``document.cookie`` with a pattern that wants a word boundary at the value's end.  A script that reads Jupyter's
``_xsrf`` instead of the application's submits the wrong value; :mod:`.credential` exchanges it.

What does not work: a cookie of such a name that an application's script sets by itself is unmarked and stays
    with the
browser; and a ``__Host-`` cookie needs the path "/", which an application behind a prefix does not own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

MARK = ".pydock"

_RESERVED = re.compile(r"(?:__Host-|__Secure-)?(?:_xsrf|username-.*|jupyterhub.*|jupyter-hub.*)")
"""The names that Jupyter Server and JupyterHub give to their cookies, where nobody configures others."""


@dataclass(frozen=True, slots=True)
class CookiePolicy:
    """The names that belong to Jupyter: those it always uses, and those that this server is configured with."""

    configured: frozenset[str]

    def is_reserved(self, name: str) -> bool:
        return name in self.configured or _RESERVED.fullmatch(name) is not None

    def split(self, headers: Iterable[str]) -> tuple[str, str]:
        """Divide the Cookie headers of a request between the application and Jupyter.

        Returns:
            The Cookie header for the application (reserved names only where marked, and then unmarked), and
            the one that Jupyter may authenticate from (everything but marked cookies of reserved names).
        """
        application: list[str] = []
        jupyter: list[str] = []
        for header in headers:
            for item in header.split(";"):
                pair = item.strip(" \t")
                if not pair:
                    continue
                name, separator, value = pair.partition("=")
                if not separator or not self.is_reserved(name.strip(" \t")):
                    application.append(pair)
                    jupyter.append(pair)
                elif is_marked(value):
                    application.append(f"{name}={unmark(value)}")
                else:
                    jupyter.append(pair)
        return "; ".join(application), "; ".join(jupyter)

    def rewrite(self, header: str, prefix: str) -> str | None:
        """Confine a Set-Cookie header (RFC 6265, section 4.1) of the application to its own part of the
        origin.

        The path is put under ``prefix``, the domain is removed, and the value of a reserved name is marked.  None
        for a cookie without a name: the browser would send back its value alone, which may look like any cookie.
        """
        pair, *attributes = header.split(";")
        name, separator, value = pair.partition("=")
        if not separator or not name.strip(" \t"):
            return None
        reserved = bool(separator) and self.is_reserved(name.strip(" \t"))
        result = [f"{name}={mark(value.strip(' '))}" if reserved else pair]
        has_path = False
        for attribute in attributes:
            key, _, text = attribute.partition("=")
            match key.strip(" \t").lower():
                case "domain":
                    continue
                case "path":
                    path = text.strip(" \t")
                    if not path.startswith("/"):
                        continue  # the browser takes its default path, which lies under the prefix
                    has_path = True
                    result.append(f" Path={place_under(prefix, path)}")
                case _:
                    result.append(attribute)
        if reserved and not has_path:
            result.append(f" Path={prefix}/")
        return ";".join(result)


def cookie_values(header: str, name: str) -> list[str]:
    """Return the values of each cookie of that name in a Cookie header, in its order."""
    pairs = (item.strip(" \t").partition("=") for item in header.split(";"))
    return [value for key, _, value in pairs if key == name]


def mark(value: str) -> str:
    """Mark a cookie's value, inside its quotes where it has them."""
    if len(value) >= 2 and value.startswith('"') and value.endswith('"'):
        return f'{value[:-1]}{MARK}"'
    return value + MARK


def is_marked(value: str) -> bool:
    return value.removesuffix('"').endswith(MARK)


def unmark(value: str) -> str:
    """Return what :func:`mark` was given; an unmarked value stays as it is."""
    if value.endswith('"'):
        return value[:-1].removesuffix(MARK) + '"'
    return value.removesuffix(MARK)


def place_under(prefix: str, path: str) -> str:
    """Put a root-absolute path under the application's prefix, unless it is there already."""
    if path == prefix or path.startswith((prefix + "/", prefix + "?", prefix + "#")):
        return path
    return prefix + path
