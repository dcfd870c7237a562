"""Access control of the proxy and the API: Jupyter's authentication and authorization, for every method.

The API uses Jupyter's XSRF check.  The proxy cannot, because the pages of an application do not know Jupyter's XSRF
token.  It refuses cross-site requests by the headers that browsers send:

- A WebSocket or an unsafe method requires ``Sec-Fetch-Site: same-origin`` (or ``none``).  If the browser does not send
  that header, it requires Jupyter's ``Origin`` (the method of OWASP's cheat sheet, of Go's CrossOriginProtection and
  of Tornado 6.6).  ``same-site`` is refused, because another port of localhost is the same site.
- A request with a foreign ``Origin`` is refused with every method: its sender could read the response.
- A WebSocket or an unsafe method with neither header requires Jupyter's XSRF value, as in Jupyter's API.  Every recent
  browser sends one of the two headers; a cookie alone does not identify the sender.
- Otherwise other sites may only navigate to the application in a top-level window, as a link in a mail does.  Frames,
  images and scripts on other sites are refused (the Fetch Metadata resource isolation policy).

A request with a valid Jupyter token identifies its sender and is exempt, as in Jupyter; so are the origins in
``ServerApp.allow_origin``.  Clients other than browsers send none of these headers and log in with a token.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.utils import ensure_async
from tornado import web
from tornado.httputil import HTTPHeaders

from pydock_jupyter.server.header import is_document_request

RESOURCE = "pydock"
"""The resource name for Jupyter's authorizer."""

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class AuthenticatedHandler(JupyterHandler):  # type: ignore[misc]  # pyproject has mypy skip jupyter_server
    """A handler whose methods all require a user, regardless of ``allow_unauthenticated_access``.

    After :meth:`prepare` the request either has an authorized user or has been answered.
    """

    @property
    def action(self) -> str:
        """The action for Jupyter's authorizer: read, write or execute."""
        return "read" if self.request.method in _SAFE_METHODS else "write"

    async def prepare(self) -> None:
        """Authenticate and authorize the request.

        A browser that requests a page without a user is redirected to the login page.

        Raises:
            HTTPError: 403, the request has no user, or the authorizer refuses it.
        """
        is_page = self.request.method == "GET" and is_document_request(self.request.headers)
        await ensure_async(super().prepare(_redirect_to_login=is_page))
        if self._finished:
            return
        if self.current_user is None:
            if not is_page:
                raise web.HTTPError(403)
            web.authenticated(_do_nothing)(self)
            return
        if not await ensure_async(
            self.authorizer.is_authorized(self, self.current_user, self.action, RESOURCE)
        ):
            raise web.HTTPError(403, f"User is not authorized to {self.action} on resource: {RESOURCE}.")

    def allows_origin(self, origin: str) -> bool:
        """Return whether the server's configuration permits requests of a foreign origin."""
        if self.allow_origin:
            return bool(self.allow_origin in ("*", origin))
        return bool(self.allow_origin_pat and re.fullmatch(self.allow_origin_pat, origin))

    def record_activity(self) -> None:
        """Record user activity, so that Jupyter does not cull the server of an open application."""
        self.settings["api_last_activity"] = datetime.now(UTC)


def find_cross_site_reason(
    headers: HTTPHeaders, method: str, host: str, allows_origin: Callable[[str], bool], *, is_upgrade: bool
) -> str | None:
    """Return the reason to refuse a request as cross-site, or None; the module's docstring has the rules."""
    site = headers.get("Sec-Fetch-Site")
    origin = headers.get("Origin")
    if site in ("same-origin", "none"):
        return None
    if origin is not None:
        if allows_origin(origin) or (site is None and urlsplit(origin).netloc.lower() == host.lower()):
            return None
        return f"it comes from another origin, {origin}"
    if site is None:
        return None  # not a browser, or an old one with a simple GET
    is_navigation = (
        headers.get("Sec-Fetch-Mode") == "navigate" and headers.get("Sec-Fetch-Dest") == "document"
    )
    if method in ("GET", "HEAD") and is_navigation and not is_upgrade:
        return None
    return f"it comes from another site (Sec-Fetch-Site: {site})"


def is_unexplained(headers: HTTPHeaders, method: str, *, is_upgrade: bool) -> bool:
    """Return whether a request may change state and does not identify its site."""
    says_origin = "Origin" in headers or "Sec-Fetch-Site" in headers
    return not says_origin and (is_upgrade or method not in _SAFE_METHODS)


def _do_nothing(_handler: Any) -> None:
    """Take the place of the handler's method in ``web.authenticated``."""
