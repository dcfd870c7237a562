"""Separates the cookies of an application from Jupyter's.

An application shares Jupyter's host, so the browser sends it Jupyter's cookies.  They must not reach the application,
yet a Jupyter server in a container sets cookies of the same names.  Therefore the proxy *marks* the value of a cookie
with a reserved name on its way to the browser.  On the way back it passes only marked cookies of these names, without
the mark.  The mark ends with a letter because JupyterLab reads ``_xsrf`` from ``document.cookie`` with a pattern that
requires a word boundary after the value.  A script that reads Jupyter's ``_xsrf`` instead of the application's submits
the wrong value; :mod:`.credential` replaces it.

Limitations: a script of the application that sets a cookie with a reserved name sets it unmarked, and the application
does not receive it.  A ``__Host-`` cookie requires the path "/", which an application behind a prefix does not own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

MARK = ".pydock"

_RESERVED = re.compile(r"(?:__Host-|__Secure-)?(?:_xsrf|username-.*|jupyterhub.*|jupyter-hub.*)")
"""The default cookie names of Jupyter Server and JupyterHub."""


@dataclass(frozen=True, slots=True)
class CookiePolicy:
    """Reserves Jupyter's default cookie names and the names that this server configures."""

    configured: frozenset[str]

    def is_reserved(self, name: str) -> bool:
        return name in self.configured or _RESERVED.fullmatch(name) is not None

    def split(self, headers: Iterable[str]) -> tuple[str, str]:
        """Divide the Cookie headers of a request between the application and Jupyter.

        Returns:
            The Cookie header for the application (cookies with reserved names only if marked, without the mark), and
            the one for Jupyter (all cookies except the marked ones with reserved names).
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
        """Confine a Set-Cookie header (RFC 6265, section 4.1) to the application's part of the origin.

        Adds ``prefix`` to the path, removes the domain, and marks the value of a cookie with a reserved name.  Returns
        None for a cookie without a name: the browser would send back only its value, which can look like any cookie.
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
                        continue  # the browser uses its default path, which is below the prefix
                    has_path = True
                    result.append(f" Path={place_under(prefix, path)}")
                case _:
                    result.append(attribute)
        if reserved and not has_path:
            result.append(f" Path={prefix}/")
        return ";".join(result)


def cookie_values(header: str, name: str) -> list[str]:
    """Return the values of all cookies with a name in a Cookie header, in order."""
    pairs = (item.strip(" \t").partition("=") for item in header.split(";"))
    return [value for key, _, value in pairs if key == name]


def mark(value: str) -> str:
    """Mark a cookie's value; a mark is inside of quotes."""
    if len(value) >= 2 and value.startswith('"') and value.endswith('"'):
        return f'{value[:-1]}{MARK}"'
    return value + MARK


def is_marked(value: str) -> bool:
    return value.removesuffix('"').endswith(MARK)


def unmark(value: str) -> str:
    """Remove the mark of a value, if it has one."""
    if value.endswith('"'):
        return value[:-1].removesuffix(MARK) + '"'
    return value.removesuffix(MARK)


def place_under(prefix: str, path: str) -> str:
    """Add the application's prefix to a root-absolute path that lacks it."""
    if path == prefix or path.startswith((prefix + "/", prefix + "?", prefix + "#")):
        return path
    return prefix + path
