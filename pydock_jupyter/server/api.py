"""The HTTP API's place in Jupyter: authentication, XSRF and origin checks as for Jupyter's own API."""

from __future__ import annotations

from tornado import web

from pydock_jupyter.server.authentication import AuthenticatedHandler


class ApiBase(AuthenticatedHandler):
    """What the handlers of :mod:`pydock_core.api` are mixed into."""

    async def prepare(self) -> None:
        """Do what :class:`AuthenticatedHandler` does, never with a redirect, and refuse foreign origins.

        Raises:
            HTTPError: 403.
        """
        await super().prepare()
        if not self._finished and not self.check_origin():
            raise web.HTTPError(403, "the request comes from another origin")
