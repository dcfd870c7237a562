"""The base of the HTTP API's handlers: authentication, XSRF and origin checks as in Jupyter's API."""

from __future__ import annotations

from tornado import web

from pydock_jupyter.server.authentication import AuthenticatedHandler


class ApiBase(AuthenticatedHandler):
    """A base class for the handlers of :mod:`pydock_core.api`."""

    async def prepare(self) -> None:
        """Authenticate without a redirect to the login page, and refuse foreign origins.

        Raises:
            HTTPError: 403.
        """
        await super().prepare()
        if not self._finished and not self.check_origin():
            raise web.HTTPError(403, "the request comes from another origin")
