"""Who may use the proxy and the API: Jupyter's own authentication and authorization, for every method.

The API answers to Jupyter's XSRF check, as Jupyter's own API does.  The proxy cannot: the pages of an
application do not know Jupyter's XSRF token.  There a request that a browser makes on behalf of another site
is refused instead, by what browsers themselves say of it:

- a WebSocket or an unsafe method needs ``Sec-Fetch-Site: same-origin`` (or ``none``), and, where the browser
  does not send that header, an ``Origin`` that is ours (the method of OWASP's cheat sheet, of Go's
  CrossOriginProtection and of Tornado 6.6); ``same-site`` does not do, for another port of localhost is the
  same site;
- a request with an ``Origin`` that is not ours is refused with every method: its sender could read the
  response;
- a WebSocket or an unsafe method with neither header needs Jupyter's own XSRF value, as in Jupyter's API:
  every browser of the last years sends one of the two with them, but a cookie alone says nothing of the sender;
- of the rest, other sites may only navigate to the application in a top-level window, as a link in a mail
  does: no frames, images or scripts from elsewhere (the Fetch Metadata resource isolation policy).

A request that carries a valid Jupyter token says whom it comes from and is exempt, as in Jupyter; so are
origins that ``ServerApp.allow_origin`` allows.  Clients that are not browsers send none of these headers: they
need a token, which is how they log in anyway.
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
"""The resource name that a Jupyter authorizer sees."""

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class AuthenticatedHandler(JupyterHandler):  # type: ignore[misc]  # pyproject has mypy skip jupyter_server
    """A handler whose every method needs a user, whatever ``allow_unauthenticated_access`` says.

    After :meth:`prepare` either a user is there who may do what is asked, or the request has been answered.
    """

    @property
    def action(self) -> str:
        """What the request does in the words of a Jupyter authorizer: read, write or execute."""
        return "read" if self.request.method in _SAFE_METHODS else "write"

    async def prepare(self) -> None:
        """Authenticate and authorize, before anything else is done for the request.

        Raises:
            HTTPError: 403, where there is no user (a browser's request for a page is sent to the login page
                instead) or the authorizer refuses.
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
        """Whether the server's configuration names a foreign origin as one that may send requests."""
        if self.allow_origin:
            return bool(self.allow_origin in ("*", origin))
        return bool(self.allow_origin_pat and re.fullmatch(self.allow_origin_pat, origin))

    def record_activity(self) -> None:
        """Tell Jupyter that its user is active, so that nothing culls the server under an open application."""
        self.settings["api_last_activity"] = datetime.now(UTC)


def find_cross_site_reason(
    headers: HTTPHeaders, method: str, host: str, allows_origin: Callable[[str], bool], *, is_upgrade: bool
) -> str | None:
    """Return why a request has to be refused as another site's, or None; the rules are in the module's
    docstring.
    """
    site = headers.get("Sec-Fetch-Site")
    origin = headers.get("Origin")
    if site in ("same-origin", "none"):
        return None
    if origin is not None:
        if allows_origin(origin) or (site is None and urlsplit(origin).netloc.lower() == host.lower()):
            return None
        return f"it comes from another origin, {origin}"
    if site is None:
        return None  # not a browser, or one that has nothing to tell about a simple GET
    is_navigation = (
        headers.get("Sec-Fetch-Mode") == "navigate" and headers.get("Sec-Fetch-Dest") == "document"
    )
    if method in ("GET", "HEAD") and is_navigation and not is_upgrade:
        return None
    return f"it comes from another site (Sec-Fetch-Site: {site})"


def is_unexplained(headers: HTTPHeaders, method: str, *, is_upgrade: bool) -> bool:
    """Whether a request may change something and says nothing of the site that it comes from."""
    says_origin = "Origin" in headers or "Sec-Fetch-Site" in headers
    return not says_origin and (is_upgrade or method not in _SAFE_METHODS)


def _do_nothing(_handler: Any) -> None:
    """Stand for the method that would be called, were there a user."""
