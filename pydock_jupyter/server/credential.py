"""Removal of Jupyter's secrets from requests to an application.

Token: a token that authenticated the request to Jupyter, or that equals the server's token, is removed from the
Authorization header, the query and the Referer.  Any other token belongs to the application (a Jupyter server in a
container has one) and passes.

XSRF value: an application with double-submit protection may use the same cookie name as Jupyter, and its script reads
one of the two from ``document.cookie``.  Old JupyterLab reads the first, the application's marked cookie (see
:mod:`.cookie`); JupyterLab 4.6 reads the last, Jupyter's.  A header or an argument that holds either value, exactly as
the browser stores it, receives the application's own value, or is removed if the application has none.  This does not
weaken the application's check, because a page of another origin can read neither cookie (OWASP, Cross-Site Request
Forgery Prevention: double-submit cookie).
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote, unquote_plus

from pydock_jupyter.server.cookie import mark

_AUTHORIZATION = re.compile(r"(?:token|bearer)\s+(.+)", re.IGNORECASE)
_MASKED = re.compile(r"2\|([0-9a-f]{8})\|((?:[0-9a-f]{2})+)\|[0-9]+")


@dataclass(frozen=True, slots=True)
class Secrets:
    """Values of a request that an application must not receive.

    ``tokens`` are Jupyter's.  ``xsrf`` maps each XSRF value in the browser to the value that the application receives
    instead, or None.
    """

    tokens: tuple[str, ...] = ()
    xsrf: tuple[tuple[str, str | None], ...] = ()

    def is_token(self, text: str) -> bool:
        return any(_is_equal(text, token) for token in self.tokens if token)

    def is_authorization(self, value: str) -> bool:
        """Return whether an Authorization header carries a token of Jupyter."""
        token = authorization_token(value)
        return token is not None and self.is_token(token)

    def translate_xsrf(self, value: str) -> str | None:
        """Return the value that the application receives for a header or an argument, or None."""
        for held, given in self.xsrf:
            if _is_equal(_unmask(value), _unmask(held)):
                return given
        return value

    def clean_arguments(self, text: str) -> str:
        """Remove Jupyter's token and translate XSRF values in a raw query or URL-encoded form.

        All other bytes are unchanged.
        """
        kept: list[str] = []
        for item in text.split("&"):
            name, separator, raw = item.partition("=")
            value = unquote_plus(raw)
            if unquote_plus(name) == "token" and self.is_token(value.strip()):
                continue
            if separator:
                given = self.translate_xsrf(value)
                if given is None:
                    continue
                if given is not value:
                    item = f"{name}={quote(given, safe='')}"
            kept.append(item)
        return "&".join(kept)


def pair_xsrf(jupyter: Iterable[str], application: Iterable[str]) -> tuple[tuple[str, str | None], ...]:
    """Pair the XSRF values in the browser with the application's, for :class:`Secrets`.

    Args:
        jupyter: Jupyter's values of the cookie, one for each path.
        application: the application's values without marks, one for each path, the longest path first.  The last
            one replaces Jupyter's: for an application behind two proxies it is the inner proxy's, and Tornado uses
            the last one as well.
    """
    own = list(application)
    last = own[-1] if own else None
    return (*((value, last) for value in jupyter if value), *((mark(value), value) for value in own if value))


def authorization_token(value: str) -> str | None:
    """Return the token in an Authorization header in one of Jupyter's forms."""
    match = _AUTHORIZATION.match(value)
    return match[1].strip() if match else None


def _unmask(value: str) -> str:
    """Return the secret in a masked XSRF value of Tornado, which has a new mask in each page.  Others are unchanged.

    Source: ``tornado.web.RequestHandler.xsrf_token`` (version 2).
    """
    match = _MASKED.fullmatch(value)
    if match is None:
        return value
    mask, masked = bytes.fromhex(match[1]), bytes.fromhex(match[2])
    return bytes(byte ^ mask[index % 4] for index, byte in enumerate(masked)).hex()


def _is_equal(one: str, other: str) -> bool:
    return hmac.compare_digest(
        one.encode("utf-8", "surrogateescape"), other.encode("utf-8", "surrogateescape")
    )
